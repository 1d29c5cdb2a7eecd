"""What a sentence is written from, in words -> condition ids."""

import difflib
from collections.abc import Sequence

from torch import Tensor

from shared.errors import ConfigError
from shared.tokenizer import Tokenizer
from text.config import DataConfig
from text.data import pad_rows


def source_ids(prompts: Sequence[str], tokenizer: Tokenizer, config: DataConfig) -> Tensor:
    """Prompts -> (n, config.source_length) int64, PAD behind. ConfigError names the word that is
    unknown, with the nearest known one, and a prompt that is empty or too long."""
    rows: list[list[int]] = []
    for prompt in prompts:
        check_words("prompt", prompt, tokenizer)
        ids = tokenizer.encode(prompt)
        if not 0 < len(ids) <= config.source_length:
            raise ConfigError(
                f"prompt = {_short(prompt)}: {len(ids):,} tokens, expected 1 to "
                f"{config.source_length}, this model's data.source_length"
            )
        rows.append(ids)
    return pad_rows(rows, config.source_length)


def check_words(name: str, said: str, tokenizer: Tokenizer) -> None:
    """ConfigError, with the nearest known word, unless the model knows all words that are said."""
    unknown = tokenizer.unknown(said)
    if unknown:
        known = [piece.removeprefix("▁") for piece in tokenizer.pieces()]
        near = difflib.get_close_matches(unknown[0][:40], known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "use words of its training data"
        raise ConfigError(
            f"{name} = {_short(said)}: the model does not know {_short(unknown[0])}; {hint}"
        )


def _short(said: str) -> str:
    return repr(said if len(said) <= 80 else said[:77] + "...")
