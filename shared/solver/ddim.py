"""DDIM: the first-order step of the probability-flow ODE, and of the processes with its marginals.

    x_s = alpha_s x0_hat + sqrt(sigma_s^2 - std^2) eps_hat + std noise,
    eps_hat = (x_t - alpha_t x0_hat) / sigma_t                  (Song, Meng & Ermon 2021, eq. 12)

eta = 0 is the ODE, eta = 1 has the variance of `ancestral`: std = eta sigma_s sqrt(c), c as there.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from shared.solver.step import Mix, Move, Path, Steps, share


def ddim_step(move: Move, std: float = 0.0) -> Mix:
    """x_s from x_t and x0_hat; the level `to` may be clean (it gives x0_hat), `at` pure noise."""
    ratio = math.sqrt(move.to.sigma**2 - std**2) / move.at.sigma
    return Mix(move.at, move.to, x=ratio, x0=move.to.alpha - move.at.alpha * ratio, std=std)


@dataclass(frozen=True)
class Ddim:
    """Order 1, 1 NFE; stochastic if eta > 0. eta in [0, 1]."""

    eta: float = 0.0
    order = 1
    nfe = 1
    memory = 0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta = {self.eta}: expected a number from 0 (ODE) to 1 (ancestral)")

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

    def plan(self, moves: Sequence[Move], path: Path) -> Steps:
        if self.eta == 0:
            return [ddim_step(move) for move in moves]
        return [
            ddim_step(move, self.eta * move.to.sigma * math.sqrt(share(move))) for move in moves
        ]
