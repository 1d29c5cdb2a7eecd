"""What is true of all sentences of a grammar: size, ambiguity, entropy. Exact, nothing is sampled.

A grammar of `text.grammar` is finite, so sums over derivations run along its nodes: a phrase
multiplies what its children give, a choice or slot adds what its options give.
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping

from text.grammar import Choice, Fact, Leaf, Node, Phrase, Slot

Plans = dict[frozenset[Fact], float]  # which facts are said -> how probable that is


def max_length(node: Node) -> int:
    """Tokens in the longest sentence."""
    lengths = [max_length(option) for option in node.options()]
    if isinstance(node, Leaf):
        return 1
    return sum(lengths) if isinstance(node, Phrase) else max(lengths)


def max_choices(node: Node) -> int:
    """The most choices that one derivation takes, hence how many uniforms it may draw."""
    numbers = [max_choices(option) for option in node.options()]
    if isinstance(node, Leaf):
        return 0
    return sum(numbers) if isinstance(node, Phrase) else max(numbers) + isinstance(node, Choice)


def count(node: Node) -> int:
    """The number of derivations."""
    counts = [count(option) for option in node.options()]
    if isinstance(node, Leaf):
        return 1
    return math.prod(counts) if isinstance(node, Phrase) else sum(counts)


def vocabulary(node: Node) -> set[str]:
    """All tokens; `an` is not told from `a`."""
    if isinstance(node, Leaf):
        return {node.token}
    return set().union(*(vocabulary(option) for option in node.options()))


def slot_words(node: Node, names: Collection[str]) -> frozenset[str]:
    """The tokens that only slots of facts of these names can say."""
    inside: set[str] = set()
    outside: set[str] = set()

    def walk(at: Node, said: bool) -> None:
        if isinstance(at, Leaf):
            (inside if said else outside).add(at.token)
        said = said or (isinstance(at, Slot) and at.fact[0] in names)
        for option in at.options():
            walk(option, said)

    walk(node, False)
    return frozenset(inside - outside)


def derivations(node: Node) -> Iterator[tuple[float, tuple[tuple[Fact, str], ...], list[str]]]:
    """All derivations: probability of the free choices, facts, tokens. For small grammars."""
    if isinstance(node, Leaf):
        yield 1.0, (), [node.token]
    elif isinstance(node, Choice):
        for probability, option in zip(node.probabilities, node.nodes, strict=True):
            for p, facts, tokens in derivations(option):
                yield probability * p, facts, tokens
    elif isinstance(node, Slot):
        for value, option in node.by_value.items():
            for p, facts, tokens in derivations(option):
                yield p, ((node.fact, value), *facts), tokens
    else:
        parts = [list(derivations(child)) for child in node.options()]
        for row in itertools.product(*parts):
            facts = tuple(fact for _, said, _ in row for fact in said)
            yield math.prod(p for p, _, _ in row), facts, [t for *_, part in row for t in part]


def is_ambiguous(root: Node) -> bool:
    """Whether some row of tokens has two derivations.

    The grammar is read as an automaton that follows all readings of a prefix at once, each a stack
    of nodes still to come. Two readings with one stack can be ended alike, and two readings of a
    sentence end with one stack, the empty one. So the grammar is ambiguous if and only if a
    reachable set of readings holds a stack twice, and there are finitely many to visit.
    """
    start: _Stacks = Counter({(root, (Leaf("", "END"), None)): 1})
    seen, queue = {frozenset(start)}, [start]
    while queue:
        for after in _advance(queue.pop()):
            if max(after.values()) > 1:
                return True
            if frozenset(after) not in seen:
                seen.add(frozenset(after))
                queue.append(after)
    return False


_Stack = tuple[Node, "_Stack | None"]  # the next node and what comes after it
_Stacks = Counter[_Stack | None]


def _advance(stacks: _Stacks) -> list[_Stacks]:
    """The readings after each token that may come next, with how often each occurs."""
    after: dict[str, _Stacks] = {}
    pending = list(stacks)
    while pending:
        stack = pending.pop()
        if stack is None:
            continue
        node, rest = stack
        if isinstance(node, Leaf):
            after.setdefault(node.token, Counter())[rest] += 1
        elif isinstance(node, Phrase):
            for child in reversed(node.children):
                rest = (child, rest)
            pending.append(rest)
        else:
            pending += [(option, rest) for option in node.options()]
    return list(after.values())


def plans(root: Node, prior: Callable[[Fact], Mapping[str, float]]) -> tuple[float, Plans]:
    """Expected -log-weight of the free choices (nats), and the distribution of the facts said.

    `prior` gives the marginal of one fact. By linearity the joint is not needed, provided that
    which facts are said never depends on what they are and none is said twice; ValueError where
    that does not hold.
    """
    done: dict[int, tuple[float, Plans]] = {}

    def visit(node: Node) -> tuple[float, Plans]:
        if id(node) not in done:
            done[id(node)] = _plans(node, [visit(option) for option in node.options()], prior)
        return done[id(node)]

    return visit(root)


def _plans(
    node: Node, below: list[tuple[float, Plans]], prior: Callable[[Fact], Mapping[str, float]]
) -> tuple[float, Plans]:
    if isinstance(node, Slot):
        first = below[0][1]
        for _, said in below:
            if said.keys() != first.keys() or any(abs(said[a] - first[a]) > 1e-12 for a in said):
                raise ValueError(f"{node.fact} decides which other facts are said")
        known = prior(node.fact)
        choices = math.fsum(
            known[value] * more for value, (more, _) in zip(node.by_value, below, strict=True)
        )
        return choices, {_union(a, frozenset([node.fact])): p for a, p in first.items()}
    if isinstance(node, Choice):
        rows = list(zip(node.probabilities, below, strict=True))
        choices = math.fsum(p * (more - math.log(p)) for p, (more, _) in rows)
        return choices, _sum_up((a, p * q) for p, (_, said) in rows for a, q in said.items())
    said: Plans = {frozenset(): 1.0}
    for _, added in below:
        said = _sum_up((_union(a, b), p * q) for a, p in said.items() for b, q in added.items())
    return math.fsum(more for more, _ in below), said


def _union(said: frozenset[Fact], added: frozenset[Fact]) -> frozenset[Fact]:
    if said & added:
        raise ValueError(f"{', '.join(map(str, said & added))} said twice")
    return said | added


def _sum_up(pairs: Iterator[tuple[frozenset[Fact], float]]) -> Plans:
    total: Plans = {}
    for said, probability in pairs:
        total[said] = total.get(said, 0.0) + probability
    return total
