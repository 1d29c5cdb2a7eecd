"""Sentences as rows of token ids: the scene world, files, folders, hub data sets, captions.

A row is the sentence's ids, EOS, and PAD up to the length: what a model must learn includes where
the sentence ends. Its source, where sentences are written from something, is a row of ids and PAD,
or of the patches of a picture.
A sentence that does not fit, or whose source does not, is dropped, and the number dropped is told.
"""

import functools
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shared.errors import ConfigError, DataError
from shared.prompts import pad_rows
from shared.scene import SPLITS, Scene
from shared.schema import one_of
from shared.tables import check_columns, expand, load_table, side_of
from shared.tokenizer import EOS, Tokenizer, one_blank
from text import parts
from text.captions import SourcePictures, read_captions
from text.config import DataConfig

SCENES = 16_000  # sentences of the scene world when data.limit is not set
HELD_OUT_SCENES = 2_000

# file suffix -> builder of `datasets`
BUILDERS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv", ".txt": "text"}


@dataclass(frozen=True)
class Rows:
    """Training data: ids (N, L) int64 and their sources, (N, M) int64 or pictures or None, as
    `shared.task.Examples`; and how many did not fit."""

    ids: Tensor
    sources: Tensor | SourcePictures | None
    dropped: int
    kept: tuple[int, ...] = ()  # of the corpus, where rows were made of one

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """rows (B,) -> ids (B, L), and their sources (B, M) or (B, M, D) if there are any."""
        return self.ids[rows], None if self.sources is None else self.sources[rows]


@dataclass(frozen=True)
class Corpus:
    """Sentences of one split, and what each was written from, or None."""

    sentences: list[str]
    sources: list[str] | None = None
    pictures: SourcePictures | None = None

    def __len__(self) -> int:
        return len(self.sentences)

    @property
    def strings(self) -> list[str]:
        """All that a tokenizer must know."""
        return self.sentences + (self.sources or [])


def to_rows(corpus: Corpus, tokenizer: Tokenizer, config: DataConfig) -> Rows:
    """Sentences -> rows of config.length ids, sources -> rows of config.source_length. ConfigError
    when none of them fits."""
    encoded = [tokenizer.encode(sentence) for sentence in corpus.sentences]
    fits = [0 < len(ids) < config.length for ids in encoded]
    if not any(fits):
        shortest = min(map(len, encoded), default=0) + 1
        raise ConfigError(
            f"data.length = {config.length}: none of {len(corpus):,} sentences fits, the shortest "
            f"has {shortest} tokens with its end; set data.length to {shortest} or more"
        )
    sources: Tensor | SourcePictures | None = None
    if corpus.sources is not None:
        read = [tokenizer.encode(source) for source in corpus.sources]
        both = [
            fit and len(ids) <= config.source_length for fit, ids in zip(fits, read, strict=True)
        ]
        if not any(both):
            shortest = min(map(len, itertools.compress(read, fits)))
            raise ConfigError(
                f"data.source_length = {config.source_length}: the source of no sentence fits, the "
                f"shortest has {shortest} tokens; set data.source_length to {shortest} or more"
            )
        fits, sources = both, pad_rows(itertools.compress(read, both), config.source_length)
    ended = [[*ids, EOS] for ids in itertools.compress(encoded, fits)]
    kept = tuple(itertools.compress(range(len(corpus)), fits))
    if corpus.pictures is not None:
        sources = corpus.pictures.select(kept)
    return Rows(pad_rows(ended, config.length), sources, len(corpus) - len(ended), kept)


def read_corpus(config: DataConfig, held_out: bool = False) -> Corpus:
    """The training split, or the held-out one, blanks collapsed, without empty sentences.

    ConfigError for a data set, column or variable that does not exist (it lists those that do),
    DataError for files that cannot be read and for a split without sentences.
    """
    if config.name == "scene":
        return _scenes(config, held_out)
    if config.picture is not None:
        captions, pictures = read_captions(config, held_out)
        return Corpus(captions, pictures=pictures if config.reads_pictures else None)
    table = _table(config, expand(config.name), held_out)
    sentences = [one_blank(sentence) for sentence in _column(config, table, "column")]
    kept = [i for i, sentence in enumerate(sentences) if sentence][: config.limit]
    if not kept:
        raise DataError(f"data.name = {config.name!r}: no sentences in it")
    sources = None
    if config.source is not None:
        column, partial = _column(config, table, "source"), _partial(config, held_out)
        said = (parts.of_table(one_blank(column[i]), i, partial) for i in kept)
        sources = [parts.signs_apart(one) if config.source_signs else one for one in said]
    return Corpus([sentences[i] for i in kept], sources)


def read_labels(config: DataConfig, held_out: bool = False) -> tuple[list[str], list[str]]:
    """Sentences of a split and what data.label_column says of each; those of which it says nothing
    are left out. Errors as `read_corpus`."""
    table = _table(config, expand(config.name), held_out)
    sentences = [one_blank(sentence) for sentence in _column(config, table, "column")]
    labels = _column(config, table, "label_column")
    pairs = [(s, label) for s, label in zip(sentences, labels, strict=True) if s and label]
    if not pairs:
        raise DataError(f"data.name = {config.name!r}: no labelled sentences in it")
    chosen = pairs[: config.limit]
    return [sentence for sentence, _ in chosen], [label for _, label in chosen]


def fixed_order(count: int) -> Tensor:
    """All numbers below `count` in one fixed order: files are often sorted, so not in theirs."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))


def some(sentences: list[str], n: int) -> list[str]:
    """n of the sentences, or all there are, always the same ones."""
    return [sentences[i] for i in fixed_order(len(sentences))[:n].tolist()]


def scene_pairs(config: DataConfig, held_out: bool) -> tuple[tuple[Scene, str], ...]:
    """The scenes of a split and what is told of each. ConfigError for a split that there is not."""
    split, count = config.split, config.limit or SCENES
    if held_out:
        split, count = config.held_out, min(count, HELD_OUT_SCENES)
    try:
        one_of("split", split, SPLITS)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return _told(split, count, tuple(config.narrowed().items()), config.split_by)


@functools.lru_cache(maxsize=4)
def _told(
    split: str, count: int, only: tuple[tuple[str, str], ...], split_by: str
) -> tuple[tuple[Scene, str], ...]:
    """A few thousand are told a second, and a training reads them several times: kept."""
    from text.teller import pairs

    return tuple(itertools.islice(pairs(0, split, only=dict(only), split_by=split_by), count))


def _scenes(config: DataConfig, held_out: bool) -> Corpus:
    told, partial = scene_pairs(config, held_out), _partial(config, held_out)
    sources = [parts.of_scene(seen, row, partial) for row, (seen, _) in enumerate(told)]
    return Corpus([sentence for _, sentence in told], sources if config.source else None)


def _partial(config: DataConfig, held_out: bool) -> float:
    """The share of sources with parts left out: held-out ones are whole."""
    return 0.0 if held_out else config.partial_sources


def _table(config: DataConfig, name: str, held_out: bool) -> Any:
    """The rows of a split, whatever holds them."""
    if Path(name).is_file():
        return _file(config, Path(name), held_out)
    return _load(config, name, held_out)


def _file(config: DataConfig, path: Path, held_out: bool) -> Any:
    """A single file: every 20th row is held out."""
    if path.suffix not in BUILDERS:
        raise ConfigError(
            f"data.name = {config.name!r}: a file must end in one of {', '.join(BUILDERS)}"
        )
    table = load_table(config.name, BUILDERS[path.suffix], "train", data_files={"train": str(path)})
    return table.select(side_of(len(table), held_out))


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


def _column(config: DataConfig, table: Any, key: str) -> list[str]:
    """The strings of data.column or data.source, or the labels of data.label_column as strings.
    DataError lists the columns when it is not one."""
    column = getattr(config, key)
    if key == "column" and table.column_names == ["text"]:
        column = "text"  # the lines of a .txt file
    check_columns(config.name, table, {f"data.{key}": column})
    values = list(table[column])
    if key == "label_column":
        return [_label(value) for value in values]
    wrong = next((v for v in values if not isinstance(v, str)), None)
    if wrong is not None:
        raise DataError(
            f"data.{key} = {column!r}: expected strings, got {type(wrong).__name__} ({wrong!r})"
        )
    return values


def _label(value: Any) -> str:
    """A cell as a label: empty where nothing is, and integers of a column with gaps, which tables
    read as floating point, as integers."""
    if value is None or value != value:
        return ""
    whole = isinstance(value, float) and value.is_integer()
    return str(int(value)) if whole else one_blank(str(value))
