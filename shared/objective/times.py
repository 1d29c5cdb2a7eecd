"""The density of training times: uniform numbers in [0, 1] -> times, and their density.

Every sampler is the inverse of a cumulative distribution, so stratified uniforms stay stratified,
and says p(t), with the integral 1 over [0, 1]. Dividing by it (`density` of `diffusion_loss`) makes
the loss an integral that no longer depends on the sampler; leaving it makes the sampler a weighting
of its own, as EDM and Stable Diffusion 3 do. Arithmetic in float64.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from shared.schedule import Schedule, slope
from shared.schedule.checks import check_options


class TimeSampler(Protocol):
    """uniforms (B,) in [0, 1] -> t (B,) in [0, 1] and p(t) (B,), in the uniforms' dtype."""

    def __call__(self, uniform: Tensor) -> tuple[Tensor, Tensor]: ...


def uniform_times(uniform: Tensor) -> tuple[Tensor, Tensor]:
    """t = the uniform number; p(t) = 1."""
    return uniform, torch.ones_like(uniform)


@dataclass(frozen=True)
class LogNormal:
    """ln(sigma / alpha) ~ N(mean, std^2) between the ends of the schedule (Karras et al. 2022,
    table 1: -1.2 and 1.2 for pixels of standard deviation 0.5)."""

    schedule: Schedule
    mean: float = -1.2
    std: float = 1.2

    def __post_init__(self) -> None:
        _check_normal(self.mean, self.std)

    def __call__(self, uniform: Tensor) -> tuple[Tensor, Tensor]:
        ends = uniform.new_tensor([0.0, 1.0], dtype=torch.float64)
        with torch.no_grad():
            low, high = torch.special.ndtr((-self.schedule.logsnr(ends) / 2 - self.mean) / self.std)
            z = torch.special.ndtri(low + uniform.double() * (high - low))
            t = self.schedule.time(-2 * (self.mean + self.std * z)).clamp(0, 1)
            rate = -slope(self.schedule, t)[1] / 2  # of ln(sigma / alpha) in t
        density = _normal_density(z) / self.std * rate / (high - low)
        return t.to(uniform.dtype), density.to(uniform.dtype)


@dataclass(frozen=True)
class LogitNormal:
    """ln(t / (1 - t)) ~ N(mean, std^2) (Esser et al. 2024, sec. 3.1: 0 and 1 on Flow)."""

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        _check_normal(self.mean, self.std)

    def __call__(self, uniform: Tensor) -> tuple[Tensor, Tensor]:
        # uniforms of float32 may be 0: half of their finest step keeps z finite
        z = torch.special.ndtri(uniform.double().clamp(2.0**-25, 1 - 2.0**-25))
        logit = self.mean + self.std * z
        t, rest = torch.sigmoid(logit), torch.sigmoid(-logit)
        density = _normal_density(z) / (self.std * t * rest)
        return t.to(uniform.dtype), density.to(uniform.dtype)


@dataclass(frozen=True)
class Importance:
    """Times of `base` at which `proposal` spends its uniform time, for example where
    `LossDensity.schedule()` found that the loss changes. Both have the same ends."""

    base: Schedule
    proposal: Schedule

    def __call__(self, uniform: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            logsnr, proposed = slope(self.proposal, uniform.double())
            t = self.base.time(logsnr).clamp(0, 1)
            density = slope(self.base, t)[1] / proposed
        return t.to(uniform.dtype), density.to(uniform.dtype)


# name -> the sampler on a schedule, with these of its numbers
TIMES: dict[str, Callable[[Schedule, Mapping[str, float]], TimeSampler]] = {
    "uniform": lambda schedule, options: uniform_times,
    "log_normal": lambda schedule, options: LogNormal(schedule, **options),
    "logit_normal": lambda schedule, options: LogitNormal(**options),
}


def named_times(name: str, options: Mapping[str, float], schedule: Schedule) -> TimeSampler:
    """The sampler of this name in TIMES, over a schedule; the normals have `mean` and `std`.

    ValueError for an option that it has not, and for a bad number.
    """
    check_options(name, options, () if name == "uniform" else ("mean", "std"))
    return TIMES[name](schedule, options)


def _check_normal(mean: float, std: float) -> None:
    if not math.isfinite(mean) or not 0 < std < math.inf:
        raise ValueError(
            f"mean = {mean}, std = {std} of training times: expected finite numbers, std above 0"
        )


def _normal_density(z: Tensor) -> Tensor:
    return torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
