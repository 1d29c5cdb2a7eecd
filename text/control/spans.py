"""Constituents as rows of tags: what stands in a phrase, learned from phrases.

A phrase of a label is taken for any row of symbols whose k symbols in a row, with the phrase's ends
and the symbols beside it, were all seen in phrases of that label: the k-testable language in the
strict sense of the examples (Garcia & Vidal 1990). Symbols are tags; of punctuation, the sign
itself.

    [before, "[", first, ..., last, "]", after]
"""

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TypeAlias

import torch

from shared.errors import ConfigError
from shared.tokenizer import EOS, PAD, SPECIAL, WORD_START, Tokenizer
from text.control.automaton import Automaton, build

Span: TypeAlias = tuple[int, int, str]  # first and last word, counted from 0, and the label
EDGE = "#"  # what stands before the first word, and after the last
STOPS = frozenset(".!?")  # no phrase goes on after one
TEXT = "S of several"  # but the S of a whole text of several sentences
K = 3


def parse_span(value: str) -> Span:
    """`3-5 PP` -> (3, 5, "PP"). ConfigError when it does not read."""
    found = re.fullmatch(r"\s*(\d+)-(\d+)\s+([A-Z]+(?:::[A-Z]+)*)\s*", value)
    if not found or int(found[1]) > int(found[2]):
        raise ConfigError(
            f"span = {value!r}: expected the first and the last word, from 0, and a label: 3-5 PP"
        )
    return int(found[1]), int(found[2]), found[3]


def symbol(word: str, tag: str) -> str:
    """What a word is in a phrase."""
    return word if tag == "PUNCT" else tag


@dataclass(frozen=True)
class Phrases:
    """What was seen in phrases: rows of K symbols, by label."""

    seen: dict[str, frozenset[tuple[str, ...]]]

    @classmethod
    def learn(cls, examples: Iterable[tuple[Sequence[str], Span]]) -> "Phrases":
        """From the symbols of sentences and phrases in them; those with a full stop inside are left
        out, but for the S of a whole text."""
        seen: dict[str, set[tuple[str, ...]]] = {}
        for symbols, (left, right, label) in examples:
            is_text = bare(label) == "S" and (left, right) == (0, len(symbols) - 1)
            is_one = STOPS.isdisjoint(symbols[left:right])
            if is_one or is_text:
                own = seen.setdefault(bare(label) if is_one else TEXT, set())
                around = [EDGE, *symbols, EDGE]
                row = [around[left], "[", *symbols[left : right + 1], "]", around[right + 2]]
                own.update(tuple(row[i : i + K]) for i in range(len(row) - K + 1))
        return cls({label: frozenset(rows) for label, rows in seen.items()})

    def automaton(
        self, span: Span, tags: Mapping[str, Set[str]], tokenizer: Tokenizer, asked: str
    ) -> Automaton:
        """The rows with such a phrase there, of words with `tags`. ConfigError for a label that was
        not seen."""
        left, right, label = span
        rows = self.seen.get(bare(label), frozenset())
        if left == 0 and bare(label) == "S":
            rows |= self.seen.get(TEXT, frozenset())
        if not rows:
            known = ", ".join(sorted(self.seen.keys() - {TEXT}))
            raise ConfigError(f"{asked}: expected a label that was seen, one of {known}")
        signatures = [_symbols(piece, tags) for piece in tokenizer.pieces()]
        kinds = sorted(set(signatures[SPECIAL:]), key=sorted)
        numbers = {signature: i + SPECIAL for i, signature in enumerate(kinds)}
        of_token = [i if i < SPECIAL else numbers[s] for i, s in enumerate(signatures)]
        walk = _Walk(left, right, rows, kinds)
        return build(torch.tensor(of_token), walk.start, walk.step, lambda s: s == "ended")


def held(span: Span, found: Set[Span] | None) -> bool:
    """Whether a sentence's constituents hold this one; of unary chains the innermost counts."""
    return found is not None and (*span[:2], bare(span[2])) in found


def bare(label: str) -> str:
    """The innermost of labels over the same words, S::NP -> NP."""
    return label.rsplit("::", 1)[-1]


def _symbols(piece: str, tags: Mapping[str, Set[str]]) -> frozenset[str]:
    """What a token may be; a piece inside a word is nothing, and stands nowhere."""
    if not piece.startswith(WORD_START):
        return frozenset(["inside"])
    word = piece[1:]
    return frozenset(symbol(word, tag) for tag in tags.get(word, ()))


@dataclass(frozen=True)
class _Walk:
    """States: (words so far, rows of the last K - 1 symbols that may be), "free" behind the phrase,
    "ended", None for nowhere."""

    left: int
    right: int
    rows: Set[tuple[str, ...]]
    kinds: Sequence[frozenset[str]]

    @property
    def start(self) -> Hashable:
        return (0, self._before(frozenset([EDGE])) if self.left == 0 else None)

    def step(self, state: Hashable, kind: int) -> Hashable:
        if state is None or kind in (1, 2):
            return None
        if state == "ended":
            return state if kind == PAD else None
        if kind in (EOS, PAD):
            return self._end(state) if kind == EOS else None
        symbols = self.kinds[kind - SPECIAL]
        if "inside" in symbols:
            return None
        if not isinstance(state, tuple):
            return state
        place, tails = state
        if place < self.left:
            after = self._before(symbols) if place + 1 == self.left else None
            return None if after == frozenset() else (place + 1, after)
        if place > self.right:
            return "free" if self._moved(tails, symbols) else None
        moved = self._moved(tails, symbols)
        if place == self.right:
            moved = self._moved(moved, ["]"])
        return (place + 1, moved) if moved else None

    def _before(self, symbols: Iterable[str]) -> frozenset[tuple[str, ...]]:
        starts = {row[:2] for row in self.rows if row[1] == "["}
        return frozenset((s, "[") for s in symbols if (s, "[") in starts)

    def _moved(
        self, tails: Iterable[tuple[str, ...]], symbols: Iterable[str]
    ) -> frozenset[tuple[str, ...]]:
        grown = ((*tail, symbol) for tail in tails for symbol in symbols)
        return frozenset(row[1:] for row in grown if row in self.rows)

    def _end(self, state: Hashable) -> Hashable:
        if state == "free":
            return "ended"
        if isinstance(state, tuple) and state[0] > self.right and self._moved(state[1], [EDGE]):
            return "ended"
        return None
