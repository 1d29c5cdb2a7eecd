"""Held-out sources, each with every sentence that was written from it: what sentences written from
sources are measured against."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from shared.errors import DataError
from shared.tokenizer import Tokenizer
from text.config import DataConfig
from text.data import Corpus, fixed_order, pad_rows, read_corpus


@dataclass(frozen=True)
class References:
    """Different sources, in words and as condition ids (K, M), and the sentences of each."""

    sources: list[str]
    ids: Tensor
    sentences: list[list[str]]

    def __len__(self) -> int:
        return len(self.sources)

    def first(self, n: int) -> "References":
        """n sources, the same ones always: different ones while there are any, then again."""
        order = fixed_order(len(self)).repeat(-(-n // len(self)))[:n]
        rows = order.tolist()
        return References(
            [self.sources[i] for i in rows], self.ids[order], [self.sentences[i] for i in rows]
        )


def find_references(config: DataConfig, tokenizer: Tokenizer) -> References | None:
    """Those of the held-out split, or None where sentences are written from nothing. Words that the
    tokenizer does not know stay unknown; sources longer than config.source_length are left out.
    DataError when none is left."""
    if config.source is None:
        return None
    grouped = group(read_corpus(config, held_out=True))
    rows = {source: tokenizer.encode(source) for source in grouped}
    fits = [source for source, ids in rows.items() if 0 < len(ids) <= config.source_length]
    if not fits:
        raise DataError(
            f"data.held_out = {config.held_out!r}: no source of 1 to {config.source_length} tokens"
        )
    ids = pad_rows([rows[source] for source in fits], config.source_length)
    return References(fits, ids, [grouped[source] for source in fits])


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


def written_per_source(sentences: Sequence[Sequence[str]]) -> float:
    """The mean number of sentences that a source has."""
    return sum(map(len, sentences)) / len(sentences)
