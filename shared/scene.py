"""The scene world: a small distribution of scenes whose every probability is known.

A scene holds one to three things, each with a shape, a colour, a texture, a size and a place on a
3 x 3 board, and the manner in which it is to be told (tone, audience). Places differ, and so do
shapes; all else is drawn independently:

    p(scene) = p(n) p(tone) p(audience) / C(9, n) / (8)_n  prod_i p(colour_i) p(texture_i) p(size_i)

with (8)_n = 8 (8 - 1) ... (8 - n + 1). The order of the things means nothing: they are kept sorted
by place. Scene `index` of stream `seed` is a function of the two integers (`shared.noise`), so
streams are infinite, seekable, and alike on every machine.

Splits: a scene belongs to train, validation or test (90 : 5 : 5) by a hash of its things, whatever
its tone and audience, so no two splits share a board. What is made from scenes in another medium
may be split by its own content with `split_of`.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TypeVar

import torch

from shared import noise

T = TypeVar("T")

SHAPES = ("circle", "square", "triangle", "star", "heart", "diamond", "cross", "moon")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "black")
TEXTURES = ("solid", "stripes", "plaid", "dots")
SIZES = ("small", "medium", "large")
PLACES = (
    *("top left", "top", "top right"),
    *("left", "centre", "right"),
    *("bottom left", "bottom", "bottom right"),
)
TONES = ("plain", "cheerful", "formal")
AUDIENCES = ("child", "adult")
RELATIONS = ("left of", "right of", "above", "below")
SPLITS = ("train", "validation", "test")

# What is uneven is so on purpose: a mistaken weight then shows in every probability.
COUNT_WEIGHTS = {1: 0.4, 2: 0.4, 3: 0.2}
WEIGHTS: dict[str, dict[str, float]] = {
    "colour": dict.fromkeys(COLOURS, 1 / len(COLOURS)),
    "texture": dict(zip(TEXTURES, (0.4, 0.2, 0.2, 0.2), strict=True)),
    "size": dict(zip(SIZES, (0.3, 0.3, 0.4), strict=True)),
    "tone": dict(zip(TONES, (0.4, 0.3, 0.3), strict=True)),
    "audience": dict(zip(AUDIENCES, (0.4, 0.6), strict=True)),
}
MAX_THINGS = max(COUNT_WEIGHTS)

# A thing's attributes in the order of their condition ids.
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "colour": COLOURS,
    "texture": TEXTURES,
    "size": SIZES,
    "place": PLACES,
}
ID_COUNT = 2 + MAX_THINGS * len(ATTRIBUTES)
NUM_IDS = (
    1
    + len(TONES)
    + len(AUDIENCES)
    + MAX_THINGS * sum(len(values) for values in ATTRIBUTES.values())
)
# Columns of `ids` by what they say: of the manner, and of one attribute of all things.
COLUMNS: dict[str, tuple[int, ...]] = {"manner": (0, 1)} | {
    name: tuple(range(2 + i, ID_COUNT, len(ATTRIBUTES))) for i, name in enumerate(ATTRIBUTES)
}

_TRAIN, _VALIDATION = 90, 95  # of 100 buckets
_STREAM = 1 << 48  # keeps the noise of scenes apart from the noise of those who tell them
_CHUNK = 512


@dataclass(frozen=True, slots=True)
class Thing:
    """One thing on the board. ValueError when a value is not of this world."""

    shape: str
    colour: str
    texture: str
    size: str
    place: str

    def __post_init__(self) -> None:
        for name, values in ATTRIBUTES.items():
            if getattr(self, name) not in values:
                raise ValueError(f"{name} = {getattr(self, name)!r}: expected one of {values}")


@dataclass(frozen=True, slots=True)
class Scene:
    """Things sorted by place, and the manner of telling. ValueError when it has probability 0."""

    things: tuple[Thing, ...]
    tone: str = "plain"
    audience: str = "adult"

    def __post_init__(self) -> None:
        if not possible(self.things):
            raise ValueError(
                f"things = {self.things}: expected 1 to {MAX_THINGS} sorted by place, with "
                "different shapes and places"
            )
        for name, values in (("tone", TONES), ("audience", AUDIENCES)):
            if getattr(self, name) not in values:
                raise ValueError(f"{name} = {getattr(self, name)!r}: expected one of {values}")


def possible(things: Sequence[Thing]) -> bool:
    """Whether these things make a scene: 1 to 3, sorted by place, no shape or place twice."""
    places = [PLACES.index(thing.place) for thing in things]
    return (
        len(things) in COUNT_WEIGHTS
        and all(a < b for a, b in pairwise(places))
        and len({thing.shape for thing in things}) == len(things)
    )


def relations(place: str, other: str) -> tuple[str, ...]:
    """What `place` is to `other`: one relation in the same row or column, two on a diagonal."""
    row, column = divmod(PLACES.index(place), 3)
    other_row, other_column = divmod(PLACES.index(other), 3)
    holds = (column < other_column, column > other_column, row < other_row, row > other_row)
    return tuple(name for name, held in zip(RELATIONS, holds, strict=True) if held)


def sample(seed: int, index: int) -> Scene:
    """Scene `index` (0 <= index < 2^48) of the stream `seed` (0 <= seed < 2^32)."""
    return samples(seed, index, 1)[0]


def samples(seed: int, start: int, n: int) -> list[Scene]:
    """Scenes start ... start + n - 1 of the stream `seed`; the same as n calls of `sample`."""
    rows = stream_uniforms(seed, start, n, 3 + 5 * MAX_THINGS, medium=0)
    return [_scene(row) for row in rows]


def stream(seed: int, split: str | None = None) -> Iterator[Scene]:
    """The stream `seed` from its start, without end; of one split when it is named."""
    if split is not None:
        check_split(split)
    start = 0
    while True:
        for scene in samples(seed, start, _CHUNK):
            if split is None or split == split_of_scene(scene):
                yield scene
        start += _CHUNK


def stream_uniforms(seed: int, start: int, n: int, count: int, medium: int) -> list[list[float]]:
    """`count` uniforms in (0, 1) for each of n rows of a stream: rows of different `medium` are
    independent, so a teller can follow a stream of scenes. ValueError when out of range."""
    rows: list[list[float]] = uniforms(seed, start, n, count, medium).tolist()
    return rows


def uniforms(seed: int, start: int, n: int, count: int, medium: int) -> torch.Tensor:
    """`stream_uniforms` as a tensor (n, count), float32."""
    if not (0 <= seed < 2**32 and start >= 0 and start + n <= _STREAM):
        raise ValueError(f"seed = {seed}, index = {start}: expected below 2^32 and 2^48, from 0")
    keys = torch.arange(start, start + n) + medium * _STREAM
    return noise.uniform(keys, seed, (count,))


def log_prob(scene: Scene) -> float:
    """log p(scene), nats."""
    n = len(scene.things)
    total = math.log(COUNT_WEIGHTS[n]) - math.log(math.comb(len(PLACES), n))
    total -= math.log(math.perm(len(SHAPES), n))
    total += math.log(WEIGHTS["tone"][scene.tone] * WEIGHTS["audience"][scene.audience])
    for thing in scene.things:
        total += math.log(WEIGHTS["colour"][thing.colour])
        total += math.log(WEIGHTS["texture"][thing.texture])
        total += math.log(WEIGHTS["size"][thing.size])
    return total


@cache
def entropy() -> float:
    """The entropy of a scene, nats, in closed form: a sum, its parts being independent given n."""
    each = sum(entropy_of(WEIGHTS[name].values()) for name in ("colour", "texture", "size"))
    total = sum(entropy_of(WEIGHTS[name].values()) for name in ("tone", "audience"))
    total += entropy_of(COUNT_WEIGHTS.values())
    for n, weight in COUNT_WEIGHTS.items():
        boards = math.comb(len(PLACES), n) * math.perm(len(SHAPES), n)
        total += weight * (math.log(boards) + n * each)
    return total


def entropy_of(probabilities: Iterable[float]) -> float:
    """-sum p log p, nats."""
    return -math.fsum(p * math.log(p) for p in probabilities if p > 0)


def split_of(content: str) -> str:
    """train, validation or test (90 : 5 : 5) by a hash of `content`, the same everywhere."""
    digest = hashlib.blake2b(content.encode(), digest_size=8, person=b"diptych").digest()
    bucket = int.from_bytes(digest, "big") % 100
    return SPLITS[(bucket >= _TRAIN) + (bucket >= _VALIDATION)]


def split_of_scene(scene: Scene) -> str:
    """The split of a scene: a function of its things, not of tone or audience."""
    return split_of(";".join(" ".join(_values(thing)) for thing in scene.things))


def unseen(thing: Thing) -> bool:
    """Whether a compositional split keeps this shape in this colour out of training: 8 of 64 pairs,
    one colour of each shape and one shape of each colour, so all else of both is trained on."""
    return (SHAPES.index(thing.shape) + COLOURS.index(thing.colour)) % len(COLOURS) == 0


def check_split(split: str) -> None:
    """ValueError unless `split` names one."""
    if split not in SPLITS:
        raise ValueError(f"split = {split!r}: expected one of {', '.join(SPLITS)}")


def ids(scene: Scene) -> list[int]:
    """A scene as ID_COUNT condition ids below NUM_IDS, 0 where nothing is: tone, audience, then
    shape, colour, texture, size, place of each thing. Each position has ids of its own, so the
    sum of their embeddings loses nothing."""
    tables = _id_tables()
    values = [scene.tone, scene.audience]
    values += [value for thing in scene.things for value in _values(thing)]
    found = [table[value] for table, value in zip(tables, values, strict=False)]
    return found + [0] * (ID_COUNT - len(found))


def spell(scene: Scene, manner: bool = True) -> str:
    """A scene spelt out, blank-separated: the manner, then each thing in the order of its place:
    "plain adult , large red solid circle top left , small blue dots star centre"."""
    groups = parts(scene)
    return " , ".join(" ".join(group) for group in (groups if manner else groups[1:]))


def parts(scene: Scene) -> list[list[str]]:
    """What `spell` says, part by part: tone and audience, then size, colour, texture, shape and
    place of each thing."""
    things = [[t.size, t.colour, t.texture, t.shape, t.place] for t in scene.things]
    return [[scene.tone, scene.audience], *things]


def from_ids(condition: Sequence[int]) -> Scene:
    """The inverse of `ids`. ValueError when they are not those of a scene."""
    names = [{i: value for value, i in table.items()} for table in _id_tables()]
    if len(condition) != ID_COUNT:
        raise ValueError(f"{len(condition)} condition ids: expected {ID_COUNT}")
    values = [name.get(i, "") for name, i in zip(names, condition, strict=True)]
    width = len(ATTRIBUTES)
    rows = [values[k : k + width] for k in range(2, ID_COUNT, width)]
    things = tuple(Thing(*row) for row in rows if any(row))
    return Scene(things, tone=values[0], audience=values[1])


def _values(thing: Thing) -> tuple[str, ...]:
    return (thing.shape, thing.colour, thing.texture, thing.size, thing.place)


@cache
def _id_tables() -> list[dict[str, int]]:
    kinds = [TONES, AUDIENCES, *(MAX_THINGS * [*ATTRIBUTES.values()])]
    tables: list[dict[str, int]] = []
    used = 1
    for values in kinds:
        tables.append({value: used + k for k, value in enumerate(values)})
        used += len(values)
    return tables


def _scene(row: list[float]) -> Scene:
    """Uniforms -> a scene, by inverting each distribution function in turn."""
    draws = iter(row)
    n = _invert(COUNT_WEIGHTS, next(draws))
    tone, audience = (_invert(WEIGHTS[name], next(draws)) for name in ("tone", "audience"))
    shapes, places = list(SHAPES), list(PLACES)
    things: list[Thing] = []
    for _ in range(n):
        shape = shapes.pop(int(next(draws) * len(shapes)))
        place = places.pop(int(next(draws) * len(places)))
        colour, texture, size = (
            _invert(WEIGHTS[name], next(draws)) for name in ("colour", "texture", "size")
        )
        things.append(Thing(shape, colour, texture, size, place))
    things.sort(key=lambda thing: PLACES.index(thing.place))
    return Scene(tuple(things), tone, audience)


def _invert(weights: dict[T, float], u: float) -> T:
    for value, weight in weights.items():
        u -= weight
        if u < 0:
            return value
    return list(weights)[-1]  # u was within rounding of 1
