"""Whether sentences of the scene world say only what their source says or leaves open: exact, by
the reader.

A source is spelt as `shared.scene.spell` does, whole or in part. A sentence is faithful when it
parses, its tone and audience are those told, and some scene that is as the source says is also as
the sentence says. Of a whole source that is one scene, and all that is said must be true of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

from shared import scene_facts
from shared.scene import ATTRIBUTES, AUDIENCES, PLACES, TONES, Scene
from shared.scene_facts import Facts, Part
from text.reader import analyse


@dataclass(frozen=True)
class ReadSource:
    """A source as read: None for what it leaves open."""

    tone: str | None
    audience: str | None
    things: tuple[Part, ...]

    @property
    def whole(self) -> bool:
        """Whether it leaves nothing open."""
        parts = (self.tone, self.audience, *(value for thing in self.things for value in thing))
        return bool(self.things) and None not in parts

    def scene(self) -> Scene:
        """The scene that a whole source spells. ValueError for one that leaves something open."""
        if not self.whole:
            raise ValueError("source: leaves something open, so it is of many scenes")
        found = scene_facts.to_scene(Facts(str(self.tone), str(self.audience), self.things))
        if found is None:
            raise ValueError("source: no scene is like that")
        return found


def read_source(source: str) -> ReadSource:
    """A spelt source. ValueError names a word that none has."""
    manner: dict[str, str] = {}
    things: list[Part] = []
    for group in source.split(" , "):
        words = group.split()
        for name, values in (("tone", TONES), ("audience", AUDIENCES)):
            for word in set(words).intersection(values):
                manner[name] = word
        rest = [word for word in words if word not in (*TONES, *AUDIENCES)]
        if rest:
            things.append(_part(rest))
    return ReadSource(manner.get("tone"), manner.get("audience"), tuple(things))


def compute(predictions: Sequence[str], sources: Sequence[str]) -> dict[str, float]:
    """Shares of predictions, each with its source: that parse, that have its tone, its audience and
    its number of things, whose facts are possible with it, and that are right in all of these.

    The number counts where a source is whole; a part may leave things out."""
    rows = [
        _judge(text, read_source(source)) for text, source in zip(predictions, sources, strict=True)
    ]
    names = ("grammatical", "tone", "audience", "count", "facts", "faithful")
    return {name: sum(row[name] for row in rows) / len(rows) for name in names}


def faithful(text: str, source: str) -> bool:
    """Whether a sentence is right in everything that `compute` counts."""
    return _judge(text, read_source(source))["faithful"]


def possible_together(said: Facts, told: Sequence[Part]) -> bool:
    """Whether some scene holds these things, each a different one, and is as the facts say."""
    if len(told) > len(said.things):
        return False
    return any(_merge(said, told, order) for order in permutations(range(len(said.things))))


def _judge(text: str, told: ReadSource) -> dict[str, bool]:
    reading = analyse(text)
    if reading is None:
        names = ("grammatical", "tone", "audience", "count", "facts", "faithful")
        return dict.fromkeys(names, False)
    said = reading.facts
    found = {
        "grammatical": True,
        "tone": told.tone in (None, said.tone),
        "audience": told.audience in (None, said.audience),
        "count": not told.whole or len(said.things) == len(told.things),
        "facts": possible_together(said, told.things),
    }
    return found | {"faithful": all(found.values())}


def _merge(said: Facts, told: Sequence[Part], order: Sequence[int]) -> bool:
    """Whether the facts stay possible when thing order[i] is also as told[i] says."""
    things = list(said.things)
    for part, i in zip(told, order, strict=False):
        pairs = [(a, b) for a, b in zip(part, things[i], strict=True)]
        if any(a is not None and b is not None and a != b for a, b in pairs):
            return False
        things[i] = Part(*(a if b is None else b for a, b in pairs))
    merged = Facts(said.tone, said.audience, tuple(things), said.relations)
    return scene_facts.log_prob(merged) > float("-inf")


def _part(words: Sequence[str]) -> Part:
    """The attributes of one thing, in any number; its place, of one or two words, comes last."""
    known: dict[str, str] = {}
    for i, word in enumerate(words):
        if " ".join(words[i:]) in PLACES:
            known["place"] = " ".join(words[i:])
            break
        names = [name for name, values in ATTRIBUTES.items() if word in values]
        if not names:
            raise ValueError(f"source: {word!r} is no value of {', '.join(ATTRIBUTES)}")
        known[names[0]] = word
    return Part(**known)
