"""Guidance at some levels only (Kynkaanniemi et al. 2024): elsewhere every scale is 1."""

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
    scales: Sequence[float], level: Level, interval: Interval, ndim: int
) -> Sequence[Scale]:
    """The scales inside the interval, ends included, and 1 outside; tensors of `ndim` axes only if
    samples differ in that. With an interval the host waits for the level."""
    if interval is None:
        return scales
    logsnr = level.widen(ndim).logsnr
    inside = (interval[0] <= logsnr) & (logsnr <= interval[1])
    if bool(inside.all()):
        return scales
    if not bool(inside.any()):
        return [1.0] * len(scales)
    return [torch.where(inside, value, 1.0).to(logsnr) for value in scales]
