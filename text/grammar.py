"""Finite probabilistic grammars: generate and parse.

A node is one of four things:

    Leaf     a token with its part of speech
    Phrase   its children in a row, under a constituent label or none
    Choice   one of its options, drawn with fixed weights
    Slot     one of its options, the one for a fact of the world such as ("colour", 0)

so a derivation has probability prod (weights of its choices) x P(the facts its slots say), and that
is the sentence's where it has one derivation. Nothing recurs, so the language is finite and what
`text.language` says of it is exact. `a` stands for both articles: what follows decides, see
`with_articles`.
"""

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

Fact = tuple[str | int, ...]  # what a slot asks: a name and what it is about
Tree = tuple["str | Tree", ...]  # a leaf is (tag, token), a phrase (label, child, ...)

_END = ""  # what follows the last token
_VOWELS = frozenset("aeiou")


@dataclass(frozen=True, slots=True)
class Derivation:
    """One reading: log-weight of its free choices, the facts said in order, and its trees."""

    log_weight: float
    facts: tuple[tuple[Fact, str], ...]
    trees: tuple[Tree, ...]


Matches = list[tuple[int, Derivation]]


class Node(ABC):
    """What all nodes offer: the tokens they may start with, and whether they may be empty."""

    first: frozenset[str]
    nullable: bool

    @abstractmethod
    def options(self) -> Sequence["Node"]:
        """All nodes directly below."""

    @abstractmethod
    def generate(self, fact: Callable[[Fact], str], draw: Iterator[float], out: list[Tree]) -> None:
        """Append the trees of a derivation: `fact` answers slots, `draw` gives uniforms."""

    @abstractmethod
    def match(
        self, tokens: Sequence[str], at: int, memo: dict[tuple[int, int], Matches]
    ) -> Matches:
        """All derivations of tokens[at:end] for any end; tokens end with an empty string."""


class Leaf(Node):
    """A token and its universal part-of-speech tag (Petrov et al. 2012)."""

    def __init__(self, token: str, tag: str) -> None:
        self.token, self.tree = token, (tag, token)
        self.first, self.nullable = frozenset([token]), False
        self._done = Derivation(0.0, (), (self.tree,))

    def options(self) -> Sequence[Node]:
        return ()

    def generate(self, fact: Callable[[Fact], str], draw: Iterator[float], out: list[Tree]) -> None:
        out.append(self.tree)

    def match(
        self, tokens: Sequence[str], at: int, memo: dict[tuple[int, int], Matches]
    ) -> Matches:
        return [(at + 1, self._done)] if tokens[at] == self.token else []


class Phrase(Node):
    """Children in a row. Without a label they belong to the phrase around."""

    def __init__(self, label: str | None, children: Sequence[Node]) -> None:
        self.label, self.children = label, tuple(children)
        starts: set[str] = set()
        for child in children:
            starts |= child.first
            if not child.nullable:
                break
        self.first = frozenset(starts)
        self.nullable = all(child.nullable for child in children)

    def options(self) -> Sequence[Node]:
        return self.children

    def generate(self, fact: Callable[[Fact], str], draw: Iterator[float], out: list[Tree]) -> None:
        inner: list[Tree] = out if self.label is None else []
        for child in self.children:
            child.generate(fact, draw, inner)
        if self.label is not None:
            out.append((self.label, *inner))

    def match(
        self, tokens: Sequence[str], at: int, memo: dict[tuple[int, int], Matches]
    ) -> Matches:
        states = [(at, 0.0, (), ())]
        for child in self.children:
            grown = []
            for place, log_weight, facts, trees in states:
                if tokens[place] not in child.first and not child.nullable:
                    continue
                for end, found in child.match(tokens, place, memo):
                    grown.append(
                        (
                            end,
                            log_weight + found.log_weight,
                            facts + found.facts,
                            trees + found.trees,
                        )
                    )
            states = grown
            if not states:
                return []
        label = self.label
        return [
            (end, Derivation(w, facts, trees if label is None else ((label, *trees),)))
            for end, w, facts, trees in states
        ]


class Choice(Node):
    """Options with weights, which are normalised. `(1, Phrase(None, []))` says nothing."""

    def __init__(self, weighted: Sequence[tuple[float, Node]]) -> None:
        total = math.fsum(weight for weight, _ in weighted)
        self.probabilities = tuple(weight / total for weight, _ in weighted)
        self.nodes = tuple(node for _, node in weighted)
        self._bounds = tuple(itertools.accumulate(self.probabilities))[:-1]
        self.first = frozenset().union(*(node.first for node in self.nodes))
        self.nullable = any(node.nullable for node in self.nodes)
        self._table = _by_first(
            self,
            [(math.log(p), (), n) for p, n in zip(self.probabilities, self.nodes, strict=True)],
        )

    def options(self) -> Sequence[Node]:
        return self.nodes

    def generate(self, fact: Callable[[Fact], str], draw: Iterator[float], out: list[Tree]) -> None:
        u = next(draw)
        k = 0
        for bound in self._bounds:
            if u < bound:
                break
            k += 1
        self.nodes[k].generate(fact, draw, out)

    def match(
        self, tokens: Sequence[str], at: int, memo: dict[tuple[int, int], Matches]
    ) -> Matches:
        return _match_options(self, self._table, tokens, at, memo)


class Slot(Node):
    """The option that a fact of the world picks."""

    def __init__(self, fact: Fact, by_value: Mapping[str, Node]) -> None:
        self.fact, self.by_value = fact, dict(by_value)
        self.first = frozenset().union(*(node.first for node in by_value.values()))
        self.nullable = any(node.nullable for node in by_value.values())
        self._table = _by_first(
            self, [(0.0, ((fact, value),), node) for value, node in by_value.items()]
        )

    def options(self) -> Sequence[Node]:
        return tuple(self.by_value.values())

    def generate(self, fact: Callable[[Fact], str], draw: Iterator[float], out: list[Tree]) -> None:
        self.by_value[fact(self.fact)].generate(fact, draw, out)

    def match(
        self, tokens: Sequence[str], at: int, memo: dict[tuple[int, int], Matches]
    ) -> Matches:
        return _match_options(self, self._table, tokens, at, memo)


Option = tuple[float, tuple[tuple[Fact, str], ...], Node]


def _by_first(node: Choice | Slot, options: Sequence[Option]) -> dict[str, list[Option]]:
    """The options that may begin at each token; an empty one may begin at any (key "")."""
    table: dict[str, list[Option]] = {
        token: [option for option in options if token in option[2].first or option[2].nullable]
        for token in node.first
    }
    table[_END] = [option for option in options if option[2].nullable]
    return table


def _match_options(
    node: Choice | Slot,
    table: dict[str, list[Option]],
    tokens: Sequence[str],
    at: int,
    memo: dict[tuple[int, int], Matches],
) -> Matches:
    key = (id(node), at)
    known = memo.get(key)
    if known is not None:
        return known
    found: Matches = []
    for log_weight, said, option in table.get(tokens[at], table[_END]):
        for end, below in option.match(tokens, at, memo):
            found.append(
                (end, Derivation(log_weight + below.log_weight, said + below.facts, below.trees))
            )
    memo[key] = found
    return found


def generate(root: Node, fact: Callable[[Fact], str], draw: Iterator[float]) -> Tree:
    """A derivation's tree: `fact` answers the slots, `draw` gives one uniform a choice."""
    out: list[Tree] = []
    root.generate(fact, draw, out)
    if len(out) != 1:
        raise ValueError(f"the root gave {len(out)} trees: label it")
    return out[0]


def parse(root: Node, tokens: Sequence[str]) -> list[Derivation]:
    """All derivations of the tokens, with `a` for either article: none or one in most grammars."""
    ended = [*tokens, _END]
    found = root.match(ended, 0, {})
    return [derivation for end, derivation in found if end == len(tokens)]


def leaves(tree: Tree) -> list[tuple[str, str]]:
    """(tag, token) from left to right."""
    found: list[tuple[str, str]] = []
    _collect(tree, found)
    return found


def _collect(tree: Tree, found: list[tuple[str, str]]) -> None:
    label, *rest = tree
    if isinstance(rest[0], str):
        found.append((str(label), rest[0]))
    else:
        for child in rest:
            assert not isinstance(child, str)
            _collect(child, found)


def bracketed(tree: Tree, tokens: Iterator[str]) -> str:
    """(S (NP (DET a) ...) ...): the tree over these tokens, one for each leaf."""
    label, *rest = tree
    inner = [next(tokens) if isinstance(child, str) else bracketed(child, tokens) for child in rest]
    return f"({label} {' '.join(inner)})"


def with_articles(tokens: Sequence[str]) -> list[str]:
    """`a` becomes `an` before a vowel."""
    following = [*tokens[1:], _END]
    return [
        "an" if token == "a" and after[:1] in _VOWELS else token
        for token, after in zip(tokens, following, strict=True)
    ]


def without_articles(tokens: Sequence[str]) -> list[str] | None:
    """The inverse: every article is `a`; None when one of them does not agree with what follows."""
    plain = ["a" if token == "an" else token for token in tokens]
    return plain if with_articles(plain) == list(tokens) else None
