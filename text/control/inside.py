"""Weighted context-free grammars in batches: the inside algorithm (Baker 1979) over a ring.

A chart holds, for every span and symbol, the sum over all derivations of that symbol there of the
product of rule weights, in logs: with `logsumexp` as the sum it gives log Z, whose gradient to the
weights counts rules and to the spans' own scores is the probability of each span; with `amax` the
best derivation's score, whose gradient is that derivation (Eisner 2016).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Ring:
    """How weights are multiplied and added: `sum` goes over one dimension."""

    times: Callable[[Tensor, Tensor], Tensor]
    sum: Callable[[Tensor, int], Tensor]
    zero: float


SUM = Ring(torch.mul, lambda x, d: x.sum(d), 0.0)  # of probabilities: float64, n below 60
BEST = Ring(torch.add, lambda x, d: x.amax(d), -1e6)  # of logs


@dataclass(frozen=True)
class Grammar:
    """Symbols by number, `top` among them, and rules (left side, one or two symbols).

    Rules of one symbol must be in an order in which no later one feeds an earlier one.
    """

    symbols: tuple[str, ...]
    top: int
    binary: tuple[tuple[int, int, int], ...]
    unary: tuple[tuple[int, int], ...]

    @property
    def rules(self) -> int:
        return len(self.binary) + len(self.unary)


def read_grammar(text: str, top: str) -> Grammar:
    """Lines `A: B C | D` -> a grammar; longer right sides are cut in two from the right. ValueError
    for rules of one symbol that go round in a circle."""
    numbers: dict[str, int] = {}
    binary: list[tuple[int, int, int]] = []
    unary: list[tuple[int, int]] = []

    def number(name: str) -> int:
        return numbers.setdefault(name, len(numbers))

    def add(left: str, right: Sequence[str]) -> None:
        if len(right) == 1:
            unary.append((number(left), number(right[0])))
        elif len(right) == 2:
            binary.append((number(left), number(right[0]), number(right[1])))
        else:
            rest = "_" + "+".join(right[1:])
            known = rest in numbers
            binary.append((number(left), number(right[0]), number(rest)))
            if not known:
                add(rest, right[1:])

    for line in text.strip().splitlines():
        left, _, options = line.partition(":")
        for option in options.split("|"):
            add(left.strip(), option.split())
    return Grammar(tuple(numbers), numbers[top], tuple(binary), tuple(_ordered(unary)))


def _ordered(unary: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Rules A: B such that all rules with B on the left come before."""
    left, done = list(dict.fromkeys(unary)), []
    while left:
        ready = [rule for rule in left if rule[1] not in {a for a, _ in left}]
        if not ready:
            raise ValueError("rules of one symbol go round in a circle")
        done += ready
        left = [rule for rule in left if rule not in ready]
    return done


def inside(
    grammar: Grammar, weights: Tensor, words: Tensor, lengths: Tensor, spans: Tensor, ring: Ring
) -> Tensor:
    """Values of whole sentences (B,) in the ring, from the weights of rules (R,), those of each
    word's symbols (B, n, N), lengths (B,), and of each symbol over each span (B, n, n, N), by first
    and last word."""
    B, n, _ = words.shape
    b, c = (torch.tensor([rule[k] for rule in grammar.binary]) for k in (1, 2))
    groups, own = _groups(grammar), weights[: len(grammar.binary)]
    lefts: list[Tensor] = []  # by width - 1: (B, n - width + 1, R), of the first symbols of rules
    rights: list[Tensor] = []
    whole: list[Tensor] = []
    for width in range(1, n + 1):
        places = n - width + 1
        cell = words
        if width > 1:
            splits = range(width - 1)
            left = torch.stack([lefts[k][:, :places] for k in splits])
            right = torch.stack(
                [rights[width - 2 - k][:, k + 1 : k + 1 + places] for k in splits]
            )
            found = ring.times(ring.sum(ring.times(left, right), 0), own)
            padded = torch.cat([found, found.new_full((B, places, 1), ring.zero)], 2)
            cell = ring.sum(padded[..., groups], -1)
        cell = _unary(grammar, weights, cell, ring)
        at = torch.arange(places)
        cell = ring.times(cell, spans[:, at, at + width - 1])
        lefts.append(cell[..., b])
        rights.append(cell[..., c])
        whole.append(cell[:, 0, grammar.top])
    return torch.stack(whole, 1).gather(1, lengths[:, None] - 1)[:, 0]


def _groups(grammar: Grammar) -> Tensor:
    """(N, G): the rules of each symbol; the number of rules fills up."""
    of = [[r for r, rule in enumerate(grammar.binary) if rule[0] == a] for a in range(len(grammar.symbols))]
    most = max(map(len, of))
    return torch.tensor([rules + [len(grammar.binary)] * (most - len(rules)) for rules in of])


def _unary(grammar: Grammar, weights: Tensor, cell: Tensor, ring: Ring) -> Tensor:
    columns = list(cell.unbind(-1))
    for (a, b), weight in zip(grammar.unary, weights[len(grammar.binary) :], strict=True):
        columns[a] = ring.sum(torch.stack([columns[a], ring.times(columns[b], weight)], -1), -1)
    return torch.stack(columns, -1)
