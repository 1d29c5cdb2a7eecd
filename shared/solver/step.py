"""What a solver is: levels in, steps out; a step is numbers and what to do with them.

    plan:  levels of a grid -> one step a move, all coefficients as Python floats, once (float64)
    step:  (x_t, x0_hat, past, desk) -> (mean of x_s, std of its noise, what to remember)

A step never sees the network: the loop hands it the estimate, and a `Desk` for whatever else it may
need (further evaluations, noise, buffers). What a multistep method remembers goes out with the
state and comes in again as `past`, newest first, so that calling twice gives the same answer twice.

Almost every method with one evaluation a step is one kind of step, `Mix`:

    x_s = x x_t + x0 x0_hat + sum_j past_j r_j + std noise,   r = x0_hat - keep x_t of earlier steps
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from shared.schedule import Level


@dataclass(frozen=True)
class Point:
    """A noise level as plain floats (float64): the loop's levels are the same for all samples."""

    logsnr: float
    alpha: float
    sigma: float

    @property
    def scaled(self) -> float:
        """sigma / alpha, the noise in units of the signal; infinite where alpha is 0."""
        return self.sigma / self.alpha if self.alpha > 0 else math.inf


CLEAN = Point(logsnr=float("inf"), alpha=1.0, sigma=0.0)


@dataclass(frozen=True)
class Move:
    """From the level where the network is asked, `at`, to the level `to`."""

    at: Point
    to: Point


class Path(Protocol):
    """The curve of levels that a schedule runs through: for steps that ask between the levels."""

    def point(self, logsnr: float) -> Point:
        """The level at a logsnr. ValueError beyond the schedule's own range."""
        ...

    @property
    def cleanest(self) -> Point:
        """The level at t = 0."""
        ...

    @property
    def noisiest(self) -> Point:
        """The level at t = 1."""
        ...


Past: TypeAlias = tuple[Tensor, ...]
# x_s without its noise, in the loop's buffer; the std of that noise; what to remember, if anything
Moved: TypeAlias = tuple[Tensor, float | Tensor, Tensor | None]


class Desk(Protocol):
    """What a step finds on the loop's desk. Tensors are the loop's own, (B, ...) like x."""

    @property
    def fraction(self) -> Tensor | None:
        """The range that a `RangeDenoise` gave with the step's estimate, in [0, 1]."""
        ...

    def evaluate(self, x: Tensor, point: Point) -> Tensor:
        """x0_hat of x at a point of the step's `asks`: 1 NFE. The loop gives the last estimate."""
        ...

    def level(self, point: Point) -> Level:
        """The level at `at` or a point of `asks` as tensors, of x's dtype and on its device."""
        ...

    def normal(self, k: int) -> Tensor:
        """Standard normals, k = 1, 2, ... a stream each (0 is the loop's); good until the next."""
        ...

    def uniform(self, k: int) -> Tensor:
        """Uniforms in (0, 1), one a sample, (B,); k as in `normal`, and no k for both."""
        ...

    def buffer(self, k: int) -> Tensor:
        """Scratch memory number k = 0, 1, ...; the next step will write over it."""
        ...

    def slot(self) -> Tensor:
        """Memory for what is remembered: nothing in `past` lies there."""
        ...

    def mix(self, x: Tensor, a: float, y: Tensor, b: float) -> Tensor:
        """x <- a x + b y in one pass over the memory of x; y is read only."""
        ...


class Step(Protocol):
    """One move. `asks` are the levels of evaluations beside the loop's own at `at`.

    x_t is the loop's own buffer: a step writes into it and returns it. Estimates are read only.
    """

    @property
    def at(self) -> Point: ...

    @property
    def to(self) -> Point: ...

    @property
    def asks(self) -> tuple[Point, ...]: ...

    def __call__(self, x_t: Tensor, x0_hat: Tensor, past: Past, desk: Desk) -> Moved: ...


Steps: TypeAlias = "Sequence[Step | Renoise]"


class Solver(Protocol):
    """A family of steps. `order` is of the error between two levels above the clean end (weak, of
    moments, where `stochastic`); None where an error stays however many steps there are."""

    @property
    def order(self) -> int | None: ...

    @property
    def nfe(self) -> int | None:
        """Evaluations a step; the last may take fewer. None: as many as the error asks for."""
        ...

    @property
    def stochastic(self) -> bool: ...

    @property
    def memory(self) -> int:
        """How many earlier estimates a step is given."""
        ...

    def plan(self, moves: Sequence[Move], path: Path) -> Steps:
        """Steps for moves that all fall in noise (or all rise: `encode`), history empty before."""
        ...


@dataclass(frozen=True)
class Taken:
    """A step that has just been made, for a `StepHook`: x_s = mean + std noise.

    Deterministic steps, and those whose noise does not come last: mean = x_s, std = 0. `mean` is
    good until the hook returns. draw(k) gives the k-th (k = 0, 1, ...) standard normal tensor
    (B, ...) that is reserved to hooks at this step, keyed by seeds.
    """

    index: int
    at: Point
    to: Point
    mean: Tensor
    std: float | Tensor
    x0_hat: Tensor
    condition: Tensor | None
    draw: Callable[[int], Tensor]


StepHook: TypeAlias = Callable[[Tensor, Taken], Tensor]


@dataclass(frozen=True)
class Mix:
    """A weighted sum of the state, the estimate and what is remembered, plus noise. 1 NFE."""

    at: Point
    to: Point
    x: float
    x0: float
    past: tuple[float, ...] = ()
    std: float = 0.0
    keep: float = 0.0  # 0: the estimate itself is remembered, without a copy
    asks = ()

    def __call__(self, x_t: Tensor, x0_hat: Tensor, past: Past, desk: Desk) -> Moved:
        kept = x0_hat
        if self.keep:
            kept = torch.add(x0_hat, x_t, alpha=-self.keep, out=desk.slot())
        x_s = desk.mix(x_t, self.x, x0_hat, self.x0)
        for weight, remembered in zip(self.past, past, strict=False):
            if weight:
                x_s.add_(remembered, alpha=weight)
        return x_s, self.std, kept


@dataclass(frozen=True)
class TwoStage:
    """A trial step, an estimate where it ends, then the step itself. 2 NFE.

    x_s = x x_t + x0 x0_hat + asked (the estimate at trial.to)
    """

    at: Point
    to: Point
    trial: Mix
    x: float
    x0: float
    asked: float

    @property
    def asks(self) -> tuple[Point, ...]:
        return (self.trial.to,)

    def __call__(self, x_t: Tensor, x0_hat: Tensor, past: Past, desk: Desk) -> Moved:
        tried = desk.mix(desk.buffer(0).copy_(x_t), self.trial.x, x0_hat, self.trial.x0)
        estimate = desk.evaluate(tried, self.trial.to)
        x_s = desk.mix(x_t, self.x, estimate, self.asked)
        if self.x0:
            x_s.add_(x0_hat, alpha=self.x0)
        return x_s, 0.0, x0_hat


@dataclass(frozen=True)
class Renoise:
    """A move to a noisier level: x_s = (alpha_s / alpha_t) x_t + std noise, the forward process
    itself. 0 NFE. `excess` multiplies the noise (1: exact; EDM's S_noise otherwise)."""

    at: Point
    to: Point
    excess: float = 1.0

    @property
    def ratio(self) -> float:
        return self.to.alpha / self.at.alpha

    @property
    def std(self) -> float:
        """sigma_s sqrt(1 - e^(logsnr_s - logsnr_t)), free of a difference of squares."""
        return self.excess * self.to.sigma * math.sqrt(-math.expm1(self.to.logsnr - self.at.logsnr))


def share(move: Move) -> float:
    """c = 1 - e^(logsnr_t - logsnr_s) in [0, 1]: how much of the posterior mean of x_s comes from
    x0; 1 at the clean end."""
    return -math.expm1(move.at.logsnr - move.to.logsnr)


def to_clean(move: Move) -> Mix:
    """x0_hat itself: where every method but those with an extrapolated end arrives."""
    return Mix(move.at, move.to, x=0.0, x0=1.0)
