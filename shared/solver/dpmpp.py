"""DPM-Solver++: the ODE and the SDE in logsnr, their linear part exact (Lu et al. 2022b).

With l = logsnr / 2 and h = l_s - l_t,

    x_s = (sigma_s / sigma_t) x_t + alpha_s int_0^h e^(u - h) x0_hat(l_t + u) du,

and x0_hat along the step is a polynomial through the last estimates (2M, 3M) or through one inside
the step (2S). The first step of a multistep method has order 1, and so has the last one if it ends
clean (h infinite): it returns x0_hat.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from shared.solver.ddim import ddim_step
from shared.solver.lagrange import exponential_moments, weights
from shared.solver.step import Mix, Move, Path, Renoise, Step, Steps, TwoStage, to_clean


def _h(move: Move) -> float:
    return (move.to.logsnr - move.at.logsnr) / 2


def _gap(before: Move, move: Move) -> float:
    """From the last estimate's level to this one's, in l."""
    return (move.at.logsnr - before.at.logsnr) / 2


@dataclass(frozen=True)
class Dpmpp2m:
    """Order 2, 1 NFE (Alg. 2): D = (1 + w) x0_hat - w x0_before, w = h / (2 h_before)."""

    order = 2
    nfe = 1
    memory = 1
    stochastic = False

    def plan(self, moves: Sequence[Move], path: Path) -> Steps:
        return [ddim_step(moves[0]), *itertools.starmap(second, itertools.pairwise(moves))]


def second(before: Move, move: Move) -> Mix:
    """The step of Alg. 2."""
    if move.to.sigma == 0:
        return to_clean(move)
    gain = -move.to.alpha * math.expm1(-_h(move))
    weight = _h(move) / (2 * _gap(before, move))
    ratio = move.to.sigma / move.at.sigma
    return Mix(move.at, move.to, ratio, gain * (1 + weight), (-gain * weight,))


@dataclass(frozen=True)
class Dpmpp3m:
    """Order 3 by a parabola through three estimates, 1 NFE.

    The first step limits it to order 2, as in other codes, unless `start` is "single": then that
    step is 2S, 2 NFE.
    """

    start: str = "first"
    order = 3
    nfe = 1
    memory = 2
    stochastic = False

    def __post_init__(self) -> None:
        if self.start not in ("first", "single"):
            raise ValueError(f"start = {self.start!r}: expected 'first' or 'single'")

    def plan(self, moves: Sequence[Move], path: Path) -> Steps:
        begin = single(moves[0], path) if self.start == "single" else ddim_step(moves[0])
        steps: list[Step | Renoise] = [begin]
        if len(moves) > 1:
            steps.append(second(moves[0], moves[1]))
        steps += [_third(*three) for three in zip(moves, moves[1:], moves[2:], strict=False)]
        return steps


def _third(oldest: Move, before: Move, move: Move) -> Mix:
    if move.to.sigma == 0:
        return to_clean(move)
    if math.isinf(oldest.at.logsnr):  # alpha = 0 there: that estimate is infinitely far
        return second(before, move)
    h, one = _h(move), _gap(before, move)
    nodes = (0.0, -one, -one - _gap(oldest, before))
    now, *past = weights(nodes, exponential_moments(h, 3))
    alpha = move.to.alpha
    return Mix(
        move.at,
        move.to,
        x=move.to.sigma / move.at.sigma,
        x0=alpha * now,
        past=tuple(alpha * weight for weight in past),
    )


@dataclass(frozen=True)
class Dpmpp2s:
    """Order 2 within one step, 2 NFE: the second estimate half-way in logsnr (Alg. 1, r = 1/2)."""

    order = 2
    nfe = 2
    memory = 0
    stochastic = False

    def plan(self, moves: Sequence[Move], path: Path) -> Steps:
        return [single(move, path) for move in moves]


def single(move: Move, path: Path) -> Step:
    """2S: half a step to ask, then the whole with what was heard. Ends clean: x0_hat."""
    if move.to.sigma == 0 or math.isinf(move.at.logsnr):
        return ddim_step(move)
    middle = path.point((move.at.logsnr + move.to.logsnr) / 2)
    whole = ddim_step(move)
    return TwoStage(
        move.at, move.to, ddim_step(Move(move.at, middle)), whole.x, x0=0.0, asked=whole.x0
    )


@dataclass(frozen=True)
class DpmppSde2m:
    """SDE-DPM-Solver++(2M), 1 NFE, weak order 2 on additive noise; eta scales the noise.

    x_s = (sigma_s / sigma_t) e^(-eta h) x_t + alpha_s (1 - e^(-(1 + eta) h)) D
          + sigma_s sqrt(1 - e^(-2 eta h)) noise, D as in 2M; eta = 0 is 2M.
    """

    eta: float = 1.0
    order = 2
    nfe = 1
    memory = 1
    stochastic = True

    def __post_init__(self) -> None:
        if not 0 < self.eta < math.inf:
            raise ValueError(f"eta = {self.eta}: expected a positive number (0 is dpmpp_2m)")

    def plan(self, moves: Sequence[Move], path: Path) -> Steps:
        befores = [None, *moves]
        return [self._step(before, move) for before, move in zip(befores, moves, strict=False)]

    def _step(self, before: Move | None, move: Move) -> Mix:
        if move.to.sigma == 0:
            return to_clean(move)
        h = _h(move)
        gain = -move.to.alpha * math.expm1(-(1 + self.eta) * h)
        weight = 0.0 if before is None else h / (2 * _gap(before, move))
        return Mix(
            move.at,
            move.to,
            x=move.to.sigma / move.at.sigma * math.exp(-self.eta * h),
            x0=gain * (1 + weight),
            past=(-gain * weight,),
            std=move.to.sigma * math.sqrt(-math.expm1(-2 * self.eta * h)),
        )
