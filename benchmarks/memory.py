"""Peak memory of one recipe: `python -m benchmarks.memory image/digits` prints JSON.

A process of its own, because a peak never falls: a few steps of training with a checkpoint at their
end, then 64 samples through the panel, as the commands `diptych train` and `diptych sample` do.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import peak_memory_mib
from benchmarks.recipe import Recipe, prepare
from benchmarks.tables import Column, Table
from shared.provenance import ROOT
from shared.requests import SampleRequest
from shared.train.loop import train

STEPS, SAMPLES = 6, 64


def measure(name: str) -> dict[str, Any]:
    """MiB after imports, training and sampling of a recipe."""
    at_rest = peak_memory_mib()
    with tempfile.TemporaryDirectory() as folder:
        recipe = prepare(name, Path(folder) / "data")
        config, run = recipe.with_train(steps=STEPS, save_every=STEPS), Path(folder) / "run"
        train(config, run, recipe.panel, quiet=True)
        trained = peak_memory_mib()
        recipe.panel.sample(run, SampleRequest(n=SAMPLES), run / "samples")
    return {"imports": at_rest, "training": trained, "sampling": peak_memory_mib()}


def memory(recipes: list[Recipe], _: float) -> Table:
    """Peak memory of training and sampling, a process per recipe."""
    rows: list[dict[str, Any]] = []
    for recipe in recipes:
        command = [sys.executable, "-m", "benchmarks.memory", recipe.name]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True)
        rows.append({"recipe": recipe.name} | json.loads(done.stdout.splitlines()[-1]))
    return Table(
        "Peak memory",
        "MiB resident in a process that trains a few steps, saves, and draws 64 samples. Goal of "
        "the demo: at most 3,072.",
        (
            Column("recipe", "recipe"),
            Column("imports", "imports alone", ",.0f"),
            Column("training", "after training", ",.0f"),
            Column("sampling", "after sampling", ",.0f"),
        ),
        rows,
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(measure(sys.argv[1])))
