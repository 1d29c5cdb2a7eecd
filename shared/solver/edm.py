"""Euler's and Heun's methods in sigma / alpha, with or without churn (Karras et al. 2022).

In the scaled state z = x / alpha and u = sigma / alpha the probability-flow ODE of every family is
dz / du = eps_hat, whose Euler step is DDIM. Heun's step averages the slopes at both ends (Alg. 1).
Churn raises the noise level before a step, from u to u (1 + gamma), by fresh noise (Alg. 2): a
re-noising move of the loop.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shared.solver.ddim import ddim_step
from shared.solver.step import Move, Path, Renoise, Step, Steps, TwoStage


@dataclass(frozen=True)
class Churn:
    """S_churn, S_tmin, S_tmax and S_noise of Alg. 2; low and high are of sigma / alpha."""

    amount: float = 40.0
    low: float = 0.05
    high: float = 50.0
    excess: float = 1.003

    def __post_init__(self) -> None:
        if not (self.amount > 0 and 0 <= self.low < self.high and self.excess > 0):
            raise ValueError(
                f"churn: amount = {self.amount}, low = {self.low}, high = {self.high}, excess = "
                f"{self.excess}: expected positive numbers with low < high"
            )

    def raised(self, moves: Sequence[Move], move: Move, path: Path) -> Move:
        """The move begun from its raised level; the move itself where there is no churn.

        The raised level stays on the schedule: at its noisy end there is nothing to raise."""
        if not self.low <= move.at.scaled <= self.high:
            return move
        gamma = min(self.amount / len(moves), math.sqrt(2) - 1)
        scaled = min(move.at.scaled * (1 + gamma), path.noisiest.scaled)
        if scaled <= move.at.scaled:
            return move
        return Move(path.point(-2 * math.log(scaled)), move.to)


@dataclass(frozen=True)
class Euler:
    """Order 1, 1 NFE; stochastic with churn."""

    churn: Churn | None = None
    order = 1
    nfe = 1
    memory = 0

    @property
    def stochastic(self) -> bool:
        return self.churn is not None

    def plan(self, moves: Sequence[Move], path: Path) -> Steps:
        return _churned(self.churn, ddim_step, moves, path)


@dataclass(frozen=True)
class Heun:
    """Order 2, 2 NFE (1 for a step that ends clean); stochastic with churn."""

    churn: Churn | None = None
    order = 2
    nfe = 2
    memory = 0

    @property
    def stochastic(self) -> bool:
        return self.churn is not None

    def plan(self, moves: Sequence[Move], path: Path) -> Steps:
        return _churned(self.churn, heun_step, moves, path)


def heun_step(move: Move) -> Step:
    """The mean of both slopes; Euler's step where the slope at an end is not defined."""
    trial = ddim_step(move)
    if move.to.sigma == 0 or math.isinf(move.at.scaled):
        return trial
    at, to = move.at.scaled, move.to.scaled
    gain = move.to.alpha * (to - at)
    # x_t has the same weight as in Euler's step: the slopes' parts in it cancel
    return TwoStage(
        move.at, move.to, trial, trial.x, x0=gain * (0.5 / to - 1 / at), asked=-gain * 0.5 / to
    )


def _churned(
    churn: Churn | None, make: Callable[[Move], Step], moves: Sequence[Move], path: Path
) -> Steps:
    steps: list[Step | Renoise] = []
    for move in moves:
        raised = move if churn is None else churn.raised(moves, move, path)
        if churn is not None and raised != move:
            steps.append(Renoise(move.at, raised.at, churn.excess))
        steps.append(make(raised))
    return steps
