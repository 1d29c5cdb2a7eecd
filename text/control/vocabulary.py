"""What a run's tokens are, and what is known of their words: what automata are made of."""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor

from shared.errors import ConfigError
from shared.tokenizer import SPECIAL, WORD_START, Tokenizer
from text.control.automaton import Automaton
from text.control.spans import Phrases, Span
from text.control.trees import tree_automaton
from text.grammar import Node

Tags: TypeAlias = Mapping[str, Set[str]]  # a word -> the parts of speech that it may be
HOW = (
    "in the scene world (data.name = 'scene'); of other text give --tagged FOLDER, see docs/text.md"
)


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a run, what parts of speech its words may be, and, None where it is not known,
    the ways of saying a fact, what phrases are made of, and the grammar of all sentences."""

    tokenizer: Tokenizer
    tags: Tags = field(default_factory=dict[str, Set[str]])
    facts: Callable[[str], Sequence[str]] | None = None
    phrases: Phrases | None = None
    grammar: Node | None = None

    def starts(self) -> Tensor:
        """(V,): whether a token begins a word."""
        return torch.tensor([piece.startswith(WORD_START) for piece in self.tokenizer.pieces()])

    def words(self) -> list[str]:
        """Every token that is a whole word or the beginning of one, without its blank."""
        return [p[1:] for p in self.tokenizer.pieces()[SPECIAL:] if p.startswith(WORD_START)]

    def says(self, fact: str, asked: str) -> list[str]:
        """The ways of saying a fact that the model has words for. ConfigError for none."""
        if self.facts is None:
            raise ConfigError(f"{asked}: how facts are said is not known of this run's words")
        known = [said for said in self.facts(fact) if not self.tokenizer.unknown(said)]
        if not known:
            raise ConfigError(f"{asked}: the model has no words for it")
        return known

    def phrase(self, span: Span, asked: str) -> Automaton:
        """The rows with a phrase of this label there. ConfigError where phrases are not known."""
        if self.phrases is None:
            raise ConfigError(f"{asked}: phrases are known {HOW}")
        return self.phrases.automaton(span, self.tags, self.tokenizer, asked)

    def tree(self, skeleton: str, asked: str) -> Automaton:
        """The rows with this tree. ConfigError where there is no grammar."""
        if self.grammar is None:
            raise ConfigError(
                f"{asked}: whole trees are known in the scene world only (data.name = 'scene')"
            )
        return tree_automaton(self.grammar, skeleton, self.tokenizer, asked)
