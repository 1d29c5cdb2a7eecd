"""The sampling loop: the one place that knows of grids, noise per step and self-conditioning."""

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from shared import noise as stateless
from shared.denoiser import Denoise
from shared.schedule import Level, Schedule
from shared.solver.ancestral import ancestral_step
from shared.solver.ddim import ddim_step
from shared.solver.dpmpp import dpmpp_2m_step
from shared.solver.step import CLEAN, Move, Point, Step

SOLVERS: dict[str, Step] = {
    "ancestral": ancestral_step,
    "ddim": ddim_step,
    "dpmpp_2m": dpmpp_2m_step,
}

# step index, x_t before the step, x0_hat there; the loop goes on in x_t's memory: clone to keep it
Callback = Callable[[int, Tensor, Tensor], None]


def time_grid(steps: int, start: float = 1.0, end: float = 0.0) -> Tensor:
    """steps + 1 times falling uniformly from start to end, float64."""
    if steps < 1:
        raise ValueError(f"steps = {steps}: a solver needs one step or more")
    return torch.linspace(start, end, steps + 1, dtype=torch.float64)


def sample(
    denoise: Denoise,
    noise: Tensor,
    schedule: Schedule,
    solver: str = "dpmpp_2m",
    steps: int = 20,
    condition: Tensor | None = None,
    seeds: Sequence[int] | None = None,
    grid: Tensor | None = None,
    end_clean: bool = True,
    callback: Callback | None = None,
) -> Tensor:
    """Integrate from noise to data; (B, ...) -> (B, ...).

    noise is x at the first level of the grid, unit variance; `seeds` (one integer per sample) key
    the noise of the stochastic solvers, so sample i does not depend on its neighbours. `grid` is
    falling times in [0, 1] (default: uniform, `steps` of them); with `end_clean` its last time
    stands for the clean end itself, so the last step returns x0_hat exactly. NFE = steps.

    Raises ValueError for an unknown solver, a bad grid, missing seeds; FloatingPointError, naming
    step and level, when an estimate is not finite.
    """
    if solver not in SOLVERS:
        raise ValueError(f"solver = {solver!r}: expected one of {', '.join(SOLVERS)}")
    if solver == "ancestral" and seeds is None:
        raise ValueError("solver = 'ancestral' draws noise: give seeds, one integer per sample")
    if seeds is not None and len(seeds) != len(noise):
        raise ValueError(f"{len(seeds)} seeds for {len(noise)} samples: give one per sample")
    times = time_grid(steps) if grid is None else grid.double()
    inside = bool(times[:1].le(1).all()) and bool(times[-1:].ge(0).all())
    if len(times) < 2 or not bool((times.diff() < 0).all()) or not inside:
        raise ValueError("grid: expected two or more strictly falling times in [0, 1]")
    levels = schedule(times)
    points = [
        Point(*map(float, row))
        for row in zip(levels.logsnr, levels.alpha, levels.sigma, strict=True)
    ]
    if end_clean:
        points[-1] = CLEAN

    x = noise.clone()  # the one buffer: every step writes into it
    x0_before: Tensor | None = None
    before: Point | None = None
    for i, (at, to) in enumerate(itertools.pairwise(points)):

        def draw(i: int = i) -> Tensor:
            assert seeds is not None
            shape = tuple(noise.shape[1:])
            return stateless.normal(seeds, i + 1, shape, device=noise.device).to(noise.dtype)

        level = Level(*(x.new_tensor(value) for value in (at.logsnr, at.alpha, at.sigma)))
        x0_hat = denoise(x, level, condition, x0_before)
        if x0_hat.data_ptr() == x.data_ptr():  # the step is about to overwrite x
            x0_hat = x0_hat.clone()
        if not math.isfinite(float(x0_hat.sum())):
            raise FloatingPointError(f"x0_hat is not finite at step {i}, logsnr {at.logsnr:.3f}")
        if callback is not None:
            callback(i, x, x0_hat)
        x = SOLVERS[solver](x, x0_hat, Move(at, to, before, x0_before, draw))
        x0_before, before = x0_hat, at
    return x
