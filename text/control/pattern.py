"""Regular expressions over words, as automata over the tokens of a row.

    word         itself, exactly            (a b | c)    groups and alternatives
    [MASK]       any one word               ? * + {2,5}  how often what they touch may come
    <NOUN>       any word that may be one

    a [MASK]* <NOUN> is (red | blue) [MASK]{0,3} .

A row is a sentence that matches from start to end, the end token, and padding. Tokens become
letters, one for each class that the pattern does not tell apart; the rest is interegular's.
"""

import difflib
import re
from collections.abc import Sequence
from typing import Any

import interegular
import torch
from interegular.fsm import anything_else
from torch import Tensor

from shared.errors import ConfigError
from shared.tokenizer import EOS, PAD, SPECIAL
from text.control.automaton import MOST_STATES, Automaton
from text.control.vocabulary import HOW, Vocabulary
from text.template import MASK

# a sign of repetition touches what it repeats: by itself it is a word, as the ? of a question
_ATOM = re.compile(
    r"(?P<sign>(?<=\S)(?:[?*+]|\{\d+(?:,\d*)?\})|[()|])"
    r"|(?P<word>\[MASK\]|<\w+>|[^\s()|?*+{}]+|\S)"
)
_TAG, _WORD = "\x1f", "\x1e"  # what separates a word from its tag, and from the next one
_FIRST_LETTER = 0xE000  # Unicode's private use area: no sign of regular expressions is there


def compile_pattern(pattern: str, vocabulary: Vocabulary, asked: str | None = None) -> Automaton:
    """The automaton of the rows that hold a sentence matching the pattern.

    ConfigError names a word or tag that is unknown, and a pattern that does not read or is large,
    in what was `asked`.
    """
    asked = asked or f"pattern = {pattern!r}"
    size = len(vocabulary.tokenizer)
    end, pad = (torch.arange(size) == token for token in (EOS, PAD))
    parts: list[str | Tensor] = ["(?:"]
    for sign, word in _atoms(pattern, asked):
        parts += ["(?:", *_tokens(word, asked, vocabulary), ")"] if word else [sign]
    parts += [")", end, pad, "*"]
    sets = [part for part in parts if isinstance(part, Tensor)]
    kinds, classes = torch.stack(sets).T.unique(dim=0, return_inverse=True)
    letters = [chr(_FIRST_LETTER + k) for k in range(len(kinds))]
    spelled = iter(kinds.T)  # of each set, which classes it holds
    text = "".join(
        part if isinstance(part, str) else _one_of(next(spelled), letters) for part in parts
    )
    try:
        machine = interegular.parse_pattern(text).to_fsm()
    except Exception as error:  # the library raises plain ones too
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"{asked}: does not read ({reason})") from None
    if len(machine.map) > MOST_STATES:
        raise ConfigError(f"{asked}: takes more than {MOST_STATES} states")
    return _automaton(machine, letters, classes)


def matches(pattern: str, sentence: str, tags: Sequence[str] | None = None) -> bool:
    """Whether a sentence matches, by Python's own regular expressions; `tags`, one for each word,
    are what <TAG> is held against, and without them nothing matches one."""
    words = sentence.split()
    if tags is not None and len(tags) != len(words):
        return False
    pairs = zip(words, tags or [""] * len(words), strict=True)
    said = "".join(f"{word}{_TAG}{tag}{_WORD}" for word, tag in pairs)
    any_word, any_tag = f"[^{_TAG}{_WORD}]+", f"[^{_WORD}]*"

    def spelled(atom: str) -> str:
        word = any_word if atom == MASK or _is_tag(atom) else re.escape(atom)
        tag = atom[1:-1] if _is_tag(atom) else any_tag
        return f"(?:{word}{_TAG}{tag}{_WORD})"

    atoms = _atoms(pattern, pattern)
    text = "".join(spelled(word) if word else sign for sign, word in atoms)
    return re.fullmatch(text, said) is not None


def _is_tag(atom: str) -> bool:
    return len(atom) > 2 and atom.startswith("<") and atom.endswith(">")


def _atoms(pattern: str, asked: str) -> list[tuple[str, str]]:
    """Signs, as Python writes them, and words, as pairs with the other empty."""
    atoms = [(found["sign"] or "", found["word"] or "") for found in _ATOM.finditer(pattern)]
    if not atoms:
        raise ConfigError(f"{asked}: expected words, {MASK} or <TAG>")
    return [(sign.replace("(", "(?:"), word) for sign, word in atoms]


def _tokens(atom: str, asked: str, vocabulary: Vocabulary) -> list[str | Tensor]:
    """Sets of tokens (V,), each as often as the sign behind it says, that spell a word."""
    tokenizer, starts = vocabulary.tokenizer, vocabulary.starts()
    if atom == MASK:
        inside = ~starts
        inside[:SPECIAL] = False
        return [starts, inside, "*"] if bool(inside.any()) else [starts]
    if _is_tag(atom):
        return [_tagged(atom[1:-1], asked, vocabulary)]
    if tokenizer.unknown(atom):
        raise ConfigError(
            f"{asked}: the model does not know {atom!r}" + _hint(atom, vocabulary.words())
        )
    return [torch.arange(len(tokenizer)) == token for token in tokenizer.encode(atom)]


def _tagged(tag: str, asked: str, vocabulary: Vocabulary) -> Tensor:
    known = sorted(set().union(*vocabulary.tags.values()))
    if not known:
        raise ConfigError(f"{asked}: <{tag}>: parts of speech are known {HOW}")
    if tag not in known:
        raise ConfigError(f"{asked}: <{tag}>: expected one of {', '.join(known)}")
    pieces = vocabulary.tokenizer.pieces()
    return torch.tensor([tag in vocabulary.tags.get(piece[1:], ()) for piece in pieces])


def _hint(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, n=3)
    return f"; near it are {', '.join(near)}" if near else "; use words of its training data"


def _one_of(held: Tensor, letters: list[str]) -> str:
    chosen = "".join(letter for letter, holds in zip(letters, held.tolist(), strict=True) if holds)
    return f"[{chosen}]"


def _automaton(machine: Any, letters: list[str], classes: Tensor) -> Automaton:
    """interegular's machine, whose missing moves lead nowhere, with a state for nowhere."""
    numbers = {machine.initial: 0}
    for state in machine.map:
        numbers.setdefault(state, len(numbers))
    nowhere = len(numbers)
    columns = [machine.alphabet.get(letter, machine.alphabet[anything_else]) for letter in letters]
    moves = torch.full((nowhere + 1, len(letters)), nowhere)
    for state, after in machine.map.items():
        for kind, column in enumerate(columns):
            if column in after:
                moves[numbers[state], kind] = numbers[after[column]]
    accepts = torch.zeros(nowhere + 1, dtype=torch.bool)
    accepts[[numbers[state] for state in machine.finals]] = True
    return Automaton(classes, moves, accepts)
