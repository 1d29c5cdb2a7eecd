"""Training: its speed as a share of the hardware's, and what the engine costs."""

from statistics import median
from typing import Any

import torch

from benchmarks.bare import Bare
from benchmarks.measure import Task, flops, gemm_speed, gemm_tasks, interleave, ratio
from benchmarks.recipe import Recipe, parameters, tokens
from benchmarks.tables import Column, Table

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
STAGES = (0, 1, 2)
CHECKED = 5  # steps whose losses must agree between the engine and the bare loop


def training(recipes: list[Recipe], seconds: float) -> Table:
    """Whole training steps in both precisions, between matrix products of the same type."""
    rows: list[dict[str, Any]] = []
    for recipe in recipes:
        for precision, dtype in PRECISIONS.items():
            work = flops(Bare(*_parts(recipe, precision)).update)
            trainer = recipe.trainer(precision=precision, zero_stage=0)
            learner = recipe.learner(recipe.config)
            times = interleave({"step": trainer.update} | gemm_tasks(dtype), seconds)
            trainer.engine.close()
            batch, best, middle = trainer.config.batch, min(times["step"]), median(times["step"])
            rows.append(
                {
                    "recipe": recipe.name,
                    "precision": precision,
                    "optimizer": trainer.config.optimizer,
                    "examples": len(recipe.examples),
                    "seed": trainer.config.seed,
                    "parameters": parameters(learner),
                    "batch": batch,
                    "tokens": tokens(learner),
                    "gflop": work / 1e9,
                    "steps_timed": len(times["step"]),
                    "samples_per_s": batch / best,
                    "samples_per_s_median": batch / middle,
                    "tokens_per_s": batch * tokens(learner) / best,
                    "gemm_gflops": gemm_speed(times) / 1e9,
                    "share": work / best / gemm_speed(times),
                    "share_median": work / middle / gemm_speed(times, median),
                }
            )
    return Table(
        "Training",
        "Whole steps under DeepSpeed (ZeRO 0): data, noise, the first pass of self-conditioning, "
        "loss, backward pass, clipping, optimizer, moving average. The share is of the fastest "
        "matrix product of the same type, timed between the steps; FLOPs are those of matrix "
        "products and attention. Best of the steps timed; in brackets the share at the median.",
        (
            Column("recipe", "recipe"),
            Column("precision", "precision"),
            Column("optimizer", "optimizer"),
            Column("parameters", "parameters", ",d"),
            Column("batch", "batch"),
            Column("tokens", "tokens a sample"),
            Column("gflop", "GFLOP a step", ".1f"),
            Column("samples_per_s", "samples/s", ",.0f"),
            Column("tokens_per_s", "tokens/s", ",.0f"),
            Column("gemm_gflops", "GEMM GFLOP/s", ".0f"),
            Column("share", "share of GEMM", ".0%"),
            Column("share_median", "(median)", ".0%"),
        ),
        rows,
    )


def _parts(recipe: Recipe, precision: str) -> tuple[Any, Any, Any]:
    config = recipe.with_train(precision=precision)
    return config.train, recipe.learner(config), recipe.examples


def engine(recipes: list[Recipe], seconds: float) -> Table:
    """The suite's training step at ZeRO 0, 1 and 2 beside the bare loop, in one process."""
    rows: list[dict[str, Any]] = []
    for recipe in recipes:
        precision = recipe.config.train.precision
        config = recipe.with_train(optimizer="adamw")  # the only one that every stage takes
        bare = Bare(config.train, recipe.learner(config), recipe.examples)
        trainers = {s: recipe.trainer(optimizer="adamw", zero_stage=s) for s in STAGES}
        expected = [bare.update() for _ in range(CHECKED)]
        apart = {
            stage: max(abs(trainer.update()[0] - loss) for loss in expected)
            for stage, trainer in trainers.items()
        }
        tasks: dict[str, Task] = {"bare": bare.update}
        tasks |= {f"ZeRO {stage}": trainer.update for stage, trainer in trainers.items()}
        times = interleave(tasks, seconds)
        for trainer in trainers.values():
            trainer.engine.close()
        for name, spent in times.items():
            least, middle = ratio(spent, times["bare"])
            rows.append(
                {
                    "recipe": recipe.name,
                    "precision": precision,
                    "seed": recipe.config.train.seed,
                    "loop": name,
                    "rounds": len(spent),
                    "ms": 1e3 * min(spent),
                    "ms_median": 1e3 * median(spent),
                    "ratio": least,
                    "ratio_median": middle,
                    "loss_apart": None if name == "bare" else apart[int(name.split()[1])],
                }
            )
    return Table(
        "DeepSpeed beside a bare loop",
        "AdamW, one process, interleaved; the bare loop computes the same in plain PyTorch "
        f"(`benchmarks/bare.py`). Goal: at most 1.10 at ZeRO 0. Last column: the largest "
        f"difference between the losses of the first {CHECKED} steps.",
        (
            Column("recipe", "recipe"),
            Column("precision", "precision"),
            Column("loop", "loop"),
            Column("ms", "ms a step, best", ".1f"),
            Column("ms_median", "median", ".1f"),
            Column("ratio", "ratio of best", ".2f"),
            Column("ratio_median", "median ratio", ".2f"),
            Column("loss_apart", "losses apart", ".0e"),
        ),
        rows,
    )
