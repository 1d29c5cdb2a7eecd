"""Sentences as rows of token ids: the scene world, files, folders, hub data sets.

A row is the sentence's ids, EOS, and PAD up to the length: what a model must learn includes where
the sentence ends. A sentence that does not fit is dropped, and the number dropped is told.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shared.errors import ConfigError, DataError
from shared.tables import expand, load_table
from shared.tokenizer import EOS, PAD, Tokenizer, one_blank
from text.config import DataConfig

SCENES = 16_000  # sentences of the scene world when data.limit is not set
HELD_OUT_SCENES = 2_000
HOLD_OUT_EVERY = 20  # of a single file's sentences

# file suffix -> builder of `datasets`
BUILDERS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv", ".txt": "text"}


@dataclass(frozen=True)
class Rows:
    """Training data: ids (N, L) int64, as `shared.task.Examples`; and how many did not fit."""

    ids: Tensor
    dropped: int

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Tensor) -> tuple[Tensor, None]:
        """rows (B,) -> ids (B, L); there is no condition."""
        return self.ids[rows], None


def to_rows(sentences: list[str], tokenizer: Tokenizer, length: int) -> Rows:
    """Sentences -> rows of `length` ids. ConfigError when none of them fits."""
    encoded = [tokenizer.encode(sentence) for sentence in sentences]
    fitting = [ids for ids in encoded if 0 < len(ids) < length]
    if not fitting:
        shortest = min(map(len, encoded), default=0) + 1
        raise ConfigError(
            f"data.length = {length}: none of {len(sentences):,} sentences fits, the shortest has "
            f"{shortest} tokens with its end; set data.length to {shortest} or more"
        )
    ids = torch.full((len(fitting), length), PAD)
    for row, tokens in zip(ids, fitting, strict=True):
        row[: len(tokens) + 1] = torch.tensor([*tokens, EOS])
    return Rows(ids, len(sentences) - len(fitting))


def read_sentences(config: DataConfig, held_out: bool = False) -> list[str]:
    """The sentences of the training split, or of the held-out one, blanks collapsed.

    ConfigError for a data set, column or variable that does not exist (it lists those that do),
    DataError for files that cannot be read and for a split without sentences.
    """
    if config.name == "scene":
        return _scenes(config, held_out)
    name = expand(config.name)
    if Path(name).is_file():
        sentences = _file(config, Path(name), held_out)
    else:
        sentences = _column(config, _load(config, name, held_out))
    kept = [sentence for sentence in map(one_blank, sentences) if sentence]
    if not kept:
        raise DataError(f"data.name = {config.name!r}: no sentences in it")
    return kept if config.limit is None else kept[: config.limit]


def fixed_order(count: int) -> Tensor:
    """All numbers below `count` in one fixed order: files are often sorted, so not in theirs."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))


def some(sentences: list[str], n: int) -> list[str]:
    """n of the sentences, or all there are, always the same ones."""
    return [sentences[i] for i in fixed_order(len(sentences))[:n].tolist()]


def _scenes(config: DataConfig, held_out: bool) -> list[str]:
    from text.teller import corpus

    split, count = "train", config.limit or SCENES
    if held_out:
        split, count = "validation", min(count, HELD_OUT_SCENES)
    return corpus(split, count, only=config.narrowed())


def _file(config: DataConfig, path: Path, held_out: bool) -> list[str]:
    """A single file: every 20th sentence is held out."""
    if path.suffix not in BUILDERS:
        raise ConfigError(
            f"data.name = {config.name!r}: a file must end in one of {', '.join(BUILDERS)}"
        )
    table = load_table(config.name, BUILDERS[path.suffix], "train", data_files={"train": str(path)})
    column = _column(config, table)
    return [s for i, s in enumerate(column) if (i % HOLD_OUT_EVERY == 0) == held_out]


def _load(config: DataConfig, name: str, held_out: bool) -> Any:
    """A split of a folder with one file a split, or of a data set of the hub."""
    split = config.held_out if held_out else config.split
    folder = Path(name)
    if not folder.is_dir():
        if folder.is_absolute() or name.startswith("."):
            raise DataError(f"data.name = {config.name!r}: no such file or folder: {name}")
        return load_table(config.name, name, split)
    files = {p.stem: p for p in sorted(folder.iterdir()) if p.suffix in BUILDERS}
    if split not in files:
        raise DataError(
            f"data.name = {config.name!r}: no split {split!r} in {name}; "
            f"it holds {', '.join(files) or 'no file that can be read'}"
        )
    found = {split: str(files[split])}
    return load_table(config.name, BUILDERS[files[split].suffix], split, data_files=found)


def _column(config: DataConfig, table: Any) -> list[str]:
    """The strings of data.column. DataError lists the columns when it is not one."""
    column = config.column
    if table.column_names == ["text"]:
        column = "text"  # the lines of a .txt file
    if column not in table.column_names:
        raise DataError(
            f"data.column = {column!r}: {config.name} has {', '.join(table.column_names)}"
        )
    values = list(table[column])
    wrong = next((v for v in values if not isinstance(v, str)), None)
    if wrong is not None:
        raise DataError(
            f"data.column = {column!r}: expected strings, got {type(wrong).__name__} ({wrong!r})"
        )
    return values
