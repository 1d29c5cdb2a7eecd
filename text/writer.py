"""The writing assistant, `diptych write`: a message, a tone and an audience -> different sentences.

    diptych write RUN --message "red star" --tone formal --audience child -n 4
    diptych write RUN --more-like 2

For runs of the scene world that write from parts of a scene (`data.partial_sources`). What is asked
for becomes the source: the manner, and the facts that words of the message stand for, so that the
rest of a sentence agrees with them. The words themselves are in every sentence by control.

With `--surest 4`, four times as many are drawn and those kept of which the model itself is surest
(`text.sureness`); the reader, which tells success, has no part in that.

A variation is sentence K noised to a time, `strength`, and denoised as asked for (SDEdit; Meng et
al. 2022): a small one keeps most of it. Sentences that are there already are drawn anew.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from shared.errors import ConfigError, DataError
from shared.requests import WriteRequest
from shared.scene import ATTRIBUTES, AUDIENCES, TONES
from shared.schema import one_of
from text.ask import Ask, Near
from text.config import TextConfig
from text.control import Control, parse_controls
from text.control.lexicon import scene_phrases
from text.metrics import faithfulness
from text.pipeline import Pipeline

FILE = "written.json"
ROUNDS = 8  # of drawing what is still missing, before fewer sentences have to do
ORDER = ("size", "colour", "texture", "shape")  # of a thing's facts in a source; places are phrases
ASKED = ("message", "tone", "audience")
SETTINGS = ("weights", "strength", "control_scale", "surest")


@dataclass(frozen=True)
class Wish:
    """What is asked for: words that every sentence holds, and its manner, None where open."""

    message: str
    tone: str | None
    audience: str | None

    def __post_init__(self) -> None:
        try:
            for name, values in (("tone", TONES), ("audience", AUDIENCES)):
                if (value := getattr(self, name)) is not None:
                    one_of(name, value, values)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        if not (self.message or self.tone or self.audience):
            raise ConfigError("write: say a message, a tone or an audience")

    @property
    def controls(self) -> list[Control]:
        """Each word of the message, somewhere."""
        return parse_controls([f"contains={word}" for word in dict.fromkeys(self.message.split())])

    @property
    def source(self) -> str:
        """What is known of the scene, spelt as `shared.scene.spell` does; empty for nothing."""
        things: list[dict[str, str]] = []
        for word in self.message.split():
            if word in _facts():
                name, value = _facts()[word]
                if not things or things[-1].get(name, value) != value:
                    things.append({})
                things[-1][name] = value
        manner = " ".join(value for value in (self.tone, self.audience) if value)
        told = [" ".join(thing[name] for name in ORDER if name in thing) for thing in things]
        return " , ".join(part for part in (manner, *told) if part)


def write(
    pipeline: Pipeline, request: WriteRequest, before: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Up to request.n different sentences, and how many of them are as asked for; `before` is what
    was written last, for `more_like`. ConfigError for what the model cannot do."""
    _check_model(pipeline.config)
    wish, model = _wish(request, before), _sentence(request, before)
    source = wish.source
    how = request if source else replace(request, guidance=1.0, guidance_interval=None)

    def draw(some: range) -> list[str]:
        return pipeline.write(some, how, _ask(pipeline, wish, model, request, len(some))).texts

    seed_of, drawn = _different(draw, request.n * request.surest, request.seed, model)
    texts = list(seed_of)
    if request.surest > 1 and texts:
        texts = _surest(pipeline, texts, source)[: request.n]
    return {
        **{name: getattr(wish, name) for name in ASKED},
        "source": source,
        "more_like": model,
        "texts": texts,
        "seeds": [seed_of[text] for text in texts],
        "drawn": drawn,
        "success": success(texts, wish),
        "settings": how.settings() | {name: getattr(request, name) for name in SETTINGS},
    }


def success(texts: Sequence[str], wish: Wish) -> dict[str, float]:
    """Shares of sentences, by the reader: that hold every word of the message, that are right in
    what `text.metrics.faithfulness` counts, and both. Empty without sentences."""
    if not texts:
        return {}
    source, controls = wish.source, wish.controls
    held = [all(control.success(text) for control in controls) for text in texts]
    right = [faithfulness.faithful(text, source) for text in texts]
    return {
        "words": sum(held) / len(texts),
        **faithfulness.compute(texts, [source] * len(texts)),
        "all": sum(a and b for a, b in zip(held, right, strict=True)) / len(texts),
    }


def read_written(folder: Path) -> dict[str, Any]:
    """What was written last. DataError when nothing was."""
    file = folder / FILE
    if not file.is_file():
        raise DataError(f"{file}: no sentences to vary; write some first, without --more-like")
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise DataError(f"{file}: damaged, {error}; write new ones") from None


def _different(
    draw: Callable[[range], list[str]], n: int, seed: int, known: str | None
) -> tuple[dict[str, int], int]:
    """n sentences and their seeds, none twice and none `known`, or as many as ROUNDS give; and how
    many were drawn for them."""
    seed_of: dict[str, int] = {}
    drawn = 0
    for _ in range(ROUNDS):
        missing = n - len(seed_of)
        if not missing:
            break
        some = range(seed + drawn, seed + drawn + missing)
        for text, own in zip(draw(some), some, strict=True):
            if text != known:
                seed_of.setdefault(text, own)
        drawn += missing
    return seed_of, drawn


def _surest(pipeline: Pipeline, texts: Sequence[str], source: str) -> list[str]:
    """The sentences, the one that the model is surest of first."""
    losses = pipeline.own_losses(texts, pipeline.prompted(source or None, len(texts))[0])
    return [text for _, text in sorted(zip(losses.tolist(), texts, strict=True))]


def _check_model(config: TextConfig) -> None:
    if config.data.source != "scene" or not config.data.partial_sources:
        raise ConfigError(
            "write: needs a model of the scene world that writes from parts of a source: train "
            "text/scene_told, or set data.source = 'scene' and data.partial_sources = 0.5"
        )


def _wish(request: WriteRequest, before: Mapping[str, Any] | None) -> Wish:
    """What the request says, and of what it leaves open, what was asked for before."""
    last = before or {}
    asked = {
        name: last.get(name) if getattr(request, name) is None else getattr(request, name)
        for name in ASKED
    }
    return Wish(asked["message"] or "", asked["tone"], asked["audience"])


def _sentence(request: WriteRequest, before: Mapping[str, Any] | None) -> str | None:
    """The sentence to vary. ConfigError for a number that was not written."""
    if request.more_like is None:
        return None
    texts = [] if before is None else before["texts"]
    if not 0 <= request.more_like < len(texts):
        raise ConfigError(
            f"more_like = {request.more_like}: expected the number of a sentence that was written "
            f"last, from 0 to {len(texts) - 1}"
        )
    return texts[request.more_like]


def _ask(pipeline: Pipeline, wish: Wish, model: str | None, request: WriteRequest, n: int) -> Ask:
    controls, near = wish.controls, None
    if model is not None:
        near = Near(pipeline.rows([model] * n), request.strength)
    return Ask(
        source=pipeline.prompted(wish.source or None, n)[0],
        automata=pipeline.automata([controls] * n) if controls else None,
        control_scale=request.control_scale,
        near=near,
        rank="sureness" if request.surest > 1 else "agreement",
    )


@cache
def _facts() -> dict[str, tuple[str, str]]:
    """Words that stand for one value of one attribute, whoever says them."""
    found: dict[str, set[tuple[str, str]]] = {}
    for name in ORDER:
        for value in ATTRIBUTES[name]:
            for phrase in scene_phrases(f"{name}:{value}"):
                found.setdefault(phrase, set()).add((name, value))
    single = {word: facts for word, facts in found.items() if " " not in word and len(facts) == 1}
    return {word: next(iter(facts)) for word, facts in single.items()}
