"""Sentences written from scenes, and the writer: `python -m benchmarks.told RUN`.

Sources are held-out scenes: whole, with random parts left out, or their manner alone. Wishes to the
writer are taken from sentences of the held-out split: two words of each that stand for facts, its
tone and its audience, so that a sentence which grants them exists. Everything is read from the text
by its exact parse. Variations are of the first sentence of every wish.
"""

import itertools
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.progress import track

from benchmarks.command import command
from benchmarks.tables import Column, Table
from shared.files import write_text
from shared.provenance import provenance
from shared.requests import SampleRequest, WriteRequest
from shared.scene import Scene, spell
from shared.scene_facts import Only
from text import teller
from text.ask import Ask
from text.metrics import faithfulness
from text.parts import of_scene
from text.pipeline import Pipeline
from text.reader import read
from text.writer import write
from text.writers.scene import Wish, success

SEED = 23  # of the scene world's stream of held-out sentences
WORDS = 2  # of a message
SHOWN = 20  # wishes whose sentences are kept
KINDS: dict[str, Callable[[Scene, int], str]] = {
    "whole": lambda seen, _: spell(seen),
    "in part": lambda seen, row: of_scene(seen, row, 1.0),
    "manner alone": lambda seen, _: f"{seen.tone} {seen.audience}",
}
FAITHFUL = ("grammatical", "tone", "audience", "count", "facts", "faithful")


def faithful(
    pipeline: Pipeline, n: int, how: SampleRequest, guidance: tuple[float, ...]
) -> Iterator[dict[str, Any]]:
    """Shares of n sentences by kind of source and guidance scale."""
    data = pipeline.config.data
    told = teller.pairs(SEED, "validation", only=data.narrowed(), split_by=data.split_by)
    scenes = [seen for seen, _ in itertools.islice(told, n)]
    for kind, source_of in KINDS.items():
        sources = [source_of(seen, row) for row, seen in enumerate(scenes)]
        ask = Ask(source=pipeline.prompted(sources, n)[0])
        for scale in guidance:
            texts = pipeline.write(how.seeds, replace(how, guidance=scale), ask, True).texts
            shares = faithfulness.compute(texts, sources)
            yield {"source": kind, "guidance": scale, "distinct": len(set(texts)) / n, **shares}


def wishes(count: int, only: Only, split_by: str = "sentence") -> list[Wish]:
    """The first wishes of the held-out stream whose sentences have WORDS words for facts."""
    found: list[Wish] = []
    for sentence in teller.stream(SEED, "validation", only=only, split_by=split_by):
        said = read(sentence)
        assert said is not None  # of a sentence that the grammar made
        words = [word for word in sentence.split() if Wish(word, None, None).source]
        if len(words) >= WORDS:
            found.append(Wish(" ".join(words[:WORDS]), said.tone, said.audience))
        if len(found) == count:
            break
    return found


def granted(
    pipeline: Pipeline, asked: list[Wish], how: WriteRequest, before: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """What the writer wrote for each wish, or, where it wrote before, variations of the first."""
    results: list[dict[str, Any]] = []
    for i, wish in enumerate(track(asked, "writing", console=Console(stderr=True))):
        request = replace(how, message=wish.message, tone=wish.tone, audience=wish.audience)
        last = before[i] if before else None
        results.append(write(pipeline, replace(request, more_like=0 if last else None), last))
    return results


def _row(
    asked: list[Wish], results: list[dict[str, Any]], what: str, how: WriteRequest
) -> dict[str, Any]:
    """Shares over all sentences, and how many of a varied sentence's words a variation keeps."""
    pairs = [
        (wish, text) for wish, one in zip(asked, results, strict=True) for text in one["texts"]
    ]
    shares = [success([text], wish) for wish, text in pairs]
    kept = [
        len({*one["more_like"].split()} & {*text.split()}) / len({*one["more_like"].split()})
        for one in results
        if one["more_like"]
        for text in one["texts"]
    ]
    return {
        "what": what,
        "guidance": how.guidance,
        "control_scale": how.control_scale,
        "sentences": len(shares),
        **{name: sum(one[name] for one in shares) / len(shares) for name in shares[0]},
        "kept": sum(kept) / len(kept) if kept else None,
    }


def run(
    run: Annotated[Path, tyro.conf.Positional],
    n: int = 256,
    guidance: tuple[float, ...] = (1.0, 1.5, 2.0, 3.0),
    count: int = 25,
    each: int = 4,
    scales: tuple[tuple[float, float], ...] = ((1.0, 1.0), (1.0, 1.5), (1.5, 1.0), (1.5, 1.5)),
    surest: tuple[int, ...] = (4,),
    strengths: tuple[float, ...] = (0.4, 0.6, 0.8),
    steps: int = 64,
    td: float = 1.0,
    json_file: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
) -> None:
    """Measure a run of text/scene_told.

    Args:
        run: The trained run.
        n: Held-out scenes, one sentence of each.
        guidance: Classifier-free guidance scales.
        count: Wishes to the writer.
        each: Different sentences of each wish.
        scales: Of guidance and control, for the writer; what follows takes the first pair.
        surest: So many times as many sentences of each wish, of which the surest are kept.
        strengths: How far variations go.
        steps: Of the ancestral solver.
        td: Asymmetric intervals, as in `diptych sample`.
        json_file: Write everything here.
    """
    pipeline, console = Pipeline.from_pretrained(run), Console()
    how = SampleRequest(n=n, solver="ancestral", steps=steps, td=td)
    told = _told(list(faithful(pipeline, n, how, guidance)), n, steps, td)
    told.show(console)
    data = pipeline.config.data
    asked = wishes(count, data.narrowed(), data.split_by)
    asks = [
        WriteRequest(n=each, steps=steps, td=td, guidance=scale, control_scale=control)
        for scale, control in scales
    ]
    written = [granted(pipeline, asked, ask, []) for ask in asks]
    rows = [_row(asked, one, "written", ask) for one, ask in zip(written, asks, strict=True)]
    first = written[0]
    for several in surest:
        ask = replace(asks[0], surest=several)
        rows.append(_row(asked, granted(pipeline, asked, ask, []), f"best of {several}", ask))
    for strength in strengths:
        ask = replace(asks[0], more_like=0, strength=strength, seed=1000)
        varied = granted(pipeline, asked, ask, first)
        rows.append(_row(asked, varied, f"varied, strength {strength:g}", ask))
    table = _written(rows, count, each, steps, td)
    table.show(console)
    if json_file is not None:
        about = {"run": run.name, "seed": SEED, "provenance": provenance()}
        shown = [{key: one[key] for key in ("source", "texts")} for one in first[:SHOWN]]
        tables = {"told": told.rows, "written": table.rows}
        write_text(json_file, json.dumps({"about": about, **tables, "shown": shown}, indent=1))


def _told(rows: list[dict[str, Any]], n: int, steps: int, td: float) -> Table:
    return Table(
        "Sentences from held-out scenes",
        f"{n} sentences (seeds from 0), ancestral, {steps} steps, td = {td:g}, fp32.",
        (
            Column("source", "source"),
            Column("guidance", "guidance", "g"),
            *(Column(name, name, ".1%") for name in FAITHFUL),
            Column("distinct", "distinct", ".1%"),
        ),
        rows,
    )


def _written(rows: list[dict[str, Any]], count: int, each: int, steps: int, td: float) -> Table:
    return Table(
        "The writer of the scene world",
        f"{count} wishes of {WORDS} words, a tone and an audience from held-out sentences, {each} "
        f"different sentences each, ancestral, {steps} steps, td = {td:g}, fp32.",
        (
            Column("what", "what"),
            Column("guidance", "guidance", "g"),
            Column("control_scale", "control scale", "g"),
            Column("sentences", "sentences"),
            Column("words", "all words", ".1%"),
            *(Column(name, name, ".1%") for name in FAITHFUL if name != "count"),
            Column("all", "all as asked", ".1%"),
            Column("kept", "words kept", ".1%"),
        ),
        rows,
    )


if __name__ == "__main__":
    sys.exit(command(run))
