"""The writer of the scene world: `python -m benchmarks.writer RUN`.

Wishes are taken from sentences of the held-out split: two words of each that stand for facts, its
tone and its audience, so that a sentence which grants them exists. Success is read from the text by
its exact parse. Variations are of the first sentence of every wish.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.progress import track

from benchmarks.tables import Column, Table
from shared.files import write_text
from shared.provenance import provenance
from shared.task import WriteRequest
from text import teller
from text.pipeline import Pipeline
from text.reader import read
from text.writer import Wish, success, write

SEED = 23  # of the scene world's stream of held-out sentences
WORDS = 2  # of a message
SHOWN = 20


def wishes(count: int, only: teller.Only) -> list[Wish]:
    """The first wishes of the held-out stream whose sentences have WORDS words for facts."""
    found: list[Wish] = []
    for sentence in teller.stream(SEED, "validation", only=only):
        said = read(sentence)
        assert said is not None  # of a sentence that the grammar made
        words = [word for word in sentence.split() if Wish(word, None, None).source]
        if len(words) >= WORDS:
            found.append(Wish(" ".join(words[:WORDS]), said.tone, said.audience))
        if len(found) == count:
            break
    return found


def run(
    run: Annotated[Path, tyro.conf.Positional],
    count: int = 25,
    n: int = 4,
    steps: int = 32,
    guidance: float = 1.5,
    strengths: tuple[float, ...] = (0.6,),
    json_file: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
) -> None:
    """Measure the writer on a run of text/scene_told.

    Args:
        run: The trained run.
        count: Wishes.
        n: Different sentences of each.
        steps: Of the ancestral solver, two network evaluations each.
        guidance: Classifier-free guidance scale.
        strengths: How far variations go.
        json_file: Write everything here.
    """
    pipeline = Pipeline.from_pretrained(run)
    asked = wishes(count, pipeline.config.data.narrowed())
    rows: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for strength in (None, *strengths):
        made: list[tuple[Wish, list[str], str | None]] = []
        for i, wish in enumerate(track(asked, "writing", console=Console(stderr=True))):
            before = None if strength is None else results[i]
            found = write(pipeline, _request(wish, n, steps, guidance, strength), before)
            if strength is None:
                results.append(found)
            made.append((wish, found["texts"], found["more_like"]))
        rows.append(_row(made, strength))
    table = _table(rows, count, n, steps, guidance)
    table.show(Console())
    if json_file is not None:
        about = {"run": run.name, "seed": SEED, "provenance": provenance()}
        shown = [{key: one[key] for key in ("source", "texts")} for one in results[:SHOWN]]
        write_text(json_file, json.dumps({"about": about, "rows": rows, "shown": shown}, indent=1))


def _request(
    wish: Wish, n: int, steps: int, guidance: float, strength: float | None
) -> WriteRequest:
    return WriteRequest(
        n=n,
        steps=steps,
        td=1.0,
        guidance=guidance,
        message=wish.message,
        tone=wish.tone,
        audience=wish.audience,
        more_like=None if strength is None else 0,
        strength=strength or WriteRequest.strength,
    )


def _row(made: list[tuple[Wish, list[str], str | None]], strength: float | None) -> dict[str, Any]:
    """Shares over all sentences, and how many of a varied sentence's words a variation keeps."""
    shares = [success([text], wish) for wish, texts, _ in made for text in texts]
    kept = [
        len(set(model.split()) & set(text.split())) / len(set(model.split()))
        for _, texts, model in made
        if model
        for text in texts
    ]
    return {
        "what": "written" if strength is None else f"varied, strength {strength:g}",
        "sentences": len(shares),
        **{name: sum(one[name] for one in shares) / len(shares) for name in shares[0]},
        "kept": sum(kept) / len(kept) if kept else None,
    }


def _table(rows: list[dict[str, Any]], count: int, n: int, steps: int, guidance: float) -> Table:
    return Table(
        "The writer of the scene world",
        f"{count} wishes of {WORDS} words, a tone and an audience from held-out sentences, {n} "
        f"different sentences each (seeds from 0), ancestral, {steps} steps, td = 1, guidance "
        f"{guidance:g}, control scale {WriteRequest.control_scale:g}, fp32.",
        (
            Column("what", "what"),
            Column("sentences", "sentences"),
            Column("words", "all words", ".1%"),
            Column("tone", "tone", ".1%"),
            Column("audience", "audience", ".1%"),
            Column("grammatical", "grammatical", ".1%"),
            Column("all", "all as asked", ".1%"),
            Column("kept", "words kept", ".1%"),
        ),
        rows,
    )


if __name__ == "__main__":
    tyro.cli(run)
