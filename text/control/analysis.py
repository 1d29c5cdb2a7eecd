"""What can be read in a sentence, as controls are held against it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from text import grammar
from text.control.lexicon import says, tags_of
from text.control.spans import Span
from text.grammar import Tree
from text.reader import Reading


@dataclass(frozen=True)
class Analysis:
    """Of one sentence: the tag of each word, its constituents, its tree without words (each None
    where nobody knows), and whether it says a fact, `field: value`."""

    says: Callable[[str], bool]
    tags: Sequence[str] | None = None
    spans: frozenset[Span] | None = None
    tree: str | None = None


def of_reading(reading: Reading) -> Analysis:
    """Of a sentence of the scene world, exactly."""
    return Analysis(
        partial(says, reading),
        tags_of(reading),
        frozenset(_spans(reading.tree, 0)),
        skeleton(reading.tree),
    )


def occurs(sentence: str, fact: str) -> bool:
    """Whether the value of `field: value` occurs in the sentence, word by word: what Li et al. 2022
    (app. F) count as success."""
    value = fact.partition(":")[2].split()
    words = sentence.split()
    return any(words[i : i + len(value)] == value for i in range(len(words)))


def skeleton(tree: Tree) -> str:
    """(S (NP DET NOUN) ...): the tree with tags for leaves."""
    label, *rest = tree
    if isinstance(rest[0], str):
        return str(label)
    return f"({label} {' '.join(skeleton(child) for child in rest if not isinstance(child, str))})"


def _spans(tree: Tree, start: int) -> Iterator[Span]:
    """Every phrase of a tree whose first word has the number `start`."""
    label, *children = tree
    if isinstance(children[0], str):
        return
    at = start
    for child in children:
        assert not isinstance(child, str)
        yield from _spans(child, at)
        at += len(grammar.leaves(child))
    yield start, at - 1, str(label)
