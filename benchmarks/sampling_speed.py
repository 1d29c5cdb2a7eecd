"""Sampling: what the loop adds to its network, and the solvers alone beside those of diffusers."""

from statistics import median
from typing import Any

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from torch import Tensor

from benchmarks.measure import Task, interleave, ratio
from benchmarks.recipe import Recipe
from benchmarks.tables import Column, Table
from shared import noise
from shared.learner import DiffusionLearner
from shared.sampling import Sampling, draw
from shared.schedule import Cosine, Level
from shared.solver import sample

SOLVERS = ("ddim", "dpmpp_2m", "ancestral")
BATCH, STEPS = 64, 20
FREE_STEPS, FREE_SHAPE = 50, (64, 3, 32, 32)


@torch.no_grad()
def sampling(recipes: list[Recipe], seconds: float) -> Table:
    """`shared.sampling.draw` beside the same number of calls of its network alone."""
    rows: list[dict[str, Any]] = []
    for recipe in recipes:
        learner = recipe.learner(recipe.with_train(precision="fp32")).eval()  # as the pipelines do
        condition = recipe.examples.take(torch.arange(BATCH))[1]
        times = interleave(_sampling_tasks(learner, condition), seconds)
        over_network = ratio(times["loop"], times["network"])
        over_denoiser = ratio(times["loop"], times["denoiser"])
        rows.append(
            {
                "recipe": recipe.name,
                "batch": BATCH,
                "steps": STEPS,
                "rounds": len(times["loop"]),
                "samples_per_s": BATCH / min(times["loop"]),
                "network_ms": 1e3 * min(times["network"]) / STEPS,
                "loop_ms": 1e3 * min(times["loop"]) / STEPS,
                "over_network": over_network[0] - 1,
                "over_network_median": over_network[1] - 1,
                "over_denoiser": over_denoiser[0] - 1,
            }
        )
    return Table(
        "Sampling",
        f"{BATCH} samples, {STEPS} steps of dpmpp_2m, fp32: everything `shared.sampling.draw` "
        "does, beside as many calls of the network alone (goal: at most 5 % more), and beside the "
        "denoiser, which adds scaling and the prediction's or codec's way to x0.",
        (
            Column("recipe", "recipe"),
            Column("samples_per_s", "samples/s", ",.0f"),
            Column("network_ms", "network, ms a call", ".2f"),
            Column("loop_ms", "all, ms a step", ".2f"),
            Column("over_network", "over the network", ".1%"),
            Column("over_network_median", "(median)", ".1%"),
            Column("over_denoiser", "over the denoiser", ".1%"),
        ),
        rows,
    )


def _sampling_tasks(learner: DiffusionLearner, condition: Tensor | None) -> dict[str, Task]:
    seeds = list(range(BATCH))
    x = noise.normal(seeds, 0, learner.codec.latent_shape)
    previous = torch.zeros_like(x) if learner.denoiser.self_condition else None
    level = learner.schedule(torch.tensor(0.5))
    logsnr = level.logsnr.expand(BATCH)

    def network() -> None:
        for _ in range(STEPS):
            learner.denoiser.net(x, logsnr, condition, previous)

    def denoiser() -> None:
        for _ in range(STEPS):
            learner.denoiser(x, level, condition, previous)

    return {
        "loop": lambda: draw(learner, seeds, Sampling(steps=STEPS), condition, progress=False),
        "network": network,
        "denoiser": denoiser,
    }


@torch.no_grad()
def solvers(_: list[Recipe], seconds: float) -> Table:
    """The loops alone: the network is a tensor that is there already."""
    x, x0_hat = torch.randn(FREE_SHAPE), torch.randn(FREE_SHAPE)
    seeds = list(range(len(x)))

    def free(
        x_t: Tensor, level: Level, condition: Tensor | None = None, previous: Tensor | None = None
    ) -> Tensor:
        return x0_hat

    def ours(solver: str) -> Task:
        return lambda: sample(free, x, Cosine(), solver, FREE_STEPS, seeds=seeds)

    def theirs(scheduler: Any) -> Task:
        def run() -> None:
            scheduler.set_timesteps(FREE_STEPS)
            state = x
            for t in scheduler.timesteps:
                state = scheduler.step(x0_hat, t, state).prev_sample

        return run

    state = x.clone()

    def each(act: Task) -> Task:
        def run() -> None:
            for _ in range(FREE_STEPS):
                act()

        return run

    tasks: dict[str, Task] = {
        "one pass: lerp_": each(lambda: state.lerp_(x0_hat, 0.1)),
        "two passes: mul_, add_": each(lambda: state.mul_(0.9).add_(x0_hat, alpha=0.1)),
        **{f"diptych {solver}": ours(solver) for solver in SOLVERS},
        "diffusers DDIM": theirs(DDIMScheduler(prediction_type="sample")),
        "diffusers DPM++ 2M": theirs(DPMSolverMultistepScheduler(prediction_type="sample")),
        "torch.randn alone": each(lambda: torch.randn(FREE_SHAPE)),
        "shared.noise.normal alone": each(lambda: noise.normal(seeds, 1, FREE_SHAPE[1:])),
    }
    times = interleave(tasks, seconds)
    limit = min(times["one pass: lerp_"])
    rows = [
        {
            "loop": name,
            "rounds": len(spent),
            "us": 1e6 * min(spent) / FREE_STEPS,
            "us_median": 1e6 * median(spent) / FREE_STEPS,
            "passes": min(spent) / limit,
            "ns_per_value": 1e9 * min(spent) / FREE_STEPS / x.numel(),
        }
        for name, spent in times.items()
    ]
    return Table(
        "Solver loops with a free network",
        f"State {' x '.join(map(str, FREE_SHAPE))}, {FREE_STEPS} steps; in passes over memory as "
        "torch makes one. A real network call takes thousands of these microseconds.",
        (
            Column("loop", "loop"),
            Column("us", "us a step, best", ",.1f"),
            Column("us_median", "median", ",.1f"),
            Column("passes", "x one pass", ".1f"),
            Column("ns_per_value", "ns a value", ".2f"),
        ),
        rows,
    )
