"""Controlled sentences of the scene world: `python -m benchmarks.controls RUN`.

Targets are taken from sentences of the held-out split: their length, two words of them, how they
begin and end, their parts of speech. All targets of a kind are sampled in one batch; success is
read from the text, by its exact parse. Beside it stands how often sentences drawn without a control
satisfy the same targets: what trying again and again would have to live with.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import tyro

from benchmarks.command import command
from benchmarks.tables import Column, Table
from shared import noise
from shared.files import write_text
from shared.provenance import provenance
from shared.requests import ControlRequest, SampleRequest
from text import teller
from text.control import Control, Target
from text.control.analysis import of_reading
from text.control.evaluation import measure, satisfy
from text.control.lexicon import tags_of
from text.control.world import SceneWorld
from text.pipeline import Pipeline
from text.reader import Reading, analyse

STREAM = 7  # of `noise`: which words of a sentence a target takes
SEED = 17  # of the scene world's stream of held-out sentences
SCALE = ControlRequest.control_scale
SHOWN = 20  # sentences of each kind on the page

Made = Callable[[list[str], float], dict[str, str]]


def _contains(words: list[str], u: float) -> dict[str, str]:
    at = int(u * (len(words) - 1))
    return {"contains": " ".join(words[at : at + 2])}


def _between(words: list[str], _: float) -> dict[str, str]:
    return {"pattern": f"{' '.join(words[:2])} [MASK]* {' '.join(words[-3:])}"}


def _length(words: list[str], _: float) -> dict[str, str]:
    return {"length": str(len(words))}


def _prefix(words: list[str], _: float) -> dict[str, str]:
    return {"prefix": " ".join(words[:3])}


def _pos(words: list[str], _: float) -> dict[str, str]:
    return {"pos": " ".join(tags_of(_reading(words)))}


def _tree(words: list[str], _: float) -> dict[str, str]:
    return {"tree": str(of_reading(_reading(words)).tree)}


def _span(words: list[str], u: float) -> dict[str, str]:
    spans = sorted(of_reading(_reading(words)).spans or ())
    left, right, label = spans[int(u * len(spans))]
    return {"span": f"{left}-{right} {label}"}


def _says(words: list[str], u: float) -> dict[str, str]:
    thing = _reading(words).facts.things[0]._asdict()
    known = [f"{name}:{value}" for name, value in thing.items() if value is not None]
    return {"says": known[int(u * len(known))]}


def _reading(words: list[str]) -> Reading:
    found = analyse(" ".join(words))
    assert found is not None  # of a sentence that the grammar made
    return found


KINDS: dict[str, Made] = {
    "length": _length,
    "one fact": _says,
    "two words in a row": _contains,
    "beginning": _prefix,
    "beginning and end": _between,
    "parts of speech": _pos,
    "syntax tree": _tree,
    "syntax span": _span,
    "length and one fact": lambda words, u: _length(words, u) | _says(words, u),
    "length and two words": lambda words, u: _length(words, u) | _contains(words, u),
    "parts of speech and two words": lambda words, u: _pos(words, u) | _contains(words, u),
}


def targets(kind: str, sentences: list[str]) -> list[Target]:
    """One target of this kind from each sentence."""
    uniforms = noise.uniform(range(len(sentences)), STREAM, (1,))[:, 0].tolist()
    pairs = zip(sentences, uniforms, strict=True)
    asked = (KINDS[kind](sentence.split(), u) for sentence, u in pairs)
    return [Target(tuple(Control(*one) for one in controls.items())) for controls in asked]


def run(
    run: Annotated[Path, tyro.conf.Positional],
    count: int = 50,
    n: int = 8,
    steps: tuple[int, ...] = (64, 25),
    td: float = 1.0,
    free: int = 1024,
    json_file: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
    markdown: Path | None = None,
) -> None:
    """Measure controls on a run of the scene world.

    Args:
        run: A trained run of text/scene.
        count: Targets of each kind.
        n: Sentences of each target.
        steps: Of the ancestral solver, each one network evaluation.
        td: Asymmetric intervals, as in `diptych sample`.
        free: Sentences without a control, which the targets are held against.
        json_file: Write everything here.
        markdown: Write the table and some sentences here.
    """
    pipeline = Pipeline.from_pretrained(run)
    world, data = SceneWorld(pipeline.tokenizer), pipeline.config.data
    stream = teller.stream(SEED, "validation", only=data.narrowed(), split_by=data.split_by)
    sentences = [next(stream) for _ in range(count)]
    plain = SampleRequest(n=free, solver="ancestral", steps=max(steps), td=td)
    drawn = pipeline.write(plain.seeds, plain, progress=True).texts
    rows: list[dict[str, Any]] = []
    shown: dict[str, list[tuple[str, str]]] = {}
    for kind in KINDS:
        asked = targets(kind, sentences)
        by_chance = measure(asked, [drawn] * count, world)["all"]
        for number in steps:
            found = satisfy(pipeline, world, asked, ControlRequest(n=n, steps=number, td=td))
            about = {"control": kind, "steps": number, "by_chance": by_chance}
            rows.append(about | found | {"forward": found["evaluations"]["forward"]})
            if number == max(steps):
                shown[kind] = [
                    (", ".join(target["controls"]), text)
                    for target in found["targets"]
                    for text in target["texts"][:1]
                ][:SHOWN]
    table = _table(rows, count, n, td, free)
    about = {"run": run.name, "seed": SEED, "provenance": provenance()}
    table.publish(json_file, about, rows=[_told(row) for row in rows])
    if markdown is not None:
        write_text(markdown, _page(table, shown))


def _told(row: dict[str, Any]) -> dict[str, Any]:
    """A row with the sentences of its targets, without their scores: the parse gives them again."""
    targets = [{key: target[key] for key in ("controls", "texts")} for target in row["targets"]]
    return row | {"targets": targets}


def _table(rows: list[dict[str, Any]], count: int, n: int, td: float, free: int) -> Table:
    return Table(
        "Controlled sentences of the scene world",
        f"{count} targets of each kind from held-out sentences, {n} sentences each (seeds from 0), "
        f"ancestral with td = {td:g}, control scale {SCALE:g}, fp32. By chance: the share of "
        f"{free:,} sentences drawn without control that satisfy a target, mean over the targets.",
        (
            Column("control", "control"),
            Column("forward", "network evaluations", ".0f"),
            Column("all", "satisfied", ".1%"),
            Column("grammatical", "grammatical", ".1%"),
            Column("all_and_grammatical", "both", ".1%"),
            Column("by_chance", "satisfied by chance", ".1%"),
            Column("distinct", "distinct", ".1%"),
            Column("seconds", "seconds", ".1f"),
        ),
        rows,
    )


def sentences(shown: dict[str, list[tuple[str, str]]]) -> list[str]:
    """What was asked and what was written, as tables of Markdown, one a kind of target."""
    lines: list[str] = []
    for kind, pairs in shown.items():
        lines += [f"## {kind.capitalize()}: the first sentence of each of {len(pairs)} targets", ""]
        lines += ["| asked | sentence |", "| --- | --- |"]
        lines += [f"| {asked.replace('|', '/')} | {text} |" for asked, text in pairs] + [""]
    return lines


def _page(table: Table, shown: dict[str, list[tuple[str, str]]]) -> str:
    facts = ", ".join(f"{key} {value}" for key, value in provenance().items())
    lines = [
        "# Controls",
        "",
        f"Written by `python -m benchmarks.controls RUN --markdown FILE`. {facts}.",
        "",
        table.markdown(),
    ]
    return "\n".join([*lines, *sentences(shown)])


if __name__ == "__main__":
    sys.exit(command(run))
