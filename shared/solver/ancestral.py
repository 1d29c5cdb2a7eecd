"""Ancestral sampling: a draw from q(x_s | x_t, x0 = x0_hat) (Ho et al. 2020, eq. 7, Alg. 2).

With c = 1 - e^(logsnr_t - logsnr_s), the posterior of a Gaussian chain has
mean = (alpha_s / alpha_t) (1 - c) x_t + alpha_s c x0 and variance sigma_s^2 c (the smaller of
DDPM's two; Kingma et al. 2021). The larger one is that of the forward step, sigma_t^2 c (beta_t of
a variance-preserving chain). The learned one lies between their logarithms,

    log variance = fraction log(larger) + (1 - fraction) log(smaller)

(Nichol & Dhariwal 2021, eq. 15), with the fraction from a `RangeDenoise`. At the clean end c = 1
and the draw is x0_hat itself.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from shared.solver.step import (
    Desk,
    Mix,
    Move,
    Moved,
    Past,
    Path,
    Point,
    Step,
    Steps,
    share,
    to_clean,
)

VARIANCES = ("small", "large", "learned")


def posterior(move: Move) -> tuple[float, float]:
    """Weights of x_t and x0 in the mean of q(x_s | x_t, x0).

    alpha_s / alpha_t (1 - c) = (sigma_s / sigma_t) e^((logsnr_t - logsnr_s) / 2), which also holds
    where alpha_t = 0."""
    decay = math.exp((move.at.logsnr - move.to.logsnr) / 2)
    return move.to.sigma / move.at.sigma * decay, move.to.alpha * share(move)


@dataclass(frozen=True)
class Ancestral:
    """Weak order 1, 1 NFE, stochastic. `variance`: small, large, or learned by the network."""

    variance: str = "small"
    order = 1
    nfe = 1
    memory = 0
    stochastic = True

    def __post_init__(self) -> None:
        if self.variance not in VARIANCES:
            raise ValueError(
                f"variance = {self.variance!r}: expected one of {', '.join(VARIANCES)}"
            )

    def plan(self, moves: Sequence[Move], path: Path) -> Steps:
        return [self._step(move) for move in moves]

    def _step(self, move: Move) -> Step:
        if move.to.sigma == 0:
            return to_clean(move)
        x, x0 = posterior(move)
        small, large = (p.sigma * math.sqrt(share(move)) for p in (move.to, move.at))
        if self.variance == "learned":
            return LearnedRange(move.at, move.to, x, x0, small, large)
        return Mix(move.at, move.to, x, x0, std=small if self.variance == "small" else large)


@dataclass(frozen=True)
class LearnedRange:
    """The posterior mean, with a std for every number of x between `small` and `large`."""

    at: Point
    to: Point
    x: float
    x0: float
    small: float
    large: float
    asks = ()

    def __call__(self, x_t: Tensor, x0_hat: Tensor, past: Past, desk: Desk) -> Moved:
        fraction = desk.fraction
        assert fraction is not None  # the loop refuses denoisers without one
        std = torch.mul(fraction, math.log(self.large / self.small), out=desk.buffer(0))
        return desk.mix(x_t, self.x, x0_hat, self.x0), std.exp_().mul_(self.small), None
