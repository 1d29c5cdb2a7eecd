"""What must stay: `a red [MASK] star` as ids and places, for infilling and prefixes.

`[MASK]` stands for one unknown token. `[MASK]*`, at the end only, for everything that follows, the
place of the end included; without it the sentence ends where the template ends.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from shared.errors import ConfigError
from shared.tokenizer import BOS, EOS, PAD, SPECIAL, UNK, WORD_START, Tokenizer

MASK, REST = "[MASK]", "[MASK]*"


@dataclass(frozen=True)
class Template:
    """A template over a row of L tokens.

    ids (L,): the given tokens, PAD where free. known (L,): true where given. allowed (L, size):
    which tokens may stand at a place; at a given place only the given one.
    """

    ids: Tensor
    known: Tensor
    allowed: Tensor


def possible_lengths(template: Template) -> Tensor:
    """(L,) bool: how many tokens, 1 or more, a sentence may have that fills the template."""
    words = template.allowed.clone()
    words[:, [PAD, BOS, EOS]] = False
    before = words.any(1).int().cumprod(0)[:-1]
    after = template.allowed[:, PAD].int().flip(0).cumprod(0).flip(0)[1:]
    found = template.allowed[:, EOS].clone()
    found[1:] &= before.bool()
    found[:-1] &= after.bool()
    found[0] = False
    return found


def parse_template(template: str, tokenizer: Tokenizer, length: int) -> Template:
    """What the user wrote, read. ConfigError names a word that is unknown, a misplaced `[MASK]*`,
    and a template longer than `length` tokens with its end."""
    words = template.split()
    if not words:
        raise ConfigError(f"given = {template!r}: expected words and {MASK}")
    open_end = words[-1] == REST
    if REST in words[:-1]:
        raise ConfigError(f"given = {template!r}: {REST} may only stand at the end")
    tokens = _tokens(words[:-1] if open_end else words, template, tokenizer)
    if len(tokens) + 1 > length:
        raise ConfigError(
            f"given = {template!r}: {len(tokens)} tokens and the end, this model's rows have "
            f"{length}"
        )
    ids = torch.full((length,), PAD)
    known = torch.zeros(length, dtype=torch.bool)
    for place, token in enumerate(tokens):
        if token is not None:
            ids[place], known[place] = token, True
    if not open_end:
        ids[len(tokens)] = EOS
        known[len(tokens) :] = True
    return Template(ids, known, _allowed(ids, known, len(tokens), tokenizer))


def _tokens(words: list[str], template: str, tokenizer: Tokenizer) -> list[int | None]:
    """The tokens of a template, None for an unknown one."""
    unknown = [word for word in words if word != MASK and tokenizer.unknown(word)]
    if unknown:
        raise ConfigError(
            f"given = {template!r}: the model does not know {', '.join(map(repr, unknown))}; use "
            f"words of its training data, or {MASK}"
        )
    tokens: list[int | None] = []
    for word in words:
        tokens += [None] if word == MASK else tokenizer.encode(word)
    return tokens


def _allowed(ids: Tensor, known: Tensor, stated: int, tokenizer: Tokenizer) -> Tensor:
    """A mask inside the template is a piece of a word: an end there would cut given words off.
    After a given word a new word must start, or the given one would grow ("red" into "reddish")."""
    length, size = len(ids), len(tokenizer)
    starts = torch.tensor([piece.startswith(WORD_START) for piece in tokenizer.pieces()])
    special = torch.zeros(size, dtype=torch.bool)
    special[:SPECIAL] = True
    allowed = torch.ones(length, size, dtype=torch.bool)
    allowed[:, BOS] = False
    allowed[:stated] = ~special
    after = torch.cat([known.new_ones(1), known[:-1]])  # the first place too starts a word
    ends = torch.zeros(size, dtype=torch.bool)
    ends[[PAD, UNK, EOS]] = True
    allowed[after] &= starts | ends
    allowed[known] = False
    allowed[known, ids[known]] = True
    return allowed
