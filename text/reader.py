"""Sentences -> what they say: exact parsing under the grammar of `text.english`.

A sentence has at most one reading (`tests/text/test_grammar.py` decides that for the whole
grammar), so reading is a function: the facts said, or None for what the grammar does not make.
"""

from dataclasses import dataclass

from shared import scene_facts
from shared.scene_facts import Facts
from text import grammar
from text.english import english
from text.grammar import Tree


@dataclass(frozen=True, slots=True)
class Reading:
    """What a sentence says, how: its tree, and the log-weight (nats) of the wording."""

    facts: Facts
    tree: Tree
    log_weight: float


def analyse(sentence: str, detail: str = "some") -> Reading | None:
    """The reading of a sentence: lower case, tokens divided by single blanks. None without one."""
    tokens = grammar.without_articles(sentence.split(" "))
    if tokens is None:
        return None
    for found in grammar.parse(english(detail), tokens):
        facts = scene_facts.from_values(dict(found.facts))
        return Reading(facts, found.trees[0], found.log_weight)
    return None


def read(sentence: str, detail: str = "some") -> Facts | None:
    """What a sentence says of a scene, its tone and audience; None when it does not parse.

    Facts need not be possible: two stars are good English, though no scene holds them; the
    log-probability of such a sentence is -inf (`text.teller.log_prob`)."""
    reading = analyse(sentence, detail)
    return None if reading is None else reading.facts


def grammatical(sentence: str, detail: str = "some") -> bool:
    """Whether the sentence parses: agreement, articles, and one register throughout."""
    return analyse(sentence, detail) is not None
