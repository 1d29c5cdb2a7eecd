import itertools
import math
import re
from collections import Counter
from pathlib import Path

import pytest

from shared import scene
from shared.scene import COLOURS, PLACES, SHAPES, SIZES, TEXTURES, Scene, Thing

# Statistical tests are seeded, hence repeat exactly; 3 standard errors would fail one correct
# stream in 370 (two-sided normal).


def standard_error(values: list[float]) -> tuple[float, float]:
    mean = math.fsum(values) / len(values)
    variance = math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)
    return mean, math.sqrt(variance / len(values))


@pytest.mark.parametrize("module", ["scene", "scene_facts"])
def test_the_core_speaks_of_no_modality(module):
    source = Path(scene.__file__).with_name(f"{module}.py").read_text()
    assert not re.search(r"(?i)\b(image|text|pixel|token|word)s?\b", source)


def test_probabilities_of_all_scenes_of_one_thing_sum_to_the_probability_of_one():
    product = itertools.product(
        SHAPES, COLOURS, TEXTURES, SIZES, PLACES, scene.TONES, scene.AUDIENCES
    )
    total = math.fsum(
        math.exp(scene.log_prob(Scene((Thing(*thing),), tone, audience)))
        for *thing, tone, audience in product
    )
    assert total == pytest.approx(scene.COUNT_WEIGHTS[1], abs=1e-12)


@pytest.mark.parametrize("n", [2, 3])
def test_probabilities_sum_over_all_boards_of_several_things(n):
    # The other attributes are fixed: their weights are independent and divided out.
    attributes = [("red", "plaid", "small"), ("blue", "solid", "large"), ("red", "dots", "medium")]
    weight = scene.WEIGHTS["tone"]["formal"] * scene.WEIGHTS["audience"]["child"]
    for colour, texture, size in attributes[:n]:
        weight *= scene.WEIGHTS["colour"][colour] * scene.WEIGHTS["texture"][texture]
        weight *= scene.WEIGHTS["size"][size]
    total = 0.0
    for places in itertools.combinations(PLACES, n):
        for shapes in itertools.permutations(SHAPES, n):
            rows = zip(shapes, attributes[:n], places, strict=True)
            things = tuple(Thing(shape, *rest, place=place) for shape, rest, place in rows)
            total += math.exp(scene.log_prob(Scene(things, "formal", "child")))
    assert total / weight == pytest.approx(scene.COUNT_WEIGHTS[n], abs=1e-12)


def test_entropy_by_formula_is_entropy_by_sampling_within_3_standard_errors():
    mean, error = standard_error([-scene.log_prob(s) for s in scene.samples(5, 0, 20_000)])
    assert abs(mean - scene.entropy()) < 3 * error
    assert error < 0.06


def test_each_attribute_is_drawn_with_its_weight_within_4_standard_errors():
    drawn = scene.samples(6, 0, 30_000)  # 51 comparisons: a correct stream fails one time in 300
    things = [thing for s in drawn for thing in s.things]
    tables: list[tuple[Counter, dict, int]] = [
        (Counter(len(s.things) for s in drawn), scene.COUNT_WEIGHTS, len(drawn))
    ]
    for name in ("tone", "audience"):
        tables.append((Counter(getattr(s, name) for s in drawn), scene.WEIGHTS[name], len(drawn)))
    for name, values in scene.ATTRIBUTES.items():
        weights = scene.WEIGHTS.get(name) or dict.fromkeys(values, 1 / len(values))
        tables.append((Counter(getattr(t, name) for t in things), weights, len(things)))
    for counts, weights, n in tables:
        for value, p in weights.items():
            assert abs(counts[value] - n * p) < 4 * math.sqrt(n * p * (1 - p)), value


def test_a_scene_is_a_function_of_seed_and_index():
    together = scene.samples(3, 40, 9)
    assert together == [scene.sample(3, i) for i in range(40, 49)]
    assert together != scene.samples(4, 40, 9)
    stream = scene.stream(3)
    assert [next(stream) for _ in range(600)][40:49] == together


def test_streams_are_the_same_on_every_machine():
    assert scene.sample(0, 0) == Scene(
        (
            Thing("moon", "yellow", "solid", "large", "top left"),
            Thing("heart", "blue", "stripes", "large", "right"),
            Thing("square", "green", "plaid", "medium", "bottom right"),
        ),
        "cheerful",
        "child",
    )
    assert [scene.split_of(c) for c in ("i", "j", "18")] == ["train", "validation", "test"]


def test_uniforms_of_two_media_are_uncorrelated_within_4_standard_errors():
    n = 4000
    first, second = (
        [row[2] for row in scene.stream_uniforms(1, 0, n, 3, medium)] for medium in (0, 1)
    )
    covariance = math.fsum((a - 0.5) * (b - 0.5) for a, b in zip(first, second, strict=True)) / n
    assert abs(covariance * 12) < 4 / math.sqrt(n)  # correlation; false alarm 6e-5
    assert first != second


def test_a_stream_refuses_what_it_cannot_key():
    for seed, index in ((-1, 0), (2**32, 0), (0, -1), (0, 2**48)):
        with pytest.raises(ValueError, match="seed"):
            scene.sample(seed, index)


def test_a_board_is_in_one_split_whatever_the_manner():
    for s in scene.samples(0, 0, 300):
        manners = itertools.product(scene.TONES, scene.AUDIENCES)
        assert len({scene.split_of_scene(Scene(s.things, *manner)) for manner in manners}) == 1


def test_splits_have_their_shares_within_4_standard_errors():
    n = 20_000
    counts = Counter(scene.split_of_scene(s) for s in scene.samples(8, 0, n))
    for split, share in {"train": 0.9, "validation": 0.05, "test": 0.05}.items():
        # scenes of one thing repeat: two standard errors of slack beyond the binomial's
        assert abs(counts[split] - n * share) < 6 * math.sqrt(n * share * (1 - share))


def test_a_stream_of_a_split_holds_only_that_split_in_order():
    mine = list(itertools.islice(scene.stream(2, "test"), 20))
    everything = itertools.islice(scene.stream(2), 2000)
    assert mine == [s for s in everything if scene.split_of_scene(s) == "test"][:20]
    with pytest.raises(ValueError, match="dev"):
        next(scene.stream(2, "dev"))


def test_ids_are_a_one_to_one_code():
    for s in scene.samples(1, 0, 500):
        code = scene.ids(s)
        assert len(code) == scene.ID_COUNT == 17
        assert all(0 <= i < scene.NUM_IDS for i in code)
        assert sum(i == 0 for i in code) == 5 * (3 - len(s.things))
        assert scene.from_ids(code) == s
        nonzero = [i for i in code if i]
        assert scene.from_ids(sorted(nonzero) + [0] * (17 - len(nonzero))) == s  # a bag will do


def test_ids_of_no_scene_are_refused():
    code = scene.ids(scene.sample(0, 0))
    for wrong in (code[:-1], [0] * 17, code[:2] + [0] * 15, [code[1], code[0], *code[2:]]):
        with pytest.raises(ValueError, match="expected"):
            scene.from_ids(wrong)


@pytest.mark.parametrize(("i", "j"), list(itertools.permutations(range(9), 2)))
def test_relations_follow_from_places(i, j):
    expected = set()
    if i % 3 != j % 3:
        expected.add("left of" if i % 3 < j % 3 else "right of")
    if i // 3 != j // 3:
        expected.add("above" if i // 3 < j // 3 else "below")
    assert set(scene.relations(PLACES[i], PLACES[j])) == expected


def test_impossible_scenes_are_refused():
    star = Thing("star", "red", "solid", "small", "top")
    moon = Thing("moon", "red", "solid", "small", "bottom")
    same_place = Thing("heart", "red", "solid", "small", "top")
    same_shape = Thing("star", "blue", "solid", "small", "left")
    for things in ((), (moon, star), (star, same_place), (star, same_shape)):
        with pytest.raises(ValueError, match="sorted by place"):
            Scene(things)
    with pytest.raises(ValueError, match="tone"):
        Scene((star,), tone="angry")
    with pytest.raises(ValueError, match="colour"):
        Thing("star", "mauve", "solid", "small", "top")
