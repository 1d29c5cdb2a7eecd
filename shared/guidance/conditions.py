"""Classifier-free guidance: differences of estimates under different conditions.

    x0_base + sum_i scale_i (x0_i - x0_base)

The base is the estimate without a condition, or under a negative one (Ho & Salimans 2022, eq. 6,
scale = 1 + w; several conditions: Liu et al. 2022, composable diffusion). Each difference stands
for (sigma^2 / alpha) grad log p_t(c_i | x_t), so at scales 1 conditions that are independent given
x_t combine by Bayes' rule, and `classifier`'s caution about other scales holds here too.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from shared.denoiser import Denoise
from shared.guidance.interval import Scale, check_interval, limited
from shared.schedule import Level


def classifier_free(
    denoise: Denoise,
    scale: float | Sequence[float],
    null: int = 0,
    negative: Tensor | None = None,
    interval: tuple[float, float] | None = None,
) -> Denoise:
    """Guide towards the condition (B, M) of ids by `scale`: 0 unconditional, 1 conditional.

    With a sequence of K scales the condition is (B, K, M), one scale each. `null` is the id of no
    condition; `negative`, ids (M,) or (B, M), or vectors (B, M, D), takes its place as what to
    depart from, also when the loop has no condition. Outside the `interval` of logsnr, ends
    included, every scale is 1 (Kynkaanniemi et al. 2024; asking for it makes the host wait for the
    level).

    Order: first, around the network. NFE per call, in one batch: the conditions of scale other than
    0, and 1 for the base unless the scales sum to 1. So 2, or 1 at scale 0 and at scale 1. A model
    trained without dropout of the condition does not know the base: `drawing.draw` warns.

    Raises ValueError for a scale that is not finite, an interval that is none, and, when called,
    for a condition or negative of another shape.
    """
    several = not isinstance(scale, (int, float))
    scales = [float(value) for value in scale] if several else [float(scale)]
    if not scales or not all(map(math.isfinite, scales)):
        raise ValueError(f"scale = {scale}: expected a finite number, or one for each condition")
    check_interval(interval)

    def guided(
        x_t: Tensor,
        level: Level,
        condition: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> Tensor:
        if condition is None and negative is None:
            return denoise(x_t, level, None, previous)
        chosen = _split(condition, len(scales)) if several else [condition]
        base = _base(chosen[0], negative, null, len(x_t))
        here = limited(scales, level, interval, x_t.ndim)
        return _combine(
            denoise, x_t, level, previous, base,
            [torch.full_like(base, null) if c is None else c for c in chosen], here,
        )  # fmt: skip

    return guided


def _split(condition: Tensor | None, count: int) -> list[Tensor | None]:
    if condition is None:
        return [None] * count
    if condition.ndim < 2 or condition.shape[1] != count:
        raise ValueError(
            f"condition {tuple(condition.shape)} for {count} scales: expected (B, {count}, M), one "
            "condition per scale"
        )
    return list(condition.unbind(1))


def _base(condition: Tensor | None, negative: Tensor | None, null: int, rows: int) -> Tensor:
    if negative is None:
        assert condition is not None
        return torch.full_like(condition, null)
    member = negative.shape if negative.ndim == 1 else negative.shape[1:]
    shape = (rows, *member) if condition is None else condition.shape
    if negative.shape not in (shape, shape[1:]):
        raise ValueError(
            f"negative {tuple(negative.shape)}: expected {tuple(shape)} or {tuple(shape[1:])}, "
            "ids as in the condition"
        )
    return negative.expand(shape)


def _combine(
    denoise: Denoise,
    x_t: Tensor,
    level: Level,
    previous: Tensor | None,
    base: Tensor,
    conditions: Sequence[Tensor],
    scales: Sequence[Scale],
) -> Tensor:
    """One batched call of those estimates whose weight is not 0."""
    total = sum(scales)
    use_base = isinstance(total, Tensor) or total != 1
    used = [
        (condition, scale)
        for condition, scale in zip(conditions, scales, strict=True)
        if isinstance(scale, Tensor) or scale != 0
    ]
    rows = [base] * use_base + [condition for condition, _ in used]
    n = len(rows)
    if level.logsnr.ndim:
        level = Level(*(_stack(part, n) for part in (level.logsnr, level.alpha, level.sigma)))
    last = None if previous is None else _stack(previous, n)
    together = rows[0] if n == 1 else torch.cat(rows)
    estimates = denoise(_stack(x_t, n), level, together, last).chunk(n)
    if not use_base:
        parts = zip(used, estimates, strict=True)
        return torch.stack([scale * x0 for (_, scale), x0 in parts]).sum(0)
    # differences: at a large scale, weights on the estimates themselves would cancel digits
    x0_base, guided = estimates[0], estimates[0]
    for (_, scale), x0 in zip(used, estimates[1:], strict=True):
        guided = guided + scale * (x0 - x0_base)
    return guided


def _stack(x: Tensor, n: int) -> Tensor:
    return x if n == 1 else torch.cat([x] * n)
