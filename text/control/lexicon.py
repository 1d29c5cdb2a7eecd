"""What the scene world's grammar knows of its words: parts of speech, and how facts are said."""

from collections.abc import Iterator
from functools import cache

from shared.errors import ConfigError
from shared.scene import ATTRIBUTES
from text import grammar, language
from text.english import DETAILS, english
from text.grammar import Leaf, Node, Slot
from text.reader import Reading


@cache
def scene_tags() -> dict[str, frozenset[str]]:
    """Every word -> the universal tags (Petrov et al. 2012) that it has somewhere."""
    found: dict[str, set[str]] = {}
    for node in _nodes():
        if isinstance(node, Leaf):
            found.setdefault(node.token, set()).add(node.tree[0])
    found["an"] = found["a"]
    return {word: frozenset(tags) for word, tags in found.items()}


@cache
def scene_phrases(fact: str) -> tuple[str, ...]:
    """A fact of a thing, such as `colour:red`, -> all the ways of saying it. ConfigError for an
    attribute or value that is not of this world."""
    name, _, value = (part.strip() for part in fact.partition(":"))
    if name not in ATTRIBUTES:
        raise ConfigError(
            f"says = {fact!r}: expected an attribute and its value, such as colour:red, with one "
            f"of {', '.join(ATTRIBUTES)}"
        )
    if value not in ATTRIBUTES[name]:
        raise ConfigError(f"says = {fact!r}: expected one of {', '.join(ATTRIBUTES[name])}")
    said = {
        " ".join(grammar.with_articles(tokens))
        for node in _nodes()
        if isinstance(node, Slot) and node.fact[0] == name
        for _, _, tokens in language.derivations(node.by_value[value])
        if tokens
    }
    return tuple(sorted(said))


def tags_of(reading: Reading) -> list[str]:
    """The tag of each word of a sentence that was read."""
    return [tag for tag, _ in grammar.leaves(reading.tree)]


def says(reading: Reading, fact: str) -> bool:
    """Whether a sentence that was read says `name:value` of one of its things."""
    name, _, value = (part.strip() for part in fact.partition(":"))
    return any(getattr(thing, name) == value for thing in reading.facts.things)


def _nodes() -> Iterator[Node]:
    """Every node of the grammar once."""
    seen: set[int] = set()
    pending: list[Node] = [english(detail) for detail in DETAILS]
    while pending:
        node = pending.pop()
        if id(node) not in seen:
            seen.add(id(node))
            pending += node.options()
            yield node
