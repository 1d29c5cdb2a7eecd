"""Controlled sentences of real text: `python -m benchmarks.e2e_controls RUN`.

The targets are those of Diffusion-LM (Li et al. 2022, table 2) and of length 10 to 40. They are
split in two by a hash of what they ask: on one half the control scale and the temperature are
chosen, for each kind of control by itself, and only then the other half is sampled, all with the
same number of evaluations for each sentence drawn. Of spans several are, `candidates` at most,
until one has the span in the parse of what learned from the same half of the tagged sentences as
the guide, and nothing from those of the judge. Chosen is what satisfies most among the settings
whose sentences are at most `CLOSE` nats per token worse under the judge than ones without control;
where none is that close, the closest.
"""

import hashlib
import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from benchmarks.command import command
from benchmarks.controls import sentences
from benchmarks.tables import Column, Table
from shared.files import write_text
from shared.provenance import provenance
from shared.requests import ControlRequest
from shared.runs import open_run
from shared.schema import one_of
from shared.tables import expand
from text.control.controls import Control
from text.control.evaluation import satisfy, without_control
from text.control.targets import Target, read_targets
from text.control.world import World, asked, find_world
from text.panel import PANEL
from text.pipeline import Pipeline
from text.yardstick import Yardstick, find_yardstick

CLOSE = 0.5  # nats per token
SHOWN = 20  # sentences of each kind on the page
LENGTHS = range(10, 41)  # tokens with the end, which the original places at length - 1
FILES = {
    "semantic content": "target_attribute",
    "parts of speech": "target_pos",
    "syntax spans": "target_spans",
    "parts of speech and content": "target_compose_pos_attr",
}
KINDS = (*FILES, "length")
REREAD = ("syntax spans",)  # kinds whose automaton accepts more than what is asked for
# success in per cent (Li et al. 2022, table 2), with 200 steps of 3 inner updates
PUBLISHED = {
    "semantic content": 81.2,
    "parts of speech": 90.0,
    "syntax spans": 93.8,
    "length": 99.9,
}


@dataclass(frozen=True)
class Setup:
    """What all kinds of controls are measured with."""

    pipeline: Pipeline
    world: World
    yardstick: Yardstick
    free: float  # nats per token of sentences without control
    request: ControlRequest
    candidates: int


def targets(kind: str, folder: Path) -> list[Target]:
    """All targets of a kind."""
    if kind == "length":
        return [Target((Control("length", str(length - 1)),)) for length in LENGTHS]
    return read_targets(folder / f"{FILES[kind]}.jsonl.gz")


def is_test(target: Target) -> bool:
    """Whether a target is of the half that is measured, by a hash of what it asks."""
    asked = "\n".join(f"{control.name}={control.value}" for control in target.controls)
    return hashlib.sha256(asked.encode()).digest()[0] % 2 == 1


def choose(tried: Sequence[dict[str, Any]], free: float) -> dict[str, Any]:
    """Of settings with "satisfied" and "lm_score" the one that the module's text says."""
    close = [row for row in tried if row["lm_score"] <= free + CLOSE]
    if not close:
        return min(tried, key=lambda row: row["lm_score"])
    return max(close, key=lambda row: (row["satisfied"], -row["lm_score"]))


def run(
    run: Annotated[Path, tyro.conf.Positional],
    folder: str = "$DIPTYCH_DATA/diffusion_lm_control",
    n: int = 10,
    steps: int = 25,
    td: float = 1.0,
    scale: tuple[float, ...] = (1.0, 1.5, 2.5),
    temperature: tuple[float, ...] = (1.0, 0.8),
    tuned: int = 40,
    limit: int | None = None,
    kinds: tuple[str, ...] = KINDS,
    free: int = 256,
    candidates: int = 4,
    json_file: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
    markdown: Path | None = None,
) -> None:
    """Measure controls on a run of text/e2e.

    Args:
        run: A trained run of text/e2e.
        folder: The target files of Diffusion-LM.
        n: Sentences of each target.
        steps: Of the ancestral solver: each one evaluation of the network and one backward pass.
        td: Asymmetric intervals, as in `diptych sample`.
        scale: Control scales to choose from.
        temperature: Temperatures to choose from.
        tuned: Targets of the choosing half that each setting is tried on, one sentence each.
        limit: Targets of the measured half, of each kind (default: all).
        kinds: What to measure.
        free: Sentences without control that the lm-score is held against.
        candidates: Drawn at most for each sentence of the kinds in REREAD, until what guides it
            (never its judge) reads in it what is asked for.
        json_file: Write everything here.
        markdown: Write the table and some sentences here.
    """
    for kind in kinds:
        one_of("kinds", kind, KINDS)
    where = Path(expand(folder))
    pipeline = Pipeline.from_pretrained(run)
    world = find_world(pipeline.config.data.name, pipeline.tokenizer, where)
    yardstick = find_yardstick(open_run(run), PANEL)
    request = ControlRequest(n=1, steps=steps, td=td)
    drawn = without_control(pipeline, request, free)
    nats = yardstick.nats_per_token(drawn)
    setup = Setup(pipeline, world, yardstick, nats, request, candidates)
    grid = list(itertools.product(scale, temperature))
    rows: list[dict[str, Any]] = []
    shown: dict[str, list[tuple[str, str]]] = {}
    for kind in kinds:
        row, shown[kind] = _measured(setup, kind, targets(kind, where), grid, tuned, n, limit)
        rows.append(row)
    table = _table(rows, setup, n, tuned, run.name)
    about = {
        "judge": world.about(asked([target for kind in kinds for target in targets(kind, where)])),
        "lm": yardstick.judge.facts,
        "provenance": provenance(),
    }
    table.publish(json_file, about)
    if markdown is not None:
        write_text(markdown, _page(table, shown, about))


def _measured(
    setup: Setup,
    kind: str,
    found: Sequence[Target],
    grid: Sequence[tuple[float, float]],
    tuned: int,
    n: int,
    limit: int | None,
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """The row of a kind of control, and what was asked and said."""
    if kind in REREAD:
        setup = replace(setup, request=replace(setup.request, candidates=setup.candidates))
    choosing = [target for target in found if not is_test(target)][:tuned]
    testing = [target for target in found if is_test(target)][:limit]
    tried = [_one(setup, choosing, 1, *setting)[0] for setting in grid]
    best = choose(tried, setup.free)
    row, result = _one(setup, testing, n, best["control_scale"], best["temperature"])
    gold = [" ".join(target.words) for target in testing if target.words]
    pairs = [
        (", ".join(target["controls"]), text)
        for target in result["targets"]
        for text in target["texts"][:1]
    ]
    row |= {
        "control": kind,
        "published": PUBLISHED.get(kind),
        "targets": len(testing),
        "chosen_on": len(choosing),
        "tried": tried,
        "lm_score_free": setup.free,
        "lm_score_gold": setup.yardstick.nats_per_token(gold)
        if gold
        else setup.yardstick.nats_per_token_held_out,
        "impossible": result["missed"],
    }
    return row, pairs[:SHOWN]


def _one(
    setup: Setup, found: Sequence[Target], n: int, scale: float, temperature: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    """One setting on some targets: the numbers, and all of it."""
    request = replace(setup.request, n=n, control_scale=scale, temperature=temperature)
    result = satisfy(setup.pipeline, setup.world, found, request)
    texts = [text for target in result["targets"] for text in target["texts"]]
    success = result["success"]
    row = {
        "control_scale": scale,
        "temperature": temperature,
        "satisfied": sum(success.values()) / len(success),
        "success": success,
        "to_the_letter": result["all"],
        "lm_score": setup.yardstick.nats_per_token(texts),
        "candidates": request.candidates,
        "forward": result["evaluations"]["forward"],
        "backward": result["evaluations"]["backward"],
        "distinct": result["distinct"],
        "seconds": result["seconds"],
        "seconds_per_target": result["seconds_per_target"],
    }
    return row, result


def _table(rows: list[dict[str, Any]], setup: Setup, n: int, tuned: int, run: str) -> Table:
    shown = [row | {"percent": 100 * row["satisfied"]} for row in rows]
    note = (
        f"{n} sentences of each target (seeds from 0) of the half of targets that settings were "
        f"not chosen on, run {run}, ancestral with {setup.request.steps} steps, td = "
        f"{setup.request.td:g}, fp32; control scale and temperature chosen on up to {tuned} "
        "targets of the other half. Satisfied: as the paper counts (parts of speech: share of "
        "places; length: within 2 words; composed: mean of both). lm-score: nats per token under "
        "the causal judge of the data."
    )
    return Table(
        "Controlled sentences of E2E",
        note,
        (
            Column("control", "control"),
            Column("targets", "targets"),
            Column("percent", "satisfied, %", ".1f"),
            Column("published", "Diffusion-LM (2022), %", ".1f"),
            Column("to_the_letter", "all of it, exactly", ".1%"),
            Column("lm_score", "lm-score", ".2f"),
            Column("lm_score_free", "without control", ".2f"),
            Column("lm_score_gold", "of the data", ".2f"),
            Column("candidates", "candidates, at most"),
            Column("forward", "evaluations", ".0f"),
            Column("backward", "backward passes", ".0f"),
            Column("control_scale", "control scale", "g"),
            Column("temperature", "temperature", "g"),
            Column("distinct", "distinct", ".1%"),
            Column("seconds_per_target", "seconds a target", ".2f"),
        ),
        shown,
    )


def _page(table: Table, shown: dict[str, list[tuple[str, str]]], about: dict[str, Any]) -> str:
    facts = ", ".join(f"{key} {value}" for key, value in about["provenance"].items())
    lines = [
        "# Controls of real text",
        "",
        f"Written by `python -m benchmarks.e2e_controls RUN --markdown FILE`. {facts}.",
        "",
        table.markdown(),
        f"Judge of controls: {json.dumps(about['judge'])}",
        "",
    ]
    return "\n".join([*lines, *sentences(shown)])


if __name__ == "__main__":
    sys.exit(command(run))
