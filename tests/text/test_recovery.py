"""What a caption gets right of a scene: held against scenes that differ in known ways."""

from dataclasses import replace
from itertools import islice

import pytest

from shared import scene
from shared.scene import ATTRIBUTES, Scene
from shared.scene_facts import Facts, Part, Relation
from text.metrics import recovery
from text.teller import captions

SCENES = list(islice(scene.stream(3, "train"), 60))
STAR = scene.Thing("star", "red", "solid", "large", "top left")
MOON = scene.Thing("moon", "blue", "plaid", "medium", "bottom")
SPELT = [scene.spell(each) for each in SCENES]


def facts_of(seen: Scene) -> Facts:
    parts = tuple(Part(t.shape, t.colour, t.texture, t.size, t.place) for t in seen.things)
    return Facts(seen.tone, seen.audience, parts)


def shares(said: Facts | None, seen: Scene) -> dict[str, float]:
    found = recovery.marks(said, seen.things)
    return {name: sum(each) / len(each) for name, each in found.items() if each}


def test_captions_that_say_all_are_right_in_all() -> None:
    found = recovery.compute(captions(SCENES, 5, "full"), SPELT)
    others = found.pop("attributes_of_others")
    assert set(found.values()) == {1.0}
    assert set(found) == {"grammatical", "attributes", *ATTRIBUTES, "relation", "count", "all"}
    assert others < 0.5


def test_guessing_gets_right_what_two_scenes_share() -> None:
    """Of one thing each: the share of equal attributes of neighbours, counted by hand."""
    single = [each for each in SCENES if len(each.things) == 1]
    pairs = zip(single, [*single[1:], *single[:1]], strict=True)
    equal = [
        getattr(a.things[0], name) == getattr(b.things[0], name)
        for a, b in pairs
        for name in ATTRIBUTES
    ]
    found = recovery.compute(captions(single, 5, "full"), [scene.spell(each) for each in single])
    assert found["attributes_of_others"] == pytest.approx(sum(equal) / len(equal))
    assert "relation" not in found


@pytest.mark.parametrize(
    ("name", "value"),
    [("shape", "cross"), ("colour", "black"), ("texture", "dots"), ("size", "small")],
)
def test_one_wrong_attribute_is_one_wrong_attribute(name: str, value: str) -> None:
    seen = Scene((STAR, MOON))
    wrong = facts_of(seen)
    wrong = replace(wrong, things=(wrong.things[0]._replace(**{name: value}), wrong.things[1]))
    found = shares(wrong, seen)
    assert found.pop(name) == 0.5
    assert found.pop("all") == 0
    assert set(found.values()) == {1.0}


def test_things_are_compared_whatever_their_order() -> None:
    seen = Scene((STAR, MOON))
    turned = replace(facts_of(seen), things=facts_of(seen).things[::-1])
    assert set(shares(turned, seen).values()) == {1.0}


def test_a_thing_that_is_not_said_is_wrong_and_so_is_the_count() -> None:
    seen = Scene((STAR, MOON))
    fewer = replace(facts_of(seen), things=facts_of(seen).things[1:])
    found = shares(fewer, seen)
    assert {found[name] for name in ATTRIBUTES} == {0.5}
    assert (found["relation"], found["count"], found["all"]) == (0, 0, 0)
    more = facts_of(Scene((STAR, MOON)))
    found = shares(more, Scene((MOON,)))
    assert {found[name] for name in ATTRIBUTES} == {1.0}
    assert (found["count"], found["all"]) == (0, 0)


def test_what_does_not_parse_is_wrong() -> None:
    assert set(shares(None, Scene((STAR, MOON))).values()) == {0.0}
    found = recovery.compute(["a star red ."], [scene.spell(Scene((STAR,)))])
    assert (found["grammatical"], found["attributes"], found["all"]) == (0, 0, 0)


def test_relations_hold_by_the_places_said_or_by_name() -> None:
    """The star is at the top left, the moon at the bottom: above it, and left of it."""
    seen = Scene((STAR, MOON))
    parts = facts_of(seen).things
    moved = replace(facts_of(seen), things=(parts[0]._replace(place="left"), parts[1]))
    found = shares(moved, seen)
    assert (found["place"], found["relation"]) == (0.5, 1)  # still above, and left of it
    swapped = replace(
        facts_of(seen),
        things=(parts[0]._replace(place="bottom"), parts[1]._replace(place="top left")),
    )
    found = shares(swapped, seen)
    assert (found["place"], found["relation"], found["shape"]) == (0, 0, 1)
    bare = tuple(part._replace(place=None) for part in parts)
    for subject, name, other, right in (
        (0, "above", 1, 1), (1, "below", 0, 1), (0, "left of", 1, 1), (0, "right of", 1, 0),
        (1, "above", 0, 0),
    ):  # fmt: skip
        said = Facts("plain", "adult", bare, (Relation(subject, name, other),))
        assert shares(said, seen)["relation"] == right
    assert shares(Facts("plain", "adult", bare), seen)["relation"] == 0
