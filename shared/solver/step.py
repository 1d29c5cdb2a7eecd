"""What a solver step is: it sees the estimate x0_hat and two levels, never a network.

A step maps (x_t, x0_hat, move) to x_s. The multistep history goes in through `Move` and comes out
of the loop, so that calling twice gives the same answer twice.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class Point:
    """A noise level as plain floats (float64): the loop's levels are the same for all samples."""

    logsnr: float
    alpha: float
    sigma: float


CLEAN = Point(logsnr=float("inf"), alpha=1.0, sigma=0.0)


@dataclass(frozen=True)
class Move:
    """From level `at` to the cleaner level `to`, with the estimate made at `before` if any."""

    at: Point
    to: Point
    before: Point | None
    x0_before: Tensor | None
    noise: Callable[[], Tensor]  # draws this step's standard normals (B, ...), when called


class Step(Protocol):
    """x_t (B, ...) and x0_hat (B, ...) at move.at -> x_s (B, ...) at move.to. 1 NFE.

    x_t is the loop's own buffer: a step writes x_s into it and returns it. Estimates are read only.
    """

    def __call__(self, x_t: Tensor, x0_hat: Tensor, move: Move) -> Tensor: ...


@dataclass(frozen=True)
class Taken:
    """A step that was taken: x_s = mean + std * noise, from `at` to `to`.

    A deterministic step has mean = x_s and std = 0. Where `to` is noisier than `at`, the step
    added noise and made no estimate (RePaint's time travel). `draw(k)` gives the k-th (k = 0, 1,
    ...) standard normals (B, ...) reserved to hooks at this step.
    """

    index: int
    at: Point
    to: Point
    mean: Tensor
    std: float | Tensor
    x0_hat: Tensor
    condition: Tensor | None
    draw: Callable[[int], Tensor]


class StepHook(Protocol):
    """Acts on the state after a step: x_s (B, ...) at taken.to -> x_s (B, ...)."""

    def __call__(self, x_s: Tensor, taken: Taken) -> Tensor: ...
