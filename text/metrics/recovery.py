"""What of a picture's scene its caption gets right, attribute by attribute: exact, by the reader.

Things are told in any order, so what is said is laid over the true things in the way that makes
most attributes right. The shares are over

    shape, colour, texture, size, place    all true things; `attributes` is over all five
    relation                               all pairs of true things: whether the places said stand
                                           as the true ones do, or the relation said does hold
    count, all                             captions: `all` when the caption leaves this one scene

A thing that is not said, and all of a caption that does not parse, is wrong. `attributes_of_others`
is the share that captions get right of the next picture's scene: what guessing would.
"""

from collections.abc import Sequence
from itertools import combinations, permutations

from shared import scene_facts
from shared.scene import ATTRIBUTES, Thing, relations
from shared.scene_facts import Facts, Part
from text.metrics.faithfulness import read_source
from text.reader import read

UNSAID = Part()


def compute(captions: Sequence[str], scenes: Sequence[str]) -> dict[str, float]:
    """Shares in [0, 1] of captions and the scenes of their pictures, spelt by `shared.scene.spell`.
    ValueError for a scene that is none."""
    said = [_read(caption) for caption in captions]
    true = [read_source(spelt).scene().things for spelt in scenes]
    others = _shares(said, [*true[1:], *true[:1]])
    return {
        "grammatical": sum(facts is not None for facts in said) / len(said),
        **_shares(said, true),
        "attributes_of_others": others["attributes"],
    }


def marks(said: Facts | None, things: Sequence[Thing]) -> dict[str, list[bool]]:
    """Whether each attribute of each thing is right, how each two of them stand, their number, and
    all of it."""
    parts = () if said is None else said.things
    order = _laid_over(parts, things)
    told = [UNSAID if i is None else parts[i] for i in order]
    found = {
        name: [
            getattr(part, name) == getattr(thing, name)
            for part, thing in zip(told, things, strict=True)
        ]
        for name in ATTRIBUTES
    }
    pairs = combinations(zip(order, things, strict=True), 2)
    found["relation"] = [_stands(said, i, a, j, b) for (i, a), (j, b) in pairs]
    found["count"] = [len(parts) == len(things)]
    whole = None if said is None else scene_facts.to_scene(said)
    found["all"] = [whole is not None and whole.things == tuple(things)]
    return found


def _read(caption: str) -> Facts | None:
    whole = read(caption, "full")
    return read(caption) if whole is None else whole


def _shares(said: Sequence[Facts | None], true: Sequence[Sequence[Thing]]) -> dict[str, float]:
    rows = [marks(facts, things) for facts, things in zip(said, true, strict=True)]
    all_of = {name: [mark for row in rows for mark in row[name]] for name in rows[0]}
    everything = [mark for name in ATTRIBUTES for mark in all_of[name]]
    shares = {name: sum(each) / len(each) for name, each in all_of.items() if each}
    return {"attributes": sum(everything) / len(everything)} | shares


def _laid_over(parts: Sequence[Part], things: Sequence[Thing]) -> tuple[int | None, ...]:
    """Which part is about each thing, none where there are too few: with most attributes right."""
    filled = [*range(len(parts)), *[None] * (len(things) - len(parts))]

    def right(order: Sequence[int | None]) -> int:
        return sum(
            getattr(parts[i], name) == getattr(thing, name)
            for i, thing in zip(order, things, strict=True)
            if i is not None
            for name in ATTRIBUTES
        )

    return max(permutations(filled, len(things)), key=right)


def _stands(said: Facts | None, i: int | None, one: Thing, j: int | None, other: Thing) -> bool:
    """Whether parts i and j are said to stand as their things do."""
    if said is None or i is None or j is None:
        return False
    true = relations(one.place, other.place)
    a, b = said.things[i].place, said.things[j].place
    if a is not None and b is not None:
        return relations(a, b) == true
    back = relations(other.place, one.place)
    named = [r for r in said.relations if {r.subject, r.object} == {i, j}]
    return bool(named) and all(r.name in (true if r.subject == i else back) for r in named)
