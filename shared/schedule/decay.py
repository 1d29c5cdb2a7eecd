"""Schedules given by a rate of decay: ln alpha^2 = -integral of beta(u) du (Song et al. 2021).

u = 0 would be clean (logsnr infinite): t = 0 stands for the u at which logsnr is logsnr_max, t = 1
for u = 1, where logsnr is what the betas leave: -10.05 for DDPM's.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from shared.schedule.checks import check_ends, check_positive
from shared.schedule.level import Family, Schedule, sub_variance_preserving


class Decay(Schedule, Protocol):
    """beta_min and beta_max: the rate at u = 0 and u = 1, T times the betas of a T-step chain."""

    beta_min: float
    beta_max: float
    logsnr_max: float

    def log_alpha2(self, u: Tensor) -> Tensor:
        """u in [0, 1] -> ln alpha^2."""
        ...

    def u_of(self, log_alpha2: Tensor) -> Tensor:
        """The inverse of log_alpha2, free of cancellation near 0."""
        ...

    def to_logsnr(self, log_alpha2: Tensor) -> Tensor:
        """ln alpha^2 -> logsnr of the family."""
        return log_alpha2 - torch.log(-torch.expm1(log_alpha2))

    def from_logsnr(self, logsnr: Tensor) -> Tensor:
        """logsnr of the family -> ln alpha^2."""
        return F.logsigmoid(logsnr)

    def __post_init__(self) -> None:
        check_positive("beta_min", self.beta_min)
        check_ends("beta_min", self.beta_min, "beta_max", self.beta_max)
        end = self.log_alpha2(torch.tensor(1.0, dtype=torch.float64))
        check_ends("logsnr at t = 1", float(self.to_logsnr(end)), "logsnr_max", self.logsnr_max)

    @cached_property
    def _u_min(self) -> float:
        top = torch.tensor(self.logsnr_max, dtype=torch.float64)
        return float(self.u_of(self.from_logsnr(top)))

    def logsnr(self, t: Tensor) -> Tensor:
        return self.to_logsnr(self.log_alpha2(self._u_min + t * (1 - self._u_min)))

    def time(self, logsnr: Tensor) -> Tensor:
        return (self.u_of(self.from_logsnr(logsnr)) - self._u_min) / (1 - self._u_min)


def _linear_integral(low: float, high: float, u: Tensor) -> Tensor:
    """-integral of low + u (high - low)."""
    return -(high - low) * u**2 / 2 - low * u


def _linear_inverse(low: float, high: float, log_alpha2: Tensor) -> Tensor:
    return -2 * log_alpha2 / (low + torch.sqrt(low**2 - 2 * (high - low) * log_alpha2))


@dataclass(frozen=True)
class Linear(Decay):
    """beta linear in u (Song et al. 2021, app. C): the continuum limit of DDPM's 1000 betas
    1e-4 .. 0.02, not DDPM itself (alpha^2 ends at 4.32e-5, not 4.04e-5): see `FromBetas`."""

    beta_min: float = 0.1
    beta_max: float = 20.0
    logsnr_max: float = 15.0

    def log_alpha2(self, u: Tensor) -> Tensor:
        return _linear_integral(self.beta_min, self.beta_max, u)

    def u_of(self, log_alpha2: Tensor) -> Tensor:
        return _linear_inverse(self.beta_min, self.beta_max, log_alpha2)


@dataclass(frozen=True)
class ScaledLinear(Decay):
    """sqrt(beta) linear in u: the continuum limit of latent diffusion's 1000 betas, 8.5e-4 .. 0.012
    (Rombach et al. 2022, in their code)."""

    beta_min: float = 0.85
    beta_max: float = 12.0
    logsnr_max: float = 15.0

    def _roots(self) -> tuple[float, float]:
        """sqrt(beta) at u = 0, and what it gains until u = 1."""
        return math.sqrt(self.beta_min), math.sqrt(self.beta_max) - math.sqrt(self.beta_min)

    def log_alpha2(self, u: Tensor) -> Tensor:
        root, gain = self._roots()
        return -u * (root**2 + u * (root * gain + u * gain**2 / 3))

    def u_of(self, log_alpha2: Tensor) -> Tensor:
        # q = sqrt(beta(u)) has q^3 = root^3 - 3 gain ln alpha^2; u = (q - root) / gain
        root, gain = self._roots()
        q = (root**3 - 3 * gain * log_alpha2) ** (1 / 3)
        return -3 * log_alpha2 / (q**2 + q * root + root**2)


@dataclass(frozen=True)
class SubVp(Decay):
    """alpha as in Linear, sigma = 1 - alpha^2 (Song et al. 2021)."""

    beta_min: float = 0.1
    beta_max: float = 20.0
    logsnr_max: float = 15.0

    @property
    def family(self) -> Family:
        return sub_variance_preserving

    def log_alpha2(self, u: Tensor) -> Tensor:
        return _linear_integral(self.beta_min, self.beta_max, u)

    def u_of(self, log_alpha2: Tensor) -> Tensor:
        return _linear_inverse(self.beta_min, self.beta_max, log_alpha2)

    def to_logsnr(self, log_alpha2: Tensor) -> Tensor:
        return log_alpha2 - 2 * torch.log(-torch.expm1(log_alpha2))

    def from_logsnr(self, logsnr: Tensor) -> Tensor:
        # alpha = e^-asinh(r / 2): keeps the digits that 2 ln alpha loses where alpha is near 1
        return -2 * torch.asinh(torch.exp(-logsnr / 2) / 2)
