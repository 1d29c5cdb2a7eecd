"""Captions as conditions: rows of the ids of a tokenizer that is trained with the run."""

from dataclasses import replace
from itertools import compress
from pathlib import Path

import torch

from image.data import Pictures
from image.data_config import DataConfig
from shared.errors import ConfigError
from shared.prompts import pad_rows
from shared.tokenizer import FILE, Tokenizer, load_tokenizer, train_tokenizer


def prepare_tokenizer(pictures: Pictures, config: DataConfig, run: Path) -> Tokenizer:
    """The tokenizer of a run: the one it keeps, or one trained now on its captions and kept.
    DataError when there are too few of them for `data.vocabulary`."""
    if (run / FILE).is_file():
        return load_tokenizer(run / FILE)
    tokenizer = train_tokenizer(
        pictures.captions or (), config.tokenizer, config.vocabulary, config.min_count
    )
    tokenizer.save(run / FILE)
    return tokenizer


def captioned(pictures: Pictures, tokenizer: Tokenizer, config: DataConfig) -> Pictures:
    """Pictures whose condition is their caption, (N, data.caption_length) of ids; without those
    whose caption is longer, which count as skipped. ConfigError when no caption fits."""
    assert pictures.captions is not None
    encoded = [tokenizer.encode(caption) for caption in pictures.captions]
    fits = [0 < len(ids) <= config.caption_length for ids in encoded]
    if not any(fits):
        shortest = min(map(len, encoded))
        raise ConfigError(
            f"data.caption_length = {config.caption_length}: none of {len(fits):,} captions fits, "
            f"the shortest has {shortest} tokens; set data.caption_length to {shortest} or more"
        )
    rows = torch.tensor(fits)
    return replace(
        pictures,
        images=pictures.images[rows],
        condition=pad_rows(compress(encoded, fits), config.caption_length),
        shows=None if pictures.condition is None else pictures.condition[rows],
        classes=(),
        conditions=len(tokenizer),
        captions=tuple(compress(pictures.captions, fits)),
        skipped=pictures.skipped + fits.count(False),
    )


def shown(pictures: Pictures) -> Pictures:
    """The same with what a judge is to see in each as its condition: the class or the scene where
    they are known, else the words of the caption."""
    return pictures if pictures.shows is None else replace(pictures, condition=pictures.shows)
