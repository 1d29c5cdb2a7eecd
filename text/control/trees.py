"""All sentences of a grammar with one constituency tree, as an automaton.

The tree is written as brackets and tags, (S (NP DET NOUN) (VP AUX ADJ)). A reading of a sentence's
beginning is a stack of nodes still to be said and a place in these signs; the automaton's states
are sets of readings, closed over everything that says no word.
"""

import re
from collections.abc import Hashable, Iterable
from functools import cache
from typing import TypeAlias

import torch

from shared.errors import ConfigError
from shared.tokenizer import EOS, PAD, SPECIAL, WORD_START, Tokenizer
from text.control.automaton import Automaton, build
from text.grammar import Leaf, Node, Phrase

Stack: TypeAlias = "tuple[Node | None, Stack] | None"  # None for a node: the phrase ends here
Reading: TypeAlias = tuple[Stack, int]

_SIGN = re.compile(r"\([A-Z]+|[A-Z]+|\)")
_VOWELS = frozenset("aeiou")


def signs(skeleton: str, asked: str) -> list[str]:
    """(S (NP DET)) -> "(S", "(NP", "DET", ")", ")". ConfigError for what is no tree."""
    found = _SIGN.findall(skeleton)
    depth, depths = 0, list[int]()
    for sign in found:
        depth += (sign[0] == "(") - (sign == ")")
        depths.append(depth)
    whole = depths and depth == 0 and min(depths[:-1], default=0) > 0
    if not whole or "".join(found) != "".join(skeleton.split()):
        raise ConfigError(f"{asked}: expected one tree with tags for words, (S (NP DET NOUN) ...)")
    return found


def tree_automaton(root: Node, skeleton: str, tokenizer: Tokenizer, asked: str) -> Automaton:
    """The rows of a grammar's sentences with this tree, articles agreeing with what follows.
    ConfigError for what is no tree, or that of no sentence that the tokenizer has words for."""
    wanted = signs(skeleton, asked)
    pieces = tokenizer.pieces()
    words = [piece[1:] if piece.startswith(WORD_START) else "" for piece in pieces]

    @cache
    def open_readings(reading: Reading) -> frozenset[Reading]:
        """The readings that wait for a word, or are done (no stack), after what says none."""
        stack, place = reading
        if stack is None:
            return frozenset([reading] if place == len(wanted) else [])
        if place == len(wanted):
            return frozenset()
        node, rest = stack
        if node is None:
            return open_readings((rest, place + 1)) if wanted[place] == ")" else frozenset()
        if isinstance(node, Leaf):
            return frozenset([reading] if wanted[place] == node.tree[0] else [])
        if isinstance(node, Phrase):
            if node.label is not None:
                if wanted[place] != f"({node.label}":
                    return frozenset()
                place, rest = place + 1, (None, rest)
            for child in reversed(node.children):
                rest = (child, rest)
            return open_readings((rest, place))
        return frozenset().union(*(open_readings(((o, rest), place)) for o in node.options()))

    def step(state: Hashable, kind: int) -> Hashable:
        if not isinstance(state, tuple):
            return state if state == "ended" and kind == PAD else None
        article, readings = state
        if kind < SPECIAL:
            return "ended" if kind == EOS and article == "" and _done(readings) else None
        word = words[kind]
        if not word or (article and (word[0] in _VOWELS) != (article == "an")):
            return None
        said = "a" if word == "an" else word
        after = [
            open_readings((stack[1], place + 1))
            for stack, place in readings
            if stack is not None and isinstance(stack[0], Leaf) and stack[0].token == said
        ]
        grown = frozenset().union(*after)
        return (word if said == "a" else "", grown) if grown else None

    start = ("", open_readings(((root, None), 0)))
    found = build(torch.arange(len(pieces)), start, step, lambda state: state == "ended")
    if not bool(found.alive()[0]):
        raise ConfigError(
            f"{asked}: no sentence of this world, in the model's words, has that tree"
        )
    return found


def _done(readings: Iterable[Reading]) -> bool:
    return any(stack is None for stack, _ in readings)
