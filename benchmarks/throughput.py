"""Speed and memory of both panels: `python -m benchmarks.throughput`, or `make bench`.

Training against the speed of matrix products on the same machine, DeepSpeed against a bare loop,
the sampling loop against its network, memory against the limit. Recipes whose data is not there
are skipped, and said to be.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from rich.console import Console

from benchmarks.command import command
from benchmarks.measure import facts
from benchmarks.memory import memory
from benchmarks.recipe import Recipe, prepare
from benchmarks.sampling_speed import sampling
from benchmarks.tables import Table
from benchmarks.training_speed import engine, training
from benchmarks.unet_speed import unet
from shared.errors import DiptychError
from shared.files import write_text
from shared.train.engine import set_up

RECIPES = ("image/digits", "image/fashion_mnist", "text/scene", "text/e2e")

PARTS = {
    "training": training,
    "engine": engine,
    "sampling": sampling,
    "memory": memory,
    "unet": unet,
}
USUAL = ("training", "engine", "sampling", "memory")  # the rest on request: of recipes of its own


def run(
    recipes: tuple[str, ...] = RECIPES,
    parts: tuple[str, ...] = USUAL,
    seconds: float = 8.0,
    threads: int = 1,
    json_file: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
    markdown: Path | None = None,
) -> None:
    """Measure speed and memory.

    Args:
        recipes: Packaged configurations.
        parts: training, engine, sampling, memory; unet, of recipes with a U-Net.
        seconds: Time of each group of interleaved measurements.
        threads: Of torch; with one, CPU time is what counts.
        json_file: Write all numbers here.
        markdown: Write the tables here.
    """
    console = Console()
    torch.set_num_threads(threads)
    set_up()
    about, began = facts(seconds), time.monotonic()
    tables: list[Table] = []
    with tempfile.TemporaryDirectory() as folder:
        ready, skipped = _prepare(recipes, Path(folder))
        for part in parts:
            tables.append(PARTS[part](ready, seconds))
            tables[-1].show(console)
    about |= {"skipped": skipped, "seconds": round(time.monotonic() - began)}
    for name, why in skipped.items():
        console.print(f"skipped {name}: {why}", highlight=False)
    console.print(_about(about), highlight=False)
    if json_file is not None:
        sections = {part: table.rows for part, table in zip(parts, tables, strict=True)}
        write_text(json_file, json.dumps({"about": about} | sections, indent=1))
    if markdown is not None:
        write_text(markdown, _page(tables, about))


def _prepare(names: tuple[str, ...], folder: Path) -> tuple[list[Recipe], dict[str, str]]:
    ready: list[Recipe] = []
    skipped: dict[str, str] = {}
    for i, name in enumerate(names):
        try:
            ready.append(prepare(name, folder / str(i)))
        except DiptychError as error:
            skipped[name] = str(error)
    return ready, skipped


def _about(about: dict[str, Any]) -> str:
    return (
        f"{about['machine']}; {about['threads']} thread(s), {about['clock']}; load average "
        f"{about['load_average_at_start']} at the start (the machine is not ours alone: read "
        f"ratios); torch {about['torch']}, deepspeed {about['deepspeed']}, diffusers "
        f"{about['diffusers']}, Python {about['python']}; commit {about['commit']}, "
        f"{about['date']}."
    )


def _page(tables: list[Table], about: dict[str, Any]) -> str:
    head = [
        "# Speed and memory",
        "",
        "Written by `python -m benchmarks.throughput --markdown FILE`; `make bench` prints the "
        "same. With DIPTYCH_DATA set, all recipes are measured.",
        "",
        _about(about),
        "",
        *(f"Skipped: {name} ({why})." for name, why in about["skipped"].items()),
    ]
    return "\n".join(head) + "\n\n" + "\n".join(table.markdown() for table in tables)


if __name__ == "__main__":
    sys.exit(command(run))
