"""The sampling loop: the one place that knows of networks, noise streams and self-conditioning.

The loop owns its memory: the state, the noise and what steps ask for are allocated in the first two
steps and used again. It waits for the device nowhere; whether the result is finite is looked at
once, at the end, or after each evaluation with nan="stop".
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from shared.denoiser import Denoise, RangeDenoise
from shared.schedule import Schedule
from shared.solver.desk import LoopDesk
from shared.solver.grid import Grid, SchedulePath, points_of
from shared.solver.plan import Plan, grid_times, prepare, solver_of
from shared.solver.step import Move, Past, Renoise, Solver, StepHook, Taken

# evaluated step, x_t before it, x0_hat there; the loop goes on in x_t's memory: clone to keep it
Callback = Callable[[int, Tensor, Tensor], None]


@dataclass(frozen=True)
class Outcome:
    """x (B, ...) at the last level, and how often the network was asked."""

    x: Tensor
    nfe: int


class Trajectory:
    """A callback that keeps everything: states[i] and estimates[i] (B, ...) at evaluation i."""

    def __init__(self) -> None:
        self.states: list[Tensor] = []
        self.estimates: list[Tensor] = []

    def __call__(self, i: int, x_t: Tensor, x0_hat: Tensor) -> None:
        self.states.append(x_t.clone())
        self.estimates.append(x0_hat.clone())


def sample(
    denoise: Denoise,
    noise: Tensor,
    schedule: Schedule,
    solver: str | Solver = "dpmpp_2m",
    steps: int = 20,
    condition: Tensor | None = None,
    seeds: Sequence[int] | None = None,
    grid: str | Grid | Tensor | None = None,
    end_clean: bool = True,
    callback: Callback | None = None,
    hooks: Sequence[StepHook] = (),
    start: float | None = None,
    x0: Tensor | None = None,
    td: float = 0.0,
    nan: str = "end",
) -> Tensor:
    """Integrate from noise to data; (B, ...) -> (B, ...).

    noise has unit variance: the first state is sqrt(alpha^2 + sigma^2) noise, or, with `x0` (B,
    ...), that datum as noisy as the first level (SDEdit: Meng et al. 2022; give `start`, the time
    to begin at). `seeds` (one integer per sample) key the noise of stochastic solvers, so sample i
    does not depend on its neighbours. `grid` is a name of GRIDS, a grid function, or times in [0,
    1]; where times rise, the move re-noises. With `end_clean` the last time stands for the clean
    end itself. `td` in steps: see `grid.asymmetric`. `hooks` act on the state after each
    evaluated step. No gradients are kept: guidance that needs them enables them.
    nan: "end" looks at the result, "stop" at every estimate.

    Raises ValueError for an unknown solver, a bad grid, missing seeds, shapes that disagree;
    FloatingPointError for values that are not finite, with "stop" naming step and level.
    """
    plan = prepare(schedule, solver, steps, grid, end_clean, start, td)
    return run(
        plan, denoise, first_state(plan, noise, x0), condition, seeds, callback, hooks, nan
    ).x


def first_state(plan: Plan, noise: Tensor, x0: Tensor | None = None) -> Tensor:
    """Unit noise (B, ...) -> a state at the plan's first level, of data of unit variance or of
    x0."""
    at = plan.start
    if x0 is None:
        return noise * math.hypot(at.alpha, at.sigma)
    if x0.shape != noise.shape:
        raise ValueError(f"x0 {tuple(x0.shape)}: expected the shape of noise {tuple(noise.shape)}")
    return at.alpha * x0 + at.sigma * noise


@torch.no_grad()
def encode(
    denoise: Denoise,
    x0: Tensor,
    schedule: Schedule,
    solver: str | Solver = "ddim",
    steps: int = 50,
    condition: Tensor | None = None,
    grid: str | Grid | Tensor | None = None,
    start: float | None = None,
    callback: Callback | None = None,
    nan: str = "end",
) -> Tensor:
    """Data (B, ...) -> the noise that a deterministic solver makes them of, unit variance: the
    same grid run backwards, from t = 0 to `start` (Song, Meng & Ermon 2021, sec. 4.3).

    x0 stands for x_t / alpha at the cleanest level. `sample` of the result
    with the same arguments and end_clean=False gives alpha x0 back, to the solver's error.
    Guidance applies as in `sample`. ValueError for a stochastic solver.
    """
    chosen = solver_of(solver)
    if chosen.stochastic:
        raise ValueError(f"solver = {solver!r} draws noise: encode with a deterministic one")
    times = grid_times(schedule, steps, grid, False, start).flip(0)
    if bool((times.diff() <= 0).any()):
        raise ValueError("grid: expected falling times, which encode runs backwards")
    points = points_of(schedule, times.tolist())
    moves = [Move(at, to) for at, to in itertools.pairwise(points)]
    plan = Plan(chosen, points[0], tuple(chosen.plan(moves, SchedulePath(schedule))))
    x = run(plan, denoise, points[0].alpha * x0, condition, None, callback, (), nan).x
    return x / math.hypot(points[-1].alpha, points[-1].sigma)


@torch.no_grad()
def run(
    plan: Plan,
    denoise: Denoise,
    x: Tensor,
    condition: Tensor | None = None,
    seeds: Sequence[int] | None = None,
    callback: Callback | None = None,
    hooks: Sequence[StepHook] = (),
    nan: str = "end",
) -> Outcome:
    """Run a plan from the state x (B, ...) at its first level; x is left alone.

    The other arguments and errors are those of `sample`.
    """
    _check(plan, denoise, x, seeds, nan)
    x = x.clone(memory_format=torch.contiguous_format)  # the one buffer: every step writes into it
    desk = LoopDesk(plan, denoise, x, condition, seeds, nan == "stop")
    past: Past = ()
    memory = plan.solver.memory
    for move, step in enumerate(plan.steps):
        desk.move = move
        if isinstance(step, Renoise):
            x.mul_(step.ratio).add_(desk.normal(0), alpha=step.std)
            past = ()
            continue
        x0_hat = desk.evaluate(x, step.at)
        if callback is not None:
            callback(desk.step, x, x0_hat)
        x, std, kept = step(x, x0_hat, past, desk)
        mean = x
        if isinstance(std, Tensor) or std:
            mean = desk.mean_of(x) if hooks else x
            noise = desk.normal(0)
            x = x.addcmul_(noise, std) if isinstance(std, Tensor) else x.add_(noise, alpha=std)
        if hooks:
            taken = Taken(desk.step, step.at, step.to, mean, std, x0_hat, condition, desk.hook_draw)
            for hook in hooks:
                x.copy_(hook(x, taken))
        if memory and kept is not None:
            past = (kept, *past[: memory - 1])
        desk.step += 1
    if nan == "end" and not _finite(x):
        raise FloatingPointError(
            "the sample is not finite; nan='stop' names the step and level where that began"
        )
    return Outcome(x, desk.nfe)


def _finite(x: Tensor) -> bool:
    """One reading of x; a second where the sum alone may have overflowed."""
    return math.isfinite(float(x.sum())) or bool(torch.isfinite(x).all())


def _check(plan: Plan, denoise: Denoise, x: Tensor, seeds: Sequence[int] | None, nan: str) -> None:
    if nan not in ("end", "stop"):
        raise ValueError(f"nan = {nan!r}: expected 'end' or 'stop'")
    if plan.draws_noise and seeds is None:
        raise ValueError(
            f"{plan.solver} on this grid draws noise: give seeds, one integer per sample"
        )
    if seeds is not None and len(seeds) != len(x):
        raise ValueError(f"{len(seeds)} seeds for {len(x)} samples: give one per sample")
    if plan.learns_range and not isinstance(denoise, RangeDenoise):
        raise ValueError(
            "ancestral_learned needs a network that learned its variance, unguided (a denoiser "
            "with `with_range`); use ancestral or ancestral_large"
        )
