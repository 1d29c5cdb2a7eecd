"""Guidance at some levels only (Kynkaanniemi et al. 2024): elsewhere a scale is that of none."""

from collections.abc import Sequence

import torch
from torch import Tensor

from shared.schedule import Level

Scale = float | Tensor
Interval = tuple[float, float] | None


def check_interval(interval: Interval) -> None:
    """ValueError unless it is None or (low, high) in logsnr, low below high."""
    if interval is not None and not interval[0] < interval[1]:
        raise ValueError(f"interval = {interval}: expected (low, high) in logsnr, low below high")


def limited(
    scales: Sequence[float], level: Level, interval: Interval, ndim: int, outside: float = 1.0
) -> Sequence[Scale]:
    """The scales inside the interval, ends included, and `outside` elsewhere; tensors of `ndim`
    axes only if samples differ in that. With an interval the host waits for the level."""
    if interval is None:
        return scales
    logsnr = level.widen(ndim).logsnr
    inside = (interval[0] <= logsnr) & (logsnr <= interval[1])
    if bool(inside.all()):
        return scales
    if not bool(inside.any()):
        return [outside] * len(scales)
    return [torch.where(inside, value, outside).to(logsnr) for value in scales]
