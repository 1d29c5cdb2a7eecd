"""What drawing costs in several runs, of pixels or latents: `python -m benchmarks.drawing RUNS`.

All runs draw as many pictures in as many steps, in turn, so that what else the machine does falls
on all alike. What is timed is the whole of `Pipeline.__call__`: the network, the solver, and the
decoder of latents, also by itself.
"""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from benchmarks.command import command
from benchmarks.measure import Task, facts, interleave, ratio
from benchmarks.recipe import parameters
from benchmarks.tables import Column, Table
from image.pipeline import Pipeline
from shared.errors import ConfigError
from shared.learner import DiffusionLearner
from shared.runs import open_run


def run(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional],
    n: int = 64,
    steps: int = 20,
    seconds: float = 60.0,
    json_file: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
) -> None:
    """Time runs of pictures beside each other.

    Args:
        runs: Trained runs; the others are held against the first.
        n: Pictures, drawn together.
        steps: Of dpmpp_2m, unguided.
        seconds: Time for all of them, five rounds at least.
        json_file: Write everything here.
    """
    if not runs or min(n, steps) < 1:
        raise ConfigError(f"runs = {len(runs)}, n = {n}, steps = {steps}: expected 1 or more each")
    configs = [open_run(folder).config for folder in runs]
    pipelines = [Pipeline.from_pretrained(folder) for folder in runs]
    about = facts(seconds) | {"n": n, "steps": steps}
    tasks: dict[str, Task] = {}
    for i, pipeline in enumerate(pipelines):
        labels = "all" if pipeline.facts.classes else None
        x0 = torch.zeros(n, *_learner(pipeline).codec.latent_shape)
        tasks[f"all {i}"] = partial(pipeline, labels, num_inference_steps=steps, seeds=range(n))
        tasks[f"decoder {i}"] = partial(pipeline.decode, x0)
    times = interleave(tasks, seconds)
    rows: list[dict[str, Any]] = []
    for i, (folder, config, pipeline) in enumerate(zip(runs, configs, pipelines, strict=True)):
        least, typical = ratio(times[f"all {i}"], times["all 0"])
        learner = _learner(pipeline)
        rows.append(
            {
                "run": folder.name,
                "codec": config.codec.kind,
                "latents": " x ".join(map(str, learner.codec.latent_shape)),
                "parameters": parameters(learner),
                "seconds": min(times[f"all {i}"]),
                "decoder_seconds": min(times[f"decoder {i}"]),
                "over_first": least,
                "over_first_median": typical,
            }
        )
    table = Table(
        f"{n} pictures in {steps} steps",
        f"dpmpp_2m, unguided, fp32, drawn together, {about['threads']} thread(s), "
        f"{about['clock']}; the least of {len(times['all 0'])} rounds, in turn.",
        (
            Column("run", "run"),
            Column("codec", "codec"),
            Column("latents", "latents"),
            Column("parameters", "parameters", ",d"),
            Column("seconds", "s", ".2f"),
            Column("decoder_seconds", "of them the decoder", ".2f"),
            Column("over_first", "over the first", ".3f"),
            Column("over_first_median", "(median)", ".3f"),
        ),
        rows,
    )
    table.publish(json_file, about)


def _learner(pipeline: Pipeline) -> DiffusionLearner:
    learner = pipeline.learner
    assert isinstance(learner, DiffusionLearner)  # of a run
    return learner


if __name__ == "__main__":
    sys.exit(command(run))
