"""Parts of speech of the scene world's words, and of its sentences: exact, from the grammar."""

from functools import cache

from text import grammar
from text.english import DETAILS, english
from text.grammar import Leaf, Node
from text.reader import analyse


@cache
def scene_tags() -> dict[str, frozenset[str]]:
    """Every word -> the universal tags (Petrov et al. 2012) that it has somewhere."""
    found: dict[str, set[str]] = {}
    seen: set[int] = set()
    pending: list[Node] = [english(detail) for detail in DETAILS]
    while pending:
        node = pending.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, Leaf):
            found.setdefault(node.token, set()).add(node.tree[0])
        pending += node.options()
    found["an"] = found["a"]
    return {word: frozenset(tags) for word, tags in found.items()}


def scene_tags_of(sentence: str) -> list[str] | None:
    """The tag of each word of a sentence by its parse; None when it does not parse."""
    reading = analyse(sentence)
    return None if reading is None else [tag for tag, _ in grammar.leaves(reading.tree)]
