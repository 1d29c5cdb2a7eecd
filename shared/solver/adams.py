"""Adams-Bashforth on what is left of the ODE when its linear part is exact.

With s the standard deviation of the data and q^2 = alpha^2 s^2 + sigma^2 (the std of x_t),

    y = x_t / q,   theta = atan(sigma / (alpha s)),   dy / dtheta = -F,
    x0_hat = (alpha s^2 / q^2) x_t + (sigma s / q) F

F is EDM's residual (Karras et al. 2022, eq. 7; TrigFlow's, Lu & Song 2025): for Gaussian data of
that std it is zero, so Gaussian data are integrated exactly and the method works on the rest only.
As s grows the same lines become y = x / alpha, u = sigma / alpha, dy / du = eps_hat: the linear
multistep method in sigma of k-diffusion and, in rho, DEIS (Zhang & Chen 2023).

The slope is c r with r = x0_hat - skip x_t, and r is what is remembered. theta and u are finite at
the clean end: the last step extrapolates to it and does not end on x0_hat.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from shared.solver.lagrange import moments, weights
from shared.solver.step import Desk, Mix, Move, Moved, Past, Path, Point, Renoise, Step, Steps


@dataclass(frozen=True)
class Frame:
    """The variables in which the method is Adams-Bashforth's, at one level.

    x = q y; u is the variable of integration; dy / du = slope (x0_hat - skip x)."""

    q: float
    u: float
    slope: float
    skip: float


def frame(point: Point, data_std: float) -> Frame:
    """The frame at a level; data_std = inf: sigma / alpha. At sigma = 0 the slope is not defined
    (there is nothing to ask) and is given as nan."""
    alpha, sigma = point.alpha, point.sigma
    if math.isinf(data_std):
        if alpha == 0:
            raise ValueError(
                "lms integrates in sigma / alpha, which is infinite at logsnr = -inf: begin the "
                "grid at a finite logsnr, or use trig2, trig3"
            )
        return Frame(alpha, sigma / alpha, -alpha / sigma if sigma else math.nan, 1 / alpha)
    q = math.hypot(alpha * data_std, sigma)
    return Frame(
        q,
        math.atan2(sigma, alpha * data_std),
        -q / (sigma * data_std) if sigma else math.nan,
        alpha * data_std**2 / q**2,
    )


@dataclass(frozen=True)
class Adams:
    """Adams-Bashforth of order 1 to 4, 1 NFE; `data_std` of the latents, inf for sigma / alpha.

    Order grows by one a step from 1, which limits orders above 2 to order 2, unless `start` is
    "kutta": then the first order - 2 steps are Kutta's of order 4, 4 NFE each.
    """

    degree: int = 2
    data_std: float = 1.0
    start: str = "euler"
    nfe = 1
    stochastic = False

    def __post_init__(self) -> None:
        if self.degree not in (1, 2, 3, 4):
            raise ValueError(f"degree = {self.degree}: expected an order from 1 to 4")
        if not self.data_std > 0:
            raise ValueError(f"data_std = {self.data_std}: expected a positive number, or inf")
        if self.start not in ("euler", "kutta"):
            raise ValueError(f"start = {self.start!r}: expected 'euler' or 'kutta'")

    @property
    def order(self) -> int:
        return self.degree

    @property
    def memory(self) -> int:
        return self.degree - 1

    def plan(self, moves: Sequence[Move], path: Path) -> Steps:
        kutta = self.degree - 2 if self.start == "kutta" else 0
        steps: list[Step | Renoise] = []
        for i, move in enumerate(moves):
            if i < kutta and move.to.sigma > 0:
                steps.append(self._kutta(move, path))
            else:
                steps.append(self._bashforth(moves[max(0, i - self.memory) : i + 1]))
        return steps

    def _bashforth(self, moves: Sequence[Move]) -> Mix:
        """The last of the moves; those before it are where the remembered slopes are from."""
        move = moves[-1]
        at, to = frame(move.at, self.data_std), frame(move.to, self.data_std)
        nodes = [frame(before.at, self.data_std) for before in reversed(moves)]
        found = weights([node.u - at.u for node in nodes], moments(to.u - at.u, len(nodes)))
        now, *past = (to.q * w * node.slope for w, node in zip(found, nodes, strict=True))
        return Mix(
            move.at,
            move.to,
            x=to.q / at.q - now * at.skip,
            x0=now,
            past=tuple(past),
            keep=at.skip if self.memory else 0.0,
        )

    def _kutta(self, move: Move, path: Path) -> "Kutta":
        at, to = frame(move.at, self.data_std), frame(move.to, self.data_std)
        middle = (at.u + to.u) / 2
        scaled = middle if math.isinf(self.data_std) else self.data_std * math.tan(middle)
        half = path.point(-2 * math.log(scaled))
        return Kutta(move.at, move.to, half, at, frame(half, self.data_std), to)


@dataclass(frozen=True)
class Kutta:
    """The classical Runge-Kutta step of order 4 in a frame. 4 NFE."""

    at: Point
    to: Point
    half: Point
    begin: Frame
    middle: Frame
    end: Frame

    @property
    def asks(self) -> tuple[Point, ...]:
        return (self.half, self.to)

    def __call__(self, x_t: Tensor, x0_hat: Tensor, past: Past, desk: Desk) -> Moved:
        h = self.end.u - self.begin.u
        kept = desk.slot().copy_(x_t).mul_(-self.begin.skip).add_(x0_hat)
        y = x_t.div_(self.begin.q)
        slope, total, x = (desk.buffer(k) for k in range(3))
        total.copy_(slope.copy_(kept).mul_(self.begin.slope))
        for part, weight, frame, point in (
            (0.5, 2.0, self.middle, self.half),
            (0.5, 2.0, self.middle, self.half),
            (1.0, 1.0, self.end, self.to),
        ):
            x.copy_(y).add_(slope, alpha=part * h).mul_(frame.q)
            estimate = desk.evaluate(x, point)
            slope.copy_(estimate).add_(x, alpha=-frame.skip).mul_(frame.slope)
            total.add_(slope, alpha=weight)
        return y.add_(total, alpha=h / 6).mul_(self.end.q), 0.0, kept
