"""Held-out sources, each with every sentence that was written from it: what sentences written from
sources are measured against."""

from dataclasses import dataclass

import torch
from torch import Tensor

from shared.errors import DataError
from shared.prompts import pad_rows
from shared.tokenizer import Tokenizer
from text.config import DataConfig
from text.data import Corpus, fixed_order, read_corpus


@dataclass(frozen=True)
class References:
    """Different sources in words, of pictures the scenes spelt out where they are known; the same
    as a network reads them, ids (K, M) or patches (K, M, D); and the sentences of each."""

    sources: list[str]
    rows: Tensor
    sentences: list[list[str]]

    def __len__(self) -> int:
        return len(self.sources)

    def some(self, n: int) -> "References":
        """n sources, the same ones always: different ones while there are any, then again."""
        order = fixed_order(len(self)).repeat(-(-n // len(self)))[:n]
        chosen = order.tolist()
        return References(
            [self.sources[i] for i in chosen],
            self.rows[order],
            [self.sentences[i] for i in chosen],
        )


def find_references(config: DataConfig, tokenizer: Tokenizer) -> References | None:
    """Those of the held-out split, or None where sentences are written from nothing. Words that the
    tokenizer does not know stay unknown; sources longer than config.source_length are left out.
    DataError when none is left."""
    if config.source is None:
        return None
    if config.reads_pictures:
        return _pictures(config)
    grouped = group(read_corpus(config, held_out=True))
    rows = {source: tokenizer.encode(source) for source in grouped}
    fits = [source for source, ids in rows.items() if 0 < len(ids) <= config.source_length]
    if not fits:
        raise DataError(
            f"data.held_out = {config.held_out!r}: no source of 1 to {config.source_length} tokens"
        )
    ids = pad_rows([rows[source] for source in fits], config.source_length)
    return References(fits, ids, [grouped[source] for source in fits])


def _pictures(config: DataConfig) -> References:
    """Different pictures, in the order of their first row."""
    corpus = read_corpus(config, held_out=True)
    assert corpus.pictures is not None
    rows: dict[bytes, list[int]] = {}
    for row, image in enumerate(corpus.pictures.images):
        rows.setdefault(image.numpy().tobytes(), []).append(row)
    shown = corpus.pictures.select([own[0] for own in rows.values()])
    return References(
        shown.scenes or [f"picture {i}" for i in range(len(shown))],
        shown[torch.arange(len(shown))],
        [[corpus.sentences[row] for row in own] for own in rows.values()],
    )


def group(corpus: Corpus) -> dict[str, list[str]]:
    """Sources -> their sentences, both in the order of their first row."""
    assert corpus.sources is not None
    grouped: dict[str, list[str]] = {}
    for source, sentence in zip(corpus.sources, corpus.sentences, strict=True):
        grouped.setdefault(source, []).append(sentence)
    return grouped


def repeated(source: str, ids: Tensor, n: int) -> References:
    """n times one source (1, M) that nobody has written from."""
    return References([source] * n, ids.expand(n, -1), [[]] * n)
