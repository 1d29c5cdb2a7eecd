"""Captions as conditions: rows of the ids of a tokenizer that is trained with the run.

Where a frozen encoder reads captions (`image.text_encoder`), these ids are what a judge sees, and
the states of the encoder what the network is told.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import compress
from pathlib import Path

import torch
from torch import Tensor

from image.config import ImageConfig
from image.data import Pictures
from image.data_config import DataConfig
from shared.errors import ConfigError
from shared.prompts import pad_rows, prompt_ids
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


def conditioned(pictures: Pictures, config: ImageConfig, run: Path) -> Pictures:
    """Pictures of a run with their captions as conditions, where there are any; a classifier learns
    captions where it has no classes."""
    classes = config.model == "classifier" and pictures.condition is not None
    if pictures.captions is None or classes:
        return pictures
    tokenizer, lengths = prepare_tokenizer(pictures, config.data, run), None
    if config.data.text_encoder is not None:
        from image.text_encoder import load_text_encoder  # seconds of transformers

        lengths = load_text_encoder(config.data, run).lengths(pictures.captions)
    return captioned(pictures, tokenizer, config.data, lengths)


def captioned(
    pictures: Pictures,
    tokenizer: Tokenizer,
    config: DataConfig,
    lengths: Sequence[int] | None = None,
) -> Pictures:
    """Pictures whose condition is their caption, (N, data.caption_length) of ids, behind their
    layout where they have one; without those whose caption is longer, also in the tokens of another
    reader (`lengths`, N), which count as left out. ConfigError when no caption fits."""
    assert pictures.captions is not None
    encoded = [tokenizer.encode(caption) for caption in pictures.captions]
    theirs = lengths or [0] * len(encoded)
    longest = [max(len(ids), n) for ids, n in zip(encoded, theirs, strict=True)]
    fits = [
        bool(ids) and n <= config.caption_length for ids, n in zip(encoded, longest, strict=True)
    ]
    if not any(fits):
        shortest = min(longest)
        raise ConfigError(
            f"data.caption_length = {config.caption_length}: none of {len(fits):,} captions fits, "
            f"the shortest has {shortest} tokens; set data.caption_length to {shortest} or more"
        )
    rows = torch.tensor(fits).nonzero().flatten()
    too_long = [
        f"data.caption_length = {config.caption_length}: {caption!r:.60} has {n} tokens"
        for caption, n, fit in zip(pictures.captions, longest, fits, strict=True)
        if not fit
    ]
    told = pad_rows(compress(encoded, fits), config.caption_length)
    condition, classed, conditions = told, pictures.condition, len(tokenizer)
    if pictures.laid_out:
        assert pictures.condition is not None
        condition = torch.cat([pictures.condition[rows, :-1], told], 1)
        classed, conditions = pictures.shows, max(conditions, pictures.conditions)
    seen = told if pictures.laid_out else None  # a judge sees the words, never the layout
    return replace(
        pictures,
        rows=rows if pictures.rows is None else pictures.rows[rows],
        condition=condition,
        shows=seen if classed is None else classed[rows],
        classes=(),
        conditions=conditions,
        captions=tuple(compress(pictures.captions, fits)),
        left_out=(*pictures.left_out, *too_long),
    )


def prompt_reader(config: DataConfig, run: Path) -> Callable[[Sequence[str], str], Tensor]:
    """What makes conditions (n, ...) of n prompts and what they are called, for a run that learned
    captions."""
    if config.text_encoder is not None:
        from image.text_encoder import load_text_encoder

        return load_text_encoder(config, run)
    tokenizer, length = load_tokenizer(run / FILE), config.caption_length
    return lambda prompts, name: prompt_ids(prompts, tokenizer, length, "data.caption_length", name)


def shown(pictures: Pictures) -> Pictures:
    """The same with what a judge is to see in each as its condition: the class or the scene where
    they are known, else the words of the caption, or of a layout nothing."""
    if pictures.shows is None and not pictures.laid_out:
        return pictures
    return replace(pictures, condition=pictures.shows)
