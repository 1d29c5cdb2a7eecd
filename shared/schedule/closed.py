"""Schedules whose alpha or sigma is a given function of time, each with its inverse.

Most are clean at u = 0 and pure noise at u = 1, where logsnr is infinite: `Cut` leaves out both
ends, so that t in [0, 1] runs from logsnr_max to logsnr_min. Their formulas take u and 1 - u
separately: near u = 1 the difference would lose the digits that logsnr is made of.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from shared.schedule.checks import check_ends, check_positive
from shared.schedule.level import Family, Schedule, straight_flow, variance_exploding


class Cut(Schedule, Protocol):
    """A path over u in (0, 1), cut at two finite levels."""

    logsnr_min: float
    logsnr_max: float

    def path(self, u: Tensor, rest: Tensor) -> Tensor:
        """u and rest = 1 - u -> logsnr."""
        ...

    def place(self, logsnr: Tensor) -> tuple[Tensor, Tensor]:
        """logsnr -> u and 1 - u: the inverse of `path`."""
        ...

    @cached_property
    def _ends(self) -> tuple[float, float, float]:
        """u at t = 0, 1 - u at t = 1, and what lies between, from float64."""
        ends = torch.tensor([self.logsnr_max, self.logsnr_min], dtype=torch.float64)
        u, rest = self.place(ends)
        return float(u[0]), float(rest[1]), 1 - float(u[0]) - float(rest[1])

    def logsnr(self, t: Tensor) -> Tensor:
        start, end, span = self._ends
        return self.path(start + t * span, end + (1 - t) * span)

    def time(self, logsnr: Tensor) -> Tensor:
        start, _, span = self._ends
        return (self.place(logsnr)[0] - start) / span


@dataclass(frozen=True)
class Cosine(Cut):
    """alpha^2 = f(u) / f(0), f(u) = cos^2((u + s) / (1 + s) pi / 2) (Nichol & Dhariwal 2021,
    eq. 17, where s = 0.008); with s = 0 logsnr = -2 ln tan(pi u / 2)."""

    logsnr_min: float = -15.0
    logsnr_max: float = 15.0
    s: float = 0.0

    def __post_init__(self) -> None:
        check_ends("logsnr_min", self.logsnr_min, "logsnr_max", self.logsnr_max)
        if not 0 <= self.s < math.inf:
            raise ValueError(f"schedule: s = {self.s}: expected a finite number, 0 or more")

    def _angles(self) -> tuple[float, float]:
        """The angle at u = 0, and from there to pi / 2."""
        start = self.s / (1 + self.s) * math.pi / 2
        return start, math.pi / 2 - start

    def path(self, u: Tensor, rest: Tensor) -> Tensor:
        # cos^2(b) - cos^2(a) = sin(a - b) sin(a + b), and cos(a) = sin(pi / 2 - a): no differences
        start, width = self._angles()
        signal = 2 * torch.sin(width * rest).log()
        return signal - torch.sin(width * u).log() - torch.sin(width * u + 2 * start).log()

    def place(self, logsnr: Tensor) -> tuple[Tensor, Tensor]:
        start, width = self._angles()
        alpha2, sigma2 = torch.sigmoid(logsnr), torch.sigmoid(-logsnr)
        cosine = alpha2.sqrt() * math.cos(start)
        sine = (sigma2 + alpha2 * math.sin(start) ** 2).sqrt()
        return (torch.atan2(sine, cosine) - start) / width, torch.atan2(cosine, sine) / width


@dataclass(frozen=True)
class Sqrt(Cut):
    """alpha^2 = (1 - sqrt(u' + c)) / (1 - sqrt(c)), c = `offset` (Li et al. 2022, app. A; their
    code divides by the value at 0, so that u' = 0 is clean).

    No signal is left at u' = 1 - c: u = u' / (1 - c).
    """

    logsnr_min: float = -15.0
    logsnr_max: float = 15.0
    offset: float = 1e-4

    def __post_init__(self) -> None:
        check_ends("logsnr_min", self.logsnr_min, "logsnr_max", self.logsnr_max)
        if not 0 < self.offset < 1:
            raise ValueError(f"schedule: offset = {self.offset}: expected a number in (0, 1)")

    def path(self, u: Tensor, rest: Tensor) -> Tensor:
        root, end = math.sqrt(self.offset), 1 - self.offset
        q = (end * u + self.offset).sqrt()
        return (rest / (1 + q)).log() - (u / (q + root)).log()

    def place(self, logsnr: Tensor) -> tuple[Tensor, Tensor]:
        root, end = math.sqrt(self.offset), 1 - self.offset
        above = torch.sigmoid(-logsnr) * (1 - root)  # q - sqrt(c)
        below = torch.sigmoid(logsnr) * (1 - root)  # 1 - q
        return above * (2 * root + above) / end, below * (2 - below) / end


@dataclass(frozen=True)
class Sigmoid(Cut):
    """alpha^2 = (g(1) - g(u)) / (g(1) - g(0)), g(u) = sigmoid((start + u (end - start)) / tau)
    (Jabri et al. 2022; Chen 2023).

    sigmoid(b) - sigmoid(a) = sinh((b - a) / 2) / (2 cosh(a / 2) cosh(b / 2)) makes it
    logsnr + c = ln sinh(a (1 - u)) - ln sinh(a u), a = (end - start) / (2 tau).
    """

    logsnr_min: float = -15.0
    logsnr_max: float = 15.0
    start: float = -3.0
    end: float = 3.0
    tau: float = 1.0

    def __post_init__(self) -> None:
        check_ends("logsnr_min", self.logsnr_min, "logsnr_max", self.logsnr_max)
        check_ends("start", self.start, "end", self.end)
        check_positive("tau", self.tau)
        if self._half_width() > 40:
            raise ValueError(
                f"schedule: (end - start) / tau = {2 * self._half_width():g}: expected at most 80, "
                "the limit of float32; raise tau"
            )

    def _half_width(self) -> float:
        return (self.end - self.start) / (2 * self.tau)

    def _lean(self) -> float:
        ends = (self.end / (2 * self.tau), self.start / (2 * self.tau))
        high, low = (abs(x) + math.log1p(math.exp(-2 * abs(x))) for x in ends)  # ln 2 cosh
        return high - low

    def path(self, u: Tensor, rest: Tensor) -> Tensor:
        a = self._half_width()
        return _log_2sinh(a * rest) - _log_2sinh(a * u) - self._lean()

    def place(self, logsnr: Tensor) -> tuple[Tensor, Tensor]:
        a, leant = self._half_width(), logsnr + self._lean()
        u, rest = (
            torch.log1p(math.expm1(2 * a) * torch.sigmoid(x - a)) / (2 * a) for x in (-leant, leant)
        )
        return u, rest


def _log_2sinh(x: Tensor) -> Tensor:
    """ln(2 sinh x), x > 0: exact near 0, and no overflow where x is large."""
    return x + torch.log(-torch.expm1(-2 * x))


@dataclass(frozen=True)
class Flow(Cut):
    """alpha = 1 - u, sigma = u (Liu et al. 2022). Stable Diffusion 3's shift of 3 (Esser et al.
    2024) is `Shifted(Flow(), -2 ln 3)`."""

    logsnr_min: float = -15.0
    logsnr_max: float = 15.0

    def __post_init__(self) -> None:
        check_ends("logsnr_min", self.logsnr_min, "logsnr_max", self.logsnr_max)

    @property
    def family(self) -> Family:
        return straight_flow

    def path(self, u: Tensor, rest: Tensor) -> Tensor:
        return 2 * (rest.log() - u.log())

    def place(self, logsnr: Tensor) -> tuple[Tensor, Tensor]:
        return torch.sigmoid(-logsnr / 2), torch.sigmoid(logsnr / 2)


@dataclass(frozen=True)
class Ve(Schedule):
    """alpha = 1, sigma = sigma_min (sigma_max / sigma_min)^t (Song et al. 2021)."""

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def __post_init__(self) -> None:
        check_positive("sigma_min", self.sigma_min)
        check_ends("sigma_min", self.sigma_min, "sigma_max", self.sigma_max)

    @property
    def family(self) -> Family:
        return variance_exploding

    def logsnr(self, t: Tensor) -> Tensor:
        low, high = math.log(self.sigma_min), math.log(self.sigma_max)
        return -2 * (low + t * (high - low))

    def time(self, logsnr: Tensor) -> Tensor:
        low, high = math.log(self.sigma_min), math.log(self.sigma_max)
        return (-logsnr / 2 - low) / (high - low)


@dataclass(frozen=True)
class Edm(Schedule):
    """alpha = 1, sigma^(1 / rho) uniform in t (Karras et al. 2022, eq. 5). The times that EDM
    *trains* at are another matter: `shared.objective.LogNormal`."""

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        check_positive("sigma_min", self.sigma_min)
        check_ends("sigma_min", self.sigma_min, "sigma_max", self.sigma_max)
        check_positive("rho", self.rho)

    @property
    def family(self) -> Family:
        return variance_exploding

    def _roots(self) -> tuple[float, float]:
        return self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)

    def logsnr(self, t: Tensor) -> Tensor:
        low, high = self._roots()
        return -2 * self.rho * torch.log(low + t * (high - low))

    def time(self, logsnr: Tensor) -> Tensor:
        low, high = self._roots()
        return (torch.exp(-logsnr / (2 * self.rho)) - low) / (high - low)
