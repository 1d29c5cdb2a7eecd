"""The writing assistant, `diptych write`: a message, a tone and an audience -> different sentences.

    diptych write RUN --message "red star" --tone formal --audience child -n 4
    diptych write RUN --message "name: Zizzi, food: Italian" --tone cheap --audience family
    diptych write RUN --message "great food" --tone positive --surest 8
    diptych write RUN --more-like 2

What these mean is told by what the run is: a model of scenes, of fields, or of whole sentences'
latents with operators (`text.writers`).

With `--surest 4`, four times as many are drawn and the best are kept, mostly those of which the
model itself is surest; what tells success has no part in that.

A variation is sentence K noised to a time, `strength`, and denoised as asked for (SDEdit; Meng et
al. 2022): a small one keeps most of it. Sentences that are there already are drawn anew. A
paragraph is a few sentences of one message (`text.writers.wanted`), each drawn by itself.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

from shared.errors import ConfigError, DataError
from shared.requests import WriteRequest
from shared.schema import one_of
from shared.seeds import candidate_seeds
from text.pipeline import Pipeline
from text.writers.fields import field_writer
from text.writers.latents import latent_writer
from text.writers.scene import scene_writer
from text.writers.wanted import USE_CASES, Wanted, Writer

FILE = "written.json"
ROUNDS = 8  # of drawing what is still missing, before fewer sentences have to do
WANTED = tuple(field.name for field in fields(Wanted))
ASKED = (*WANTED, "use_case")
SETTINGS = ("weights", "strength", "control_scale", "surest")


class Own(NamedTuple):
    """A sentence and the seed that it was drawn with."""

    text: str
    seed: int


def write(
    pipeline: Pipeline, request: WriteRequest, before: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Up to request.n different sentences or paragraphs, and how many of them are as asked for;
    `before` is what was written last, for `more_like`. ConfigError for what the model cannot do."""
    asked = _asked(request, before)
    writer = _writer(pipeline, request, Wanted(*(asked[name] for name in WANTED)))
    paragraph = asked["use_case"] == "paragraph"
    writers = writer.parts() if paragraph else [writer]
    models = _models(request, before, len(writers))
    columns: list[list[Own]] = []
    drawn, known = 0, {model for model in models if model is not None}
    for part, model, seed in zip(
        writers, models, candidate_seeds(request.seed, len(writers)), strict=True
    ):
        found, count = _different(part, request, seed, model, known)
        columns.append(found)
        known.update(own.text for own in found)
        drawn += count
    rows = list(zip(*columns, strict=False))  # as many as each sentence has
    told = [_told(writers, row) for row in rows]
    result = {
        **asked,
        **writer.about(),
        "more_like": None if request.more_like is None else " ".join(map(str, models)),
        "texts": [" ".join(own.text for own in row) for row in rows],
        "seeds": [[own.seed for own in row] if paragraph else row[0].seed for row in rows],
        "drawn": drawn,
        "success": {name: sum(one[name] for one in told) / len(told) for name in told[0]}
        if told
        else {},
        "told": told,
        "settings": writer.how.settings() | {name: getattr(request, name) for name in SETTINGS},
    }
    if paragraph:
        result["sentences"] = [[own.text for own in row] for row in rows]
    return result


def read_written(folder: Path) -> dict[str, Any]:
    """What was written last. DataError when nothing was, or the file is not what `write` leaves."""
    file = folder / FILE
    if not file.is_file():
        raise DataError(f"{file}: no sentences to vary; write some first, without --more-like")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # no UTF-8, or no JSON
        raise DataError(f"{file}: damaged, {error}; write new ones") from None
    wrong = _wrong(found)
    if wrong is not None:
        raise DataError(f"{file}: {wrong}; write new ones, without --more-like")
    return found


def _wrong(found: Any) -> str | None:
    """What is wrong with what was read, or None."""
    if not isinstance(found, dict):
        return f"expected an object with texts, found {type(found).__name__}"
    if not _strings(found.get("texts")):
        return "expected texts, a list of sentences"
    for name in ASKED:
        if not isinstance(found.get(name), str | None):
            return f"expected {name} to be words or null"
    if found.get("use_case") == "paragraph":
        rows = found.get("sentences")
        if not (isinstance(rows, list) and len(rows) == len(found["texts"])):
            return "expected the sentences of each of its paragraphs"
        if not all(map(_strings, rows)):
            return "expected sentences, a list for each paragraph"
    return None


def _strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _writer(pipeline: Pipeline, request: WriteRequest, wanted: Wanted) -> Writer:
    """By what the run is. ConfigError for one that is none of these."""
    config = pipeline.config
    if config.codec.kind == "sentence":
        return latent_writer(pipeline, request, wanted)
    if config.data.name == "scene" or config.data.source is None or config.data.reads_pictures:
        return scene_writer(pipeline, request, wanted)
    return field_writer(pipeline, request, wanted)


def _asked(request: WriteRequest, before: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the request says, and of what it leaves open, what was asked for before. ConfigError for
    another use case than that of what is to vary."""
    last = before or {}
    asked = {
        name: last.get(name) if getattr(request, name) is None else getattr(request, name)
        for name in ASKED
    }
    asked["message"] = asked["message"] or ""
    asked["use_case"] = asked["use_case"] or USE_CASES[0]
    try:
        one_of("use_case", asked["use_case"], USE_CASES)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if request.more_like is not None and asked["use_case"] != last.get("use_case", USE_CASES[0]):
        raise ConfigError(
            f"use_case = {asked['use_case']}: what was written last is no {asked['use_case']}; "
            "leave it out, or write new ones without more_like"
        )
    return asked


def _models(
    request: WriteRequest, before: Mapping[str, Any] | None, parts: int
) -> list[str] | list[None]:
    """The sentence to vary, or each of a paragraph's; or as many times None. ConfigError for a
    number that was not written, and for a message of more or fewer parts."""
    if request.more_like is None:
        return [None] * parts
    last = before or {"texts": []}
    texts = last["texts"]
    if not 0 <= request.more_like < len(texts):
        raise ConfigError(
            f"more_like = {request.more_like}: expected the number of a sentence that was written "
            f"last, from 0 to {len(texts) - 1}"
        )
    found = last.get("sentences", [[text] for text in texts])[request.more_like]
    if len(found) != parts:
        raise ConfigError(
            f"more_like = {request.more_like}: has {len(found)} sentences, and what is asked for "
            f"now {parts}; leave the message out"
        )
    return found


def _different(
    writer: Writer, request: WriteRequest, seed: int, model: str | None, known: set[str]
) -> tuple[list[Own], int]:
    """request.n sentences, none twice and none `known`, or as many as ROUNDS give: of
    request.surest times as many the best; and how many were drawn for them."""
    found: dict[str, tuple[tuple[float, ...], int]] = {}
    drawn = 0
    for _ in range(ROUNDS):
        missing = request.n * request.surest - len(found)
        if not missing:
            break
        some = range(seed + drawn, seed + drawn + missing)
        for (text, score), own in zip(writer.draw(some, model), some, strict=True):
            if text not in known:
                found.setdefault(text, (score, own))
        drawn += missing
    best = sorted(found, key=lambda text: found[text][0], reverse=True)
    return [Own(text, found[text][1]) for text in best[: request.n]], drawn


def _told(writers: Sequence[Writer], row: tuple[Own, ...]) -> dict[str, float]:
    """What holds in all those sentences that it was asked of."""
    found: dict[str, float] = {}
    for writer, own in zip(writers, row, strict=True):
        for name, value in writer.told(own.text).items():
            found[name] = min(value, found.get(name, value))
    return found
