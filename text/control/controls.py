"""Controls: what a sentence must satisfy, as an automaton for the sampler and as a test of text.

    length=12          words; or a range, length=10-14
    contains="red star"  these words in a row, anywhere; avoids="...": nowhere
    prefix, suffix     what it begins or ends with
    says="colour:red"  this of a thing, in whatever words (scene world)
    pos="DET NOUN"     the part of speech of every word (scene world)
    pattern="..."      see `text.control.pattern`

Every control but `avoids` is a pattern, and the ones asked for together are intersected.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

from shared.errors import ConfigError
from shared.schema import one_of
from text.control.automaton import Automaton, both
from text.control.lexicon import says, scene_phrases, tags_of
from text.control.pattern import Vocabulary, compile_pattern, matches
from text.given import MASK
from text.reader import Reading

ANY = f"{MASK}*"


def _length(value: str) -> str:
    found = re.fullmatch(r"(\d+)(?:-(\d+))?", value)
    if not found or int(found[1]) < 1 or int(found[2] or found[1]) < int(found[1]):
        raise ConfigError(f"length = {value!r}: expected a number of words, or a range, 8-12")
    return f"{MASK}{{{found[1]},{found[2] or found[1]}}}"


def _one_of(phrases: Sequence[str]) -> str:
    return f"{ANY} ({' | '.join(phrases)}) {ANY}"


def _pos(value: str) -> str:
    tags = value.split()
    if not all(tag.isalpha() and tag.isupper() for tag in tags):
        raise ConfigError(f"pos = {value!r}: expected tags such as DET NOUN, one a word")
    return " ".join(f"<{tag}>" for tag in tags)


PATTERNS: dict[str, Callable[[str], str]] = {
    "length": _length,
    "contains": lambda value: f"{ANY} {value} {ANY}",
    "avoids": lambda value: f"{ANY} {value} {ANY}",
    "prefix": lambda value: f"{value} {ANY}",
    "suffix": lambda value: f"{ANY} {value}",
    "says": lambda value: _one_of(scene_phrases(value)),
    "pos": _pos,
    "pattern": lambda value: value,
}


@dataclass(frozen=True)
class Control:
    """One thing asked for. ConfigError for a name that there is not, or nothing asked for."""

    name: str
    value: str

    def __post_init__(self) -> None:
        try:
            one_of("control", self.name, list(PATTERNS))
        except ValueError as error:
            raise ConfigError(str(error)) from None
        if not self.value.strip():
            raise ConfigError(f"{self.name} = {self.value!r}: expected words")

    @property
    def pattern(self) -> str:
        """What a sentence matches that satisfies it, or, of `avoids`, that does not."""
        return PATTERNS[self.name](self.value)

    def success(self, sentence: str, reading: Reading | None = None) -> bool:
        """Whether a sentence satisfies it. What it says and its parts of speech are held against
        its reading: without one it says nothing, and has none."""
        if self.name == "says":
            return reading is not None and says(reading, self.value)
        tags = None if reading is None else tags_of(reading)
        return matches(self.pattern, sentence, tags) != (self.name == "avoids")

    def automaton(self, vocabulary: Vocabulary) -> Automaton:
        """The rows that satisfy it. ConfigError for words that the model does not know."""
        asked = f"{self.name} = {self.value!r}"
        found = compile_pattern(self._known(vocabulary, asked), vocabulary, asked)
        if self.name != "avoids":
            return found
        sentences = compile_pattern(ANY, vocabulary)
        return both(sentences, Automaton(found.classes, found.moves, ~found.accepts))

    def _known(self, vocabulary: Vocabulary, asked: str) -> str:
        """The pattern; of ways to say a fact those that the model has words for."""
        if self.name != "says":
            return self.pattern
        if not vocabulary.tags:
            raise ConfigError(f"{asked}: how facts are said is known of the scene world only")
        unknown = vocabulary.tokenizer.unknown
        phrases = [phrase for phrase in scene_phrases(self.value) if not unknown(phrase)]
        if not phrases:
            raise ConfigError(f"{asked}: the model has no words for it")
        return _one_of(phrases)


def parse_controls(words: Sequence[str]) -> list[Control]:
    """`name=value` words -> controls. ConfigError for a word that is none."""
    for word in words:
        if "=" not in word:
            raise ConfigError(f"{word!r}: expected NAME=VALUE, with one of {', '.join(PATTERNS)}")
    return [Control(*word.split("=", 1)) for word in words]


def compile_controls(controls: Sequence[Control], vocabulary: Vocabulary, length: int) -> Automaton:
    """The rows of `length` tokens that satisfy all of them. ConfigError when there are none."""
    parts = [control.automaton(vocabulary) for control in controls]
    asked = ", ".join(f"{control.name}={control.value!r}" for control in controls)
    try:
        found = reduce(both, parts)
    except ValueError as error:
        raise ConfigError(f"{asked}: {error}; ask for less at once") from None
    if not found.possible(length):
        raise ConfigError(
            f"{asked}: no sentence of at most {length - 1} tokens, what this model writes, "
            "satisfies that; ask for less, or for fewer words"
        )
    return found
