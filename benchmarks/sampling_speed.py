"""Sampling: what the loop adds to its network. Solvers without a network: `benchmarks.solver`."""

from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import Task, interleave, ratio
from benchmarks.recipe import Recipe
from benchmarks.tables import Column, Table
from shared import noise
from shared.drawing import draw
from shared.learner import DiffusionLearner
from shared.sampling import Sampling

BATCH, STEPS = 64, 20


@torch.no_grad()
def sampling(recipes: list[Recipe], seconds: float) -> Table:
    """`shared.drawing.draw` beside the same number of calls of its network alone."""
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
        f"{BATCH} samples, {STEPS} steps of dpmpp_2m, fp32: everything `shared.drawing.draw` "
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
