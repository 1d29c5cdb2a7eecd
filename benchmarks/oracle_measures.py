"""What samplers are measured by, on problems whose answer is known.

Deterministic ones by their distance from the exact solution of the ODE from the same noise, in
standard deviations of the data: root mean square over samples (which the few that end in another
mode dominate) and median. Stochastic ones by sliced Wasserstein-2 to fresh draws. NFE are counted
around the denoiser.
"""

import math
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.oracle_peers import Sampler
from benchmarks.oracle_problems import Problem, distances, exact, sliced_wasserstein
from shared.denoiser import Denoise
from shared.guidance import count_evaluations
from shared.prediction import PREDICTIONS, from_x0, to_x0
from shared.schedule import Cosine, Edm, Flow, Level, Linear, Schedule, SubVp, Ve
from shared.solver import fit, prepare, run
from shared.solver.grid import Grid, trig
from shared.solver.plan import solver_of

SIGMA = 80.0  # where ours begin, as k-diffusion and EDM do
SCHEDULE = Edm(0.002, SIGMA)
FIT_SAMPLES, FIT_SEED = 64, 5_000_000  # of the fine run; its noise is not that of the comparison
WIDE = partial(trig, sigma=SIGMA)

# solver, grid: None is the fitted one
PAIRS: tuple[tuple[str, str | Grid | None, str], ...] = (
    ("auto", None, "fitted"),
    ("auto", WIDE, "trig"),
    ("dpmpp_2m", None, "fitted"),
    ("dpmpp_2m", "karras", "karras"),
    ("dpmpp_2m", "logsnr", "logsnr"),
    ("dpmpp_3m", "logsnr", "logsnr"),
    ("unipc2", None, "fitted"),
    ("unipc2", "logsnr", "logsnr"),
    ("unipc3", "logsnr", "logsnr"),
    ("lms4", "karras", "karras"),
    ("trig2", None, "fitted"),
    ("trig2", WIDE, "trig"),
    ("trig3", None, "fitted"),
    ("trig3", WIDE, "trig"),
    ("dpmpp_2s", "logsnr", "logsnr"),
    ("heun", "karras", "karras"),
    ("euler", "karras", "karras"),
    ("ddim", "logsnr", "logsnr"),
)
NOISY: tuple[tuple[str, str | Grid, str], ...] = (
    ("ancestral", "karras", "karras"),
    ("ancestral", WIDE, "trig"),
    ("dpmpp_sde_2m", "karras", "karras"),
    ("dpmpp_sde_2m", WIDE, "trig"),
    ("reverse_diffusion", "karras", "karras"),
    ("euler_churn", "karras", "karras"),
    ("heun_churn", "karras", "karras"),
)
FAMILIES: dict[str, Schedule] = {
    "cosine": Cosine(),
    "linear": Linear(),
    "sub_vp": SubVp(),
    "flow": Flow(),
    "ve": Ve(0.002, SIGMA),
    "edm": SCHEDULE,
}
COMBINED = ("ddim", "heun", "dpmpp_2m", "unipc2", "trig2", "auto")
COMBINED_NFE = 20

Rows = list[dict[str, Any]]


def ours(problem: Problem, seed: int) -> list[Sampler]:
    """Our pairs of solver and grid for a problem; fitting takes 64 NFE, which no row counts."""
    noise = problem.noise(FIT_SAMPLES, FIT_SEED + seed)
    fitted = fit(problem.denoise, noise, SCHEDULE)
    return [_ours(solver, grid or fitted, name) for solver, grid, name in PAIRS]


def _ours(solver: str, grid: str | Grid, name: str) -> Sampler:
    stages = solver_of(solver).nfe or 1

    def samples(denoise: Denoise, noise: Tensor, steps: int, seed: int) -> Tensor:
        plan = prepare(SCHEDULE, solver, steps, grid)
        seeds = range(seed, seed + len(noise)) if plan.draws_noise else None
        return run(plan, denoise, plan.start.sigma * noise, seeds=seeds).x

    return Sampler(f"{solver}, {name}", SIGMA, samples, stages, ours=True)


def noisy() -> list[Sampler]:
    """Our stochastic solvers."""
    return [_ours(*pair) for pair in NOISY]


def errors(
    problem: Problem, samplers: Iterable[Sampler], noise: Tensor, nfes: Sequence[int]
) -> Rows:
    """A row a sampler and NFE: distance from the exact solution of the ODE."""
    rows: Rows = []
    ends: dict[float, Tensor] = {}
    for sampler in samplers:
        if sampler.sigma not in ends:
            ends[sampler.sigma] = exact(problem.denoise, noise, sampler.sigma)[0]
        for nfe in nfes:
            counted = count_evaluations(problem.denoise)
            x = sampler(counted, noise, nfe)
            apart = distances(x, ends[sampler.sigma])
            rows.append(
                {
                    "problem": problem.name,
                    "sampler": sampler.name,
                    "ours": sampler.ours,
                    "nfe": nfe,
                    "evaluations": counted.calls,
                    "rms": float(apart.square().mean().sqrt()),
                    "median": float(apart.median()),
                }
            )
    return rows


def clouds(problem: Problem, samplers: Iterable[Sampler], n: int, nfes: Sequence[int]) -> Rows:
    """A row a sampler and NFE: sliced Wasserstein-2 to fresh draws, and the floor: of two sets of
    fresh draws."""
    generator = torch.Generator().manual_seed(1)
    fresh, other = (problem.oracle.sample(n, generator).double() for _ in range(2))
    floor = sliced_wasserstein(fresh, other)
    noise = problem.noise(n, 2)
    rows: Rows = []
    for sampler in samplers:
        for nfe in nfes:
            counted = count_evaluations(problem.denoise)
            apart = sliced_wasserstein(sampler(counted, noise, nfe, 3), fresh)
            rows.append(
                {
                    "problem": problem.name,
                    "sampler": sampler.name,
                    "ours": sampler.ours,
                    "nfe": nfe,
                    "evaluations": counted.calls,
                    "w2": apart,
                    "floor": floor,
                }
            )
    return rows


def combinations(problems: Sequence[Problem], n: int, seed: int) -> Rows:
    """Schedule x prediction x solver at 20 NFE: errors, and how far predictions are apart."""
    found: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    for problem in problems:
        noise = problem.noise(n, seed)
        end = exact(problem.denoise, noise, SIGMA)[0]
        for name, schedule in FAMILIES.items():
            for solver in COMBINED:
                parts: list[float] = []
                for grid in ("time", same_levels):
                    out = _combined(problem, schedule, solver, grid, noise)
                    parts.append(_rms(distances(out["x0"], end)))
                apart = max(float(distances(x, out["x0"]).max()) for x in out.values())
                found.setdefault((name, solver), []).append((parts[0], parts[1], apart))
    return [
        {
            "schedule": name,
            "solver": solver,
            "own": geometric_mean(own for own, _, _ in parts),
            "same": geometric_mean(same for _, same, _ in parts),
            "predictions": max(apart for _, _, apart in parts),
        }
        for (name, solver), parts in found.items()
    ]


def same_levels(schedule: Schedule, steps: int, start: float, end_clean: bool) -> Tensor:
    """A Grid: whatever the schedule, the levels of `trig` on ours."""
    times = schedule.time(SCHEDULE.logsnr(WIDE(SCHEDULE, steps, 1.0, end_clean)))
    times[0], times[-1] = start, 0.0
    return times


def _combined(
    problem: Problem, schedule: Schedule, solver: str, grid: str | Grid, noise: Tensor
) -> dict[str, Tensor]:
    """Samples by prediction; on the schedule's own times x0 alone."""
    start = float(schedule.time(torch.tensor(-2 * math.log(SIGMA), dtype=torch.float64)))
    nfe = solver_of(solver).nfe or 1
    steps = (COMBINED_NFE + nfe - 1) // nfe
    plan = prepare(schedule, solver, steps, grid, start=min(start, 1.0))
    x = plan.start.sigma * noise
    kinds = ("x0",) if grid == "time" else tuple(PREDICTIONS)
    return {kind: run(plan, predicted(problem.denoise, kind), x).x for kind in kinds}


def predicted(denoise: Denoise, kind: str) -> Denoise:
    """The estimate by way of the output of a network that predicts something else."""

    def through(
        x_t: Tensor, level: Level, condition: Tensor | None = None, previous: Tensor | None = None
    ) -> Tensor:
        output = from_x0(kind, denoise(x_t, level, condition, previous), x_t, level)
        return to_x0(kind, output, x_t, level)

    return through


def geometric_mean(values: Iterable[float]) -> float:
    """Zero counts as 1e-12: a problem solved exactly must not make all else invisible."""
    logs = [math.log(max(value, 1e-12)) for value in values]
    return math.exp(sum(logs) / len(logs))


def _rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())
