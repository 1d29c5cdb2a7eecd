"""What is asked for in words -> rows of condition ids: the same for sentences and for pictures."""

import difflib
from collections.abc import Iterable, Sequence
from itertools import cycle, islice
from pathlib import Path

import torch
from torch import Tensor

from shared.errors import ConfigError, DataError
from shared.tokenizer import PAD, WORD_START, Tokenizer


def listed(said: str, name: str) -> list[str]:
    """What is said, or the lines of the .txt file that it names. DataError, with what it is called,
    for a file that is not there, is no text, or has no line that is not blank."""
    path = Path(said)
    if path.suffix != ".txt":
        return [said]
    if not path.is_file():
        raise DataError(f"{name} = {said}: no such file; expected a {name} a line")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{name} = {said}: not UTF-8 text ({error}); save it as UTF-8") from None
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise DataError(f"{name} = {said}: nothing in it; expected a {name} a line")
    return found


def one_each(prompt: str | None, n: int) -> list[str] | None:
    """What is said, or the lines of the file, for n samples in turn; None when nothing is."""
    return None if prompt is None else list(islice(cycle(listed(prompt, "prompt")), n))


def prompt_ids(
    prompts: Sequence[str], tokenizer: Tokenizer, length: int, key: str, name: str = "prompt"
) -> Tensor:
    """Prompts -> (n, length) int64, PAD behind. `key` is the setting that `length` came from, and
    `name` what the prompt is called. ConfigError names the word that is unknown, with the nearest
    known one, and a prompt that is empty or too long."""
    rows: list[list[int]] = []
    for prompt in prompts:
        check_words(name, prompt, tokenizer)
        ids = tokenizer.encode(prompt)
        if not 0 < len(ids) <= length:
            raise ConfigError(
                f"{name} = {_short(prompt)}: {len(ids):,} tokens, expected 1 to {length}, this "
                f"model's {key}"
            )
        rows.append(ids)
    return pad_rows(rows, length)


def sentence_ids(
    texts: Sequence[str], tokenizer: Tokenizer, length: int, name: str
) -> list[list[int]]:
    """Whole sentences -> their ids, of which each leaves room for its end in `length`. ConfigError,
    with what the sentence is called, for an unknown word, and for one that is empty or too long."""
    rows: list[list[int]] = []
    for text in texts:
        check_words(name, text, tokenizer)
        ids = tokenizer.encode(text)
        if not 0 < len(ids) < length:
            raise ConfigError(
                f"{name} = {_short(text)}: {len(ids):,} tokens, expected 1 to {length - 1}, what "
                "this model's data.length leaves beside the end"
            )
        rows.append(ids)
    return rows


def check_words(name: str, said: str, tokenizer: Tokenizer) -> None:
    """ConfigError, with the nearest known word, unless the model knows all words that are said."""
    unknown = tokenizer.unknown(said)
    if unknown:
        known = [piece.removeprefix(WORD_START) for piece in tokenizer.pieces()]
        near = difflib.get_close_matches(unknown[0][:40], known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "use words of its training data"
        raise ConfigError(
            f"{name} = {_short(said)}: the model does not know {_short(unknown[0])}; {hint}"
        )


def pad_rows(lists: Iterable[Sequence[int]], length: int) -> Tensor:
    """Lists of at most `length` ids -> (N, length) int64, PAD behind each."""
    listed = list(lists)
    rows = torch.full((len(listed), length), PAD)
    for row, ids in zip(rows, listed, strict=True):
        row[: len(ids)] = torch.tensor(ids)
    return rows


def _short(said: str) -> str:
    return repr(said if len(said) <= 80 else said[:77] + "...")
