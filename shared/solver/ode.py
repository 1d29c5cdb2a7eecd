"""The probability-flow ODE by an adaptive Runge-Kutta method (Dormand & Prince, of torchdiffeq).

In y = x / q, q^2 = alpha^2 s^2 + sigma^2, and logsnr, which both ends need as a variable:

    dy / dlogsnr = alpha (x0_hat - alpha s^2 / q^2 x) / (2 q)                (s: std of the data)

which is zero for Gaussian data of that std. The levels between the ends of a grid are ignored; a
grid that ends clean is integrated to its last level before, and x0_hat there is the result.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from shared.solver.adaptive import STAGES, Integrated, integrate
from shared.solver.step import Desk, Move, Moved, Past, Path, Point, Renoise, Step, Steps, to_clean

LAST = 2  # evaluations after the budget is spent: where it stopped, and at the end
LEAST = STAGES + LAST + 2  # two more choose the first step


@dataclass(frozen=True)
class Ode:
    """Error per step of rtol |y| + atol, as the worst sample has it; as many NFE as that takes.

    The step sizes are the batch's: a sample depends on its neighbours within the tolerance. With a
    `budget` of evaluations it warns where that is spent, and goes the rest in one step of DDIM.
    """

    rtol: float = 1e-5  # Song et al. 2021 use both
    atol: float = 1e-5
    data_std: float = 1.0
    budget: int | None = None
    order = 5
    nfe = None
    memory = 0
    stochastic = False

    def __post_init__(self) -> None:
        if not (self.rtol > 0 and self.atol > 0 and 0 < self.data_std < math.inf):
            raise ValueError(
                f"ode: rtol = {self.rtol}, atol = {self.atol}, data_std = {self.data_std}: "
                "expected positive numbers"
            )
        if self.budget is not None and self.budget < LEAST:
            raise ValueError(
                f"ode: budget = {self.budget}: expected {LEAST} evaluations or more, a step's worth"
            )

    def plan(self, moves: Sequence[Move], path: Path) -> Steps:
        at, to = moves[0].at, moves[-1].to
        if to.sigma > 0:
            return [Adaptive(at, to, self, path)]
        end = moves[-1].at if len(moves) > 1 else path.cleanest
        last: list[Step | Renoise] = [to_clean(Move(end, to))]
        return last if end == at else [Adaptive(at, end, self, path), *last]


@dataclass(frozen=True)
class Adaptive:
    """From one level to another in as many steps as it takes. Asks at levels it finds itself."""

    at: Point
    to: Point
    how: Ode
    path: Path
    asks = ()

    def __post_init__(self) -> None:
        if math.isinf(self.at.logsnr):
            raise ValueError("ode: begin the grid at a finite logsnr; got -inf")

    def __call__(self, x_t: Tensor, x0_hat: Tensor, past: Past, desk: Desk) -> Moved:
        first = [x0_hat]  # the loop has asked at the start already
        low, high = sorted((self.at.logsnr, self.to.logsnr))

        def slope(logsnr: Tensor, y: Tensor) -> Tensor:
            point = self.path.point(min(max(float(logsnr), low), high))  # trial steps overshoot
            q = self._q(point)
            x = y * q
            estimate = first.pop() if first else desk.evaluate(x, point)
            skip = point.alpha * self.how.data_std**2 / q**2
            return (estimate - skip * x) * (point.alpha / (2 * q))

        found = integrate(
            slope,
            x_t / self._q(self.at),
            self.at.logsnr,
            self.to.logsnr,
            self.how.rtol,
            self.how.atol,
            None if self.how.budget is None else self.how.budget - LAST,
        )
        if found.done:
            return torch.mul(found.y, self._q(self.to), out=x_t), 0.0, None
        return self._rest(found, x_t, desk), 0.0, None

    def _rest(self, found: Integrated, x_t: Tensor, desk: Desk) -> Tensor:
        """From where the budget was spent to the end at once (Song et al. 2021, eq. 12)."""
        warnings.warn(
            f"ode: {found.evaluations} evaluations reach logsnr = {found.reached:.3g} of "
            f"{self.to.logsnr:.3g}; the rest is one step. Give a larger budget, or larger rtol "
            "and atol"
        )
        point = self.path.point(found.reached)
        x = found.y * self._q(point)
        x0_hat = desk.evaluate(x, point)
        eps_hat = (x - point.alpha * x0_hat) / point.sigma
        return torch.add(self.to.alpha * x0_hat, eps_hat, alpha=self.to.sigma, out=x_t)

    def _q(self, point: Point) -> float:
        return math.hypot(point.alpha * self.how.data_std, point.sigma)
