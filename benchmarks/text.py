"""Ways to write sentences at equal parameters and equal training: `python -m benchmarks.text`.

Embeddings (of padded sentences, and told lengths), analog bits, Diffusion-LM's own objective and
the autoregressive reference are trained on the same sentences for the same processor time, each
with as many steps as fit, or for the same number of steps, then measured under one judge.
Perplexity stands beside the entropy of words, since either alone can be had for the other. Speed is
measured in turn, so that what else the machine does falls on all alike.
"""

import dataclasses
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import tyro

from benchmarks.command import command
from benchmarks.measure import ROUNDS, facts, now
from benchmarks.recipe import parameters
from benchmarks.tables import Column, Table
from shared.configs import load_config
from shared.files import write_text
from shared.requests import EvaluateRequest
from shared.runs import begin, open_run, read_config
from shared.train.engine import set_up
from shared.train.loop import Trainer, train
from text.evaluation import evaluate
from text.panel import PANEL
from text.pipeline import Pipeline

TIMED = 100  # sentences of one timing
WARM = 3  # steps before any is timed


@dataclass(frozen=True)
class Method:
    """What is laid over the base configuration, and how its sentences are drawn."""

    overrides: tuple[str, ...]
    draws: tuple[dict[str, Any], ...]


ADAMW = ("train.optimizer=adamw", "train.lr=2e-3")
DIFFUSION_LM = (
    "codec.unit_norm=false", "diffusion.schedule=sqrt", "diffusion.end_to_end=2000",
    "diffusion.prediction=x0", "diffusion.weighting=x0", "diffusion.self_condition=false",
    "diffusion.fit_density=false", "net.dropout=0.1",
)  # fmt: skip
EMBEDDING = (
    {"solver": "ancestral", "steps": 128, "td": 1.25},
    {"solver": "ancestral", "steps": 50, "td": 1.0},
    {"solver": "dpmpp_2m", "steps": 20},
)
METHODS = {
    "embedding": Method((), EMBEDDING),
    "told lengths": Method(("codec.explicit_length=true",), EMBEDDING),
    "bits": Method(
        ("codec.kind=bits", "diffusion.evidence=true"),
        ({"solver": "ancestral", "steps": 128, "td": 1.25}, {"solver": "dpmpp_2m", "steps": 20}),
    ),
    "Diffusion-LM": Method(
        (*ADAMW, *DIFFUSION_LM),
        (
            {"solver": "ancestral_large", "steps": 2000, "clamp": True},
            {"solver": "ancestral_large", "steps": 200, "clamp": True},
        ),
    ),
    "autoregressive": Method((*ADAMW, "model=causal"), ({}, {"temperature": 0.9})),
}


def run(
    out: Annotated[Path, tyro.conf.Positional],
    base: str = "text/scene",
    seconds: float = 300.0,
    steps: int | None = None,
    n: int = 512,
    batch: int = 64,
    methods: tuple[str, ...] = tuple(METHODS),
    overrides: tuple[str, ...] = (),
    json_file: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
    markdown: Path | None = None,
) -> None:
    """Train every method for the same time or number of steps, then measure and time it.

    Args:
        out: Folder of the runs; those that are there are gone on with, or taken as they are.
        base: The configuration that gives data, network and optimizer.
        seconds: Of training, in processor time.
        steps: Of training, in place of seconds.
        n: Sentences that are measured.
        batch: Sentences drawn at a time.
        methods: Which of them.
        overrides: key=value for all methods.
        json_file: Write everything here.
        markdown: Write the table here.
    """
    for name in methods:
        _train(out / name, base, (*METHODS[name].overrides, *overrides), seconds, steps)
    rows = [row for name in methods for row in _measured(name, out / name, n, batch)]
    _time(rows, out)
    training = f"{seconds:g} s" if steps is None else f"{steps:,} steps"
    table = _table(rows, base, n, training)
    about = facts() | {"base": base, "n": n, "training": training}
    table.publish(json_file, about)
    if markdown is not None:
        told = ", ".join(f"{key} {value}" for key, value in about.items())
        head = "# Ways to write\n\nWritten by `python -m benchmarks.text`. "
        write_text(markdown, f"{head}{told}.\n\n{table.markdown()}")


def _train(
    folder: Path, base: str, overrides: Sequence[str], seconds: float, steps: int | None
) -> None:
    """Train for `steps`, or else for about `seconds`; or go on with what is there."""
    if (folder / "config.yaml").is_file():
        config = open_run(folder).config
    else:
        config = load_config(base, overrides)[2]
        if steps is None:
            trial = folder.with_name(f"{folder.name}-trial")
            steps = max(1, int(seconds / _step_seconds(config, trial)))
        config = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=steps))
    train(config, folder, PANEL)


def _step_seconds(config: Any, folder: Path) -> float:
    """The median time of a training step."""
    begin(config, folder, PANEL)
    config = read_config(folder, PANEL)
    PANEL.prepare(config, folder)
    torch.manual_seed(config.train.seed)
    learner, examples = PANEL.learner(config, folder), PANEL.examples(config, folder)
    trainer = Trainer(config.train, folder, learner, examples, set_up(), 0, None, quiet=True)
    times: list[float] = []
    for _ in range(WARM + 5 * ROUNDS):
        began = now()
        trainer.update()
        times.append(now() - began)
    trainer.engine.close()
    return median(times[WARM:])


def _measured(name: str, folder: Path, n: int, batch: int) -> list[dict[str, Any]]:
    """A row for each way to draw sentences from a run."""
    found = open_run(folder)
    learner = Pipeline.from_pretrained(folder).learner
    bounded = not found.config.codec.explicit_length  # which leaves out what a length costs
    rows: list[dict[str, Any]] = []
    for i, draw in enumerate(METHODS[name].draws):
        request = EvaluateRequest(n=n, batch=batch, likelihood=bounded and i == 0, **draw)
        result = evaluate(found, request, PANEL)
        row = {
            "method": name,
            "draw": draw,
            "how": ", ".join(f"{key} {value}" for key, value in draw.items()) or "left to right",
            "parameters": parameters(learner),
            "train_steps": found.config.train.steps,
            "evaluations": draw.get("steps", result["tokens_mean"] + 1),
            "nats_per_token": result.get("likelihood", {}).get("nats_per_token"),
        }
        rows.append(row | {key: value for key, value in result.items() if key != "provenance"})
    return rows


def _time(rows: list[dict[str, Any]], out: Path) -> None:
    """Seconds of TIMED sentences, the better of two rounds in which all rows take turns."""
    pipelines = [Pipeline.from_pretrained(out / row["method"]) for row in rows]
    for row in [*rows, *rows]:
        request = EvaluateRequest(n=TIMED, batch=TIMED, **row["draw"])
        began = now()
        pipelines[rows.index(row)].write(request.seeds, request)
        row["seconds"] = min(now() - began, row.get("seconds", math.inf))
        row["tokens_per_s"] = TIMED * row["tokens_mean"] / row["seconds"]


def _table(rows: list[dict[str, Any]], base: str, n: int, training: str) -> Table:
    where = "a GPU" if torch.cuda.is_available() else "one thread"
    one = rows[0]
    return Table(
        f"Sentences of {base} after {training} of training each",
        f"{n} sentences, seeds 0 to {n - 1}, fp32. Held-out sentences have perplexity "
        f"{one['perplexity_held_out']:.2f}, entropy {one['unigram_entropy_data']:.3f} nats, "
        f"{one['tokens_mean_held_out']:.1f} tokens, and MAUVE {one['mauve_held_out']:.3f} beside "
        f"other ones. The bound on -log p is of {n} held-out "
        "sentences: exact for the autoregressive model, an upper bound for the others. Seconds for "
        f"{TIMED} sentences, drawn together, on {where}.",
        (
            Column("method", "method"),
            Column("how", "drawn by"),
            Column("parameters", "parameters", ",d"),
            Column("train_steps", "steps trained", ",d"),
            Column("perplexity", "perplexity", ".2f"),
            Column("unigram_entropy", "entropy", ".3f"),
            Column("tokens_mean", "tokens", ".1f"),
            Column("mauve", "MAUVE", ".3f"),
            Column("distinct_sentences", "distinct", ".1%"),
            Column("training_copies", "copies", ".1%"),
            Column("grammatical", "grammatical", ".1%"),
            Column("nats_per_token", "nats a token", ".3f"),
            Column("evaluations", "evaluations", ".0f"),
            Column("seconds", f"s for {TIMED}", ".2f"),
            Column("tokens_per_s", "tokens/s", ",.0f"),
        ),
        rows,
    )


if __name__ == "__main__":
    sys.exit(command(run))
