"""Controls: what a sentence must satisfy, as an automaton for the sampler and as a test of text.

    length=12          words; or a range, length=10-14
    contains="red star"  these words in a row, anywhere; avoids="...": nowhere
    prefix, suffix     what it begins or ends with
    says="colour:red"  this fact: in whatever words (scene world), else its value
    pos="DET NOUN"     the part of speech of every word
    span="3-5 PP"      the words from 3 to 5, counted from 0, are a phrase of this label
    tree="(S ...)"     the constituents, with tags for words (scene world)
    pattern="..."      see `text.control.pattern`

Every control is an automaton, most by way of a pattern; those asked for together are intersected.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

from shared.errors import ConfigError
from shared.schema import one_of
from shared.tokenizer import one_blank
from text.control.analysis import Analysis
from text.control.automaton import Automaton, both
from text.control.pattern import compile_pattern, matches
from text.control.spans import held, parse_span
from text.control.vocabulary import Vocabulary
from text.template import MASK

ANY = f"{MASK}*"


def parse_length(value: str) -> tuple[int, int]:
    """`9` or `8-12` -> the least and the most words. ConfigError when it does not read."""
    found = re.fullmatch(r"(\d+)(?:-(\d+))?", value)
    if not found or int(found[1]) < 1 or int(found[2] or found[1]) < int(found[1]):
        raise ConfigError(f"length = {value!r}: expected a number of words, or a range, 8-12")
    return int(found[1]), int(found[2] or found[1])


def _length(value: str) -> str:
    least, most = parse_length(value)
    return f"{MASK}{{{least},{most}}}"


def _one_of(phrases: Sequence[str]) -> str:
    return f"{ANY} ({' | '.join(phrases)}) {ANY}"


def _pos(value: str) -> str:
    tags = value.split()
    if not all(tag.isalpha() and tag.isupper() for tag in tags):
        raise ConfigError(f"pos = {value!r}: expected tags such as DET NOUN, one a word")
    return " ".join(f"<{tag}>" for tag in tags)


PATTERNS: dict[str, Callable[[str], str]] = {
    "length": _length,
    "contains": lambda value: f"{ANY} ( {value} ) {ANY}",
    "avoids": lambda value: f"{ANY} ( {value} ) {ANY}",
    "prefix": lambda value: f"( {value} ) {ANY}",
    "suffix": lambda value: f"{ANY} ( {value} )",
    "pos": _pos,
    "pattern": lambda value: value,
}
NAMES = (*PATTERNS, "says", "span", "tree")
NEAR = 2  # words: a length is right within them (Li et al. 2022, sec. 6)


@dataclass(frozen=True)
class Control:
    """One thing asked for. ConfigError for a name that there is not, or nothing asked for."""

    name: str
    value: str

    def __post_init__(self) -> None:
        try:
            one_of("control", self.name, list(NAMES))
        except ValueError as error:
            raise ConfigError(str(error)) from None
        if not self.value.strip():
            raise ConfigError(f"{self.name} = {self.value!r}: expected words")
        if self.name == "span":
            parse_span(self.value)

    @property
    def asked(self) -> str:
        """As messages name it."""
        return f"{self.name} = {self.value!r}"

    @property
    def pattern(self) -> str:
        """What a sentence matches that satisfies it, or, of `avoids`, that does not. KeyError for
        those of NAMES that are no patterns."""
        return PATTERNS[self.name](self.value)

    def success(self, sentence: str, analysis: Analysis | None = None) -> bool:
        """Whether a sentence satisfies it. Facts, tags and constituents are held against its
        analysis: without one it says nothing, and has none."""
        if self.name == "says":
            return analysis is not None and analysis.says(self.value)
        if self.name == "span":
            return analysis is not None and held(parse_span(self.value), analysis.spans)
        if self.name == "tree":
            return analysis is not None and analysis.tree == one_blank(self.value)
        tags = None if analysis is None else analysis.tags
        return matches(self.pattern, sentence, tags) != (self.name == "avoids")

    def score(self, sentence: str, analysis: Analysis | None = None) -> float:
        """Success as Li et al. 2022 count it: of tags the share of places that are right, of a
        length whether it is within NEAR words, of all else whether it is satisfied."""
        if self.name == "pos":
            asked, tags = self.value.split(), () if analysis is None else analysis.tags or ()
            return sum(a == b for a, b in zip(asked, tags, strict=False)) / len(asked)
        if self.name == "length":
            least, most = parse_length(self.value)
            return float(least - NEAR <= len(sentence.split()) <= most + NEAR)
        return float(self.success(sentence, analysis))

    def automaton(self, vocabulary: Vocabulary) -> Automaton:
        """The rows that satisfy it. ConfigError for words that the model does not know, and for
        what is not known of its words."""
        if self.name == "span":
            return vocabulary.phrase(parse_span(self.value), self.asked)
        if self.name == "tree":
            return vocabulary.tree(one_blank(self.value), self.asked)
        if self.name == "says":
            pattern = _one_of(vocabulary.says(self.value, self.asked))
        else:
            pattern = self.pattern
        found = compile_pattern(pattern, vocabulary, self.asked)
        if self.name != "avoids":
            return found
        sentences = compile_pattern(ANY, vocabulary)
        return both(sentences, Automaton(found.classes, found.moves, ~found.accepts))


def parse_controls(words: Sequence[str]) -> list[Control]:
    """`name=value` words -> controls. ConfigError for a word that is none."""
    for word in words:
        if "=" not in word:
            raise ConfigError(f"{word!r}: expected NAME=VALUE, with one of {', '.join(NAMES)}")
    return [Control(*word.split("=", 1)) for word in words]


def compile_controls(controls: Sequence[Control], vocabulary: Vocabulary, length: int) -> Automaton:
    """The rows of `length` tokens that satisfy all of them. ConfigError when there are none."""
    asked = ", ".join(f"{control.name}={control.value!r}" for control in controls)
    try:
        found = reduce(both, [control.automaton(vocabulary) for control in controls])
    except ValueError as error:
        raise ConfigError(f"{asked}: {error}; ask for less at once") from None
    if not found.possible(length):
        raise ConfigError(
            f"{asked}: no sentence of at most {length - 1} tokens, what this model writes, "
            "satisfies that; ask for less, or for fewer words"
        )
    return found
