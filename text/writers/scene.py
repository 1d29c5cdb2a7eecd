"""The writer of the scene world, for runs that write from parts of a scene.

What is asked for becomes the source (`data.partial_sources`): the manner, and the facts that words
of the message stand for, so that the rest of a sentence agrees with them. The words themselves are
in every sentence by control. The reader, exact, tells what a sentence has of it all.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from shared.errors import ConfigError
from shared.requests import WriteRequest
from shared.sampling import Sampling
from shared.scene import ATTRIBUTES, AUDIENCES, TONES
from shared.schema import one_of
from text.control import Control, parse_controls
from text.control.lexicon import scene_phrases
from text.metrics import faithfulness
from text.pipeline import Pipeline
from text.writers.from_source import draw_from
from text.writers.wanted import (
    Drawn,
    Wanted,
    between_commas,
    check_strength_used,
    check_wanted,
    dealt,
)

ORDER = ("size", "colour", "texture", "shape")  # of a thing's facts in a source; places are phrases


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
        check_wanted(self.message, self.tone, self.audience)

    @property
    def words(self) -> list[str]:
        """Those of the message; commas only part them."""
        return " ".join(between_commas(self.message)).split()

    @property
    def controls(self) -> list[Control]:
        """Each word of the message, somewhere."""
        return parse_controls([f"contains={word}" for word in dict.fromkeys(self.words)])

    @property
    def source(self) -> str:
        """What is known of the scene, spelt as `shared.scene.spell` does; empty for nothing."""
        things: list[dict[str, str]] = []
        for word in self.words:
            if word in _facts():
                name, value = _facts()[word]
                if not things or things[-1].get(name, value) != value:
                    things.append({})
                things[-1][name] = value
        manner = " ".join(value for value in (self.tone, self.audience) if value)
        told = [" ".join(thing[name] for name in ORDER if name in thing) for thing in things]
        return " , ".join(part for part in (manner, *told) if part)


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


@dataclass(frozen=True)
class SceneWriter:
    """A `Writer` of one wish."""

    pipeline: Pipeline
    request: WriteRequest
    wish: Wish

    @property
    def how(self) -> Sampling:
        if self.wish.source:
            return self.request
        return replace(self.request, guidance=1.0, guidance_interval=None)

    def parts(self) -> list["SceneWriter"]:
        found = [", ".join(own) for own in dealt(between_commas(self.wish.message))]
        return [replace(self, wish=replace(self.wish, message=message)) for message in found]

    def draw(self, seeds: Sequence[int], near: str | None) -> list[Drawn]:
        wish = self.wish
        return draw_from(
            self.pipeline, self.request, self.how, wish.source, wish.controls, seeds, near
        )

    def told(self, text: str) -> dict[str, float]:
        return success([text], self.wish)

    def about(self) -> dict[str, Any]:
        return {"source": self.wish.source}


def scene_writer(pipeline: Pipeline, request: WriteRequest, wanted: Wanted) -> SceneWriter:
    """ConfigError for a run that does not write from parts of a scene, and for a manner that there
    is not."""
    data = pipeline.config.data
    if data.source != "scene" or not data.partial_sources:
        raise ConfigError(
            "write: needs a model of the scene world that writes from parts of a source: train "
            "text/scene_told, or set data.source = 'scene' and data.partial_sources = 0.5; or one "
            "of fields (text/e2e_data_to_text) or of sentences' latents (text/yelp_latent)"
        )
    check_strength_used(request)
    return SceneWriter(pipeline, request, Wish(wanted.message, wanted.tone, wanted.audience))


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
