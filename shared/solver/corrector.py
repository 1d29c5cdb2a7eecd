"""Predictor-corrector sampling: Langevin steps at a level, then a step to the next.

A Langevin step of size a at a level (Song et al. 2021, Alg. 4 and 5) is

    x <- x + a score + sqrt(2 a) noise,   sigma^2 score = alpha x0_hat - x

On a Gaussian of variance V it takes variance V to V (1 + e^2), e = a / V, and its stationary
variance is V / (1 - e / 2): biased for every a, unless a Metropolis test follows. As in the
authors' code the corrector comes first, so that the last move is the denoising one.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from shared.schedule import Level
from shared.solver.sde import ReverseDiffusion
from shared.solver.step import (
    Desk,
    Mix,
    Move,
    Moved,
    Past,
    Path,
    Point,
    Renoise,
    Solver,
    Step,
    Steps,
)


class Corrector(Protocol):
    """A Markov step at one level, which leaves its distribution (nearly) as it is.

    x (B, ...), the loop's own, and its estimate -> x, written over, and the new estimate. 1 NFE.
    `ratio` is alpha_t^2 / alpha_s^2 to the next level; k counts the correctors of a step from 0.
    """

    def __call__(
        self, x: Tensor, x0_hat: Tensor, point: Point, ratio: float, k: int, desk: Desk
    ) -> tuple[Tensor, Tensor]: ...


def _propose(
    x: Tensor, x0_hat: Tensor, point: Point, eps: float, noise: Tensor, desk: Desk
) -> Tensor:
    """x <- (1 - eps) x + eps alpha x0_hat + sqrt(2 eps) sigma noise: a Langevin step, a = eps
    sigma^2."""
    x = desk.mix(x, 1 - eps, x0_hat, eps * point.alpha)
    return x.add_(noise, alpha=point.sigma * math.sqrt(2 * eps))


def _check_eps(eps: float) -> None:
    if not 0 < eps < 2:
        raise ValueError(f"eps = {eps}: expected a step between 0 and 2, in units of sigma^2")


@dataclass(frozen=True)
class Langevin:
    """a = eps sigma^2: of a point of data, whose x_t has variance sigma^2, one step makes
    sigma^2 (1 + eps^2) and many make sigma^2 / (1 - eps / 2)."""

    eps: float = 0.1

    def __post_init__(self) -> None:
        _check_eps(self.eps)

    def __call__(
        self, x: Tensor, x0_hat: Tensor, point: Point, ratio: float, k: int, desk: Desk
    ) -> tuple[Tensor, Tensor]:
        x = _propose(x, x0_hat, point, self.eps, desk.normal(2 * k + 1), desk)
        return x, desk.evaluate(x, point)


@dataclass(frozen=True)
class SnrLangevin:
    """a = 2 ratio (snr |noise| / |score|)^2 with norms of each sample alone (the authors' code
    takes the batch's means, which couple samples).

    ratio is alpha_t of one step, abar_t / abar_(t - dt), in all families (1 for VE).
    """

    snr: float = 0.16

    def __post_init__(self) -> None:
        if not self.snr > 0:
            raise ValueError(f"snr = {self.snr}: expected a positive number")

    def __call__(
        self, x: Tensor, x0_hat: Tensor, point: Point, ratio: float, k: int, desk: Desk
    ) -> tuple[Tensor, Tensor]:
        noise = desk.normal(2 * k + 1)
        pull = torch.mul(x0_hat, point.alpha, out=desk.buffer(0)).sub_(x)  # sigma^2 score
        lengths = [part.flatten(1).norm(dim=1) for part in (noise, pull)]
        # a in units of sigma^2; where the score is 0 the rule has no answer: stay
        eps = 2 * ratio * (self.snr * lengths[0] * point.sigma / lengths[1]) ** 2
        eps = torch.where(lengths[1] > 0, eps, 0).reshape(-1, *(1,) * (x.ndim - 1))
        x.addcmul_(pull, eps).addcmul_(noise, point.sigma * (2 * eps).sqrt())
        return x, desk.evaluate(x, point)


@dataclass(frozen=True)
class Mala:
    """Langevin with a Metropolis test (MALA; Roberts & Tweedie 1996): exact at every level.

    It needs what a network does not have: `log_prob(x, level) -> (B,)`, the log density of x_t up
    to a constant, such as an oracle's. The estimate may be wrong, the samples are not.
    """

    log_prob: Callable[[Tensor, Level], Tensor]
    eps: float = 0.1

    def __post_init__(self) -> None:
        _check_eps(self.eps)

    def __call__(
        self, x: Tensor, x0_hat: Tensor, point: Point, ratio: float, k: int, desk: Desk
    ) -> tuple[Tensor, Tensor]:
        noise = desk.normal(2 * k + 1)
        y = _propose(desk.buffer(0).copy_(x), x0_hat, point, self.eps, noise, desk)
        y0_hat = desk.evaluate(y, point)
        # log q(x | y) - log q(y | x), with q(y | x) = N((1 - eps) x + eps alpha x0_hat, 2 a)
        back = x - (1 - self.eps) * y - self.eps * point.alpha * y0_hat
        back_squares = (back / point.sigma).flatten(1).square().sum(1) / (2 * self.eps)
        log_ratio = (noise.flatten(1).square().sum(1) - back_squares) / 2
        level = desk.level(point)
        log_ratio = log_ratio + self.log_prob(y, level) - self.log_prob(x, level)
        accept = (desk.uniform(2 * k + 2).log() < log_ratio).reshape(-1, *(1,) * (x.ndim - 1))
        return torch.where(accept, y, x, out=x), torch.where(accept, y0_hat, x0_hat)


@dataclass(frozen=True)
class PredictorCorrector:
    """`count` correctors at each level, then the predictor's step; 1 + count NFE a step.

    The corrector's bias does not fall with the number of steps: no order is stated. The predictor
    may be any solver without memory that asks once a step.
    """

    predictor: Solver = field(default_factory=ReverseDiffusion)
    corrector: Corrector = field(default_factory=SnrLangevin)
    count: int = 1
    order = None
    memory = 0
    stochastic = True

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"count = {self.count}: expected one corrector a level or more")
        if self.predictor.memory or self.predictor.nfe != 1:
            raise ValueError(
                "predictor: expected a solver of one evaluation a step and no memory, such as "
                "ReverseDiffusion, EulerMaruyama, Ancestral or Ddim"
            )

    @property
    def nfe(self) -> int:
        return 1 + self.count

    def plan(self, moves: Sequence[Move], path: Path) -> Steps:
        steps: list[Step | Renoise] = []
        for step in self.predictor.plan(moves, path):
            assert isinstance(step, Mix)
            steps.append(CorrectedStep(step, self.corrector, self.count))
        return steps


@dataclass(frozen=True)
class CorrectedStep:
    """Correctors, then the predictor's step from where they lead."""

    predict: Mix
    corrector: Corrector
    count: int

    @property
    def at(self) -> Point:
        return self.predict.at

    @property
    def to(self) -> Point:
        return self.predict.to

    @property
    def asks(self) -> tuple[Point, ...]:
        return (self.at,)

    def __call__(self, x_t: Tensor, x0_hat: Tensor, past: Past, desk: Desk) -> Moved:
        ratio = (self.at.alpha / self.to.alpha) ** 2
        for k in range(self.count):
            x_t, x0_hat = self.corrector(x_t, x0_hat, self.at, ratio, k, desk)
        return self.predict(x_t, x0_hat, past, desk)
