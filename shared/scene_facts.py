"""What can be known of a scene without knowing all of it, and how probable that is.

Facts are some attributes of the things, in an order, and relations between them. They come about
like this: the things are gone through in uniformly random order, attributes and relations are
named, and of two relations that hold on a diagonal one is named at random. Which attributes and
pairs are named is decided elsewhere, without looking at their values; what is left out then sums
out to 1, and

    P(facts) = p(n) p(tone) p(audience) / (8)_k  prod p(attributes)
               sum_places 1 / (9)_m  prod_relations [it holds] / (number of relations that hold)

for k shapes named and m things whose place matters. The sum is taken exactly.
"""

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from shared import scene
from shared.scene import COUNT_WEIGHTS, PLACES, SHAPES, WEIGHTS, Scene, Thing

# A name and the things it is about: ("tone",), ("count",), ("colour", 0), ("relation", 0, 1).
Fact = tuple[str | int, ...]
Only = Mapping[str, str]  # the world narrowed to scenes of this count, tone or audience
NOTHING: Only = {}
NARROWS = ("count", "tone", "audience")
_SPATIAL = ("place", "relation")


class Part(NamedTuple):
    """What is known of one thing; None where nothing is."""

    shape: str | None = None
    colour: str | None = None
    texture: str | None = None
    size: str | None = None
    place: str | None = None


class Relation(NamedTuple):
    """things[subject] is `name` things[object]."""

    subject: int
    name: str
    object: int


@dataclass(frozen=True, slots=True)
class Facts:
    """A scene known in part: as many parts as it has things, in the order of telling."""

    tone: str
    audience: str
    things: tuple[Part, ...]
    relations: tuple[Relation, ...] = ()

    def values(self) -> dict[Fact, str]:
        """All that is known, fact by fact."""
        known: dict[Fact, str] = {
            ("tone",): self.tone,
            ("audience",): self.audience,
            ("count",): str(len(self.things)),
        }
        for i, part in enumerate(self.things):
            for name, value in zip(part._fields, part, strict=True):
                if value is not None:
                    known[name, i] = value
        for subject, name, other in self.relations:
            known["relation", subject, other] = name
        return known


def from_values(known: Mapping[Fact, str]) -> Facts:
    """The inverse of `Facts.values`. KeyError without tone, audience or count."""
    parts: list[dict[str, str]] = [{} for _ in range(int(known["count",]))]
    relations: list[Relation] = []
    for (name, *about), value in known.items():
        places = [int(i) for i in about]
        if name == "relation":
            relations.append(Relation(places[0], value, places[1]))
        elif places:
            parts[places[0]][str(name)] = value
    things = tuple(Part(**part) for part in parts)
    return Facts(known["tone",], known["audience",], things, tuple(relations))


def log_prob(facts: Facts) -> float:
    """log P(facts), nats; -inf when no scene is like that."""
    known = facts.values()
    shapes = [part.shape for part in facts.things if part.shape is not None]
    if len(facts.things) not in COUNT_WEIGHTS or len(set(shapes)) < len(shapes):
        return -math.inf
    total = math.log(COUNT_WEIGHTS[len(facts.things)]) - math.log(
        math.perm(len(SHAPES), len(shapes))
    )
    for fact, value in known.items():
        weights = WEIGHTS.get(str(fact[0]))
        if weights is not None:
            total += math.log(weights[value])
    where = tuple(fact for fact in known if fact[0] in _SPATIAL)
    probability = _spatial(where).get(tuple(known[fact] for fact in where), 0.0)
    return total + math.log(probability) if probability > 0 else -math.inf


def log_prob_given(facts: Facts, whole: Scene) -> float:
    """log P(facts | scene), nats: over the orders of telling and the choice of relations."""
    if (facts.tone, facts.audience) != (whole.tone, whole.audience):
        return -math.inf
    if len(facts.things) != len(whole.things):
        return -math.inf
    total = math.fsum(_given_order(facts, order) for order in itertools.permutations(whole.things))
    return math.log(total / math.factorial(len(whole.things))) if total > 0 else -math.inf


def true_of(facts: Facts, things: tuple[Thing, ...]) -> bool:
    """Whether all facts hold of these things, whatever the tone and audience."""
    return len(facts.things) == len(things) and any(
        _given_order(facts, order) > 0 for order in itertools.permutations(things)
    )


def to_scene(facts: Facts) -> Scene | None:
    """The one scene that the facts leave possible; None when they leave several or none.

    Attributes and places must all be named: what relations could add is not looked for."""
    things: list[Thing] = []
    for part in facts.things:
        if None in part:
            return None
        things.append(Thing(*(str(value) for value in part)))
    things.sort(key=lambda thing: PLACES.index(thing.place))
    if not scene.possible(things) or not true_of(facts, tuple(things)):
        return None
    return Scene(tuple(things), facts.tone, facts.audience)


def check_only(only: Only) -> None:
    """ValueError unless `only` gives values that count, tone and audience can have."""
    for name, value in only.items():
        known = prior((name,)) if name in NARROWS else {}
        if value not in known:
            expected = ", ".join(known) if known else f"one of the keys {', '.join(NARROWS)}"
            raise ValueError(f"only: {name} = {value!r}: expected {expected}")


def fits(whole: Scene, only: Only) -> bool:
    """Whether the scene is of the narrowed world."""
    facts = {"count": str(len(whole.things)), "tone": whole.tone, "audience": whole.audience}
    return all(facts[name] == value for name, value in only.items())


def prior(fact: Fact) -> Mapping[str, float]:
    """The distribution of one fact alone."""
    name = str(fact[0])
    if name == "count":
        return {str(n): weight for n, weight in COUNT_WEIGHTS.items()}
    if name == "shape":
        return dict.fromkeys(SHAPES, 1 / len(SHAPES))
    if name in _SPATIAL:
        return {value: probability for (value,), probability in _spatial((fact,)).items()}
    return WEIGHTS[name]


def entropy(facts: Iterable[Fact]) -> float:
    """The entropy of the values of these facts, nats: places and relations by exact summation over
    boards, all else in closed form. The number of things, tone and audience count when listed."""
    listed = list(facts)
    total = math.log(math.perm(len(SHAPES), sum(fact[0] == "shape" for fact in listed)))
    for fact in listed:
        if fact[0] != "shape" and fact[0] not in _SPATIAL:
            total += scene.entropy_of(prior(fact).values())
    where = tuple(sorted((fact for fact in listed if fact[0] in _SPATIAL), key=str))
    return total + scene.entropy_of(_spatial(where).values())


@cache
def _spatial(where: tuple[Fact, ...]) -> dict[tuple[str, ...], float]:
    """The joint distribution of places and relations over all boards of the things involved."""
    involved = sorted({int(i) for fact in where for i in fact[1:]})
    total: dict[tuple[str, ...], float] = {}
    boards = math.perm(len(PLACES), len(involved))
    for board in itertools.permutations(PLACES, len(involved)):
        at = dict(zip(involved, board, strict=True))
        options: list[tuple[str, ...]] = []
        for name, *about in where:
            here = [at[int(i)] for i in about]
            options.append((here[0],) if name == "place" else scene.relations(here[0], here[1]))
        share = 1 / boards / math.prod(map(len, options))
        for values in itertools.product(*options):
            total[values] = total.get(values, 0.0) + share
    return total


def _given_order(facts: Facts, order: tuple[Thing, ...]) -> float:
    """P(facts | scene, order of telling)."""
    for part, thing in zip(facts.things, order, strict=True):
        for name, value in zip(part._fields, part, strict=True):
            if value is not None and value != getattr(thing, name):
                return 0.0
    probability = 1.0
    for subject, name, other in facts.relations:
        holds = scene.relations(order[subject].place, order[other].place)
        if name not in holds:
            return 0.0
        probability /= len(holds)
    return probability
