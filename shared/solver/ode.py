"""The probability-flow ODE by an adaptive Runge-Kutta method (Dormand & Prince, of torchdiffeq).

In y = x / q, q^2 = alpha^2 s^2 + sigma^2, and logsnr, which both ends need as a variable:

    dy / dlogsnr = alpha (x0_hat - alpha s^2 / q^2 x) / (2 q)                (s: std of the data)

which is zero for Gaussian data of that std. The levels between the ends of a grid are ignored; a
grid that ends clean is integrated to its last level before, and x0_hat there is the result.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchdiffeq import odeint

from shared.solver.step import Desk, Move, Moved, Past, Path, Point, Renoise, Step, Steps, to_clean


@dataclass(frozen=True)
class Ode:
    """Error per step of rtol |y| + atol, as the worst sample has it; as many NFE as that takes.

    The step sizes are the batch's: a sample depends on its neighbours within the tolerance.
    """

    rtol: float = 1e-5  # Song et al. 2021 use both
    atol: float = 1e-5
    data_std: float = 1.0
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

        span = torch.tensor([self.at.logsnr, self.to.logsnr], dtype=torch.float64)
        y = odeint(
            slope,
            x_t / self._q(self.at),
            span.to(x_t.device),
            rtol=self.how.rtol,
            atol=self.how.atol,
            method="dopri5",
            options={"norm": _worst, "dtype": torch.float64, "step_t": span[1:]},
        )
        assert isinstance(y, Tensor)
        return torch.mul(y[-1], self._q(self.to), out=x_t), 0.0, None

    def _q(self, point: Point) -> float:
        return math.hypot(point.alpha * self.how.data_std, point.sigma)


def _worst(error: Tensor) -> Tensor:
    """(B, ...) -> the largest root mean square of a sample."""
    if error.ndim < 2:
        return error.abs().max()
    return error.flatten(1).square().mean(1).max().sqrt()
