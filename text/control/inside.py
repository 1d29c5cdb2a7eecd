"""Weighted context-free grammars in batches: the inside algorithm (Baker 1979) over a semiring.

A chart holds, for every span and symbol, the sum over all derivations of that symbol there of the
product of rule weights. With numbers the gradient of log Z to the logs of weights counts rules;
with logs and their maximum the gradient of the best derivation's score to the spans' own scores is
that derivation (Eisner 2016).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Ring:
    """How weights are multiplied and added: `sum` over a dimension, `gather` the last dimension at
    places (K,) in [0, size) into `size`."""

    times: Callable[[Tensor, Tensor], Tensor]
    sum: Callable[[Tensor, int], Tensor]
    gather: Callable[[Tensor, Tensor, int], Tensor]
    of_log: Callable[[Tensor], Tensor]


def _add_at(x: Tensor, places: Tensor, size: int) -> Tensor:
    return x.new_zeros(*x.shape[:-1], size).index_add(-1, places, x)


def _largest_at(x: Tensor, places: Tensor, size: int) -> Tensor:
    least = x.new_full((*x.shape[:-1], size), IMPOSSIBLE)
    return least.scatter_reduce(-1, places.expand_as(x), x, "amax")


IMPOSSIBLE = -1e6  # log of a weight of 0
SUM = Ring(torch.mul, lambda x, d: x.sum(d), _add_at, torch.exp)  # of numbers, in float64
BEST = Ring(torch.add, lambda x, d: x.amax(d), _largest_at, lambda x: x)  # of logs


@dataclass(frozen=True)
class Grammar:
    """Symbols, the number of the top one, and rules: left side, and one symbol or two. Rules of one
    symbol are in an order in which no later one feeds an earlier one."""

    symbols: tuple[str, ...]
    top: int
    binary: tuple[tuple[int, int, int], ...]
    unary: tuple[tuple[int, int], ...]

    @property
    def rules(self) -> int:
        return len(self.binary) + len(self.unary)

    @cached_property
    def chains(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """All chains of rules of one symbol, none at all included: from which symbol (P,), to which
        (P,), how often each rule (P, R) and each symbol (P, N) is in it, both ends included."""
        known: dict[int, list[tuple[int, ...]]] = {a: [()] for a in range(len(self.symbols))}
        for number, (a, b) in enumerate(self.unary, len(self.binary)):
            known[a] += [(number, *chain) for chain in known[b]]
        pairs = [(a, chain) for a, chains in known.items() for chain in chains]
        rules = torch.zeros(len(pairs), self.rules)
        passed = torch.zeros(len(pairs), len(self.symbols))
        below: list[int] = []
        for row, (a, chain) in enumerate(pairs):
            rules[row, list(chain)] = 1
            symbols = [a, *(self.unary[rule - len(self.binary)][1] for rule in chain)]
            passed[row, symbols] = 1
            below.append(symbols[-1])
        return torch.tensor([a for a, _ in pairs]), torch.tensor(below), rules, passed


def read_grammar(text: str, top: str) -> Grammar:
    """Lines `A: B C | D` -> a grammar; a line that begins with a blank goes on with the one before,
    and longer right sides are cut in two from the right. ValueError for rules of one symbol that go
    round in a circle."""
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

    for line in text.strip().replace("\n ", " ").splitlines():
        left, _, options = line.partition(":")
        for option in options.split("|"):
            add(left.strip(), option.split())
    return Grammar(
        tuple(numbers), numbers[top], tuple(dict.fromkeys(binary)), tuple(_ordered(unary))
    )


def inside(
    grammar: Grammar, weights: Tensor, words: Tensor, lengths: Tensor, spans: Tensor, ring: Ring
) -> Tensor:
    """Values of whole sentences (B,) in the ring, from the logs of the weights of rules (R,), of
    each word's symbols (B, n, N), and of each symbol over each span (B, n, n, N), by first and last
    word; lengths (B,)."""
    n, N = words.shape[1:]
    a, b, c = torch.tensor(grammar.binary).T
    own = ring.of_log(weights[: len(grammar.binary)])
    above, below, rules, passed = grammar.chains
    chained = rules.to(weights) @ weights
    lefts: list[Tensor] = []  # by width - 1: (B, n - width + 1, R), of the first symbols of rules
    rights: list[Tensor] = []
    whole: list[Tensor] = []
    for width in range(1, n + 1):
        places = n - width + 1
        cell = ring.of_log(words)
        if width > 1:
            splits = range(width - 1)
            left = torch.stack([lefts[k][:, :places] for k in splits])
            right = torch.stack([rights[width - 2 - k][:, k + 1 : k + 1 + places] for k in splits])
            found = ring.times(ring.sum(ring.times(left, right), 0), own)
            cell = ring.gather(found, a, N)
        at = torch.arange(places)
        chains = chained + spans[:, at, at + width - 1] @ passed.to(spans).T
        cell = ring.gather(ring.times(cell[..., below], ring.of_log(chains)), above, N)
        lefts.append(cell[..., b])
        rights.append(cell[..., c])
        whole.append(cell[:, 0, grammar.top])
    return torch.stack(whole, 1).gather(1, lengths[:, None] - 1)[:, 0]


def _ordered(unary: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Rules A: B such that all rules with B on the left come before."""
    left, done = list(dict.fromkeys(unary)), list[tuple[int, int]]()
    while left:
        heads = {a for a, _ in left}
        ready = [rule for rule in left if rule[1] not in heads]
        if not ready:
            raise ValueError("rules of one symbol go round in a circle")
        done += ready
        left = [rule for rule in left if rule not in ready]
    return done
