"""Guidance: functions Denoise -> Denoise. They nest, inside out, under any solver.

Valid order: classifier_free around the network first, then `infill` last, so that what is given is
given exactly whatever the guidance says.
"""

import torch
from torch import Tensor

from shared.denoiser import Denoise
from shared.schedule import Level


def classifier_free(
    denoise: Denoise,
    scale: float,
    null: int = 0,
    interval: tuple[float, float] | None = None,
) -> Denoise:
    """x0_u + scale (x0_c - x0_u) (Ho & Salimans 2022, eq. 6, scale = 1 + w): one batched call.

    condition (B, M) holds ids, `null` means no condition. Outside the `interval` of logsnr, ends
    included, the scale is 1 (Kynkaanniemi et al. 2024). NFE per call: 2 (in one batch), or 1 at
    scale 0 (unconditional) and 1 (conditional). ValueError for an interval that is none.
    """

    if interval is not None and not interval[0] < interval[1]:
        raise ValueError(f"interval = {interval}: expected (low, high) in logsnr, low below high")

    def guided(
        x_t: Tensor,
        level: Level,
        condition: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> Tensor:
        outside = interval is not None and not interval[0] <= float(level.logsnr) <= interval[1]
        if condition is None or scale == 1 or outside:
            return denoise(x_t, level, condition, previous)
        nothing = torch.full_like(condition, null)
        if scale == 0:
            return denoise(x_t, level, nothing, previous)
        twice = None if previous is None else torch.cat([previous, previous])
        if level.logsnr.ndim:
            parts = (level.logsnr, level.alpha, level.sigma)
            level = Level(*(torch.cat([part, part]) for part in parts))
        both = denoise(torch.cat([x_t, x_t]), level, torch.cat([nothing, condition]), twice)
        x0_uncond, x0_cond = both.chunk(2)
        return x0_uncond + scale * (x0_cond - x0_uncond)

    return guided


def infill(denoise: Denoise, known: Tensor, mask: Tensor) -> Denoise:
    """Where mask (B, ...) is true the estimate is `known` (B, ...), the clean latent given."""

    def guided(
        x_t: Tensor,
        level: Level,
        condition: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> Tensor:
        return torch.where(mask, known, denoise(x_t, level, condition, previous))

    return guided
