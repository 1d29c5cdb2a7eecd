import itertools
import math

import pytest

from shared import scene, scene_facts
from shared.scene import COLOURS, PLACES, RELATIONS, SHAPES, SIZES, TEXTURES, Scene, Thing
from shared.scene_facts import Facts, Part, Relation

RED_STAR = Part("star", "red")


def scenes_of_two(first: list[tuple[str, ...]], second: list[tuple[str, ...]], manner):
    """All scenes with one thing from each list of (shape, colour, texture, size), at any places."""
    for one, other in itertools.product(first, second):
        for place, place_of_other in itertools.permutations(PLACES, 2):
            if one[0] != other[0]:
                things = [Thing(*one, place=place), Thing(*other, place=place_of_other)]
                things.sort(key=lambda thing: PLACES.index(thing.place))
                yield Scene(tuple(things), *manner)


def marginal(facts: Facts, scenes) -> float:
    return math.fsum(
        math.exp(scene.log_prob(s) + scene_facts.log_prob_given(facts, s)) for s in scenes
    )


@pytest.mark.parametrize("part", [Part(), Part("star"), Part(None, "red", "dots", "small", "top")])
def test_one_thing_marginal_is_the_sum_over_all_scenes(part):
    facts = Facts("formal", "child", (part,))
    everything = (
        Scene((Thing(*thing),), "formal", "child")
        for thing in itertools.product(SHAPES, COLOURS, TEXTURES, SIZES, PLACES)
    )
    expected = marginal(facts, everything)
    assert scene_facts.log_prob(facts) == pytest.approx(math.log(expected), abs=1e-10)


@pytest.mark.parametrize(
    ("second", "relations"),
    [
        (Part("moon", "blue"), (Relation(0, "left of", 1),)),
        (Part("moon", "blue", "plaid", place="right"), (Relation(0, "above", 1),)),
        (Part(None, "blue"), (Relation(1, "above", 0),)),  # a thing whose shape is not told
        (Part("moon", None, "solid", "medium", "top left"), ()),
    ],
)
def test_two_things_marginal_is_the_sum_over_all_scenes(second, relations):
    first = Part("star", "red", "stripes", "small")
    facts = Facts("plain", "adult", (first, second), relations)

    def matching(part: Part) -> list[tuple[str, ...]]:  # all others have probability 0
        known = [(SHAPES, part.shape), (COLOURS, part.colour), (TEXTURES, part.texture)]
        known.append((SIZES, part.size))
        return list(itertools.product(*(values if v is None else (v,) for values, v in known)))

    expected = marginal(facts, scenes_of_two(matching(first), matching(second), ("plain", "adult")))
    assert scene_facts.log_prob(facts) == pytest.approx(math.log(expected), abs=1e-10)


def test_facts_of_one_plan_sum_to_the_probability_of_the_number_of_things():
    # The plan: places of the first and last of three, and what the first is to both others.
    total = 0.0
    for first, last in itertools.product(PLACES, PLACES):
        for to_second, to_third in itertools.product(RELATIONS, RELATIONS):
            parts = (Part(place=first), Part(), Part(place=last))
            relations = (Relation(0, to_second, 1), Relation(0, to_third, 2))
            total += math.exp(scene_facts.log_prob(Facts("plain", "child", parts, relations)))
    manner = scene.WEIGHTS["tone"]["plain"] * scene.WEIGHTS["audience"]["child"]
    assert total == pytest.approx(scene.COUNT_WEIGHTS[3] * manner, abs=1e-12)


def test_facts_of_a_scene_sum_to_one_over_orders_and_choices():
    things = (
        Thing("star", "red", "dots", "small", "top"),
        Thing("moon", "red", "dots", "large", "right"),
        Thing("cross", "pink", "solid", "small", "bottom"),
    )
    whole = Scene(things, "cheerful", "adult")
    total = 0.0
    for order in itertools.permutations(things):
        parts = tuple(Part(thing.shape, size=thing.size) for thing in order)
        for name in RELATIONS:
            facts = Facts("cheerful", "adult", parts, (Relation(2, name, 1),))
            total += math.exp(scene_facts.log_prob_given(facts, whole))
    assert total == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(
    "plan",
    [
        [("place", 0), ("relation", 0, 1)],
        [("relation", 0, 1), ("relation", 0, 2)],
        [("place", 2), ("relation", 0, 1), ("colour", 1), ("texture", 0), ("shape", 0)],
        [("shape", 0), ("shape", 1), ("size", 1), ("tone",), ("count",)],
    ],
)
def test_entropy_of_a_plan_is_the_sum_over_its_values(plan):
    spatial = [fact for fact in plan if fact[0] in ("place", "relation")]
    boards = list(itertools.permutations(PLACES, 3))
    joint: dict[tuple[str, ...], float] = {}
    for board in boards:
        options = [
            (board[fact[1]],)
            if fact[0] == "place"
            else scene.relations(board[fact[1]], board[fact[2]])
            for fact in spatial
        ]
        for values in itertools.product(*options):
            share = 1 / len(boards) / math.prod(len(option) for option in options)
            joint[values] = joint.get(values, 0.0) + share
    expected = -math.fsum(p * math.log(p) for p in joint.values())
    shapes = sum(fact[0] == "shape" for fact in plan)
    expected += math.log(len(list(itertools.permutations(SHAPES, shapes))))
    for name in [fact[0] for fact in plan if fact[0] in (*scene.WEIGHTS, "count")]:
        weights = scene.COUNT_WEIGHTS if name == "count" else scene.WEIGHTS[name]
        expected -= math.fsum(p * math.log(p) for p in weights.values())
    assert scene_facts.entropy(plan) == pytest.approx(expected, abs=1e-10)
    assert scene_facts.entropy(reversed(plan)) == pytest.approx(expected, abs=1e-10)


def test_the_prior_of_a_fact_sums_to_one():
    facts = [(name, 0) for name in scene.ATTRIBUTES]
    for fact in [*facts, ("relation", 1, 2), ("tone",), ("audience",), ("count",)]:
        assert math.fsum(scene_facts.prior(fact).values()) == pytest.approx(1, abs=1e-12)


def test_impossible_facts_have_probability_zero():
    two_stars = Facts("plain", "adult", (RED_STAR, Part("star", "blue")))
    nowhere = Facts("plain", "adult", (Part("star", place="left"), Part("moon", place="left")))
    beyond = Facts("plain", "adult", (Part(place="top"), Part()), (Relation(0, "below", 1),))
    four = Facts("plain", "adult", (Part(),) * 4)
    for facts in (two_stars, nowhere, beyond, four):
        assert scene_facts.log_prob(facts) == -math.inf


def test_facts_hold_of_things_in_any_order_and_only_of_them():
    things = (
        Thing("moon", "blue", "dots", "small", "top left"),
        Thing("star", "red", "solid", "large", "right"),
    )
    facts = Facts("formal", "child", (RED_STAR, Part("moon")), (Relation(0, "below", 1),))
    assert scene_facts.true_of(facts, things)
    wrong = Facts("formal", "child", (RED_STAR, Part("moon")), (Relation(0, "left of", 1),))
    assert not scene_facts.true_of(wrong, things)
    assert not scene_facts.true_of(facts, things[:1])
    assert scene_facts.log_prob_given(facts, Scene(things, "formal", "child")) == pytest.approx(
        math.log(1 / 2 / 2)  # one of two orders, one of two relations
    )
    assert scene_facts.log_prob_given(facts, Scene(things, "plain", "child")) == -math.inf


def test_values_and_facts_are_one_to_one():
    parts = (RED_STAR, Part(), Part("moon", place="left"))
    facts = Facts("formal", "child", parts, (Relation(0, "below", 2), Relation(1, "above", 0)))
    assert scene_facts.from_values(facts.values()) == facts


def test_complete_facts_are_a_scene():
    s = scene.sample(0, 0)
    parts = tuple(
        Part(*(getattr(thing, name) for name in scene.ATTRIBUTES)) for thing in reversed(s.things)
    )
    assert scene_facts.to_scene(Facts(s.tone, s.audience, parts)) == s
    incomplete = Facts(s.tone, s.audience, (parts[0]._replace(size=None), *parts[1:]))
    assert scene_facts.to_scene(incomplete) is None
    assert scene_facts.to_scene(Facts(s.tone, s.audience, parts[:1] * 2)) is None
