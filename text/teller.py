"""Scenes -> English, with the exact probability of every sentence.

A teller goes through the things in random order and draws a derivation of the grammar; the scene
fills its slots. A sentence has one reading, so with w the weight of its free choices

    p(sentence | scene) = w P(facts | scene)        p(sentence) = w P(facts)

and the entropy is the sum over plans (sets of facts to say, which never depend on values) of what
the choices and the facts contribute. Sentence `index` of stream `seed` tells scene `index` of that
stream. Sentences are split by their own hash, for the same sentence may tell many scenes: one in a
split is in no other, so a sentence that is not in the training split is new. (Over a split, p is
p(sentence) / P(split): a model of the training split that knew the hash could gain 0.1 nat.) Or
they are split by the hash of their template, so that one held out is new whatever fills it.

detail = "some" says part of the scene in at most 22 tokens; detail = "full" says all in up to 48.
`only` narrows the world to scenes with the given count, tone or audience: {"count": "1"}.
"""

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from shared import scene, scene_facts
from shared.scene import Scene
from shared.scene_facts import NOTHING, Fact, Only
from shared.schema import one_of
from text import grammar, language, reader
from text.english import DETAILS, english
from text.grammar import Slot, Tree

SPLIT_BY = ("sentence", "template")

_CHUNK = 512
_ASIDE = 4  # uniforms for the order of things and the choice of relations, before the grammar's


@dataclass(frozen=True, slots=True)
class Telling:
    """A sentence, its constituency tree in brackets, and the universal tag of each token."""

    sentence: str
    tree: str
    tags: tuple[str, ...]


def tell(told: Scene, seed: int, index: int, detail: str = "some") -> Telling:
    """Tell a scene: a function of its arguments."""
    tree = _derive(told, _uniforms(seed, index, 1, detail)[0], detail)
    tags, tokens = zip(*grammar.leaves(tree), strict=True)
    tokens = grammar.with_articles(tokens)
    return Telling(" ".join(tokens), grammar.bracketed(tree, iter(tokens)), tags)


def captions(told: Sequence[Scene], seed: int = 0, detail: str = "full") -> list[str]:
    """The sentences of `tell(told[i], seed, i, detail)`, for pairs with another medium."""
    rows = _uniforms(seed, 0, len(told), detail)
    return [_sentence(_derive(one, row, detail)) for one, row in zip(told, rows, strict=True)]


def template(sentence: str, detail: str = "some") -> str:
    """The sentence with one _ for each row of words that tell an attribute of a thing; `an` is
    `a`."""
    values = _values(detail)
    tokens = ("a" if token == "an" else token for token in sentence.split())
    blanked = ("_" if token in values else token for token in tokens)
    return re.sub(r"_( _)+", "_", " ".join(blanked))


def pairs(
    seed: int,
    split: str | None = None,
    detail: str = "some",
    only: Only = NOTHING,
    split_by: str = "sentence",
) -> Iterator[tuple[Scene, str]]:
    """Scenes of the stream `seed` and what is told of each, without end; the sentences, or their
    templates, are of one split when it is named."""
    scene_facts.check_only(only)
    one_of("split_by", split_by, SPLIT_BY)
    if split is not None:
        scene.check_split(split)
    for start in itertools.count(0, _CHUNK):
        rows = _uniforms(seed, start, _CHUNK, detail)
        for told, row in zip(scene.samples(seed, start, _CHUNK), rows, strict=True):
            if not scene_facts.fits(told, only):
                continue
            sentence = _sentence(_derive(told, row, detail))
            by = sentence if split_by == "sentence" else template(sentence, detail)
            if split is None or split == scene.split_of(by):
                yield told, sentence


def stream(
    seed: int,
    split: str | None = None,
    detail: str = "some",
    only: Only = NOTHING,
    split_by: str = "sentence",
) -> Iterator[str]:
    """The sentences of `pairs`."""
    return (sentence for _, sentence in pairs(seed, split, detail, only, split_by))


def corpus(
    split: str, n: int, seed: int = 0, detail: str = "some", only: Only = NOTHING
) -> list[str]:
    """The first n sentences of the stream `seed` that belong to `split`."""
    return list(itertools.islice(stream(seed, split, detail, only), n))


def log_prob(sentence: str, detail: str = "some") -> float:
    """log p(sentence), nats, summed over all scenes; -inf when it cannot be told."""
    reading = reader.analyse(sentence, detail)
    return (
        -math.inf if reading is None else reading.log_weight + scene_facts.log_prob(reading.facts)
    )


def log_prob_given(sentence: str, told: Scene, detail: str = "some") -> float:
    """log p(sentence | scene), nats; -inf when it does not tell this scene."""
    reading = reader.analyse(sentence, detail)
    if reading is None:
        return -math.inf
    return reading.log_weight + scene_facts.log_prob_given(reading.facts, told)


def entropy(detail: str = "some", only: Only = NOTHING) -> float:
    """The entropy of a sentence, nats, by exact summation over tones, audiences, numbers of things
    and plans."""
    scene_facts.check_only(only)
    return _entropy(english(detail), frozenset(), only)


def _entropy(node: grammar.Node, given: frozenset[Fact], only: Only) -> float:
    """Tone, audience and number decide what else is said, so they are summed over one by one."""
    if isinstance(node, Slot) and len(given) < 3:
        chosen = only.get(str(node.fact[0]))
        if chosen is not None:
            return _entropy(node.by_value[chosen], given | {node.fact}, only)
        weights = scene_facts.prior(node.fact)
        below = math.fsum(
            weights[value] * _entropy(option, given | {node.fact}, only)
            for value, option in node.by_value.items()
        )
        return scene_facts.entropy([node.fact]) + below
    choices, plans = language.plans(node, scene_facts.prior)
    return choices + math.fsum(p * scene_facts.entropy(facts) for facts, p in plans.items())


def _uniforms(seed: int, start: int, n: int, detail: str) -> list[list[float]]:
    count = _ASIDE + _max_choices(detail)
    return scene.stream_uniforms(seed, start, n, count, medium=1 + DETAILS.index(detail))


@cache
def _values(detail: str) -> frozenset[str]:
    return language.slot_words(english(detail), scene.ATTRIBUTES)


@cache
def _max_choices(detail: str) -> int:
    return language.max_choices(english(detail))


def _sentence(tree: Tree) -> str:
    return " ".join(grammar.with_articles([token for _, token in grammar.leaves(tree)]))


def _derive(told: Scene, row: list[float], detail: str) -> Tree:
    """Uniforms -> a derivation: first the order of the things, then relations, then wording."""
    left = list(told.things)
    order = [left.pop(int(u * len(left))) for u in row[: len(left) - 1]] + left
    facts: dict[Fact, str] = {
        ("tone",): told.tone,
        ("audience",): told.audience,
        ("count",): str(len(order)),
    }
    for i, thing in enumerate(order):
        for name in scene.ATTRIBUTES:
            facts[name, i] = getattr(thing, name)
    for i, u in zip(range(1, len(order)), row[2:_ASIDE], strict=False):
        holds = scene.relations(order[0].place, order[i].place)
        facts["relation", 0, i] = holds[int(u * len(holds))]
    return grammar.generate(english(detail), facts.__getitem__, iter(row[_ASIDE:]))
