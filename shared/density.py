"""The density of training times, fitted to where the loss changes.

A running mean of the loss over bins of logsnr gives its slope; the fitted density is proportional
to that slope, so that the loss falls linearly in t (time warping; Dieleman et al. 2022, sec. 3.3),
with a uniform floor that keeps every level visited. Cross-entropies of discrete data change in a
narrow band of logsnr: this finds it. The same density spaces the sampling steps. A power of 1/2 of
the slope makes it wider (the entropy rate of CoBit, 2026).
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from shared.schedule import Schedule, Warped
from shared.schedule.checks import check_options

SPIKE = 3.0  # times the largest mean of a bin: more than that a single loss does not count for


class LossDensity(nn.Module):
    """Running mean loss (bins,) over logsnr in [logsnr_min, logsnr_max]; part of a checkpoint."""

    def __init__(
        self,
        base: Schedule,
        bins: int = 64,
        memory: float = 0.998,
        floor: float = 0.1,
        start: int = 100,
        power: float = 1.0,
    ) -> None:
        super().__init__()
        if bins < 2 or not (0 < floor <= 1 and 0 < power < math.inf):
            raise ValueError(
                f"fit_density: bins = {bins}, floor = {floor}, power = {power}: expected 2 bins or "
                "more, a share in (0, 1] and a number above 0"
            )
        self.base, self.memory, self.floor, self.start = base, memory, floor, start
        self.power = power
        ends = base.logsnr(torch.tensor([1.0, 0.0]))
        self.low, self.high = float(ends[0]), float(ends[1])
        self.total: Tensor
        self.count: Tensor
        self.updates: Tensor
        self.register_buffer("total", torch.zeros(bins))
        self.register_buffer("count", torch.zeros(bins))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def statistics(self, losses: Tensor, logsnr: Tensor) -> Tensor:
        """losses (B,), logsnr (B,) -> sums and counts per bin (2, bins), to be added over ranks.
        One loss of thousands of nats would make a slope of its own for hundreds of steps: losses
        are cut off at SPIKE times the largest mean."""
        bins = len(self.total)
        place = (logsnr - self.low) / (self.high - self.low) * bins
        place = place.long().clamp(0, bins - 1)
        sums = torch.zeros(2, bins, device=losses.device)
        if int(self.updates) >= self.start:
            losses = losses.clamp(max=SPIKE * self.loss().max())
        sums[0].index_add_(0, place, losses.float())
        sums[1].index_add_(0, place, torch.ones_like(losses, dtype=torch.float32))
        return sums

    def update(self, sums: Tensor) -> None:
        """Take in the (2, bins) statistics of one step, summed over all ranks."""
        self.total.mul_(self.memory).add_(sums[0])
        self.count.mul_(self.memory).add_(sums[1])
        self.updates += 1

    def schedule(self) -> Schedule:
        """The base schedule re-timed; the base itself until enough has been seen."""
        if int(self.updates) < self.start:
            return self.base
        knots = quantile_knots(self.loss(), self.low, self.high, self.floor, self.power)
        return Warped(tuple(knots.tolist()), self.base.family)

    def loss(self) -> Tensor:
        """The mean loss (bins,) by rising logsnr, empty bins filled from their neighbours."""
        seen = (self.count > 0).nonzero().flatten()
        mean = self.total[seen] / self.count[seen]
        nearest = (torch.arange(len(self.total), device=seen.device)[:, None] - seen).abs()
        return mean[nearest.argmin(1)]


def named_density(base: Schedule, options: Mapping[str, float]) -> LossDensity:
    """The density over a schedule with these of its numbers: bins, floor, power. ValueError for
    another one, or a bad value."""
    check_options("fit_density", options, ("bins", "floor", "power"))
    numbers: dict[str, Any] = dict(options)
    if "bins" in numbers:
        numbers["bins"] = int(numbers["bins"])
    return LossDensity(base, **numbers)


def quantile_knots(
    loss: Tensor, low: float, high: float, floor: float, power: float = 1.0
) -> Tensor:
    """loss (bins,) by rising logsnr -> 129 falling logsnr knots, float64: the quantiles of a
    density proportional to a power of the loss's slope plus a uniform share `floor`."""
    bins = len(loss)
    padded = torch.cat([loss[:1].expand(2), loss, loss[-1:].expand(2)]).double()
    smooth = padded.unfold(0, 5, 1).mean(-1)
    falling = smooth.flip(0).cummax(0).values.flip(0)  # a posterior can only get sharper
    slope = torch.cat([falling[:-1] - falling[1:], falling.new_zeros(1)])
    slope = ((slope + slope.roll(1)) / 2) ** power
    mass = slope / slope.sum().clamp(min=1e-12) * (1 - floor) + floor / bins
    cdf = torch.cat([mass.new_zeros(1), mass.cumsum(0)])
    cdf = cdf / cdf[-1]
    edges = torch.linspace(low, high, bins + 1, dtype=torch.float64, device=loss.device)
    wanted = torch.linspace(0, 1, 129, dtype=torch.float64, device=loss.device)
    right = torch.searchsorted(cdf, wanted).clamp(1, bins)
    share = (wanted - cdf[right - 1]) / (cdf[right] - cdf[right - 1])
    return torch.lerp(edges[right - 1], edges[right], share).flip(0)
