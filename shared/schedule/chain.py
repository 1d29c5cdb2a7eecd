"""Discrete chains as schedules: step i of T (from 0) stands at t = (i + 1) / T, t = 0 is clean.

Between the knots ln alpha is linear in t: beta(t) is constant on every step, so the chain's own
betas come back exactly. Chains are variance preserving: alpha_i^2 = prod over j <= i of 1 - beta_j.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from shared.schedule.level import Schedule


@dataclass(frozen=True)
class FromBetas(Schedule):
    """The chain with these betas, each in (0, 1); at t = 0 logsnr is infinite."""

    betas: tuple[float, ...]

    def __post_init__(self) -> None:
        bad = [(i, beta) for i, beta in enumerate(self.betas) if not 0 < beta < 1]
        if not self.betas or bad:
            what = f"betas[{bad[0][0]}] = {bad[0][1]}" if bad else "no betas"
            raise ValueError(f"schedule: {what}: expected one or more numbers, each in (0, 1)")

    @cached_property
    def _knots(self) -> Tensor:
        """ln alpha^2 at t = 0, 1 / T, ..., 1: float64, on the CPU."""
        betas = torch.tensor(self.betas, dtype=torch.float64, device="cpu")
        return torch.cat([betas.new_zeros(1), torch.log1p(-betas).cumsum(0)])

    def logsnr(self, t: Tensor) -> Tensor:
        knots, T = self._knots.to(t), len(self.betas)
        left = (t * T).floor().long().clamp(0, T - 1)
        log_alpha2 = torch.lerp(knots[left], knots[left + 1], t * T - left)
        return log_alpha2 - torch.log(-torch.expm1(log_alpha2))

    def time(self, logsnr: Tensor) -> Tensor:
        knots, T = self._knots.to(logsnr), len(self.betas)
        decay = -F.logsigmoid(logsnr)
        right = torch.searchsorted(-knots, decay.contiguous()).clamp(1, T)
        share = (decay + knots[right - 1]) / (knots[right - 1] - knots[right])
        return (right - 1 + share) / T

    def step(self, logsnr: Tensor) -> Tensor:
        """The step of the chain at a logsnr, a fraction between its knots: T t - 1, from -1 (clean)
        to T - 1. What a network trained on the chain's integers expects."""
        return self.time(logsnr) * len(self.betas) - 1

    def to_betas(self, n: int) -> Tensor:
        """The betas (n,), float64, of an n-step chain along this one; its own when n = T."""
        return to_betas(self, n)


def from_betas(betas: Tensor | Sequence[float]) -> FromBetas:
    """betas (T,) of a chain, in the order of rising noise -> its schedule."""
    return FromBetas(tuple(torch.as_tensor(betas, dtype=torch.float64, device="cpu").tolist()))


def to_betas(schedule: Schedule, n: int) -> Tensor:
    """The betas (n,), float64, of the n-step chain through a variance-preserving schedule at
    t = 1 / n, 2 / n, ..., 1, its start taken as clean; a chain of n steps gives its own.

    ValueError when n < 1, and for another family: its chain would not keep alpha^2 + sigma^2 = 1.
    """
    if n < 1:
        raise ValueError(f"n = {n}: a chain needs one step or more")
    if isinstance(schedule, FromBetas) and n == len(schedule.betas):
        return torch.tensor(schedule.betas, dtype=torch.float64)
    level = schedule(torch.arange(1, n + 1, dtype=torch.float64) / n)
    if not torch.allclose(level.alpha**2 + level.sigma**2, torch.ones_like(level.alpha)):
        raise ValueError(
            f"schedule = {schedule!r} is not variance preserving: it has no chain of betas"
        )
    log_alpha2 = F.logsigmoid(level.logsnr)
    return -torch.expm1(log_alpha2.diff(prepend=log_alpha2.new_zeros(1)))


def linear_betas(n: int = 1000, first: float = 1e-4, last: float = 0.02) -> Tensor:
    """betas (n,), float64, linear from first to last (Ho et al. 2020, sec. 4)."""
    return torch.linspace(first, last, n, dtype=torch.float64)


def scaled_linear_betas(n: int = 1000, first: float = 8.5e-4, last: float = 0.012) -> Tensor:
    """betas (n,), float64, whose square roots are linear (Rombach et al. 2022, in their code)."""
    return torch.linspace(math.sqrt(first), math.sqrt(last), n, dtype=torch.float64) ** 2


def betas_through(alpha2: Callable[[Tensor], Tensor], n: int, largest: float = 0.999) -> Tensor:
    """betas (n,), float64, of the chain through alpha^2(u), u = i / n, each at most `largest`
    (Nichol & Dhariwal 2021, sec. 3.2: no singular last step). On the CPU."""
    values = alpha2(torch.arange(n + 1, dtype=torch.float64, device="cpu") / n)
    return (1 - values[1:] / values[:-1]).clamp(max=largest)


def cosine_betas(n: int = 1000, s: float = 0.008) -> Tensor:
    """betas (n,), float64, of improved DDPM (Nichol & Dhariwal 2021, eq. 17)."""
    return betas_through(lambda u: torch.cos((u + s) / (1 + s) * math.pi / 2) ** 2, n)


def sqrt_betas(n: int = 2000, offset: float = 1e-4) -> Tensor:
    """betas (n,), float64, of Diffusion-LM (Li et al. 2022, app. A). The last one is the largest
    allowed, as alpha^2 would be negative there; the first level has sigma = 0.121 at n = 2000."""
    return betas_through(lambda u: 1 - torch.sqrt(u + offset), n)
