"""Schedules made of others: moved in logsnr, or re-timed."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from shared.schedule.level import Family, Level, Schedule, variance_preserving


@dataclass(frozen=True)
class Shifted(Schedule):
    """A schedule with `shift` nats added to its logsnr, of the same family.

    `resolution_shift(d)` suits d x d pictures; -2 ln 3 is Stable Diffusion 3's shift of 3 on Flow.
    """

    schedule: Schedule
    shift: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.shift):
            raise ValueError(f"schedule: shift = {self.shift}: expected a finite number")

    @property
    def family(self) -> Family:
        return self.schedule.family

    def logsnr(self, t: Tensor) -> Tensor:
        return self.schedule.logsnr(t) + self.shift

    def time(self, logsnr: Tensor) -> Tensor:
        return self.schedule.time(logsnr - self.shift)


def resolution_shift(size: float, reference: float = 64.0) -> float:
    """2 ln(reference / size) nats: makes a schedule for pictures of side `reference` one for side
    `size` (Hoogeboom et al. 2023)."""
    if not 0 < size < math.inf:
        raise ValueError(f"size = {size}: expected a finite number of pixels above 0")
    return 2 * math.log(reference / size)


@dataclass(frozen=True)
class Warped:
    """A schedule re-timed by a piecewise linear density over logsnr (CDCD; Dieleman et al. 2022).

    t is the share of the density above logsnr, so uniform t spends its samples where the density
    is: `knots` are logsnr values at t = 0, 1/n, ..., 1, strictly falling.
    """

    knots: tuple[float, ...]
    family: Family = variance_preserving

    def __post_init__(self) -> None:
        pairs = zip(self.knots, self.knots[1:], strict=False)
        if len(self.knots) < 2 or any(not -math.inf < b < a < math.inf for a, b in pairs):
            raise ValueError(
                "schedule: knots must be two or more strictly falling, finite logsnr values"
            )

    def logsnr(self, t: Tensor) -> Tensor:
        knots = torch.tensor(self.knots, dtype=t.dtype, device=t.device)
        place = t.clamp(0, 1) * (len(self.knots) - 1)
        left = place.floor().long().clamp(max=len(self.knots) - 2)
        return torch.lerp(knots[left], knots[left + 1], place - left)

    def time(self, logsnr: Tensor) -> Tensor:
        rising = torch.tensor(self.knots[::-1], dtype=logsnr.dtype, device=logsnr.device)
        right = torch.searchsorted(rising, logsnr.contiguous()).clamp(1, len(self.knots) - 1)
        share = (logsnr - rising[right - 1]) / (rising[right] - rising[right - 1])
        return 1 - (right - 1 + share.clamp(0, 1)) / (len(self.knots) - 1)

    def __call__(self, t: Tensor) -> Level:
        return self.family(self.logsnr(t))
