"""What a solver's step costs beside its network: `python -m benchmarks.solver`.

The network is a tensor that is there already. All loops run in turn in one process; the measure is
one read-modify-write pass over the state, fused, in C where gcc is there, and torch's `lerp_`.
Preparing (our plan, diffusers' set_timesteps) is timed alone and shown apart.
"""

import ctypes
import json
import math
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import tyro
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_heun_discrete import HeunDiscreteScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from rich.console import Console
from torch import Tensor

from benchmarks.command import command
from benchmarks.k_diffusion import k_sampling
from benchmarks.measure import Task, Times, facts, interleave
from benchmarks.tables import Column, Table
from shared import noise
from shared.files import write_text
from shared.schedule import Cosine, Level
from shared.solver import SOLVERS, Plan, prepare, run

SHAPES = ((64, 3, 32, 32), (64, 64, 128))
STEPS = 50
DIPTYCH = ("ddim", "euler", "dpmpp_2m", "heun", "lms2", "trig2", "trig3", "dpmpp_3m", "unipc2")

ONE_PASS = """
#include <stddef.h>
void first(float *restrict x, const float *restrict a, float p, float q, size_t n) {
  #pragma omp parallel for simd
  for (size_t i = 0; i < n; i++) x[i] = p * x[i] + q * a[i];
}
void second(float *restrict x, const float *restrict a, const float *restrict b,
            float p, float q, float r, size_t n) {
  #pragma omp parallel for simd
  for (size_t i = 0; i < n; i++) x[i] = p * x[i] + q * a[i] + r * b[i];
}
"""


def compiled() -> ctypes.CDLL | None:
    """The fused passes, or None without gcc."""
    if shutil.which("gcc") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "pass.c"), Path(folder, "pass.so")
        source.write_text(ONE_PASS)
        # no -ffast-math: loading such a library flushes subnormal numbers in the whole process
        flags = ["-O3", "-march=native", "-fopenmp", "-shared", "-fPIC"]
        subprocess.run(["gcc", *flags, "-o", library, source], check=True)
        return ctypes.CDLL(str(library))


def limits(x: Tensor, x0: Tensor, before: Tensor) -> dict[str, Task]:
    """Passes over memory: what no loop around a network can undercut."""
    state = x.clone()
    tasks: dict[str, Task] = {"torch: x.lerp_": lambda: state.lerp_(x0, 0.1)}
    library = compiled()
    if library is not None:
        size, numbers = ctypes.c_size_t(x.numel()), [ctypes.c_float(v) for v in (0.9, 0.2, -0.1)]
        x_at, x0_at, before_at = (ctypes.c_void_p(t.data_ptr()) for t in (state, x0, before))
        tasks["C: first order"] = lambda: library.first(x_at, x0_at, *numbers[:2], size)
        tasks["C: second order"] = lambda: library.second(x_at, x0_at, before_at, *numbers, size)
    return {name: _times(task, STEPS) for name, task in tasks.items()}


def _times(task: Task, count: int) -> Task:
    def run_it() -> None:
        for _ in range(count):
            task()

    return run_it


def our_loops(x: Tensor, x0: Tensor, names: tuple[str, ...]) -> dict[str, Task]:
    """Plans run again and again, and what planning costs."""

    def free(
        x_t: Tensor, level: Level, condition: Tensor | None = None, previous: Tensor | None = None
    ) -> Tensor:
        return x0

    def loop(plan: Plan) -> Task:
        return lambda: run(plan, free, x, seeds=seeds)

    def plan(name: str) -> Task:
        return lambda: prepare(Cosine(), name, STEPS)

    seeds = range(len(x))
    tasks = {f"diptych {name}": loop(prepare(Cosine(), name, STEPS)) for name in names}
    return tasks | {f"diptych {name}, set-up": plan(name) for name in names}


def their_loops(x: Tensor, x0: Tensor) -> dict[str, Task]:
    """diffusers, and k-diffusion where it is installed."""
    schedulers: dict[str, Any] = {
        "diffusers DDIM": DDIMScheduler(prediction_type="sample"),
        "diffusers Euler": EulerDiscreteScheduler(prediction_type="sample"),
        "diffusers Heun": HeunDiscreteScheduler(),
        "diffusers DPM++ 2M": DPMSolverMultistepScheduler(prediction_type="sample"),
        "diffusers UniPC": UniPCMultistepScheduler(prediction_type="sample"),
        "diffusers DDPM": DDPMScheduler(prediction_type="sample"),
    }
    tasks: dict[str, Task] = {}
    for name, scheduler in schedulers.items():
        tasks[name] = _scheduler_loop(scheduler, x, x0)
        tasks[f"{name}, set-up"] = lambda scheduler=scheduler: scheduler.set_timesteps(STEPS)
    sampling = k_sampling()
    if sampling is not None:
        sigmas = sampling.get_sigmas_karras(STEPS, 0.002, 80.0)
        for name in ("euler", "heun", "lms", "dpmpp_2m"):
            solve: Callable[..., Tensor] = getattr(sampling, f"sample_{name}")
            tasks[f"k-diffusion {name}"] = lambda solve=solve: solve(
                lambda x_t, sigma: x0, x, sigmas, disable=True
            )
    return tasks


def _scheduler_loop(scheduler: Any, x: Tensor, x0: Tensor) -> Task:
    def loop() -> None:
        scheduler.set_timesteps(STEPS)
        scheduler.is_scale_input_called = True  # their warning; the network takes any scale
        state = x
        for t in scheduler.timesteps:
            state = scheduler.step(x0, t, state).prev_sample

    return loop


def evaluations(name: str) -> int:
    """How often a loop asks its network: what it is measured by."""
    if name.startswith("diptych "):
        plan = prepare(Cosine(), name.removeprefix("diptych "), STEPS)
        nfe = plan.solver.nfe or 1
        return STEPS * nfe - (nfe - 1)
    return 2 * STEPS - 1 if name.lower().endswith("heun") else STEPS


def overhead(seconds: float, shape: tuple[int, ...], names: tuple[str, ...]) -> Table:
    """One table: a row a loop, in microseconds a network call and in passes."""
    generator = torch.Generator().manual_seed(0)
    x, x0, before = (torch.randn(shape, generator=generator) for _ in range(3))
    seeds = range(len(x))
    source = noise.Normals(seeds, shape[1:])
    draws: dict[str, Task] = {
        "noise: torch normal_": _times(lambda: x.clone().normal_(), STEPS),
        "noise: shared.noise": _times(lambda: source.draw(1), STEPS),
    }
    tasks = limits(x, x0, before) | our_loops(x, x0, names) | their_loops(x, x0) | draws
    with torch.no_grad():
        times = interleave(tasks, seconds)
    limit = "C: first order" if "C: first order" in times else "torch: x.lerp_"
    rows = [_row(name, times, limit) for name in times if not name.endswith("set-up")]
    return Table(
        f"A solver's step, state {' x '.join(map(str, shape))}",
        f"Microseconds a network call, {STEPS} steps, free network; passes: against '{limit}'; "
        "noise: against a draw of shared.noise; set-up: once a run, not in the other columns.",
        (
            Column("loop", "loop"),
            Column("us", "us a call, best", ",.1f"),
            Column("us_median", "median", ",.1f"),
            Column("passes", "passes", ".2f"),
            Column("draws", "x noise", ".2f"),
            Column("set_up_us", "set-up, us", ",.0f"),
        ),
        rows,
    )


def _row(name: str, times: Times, limit: str) -> dict[str, Any]:
    spent, calls = times[name], evaluations(name)
    set_up = times.get(f"{name}, set-up")
    # only diffusers' loops contain their set-up: a scheduler holds the state of one run
    inside = min(set_up) if set_up and name.startswith("diffusers") else 0.0
    best = (min(spent) - inside) / calls
    solver = SOLVERS.get(name.removeprefix("diptych "))
    noisy = (solver is not None and solver.stochastic) or name == "diffusers DDPM"
    draw = min(times["noise: shared.noise"]) / STEPS
    return {
        "loop": name,
        "rounds": len(spent),
        "us": 1e6 * best,
        "us_median": 1e6 * (median(spent) - inside) / calls,
        "passes": best / (min(times[limit]) / STEPS),
        "draws": best / draw if noisy else None,
        "set_up_us": 1e6 * min(set_up) if set_up else None,
    }


def main(
    seconds: float = 20.0,
    threads: int = 1,
    solvers: tuple[str, ...] = (*DIPTYCH, "ancestral"),
    json_file: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
    markdown: Path | None = None,
) -> None:
    """Measure the overhead of solver loops.

    Args:
        seconds: Time of each state's interleaved measurements.
        threads: Of torch and of the C pass; with one, CPU time is what counts.
        solvers: Names of ours, see shared.solver.SOLVERS.
        json_file: Write all numbers here.
        markdown: Write the tables here.
    """
    torch.set_num_threads(threads)
    console, about = Console(width=120), facts(seconds)
    sections = {"x".join(map(str, shape)): overhead(seconds, shape, solvers) for shape in SHAPES}
    ratios = summary([table.rows for table in sections.values()])
    tables = [goals(ratios), *sections.values()]
    for table in tables:
        table.show(console)
    if json_file is not None:
        rows = {name: table.rows for name, table in sections.items()}
        write_text(json_file, json.dumps({"about": about, "summary": ratios} | rows, indent=1))
    if markdown is not None:
        where = f"{about['machine']}; {about['threads']} thread(s), {about['clock']}; torch "
        where += f"{about['torch']}, diffusers {about['diffusers']}; commit {about['commit']}."
        head = "# What a solver's step costs\n\nWritten by `python -m benchmarks.solver --markdown "
        head += f"FILE`. {where}\n\n"
        write_text(markdown, head + "\n".join(table.markdown() for table in tables))


def goals(ratios: dict[str, float]) -> Table:
    """What the project aims at, and what was measured."""
    return Table(
        "Goals",
        "Geometric means over the states measured.",
        (Column("name", "ratio (goal)"), Column("value", "measured", ".2f")),
        [{"name": name, "value": value} for name, value in ratios.items()],
    )


def summary(sections: list[list[dict[str, Any]]]) -> dict[str, float]:
    """Geometric means over the states: the ratios of the project's goals."""

    def best(rows: list[dict[str, Any]], names: tuple[str, ...]) -> float:
        return min(row["us"] for row in rows if row["loop"] in names)

    firsts = ("diffusers DDIM", "diffusers Euler", "k-diffusion euler")
    seconds = ("diffusers DPM++ 2M", "diffusers Heun", "k-diffusion dpmpp_2m", "k-diffusion heun")
    found: dict[str, list[float]] = {}
    for rows in sections:
        ours = {row["loop"].removeprefix("diptych "): row for row in rows}
        for key, value in (
            ("first order, passes (goal 1.5)", ours["ddim"]["passes"]),
            ("second order, passes (goal 3)", ours["dpmpp_2m"]["passes"]),
            ("ancestral, draws of noise (goal 1.15)", ours["ancestral"]["draws"]),
            ("best first-order peer / ddim (goal 10)", best(rows, firsts) / ours["ddim"]["us"]),
            (
                "best second-order peer / dpmpp_2m (goal 5)",
                best(rows, seconds) / ours["dpmpp_2m"]["us"],
            ),
        ):
            found.setdefault(key, []).append(value)
    return {key: math.prod(values) ** (1 / len(values)) for key, values in found.items()}


if __name__ == "__main__":
    sys.exit(command(main))
