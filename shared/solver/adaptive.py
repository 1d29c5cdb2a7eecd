"""Dormand & Prince's adaptive steps (of torchdiffeq), within a budget of evaluations."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torchdiffeq import odeint

STAGES = 6  # evaluations of a step
Slope = Callable[[Tensor, Tensor], Tensor]  # time, y (B, ...) -> dy / dtime (B, ...)


@dataclass(frozen=True)
class Integrated:
    """y where the integration ended: at `reached`, short of its end when the budget was spent."""

    y: Tensor
    reached: float
    evaluations: int
    done: bool


def integrate(
    slope: Slope,
    y: Tensor,
    begin: float,
    end: float,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    budget: int | None = None,
) -> Integrated:
    """y (B, ...) at `begin` -> at `end`, either way round.

    Error per step of rtol |y| + atol, as the worst sample has it: the step sizes are the batch's.
    No step is begun that could go beyond `budget` evaluations; without one it takes what it takes.
    FloatingPointError where no step is small enough, or y is no longer finite.
    """
    counted = _Counted(slope, y, begin, budget)
    span = torch.tensor([begin, end], dtype=torch.float64, device=y.device)
    try:
        found = odeint(
            counted,
            y,
            span,
            rtol=rtol,
            atol=atol,
            method="dopri5",
            options={"norm": worst, "dtype": torch.float64, "step_t": span[1:]},
        )
    except _Spent:
        return Integrated(counted.y, counted.at, counted.evaluations, done=False)
    except AssertionError as error:  # torchdiffeq's word for both
        raise FloatingPointError(
            f"adaptive steps from {begin:.3g} to {end:.3g} stop at {counted.at:.3g}: {error}; the "
            "slope is too steep there"
        ) from None
    assert isinstance(found, Tensor)
    return Integrated(found[-1], end, counted.evaluations, done=True)


def worst(error: Tensor) -> Tensor:
    """(B, ...) -> the largest root mean square of a sample."""
    if error.ndim < 2:
        return error.abs().max()
    return error.flatten(1).square().mean(1).max().sqrt()


class _Spent(Exception):
    """The budget does not reach for another step."""


class _Counted:
    """A slope that counts, and remembers where the last good step ended."""

    def __init__(self, slope: Slope, y: Tensor, at: float, budget: int | None) -> None:
        self.slope, self.budget = slope, budget
        self.y, self.at, self.evaluations = y, at, 0

    def __call__(self, time: Tensor, y: Tensor) -> Tensor:
        self.evaluations += 1
        return self.slope(time, y)

    def callback_step(self, time: Tensor, y: Tensor, step: Tensor) -> None:
        """Torchdiffeq calls this before every step, with the state it starts from."""
        self.y, self.at = y, float(time)
        if self.budget is not None and self.evaluations + STAGES > self.budget:
            raise _Spent
