"""UniPC: a multistep predictor in logsnr, corrected for nothing by the estimate that follows.

(Zhao et al. 2023, "B_2(h)", on x0.) The estimate made at the predicted x_t, which the next step
needs anyway, is one more node for the step that led there: the corrector repeats that step with it.
Both integrate Lagrange's polynomial against e^(u - h), with two simplifications of the paper: order
2's predictor is DPM-Solver++(2M), and the corrector of an order 1 step is the mean of both
estimates. In x0 form predictor and corrector share their weight of the state, so that

    corrected x_t = x_t + sum_j (c_j - p_j) x0_j + c_new x0_hat

needs no state but x_t, and a corrected-then-predicted step is one `Mix`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from shared.solver.ddim import ddim_step
from shared.solver.dpmpp import second
from shared.solver.lagrange import exponential_moments, weights
from shared.solver.step import Mix, Move, Path, Renoise, Step, Steps, to_clean


@dataclass(frozen=True)
class UniPC:
    """degree 2 or 3, which is the stated order; 1 NFE. A step that ends clean returns x0_hat."""

    degree: int = 2
    nfe = 1
    stochastic = False

    def __post_init__(self) -> None:
        if self.degree not in (2, 3):
            raise ValueError(f"degree = {self.degree}: expected 2 or 3")

    @property
    def order(self) -> int:
        return self.degree

    @property
    def memory(self) -> int:
        return self.degree

    def plan(self, moves: Sequence[Move], path: Path) -> Steps:
        steps: list[Step | Renoise] = []
        for i, move in enumerate(moves):
            predict = _predictor(moves[max(0, i + 1 - self.degree) : i + 1])
            before = moves[max(0, i - self.degree) : i]
            if before and before[-1].to == move.at:  # otherwise there was no such step to correct
                predict = _after(predict, _correction(before))
            steps.append(predict)
        return steps


def _nodes(moves: Sequence[Move]) -> list[float]:
    """Where the last moves asked, newest first, in l = logsnr / 2 from the newest."""
    last = moves[-1].at.logsnr
    return [(move.at.logsnr - last) / 2 for move in reversed(moves)]


def _finite(moves: Sequence[Move]) -> Sequence[Move]:
    """The moves without a first one from alpha = 0, whose estimate is infinitely far in l."""
    return moves[1:] if math.isinf(moves[0].at.logsnr) else moves


def _predictor(moves: Sequence[Move]) -> Mix:
    """The last of the moves, from x_t and the estimates of all of them."""
    move = moves[-1]
    if move.to.sigma == 0:
        return to_clean(move)
    moves = _finite(moves)
    if len(moves) <= 1:
        return ddim_step(move)
    if len(moves) == 2:
        return second(*moves)
    h = (move.to.logsnr - move.at.logsnr) / 2
    now, *past = (move.to.alpha * w for w in weights(_nodes(moves), exponential_moments(h, 3)))
    return Mix(move.at, move.to, move.to.sigma / move.at.sigma, now, tuple(past))


def _correction(moves: Sequence[Move]) -> tuple[float, ...]:
    """What to add to the state after these moves: weights of the estimate made there, then of
    theirs, newest first."""
    move = moves[-1]
    predicted = _predictor(moves)
    if math.isinf(move.at.logsnr):
        return ()
    h = (move.to.logsnr - move.at.logsnr) / 2
    finite = _finite(moves)
    m = exponential_moments(h, len(finite) + 1)
    nodes = [h, *_nodes(finite)]
    corrected = [m[0] / 2, m[0] / 2] if len(finite) == 1 else weights(nodes, m)
    new, *old = (move.to.alpha * w for w in corrected)
    was = (predicted.x0, *predicted.past)
    return new, *(c - p for c, p in zip_longest(old, was, fillvalue=0.0))


def _after(predict: Mix, correction: tuple[float, ...]) -> Mix:
    """One step for both: the correction of x_t first."""
    if not correction:
        return predict
    new, *old = (predict.x * w for w in correction)
    past = tuple(c + p for c, p in zip_longest(old, predict.past, fillvalue=0.0))
    return Mix(predict.at, predict.to, predict.x, predict.x0 + new, past)
