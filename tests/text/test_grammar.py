import math
import random
from collections import Counter

import pytest

from text.grammar import (
    Choice,
    Leaf,
    Phrase,
    Slot,
    bracketed,
    generate,
    leaves,
    parse,
    with_articles,
    without_articles,
)
from text.language import count, derivations, is_ambiguous, max_choices, max_length, plans

HUES = {"red": 0.7, "blue": 0.3}


def leaf(token: str) -> Leaf:
    return Leaf(token, token.upper())


def small() -> Phrase:
    """[oh] a (red | scarlet | blue) dot [today | now]: 18 sentences."""
    hue = Slot(
        ("hue", 0), {"red": Choice([(3, leaf("red")), (1, leaf("scarlet"))]), "blue": leaf("blue")}
    )
    opening = Choice([(1, leaf("oh")), (4, Phrase(None, []))])
    closing = Choice(
        [(2, Phrase(None, [])), (1, leaf("today")), (3, Phrase("ADVP", [leaf("now")]))]
    )
    return Phrase("S", [opening, Phrase("NP", [leaf("a"), hue, leaf("dot")]), closing])


def probability(found) -> float:
    return math.exp(found.log_weight) * math.prod(HUES[value] for _, value in found.facts)


def test_all_sentences_sum_to_one_and_parse_to_their_probability():
    total = 0.0
    for weight, facts, tokens in derivations(small()):
        expected = weight * math.prod(HUES[value] for _, value in facts)
        (found,) = parse(small(), tokens)
        assert probability(found) == pytest.approx(expected, abs=1e-14)
        assert found.facts == facts
        assert [token for _, token in leaves(found.trees[0])] == tokens
        total += expected
    assert total == pytest.approx(1, abs=1e-14)
    assert count(small()) == 2 * 3 * 3
    assert max_length(small()) == 5
    assert max_choices(small()) == 3


def test_what_is_not_in_the_language_has_no_parse():
    for sentence in ("a dot", "a red", "oh oh a red dot", "a red dot now today", "", "a red dot ."):
        assert parse(small(), sentence.split(" ")) == []


def test_sentences_are_generated_with_their_probability():
    rng = random.Random(1)
    n = 20_000
    counts: Counter[str] = Counter()
    for _ in range(n):
        hue = "red" if rng.random() < HUES["red"] else "blue"
        tree = generate(small(), lambda fact, hue=hue: hue, iter(rng.random, None))
        counts[" ".join(token for _, token in leaves(tree))] += 1
    chi_square = 0.0
    for _, _, tokens in derivations(small()):
        p = probability(parse(small(), tokens)[0])
        chi_square += (counts[" ".join(tokens)] - n * p) ** 2 / (n * p)
    assert chi_square < 40.8  # 17 degrees of freedom: a correct generator fails one seed in 1000


def test_entropy_by_plans_is_the_sum_over_sentences():
    expected = -math.fsum(
        p * math.log(p)
        for p in (probability(parse(small(), tokens)[0]) for *_, tokens in derivations(small()))
    )
    choices, said = plans(small(), lambda fact: HUES)
    assert said == {frozenset([("hue", 0)]): pytest.approx(1)}
    facts = -math.fsum(p * math.log(p) for p in HUES.values())
    assert choices + facts == pytest.approx(expected, abs=1e-14)


def test_plans_tell_how_often_each_set_of_facts_is_said():
    first = Slot(("hue", 0), {"red": leaf("red"), "blue": leaf("blue")})
    second = Slot(("hue", 1), {"red": leaf("red"), "blue": leaf("blue")})
    either = Choice([(1, first), (3, Phrase(None, [second, leaf("and"), first]))])
    _, said = plans(either, lambda fact: HUES)
    both = frozenset([("hue", 0), ("hue", 1)])
    assert said == {frozenset([("hue", 0)]): pytest.approx(0.25), both: pytest.approx(0.75)}


def test_plans_that_depend_on_values_or_say_a_fact_twice_are_refused():
    hue = Slot(("hue", 0), {"red": leaf("red"), "blue": leaf("blue")})
    kind = {"dot": Phrase(None, [hue, leaf("dot")]), "line": leaf("line")}
    with pytest.raises(ValueError, match="decides"):
        plans(Slot(("kind", 0), kind), lambda fact: HUES)
    with pytest.raises(ValueError, match="twice"):
        plans(Phrase(None, [hue, leaf("and"), hue]), lambda fact: HUES)


def nothing() -> Phrase:
    return Phrase(None, [])


AMBIGUOUS = {
    "two options alike": Choice([(1, leaf("a")), (2, leaf("a"))]),
    "two values alike": Slot(("hue", 0), {"red": leaf("a"), "blue": leaf("a")}),
    "which of two was left out": Phrase(
        "S",
        [Choice([(1, leaf("a")), (1, nothing())]), Choice([(1, leaf("a")), (1, nothing())])],
    ),
    "two ways to say nothing": Phrase("S", [leaf("a"), Choice([(1, nothing()), (2, nothing())])]),
    "cut in two places": Phrase(
        "S",
        [
            Choice([(1, leaf("a")), (1, Phrase(None, [leaf("a"), leaf("b")]))]),
            Choice([(1, Phrase(None, [leaf("b"), leaf("c")])), (1, leaf("c"))]),
        ],
    ),
}
UNAMBIGUOUS = {
    "small": small(),
    "a common beginning": Choice(
        [
            (1, Phrase(None, [leaf("a"), leaf("b")])),
            (1, Phrase(None, [leaf("a"), leaf("c")])),
            (1, leaf("a")),
        ]
    ),
    "a common end": Choice(
        [(1, Phrase(None, [leaf("b"), leaf("a")])), (1, Phrase(None, [leaf("c"), leaf("a")]))]
    ),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_ambiguity_is_found(name):
    assert is_ambiguous(AMBIGUOUS[name])
    sentences = [tuple(tokens) for *_, tokens in derivations(AMBIGUOUS[name])]
    assert len(set(sentences)) < len(sentences)
    twice = Counter(sentences).most_common(1)[0][0]
    assert len(parse(AMBIGUOUS[name], twice)) > 1


@pytest.mark.parametrize("name", UNAMBIGUOUS)
def test_no_ambiguity_is_found_where_none_is(name):
    assert not is_ambiguous(UNAMBIGUOUS[name])
    sentences = [tuple(tokens) for *_, tokens in derivations(UNAMBIGUOUS[name])]
    assert len(set(sentences)) == len(sentences)


def test_trees_are_written_in_brackets_over_given_tokens():
    (found,) = parse(small(), ["a", "blue", "dot", "now"])
    tree = bracketed(found.trees[0], iter(["an", "azure", "dot", "now"]))
    assert tree == "(S (NP (A an) (BLUE azure) (DOT dot)) (ADVP (NOW now)))"


def test_articles_agree_with_what_follows():
    plain = ["a", "orange", "star", "and", "a", "red", "one", "on", "a"]
    assert with_articles(plain) == ["an", "orange", "star", "and", "a", "red", "one", "on", "a"]
    assert without_articles(with_articles(plain)) == plain
    assert without_articles(["a", "orange", "star"]) is None
    assert without_articles(["an", "red", "star"]) is None
