"""Pairs of a picture and a sentence: the scene world's, or of files that the image panel reads.

A pair is one row: the levels of the picture, then the ids of the sentence and its end, PAD behind;
or, of each, its latents (`examples.joint.latents`). Scenes are split by what is on the board
(`shared.scene`), so no picture of the held-out split is one of training; a sentence may tell both.
"""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from examples.joint.config import DataConfig
from image.data import Pictures, load_pictures
from image.data_config import DataConfig as PictureConfig
from image.grid import to_pil
from image.render import render
from shared.errors import DataError
from shared.levels import BYTES
from shared.pairs import write_folder
from shared.scene import Scene, check_split, split_of_scene
from shared.tokenizer import Tokenizer
from text.config import DataConfig as SentenceConfig
from text.data import Corpus, to_rows
from text.teller import pairs

PAIRS = 40_000  # of the endless scene world when data.limit is not set
HELD_OUT_PAIRS = 1_000
SEED = 0  # of the scene world's stream


@dataclass(frozen=True)
class Captioned:
    """Pictures (N, C, H, W), uint8, the sentence of each, and its scene where there is one."""

    images: Tensor
    sentences: list[str]
    scenes: list[Scene] | None
    left_out: tuple[str, ...] = ()  # why each bad pair was


@dataclass(frozen=True)
class Pairs:
    """Training data as `shared.task.Examples`: pictures (N, C, H, W), uint8, and ids (N, L); or the
    latents of either."""

    images: Tensor
    ids: Tensor
    dropped: int  # whose sentence is too long
    left_out: tuple[str, ...] = ()  # why each bad one was, before

    def __len__(self) -> int:
        return len(self.images)

    @property
    def pictures(self) -> Pictures:
        """The pictures alone, as the image panel has them."""
        return Pictures(self.images, None, BYTES, (), 0)

    def take(self, rows: Tensor) -> tuple[Tensor, None]:
        """rows (B,) -> pairs (B, C H W + L); no condition, for one side is the other's."""
        return torch.cat([self.images[rows].flatten(1), self.ids[rows].flatten(1)], 1), None


def read_pairs(config: DataConfig, held_out: bool = False) -> Captioned:
    """The training split, or the held-out one.

    ConfigError for a split that there is not, DataError for a picture without a sentence, a
    sentence without a picture, and whatever else the image panel refuses.
    """
    split = config.held_out if held_out else config.split
    if config.name == "scene":
        return _scenes(config, split, held_out)
    pictures = load_pictures(
        PictureConfig(
            name=config.name,
            split=config.split,
            held_out=config.held_out,
            image_column=config.image_column,
            label_column=None,
            caption_column=config.text_column,
            size=config.size,
            channels=3,
            limit=config.limit,
            skip_bad=config.skip_bad,
        ),
        held_out,
    )
    assert pictures.captions is not None  # for there is a caption column
    return Captioned(pictures.images, list(pictures.captions), None, pictures.left_out)


def write_pairs(read: Captioned, folder: Path) -> None:
    """Pictures and sentences as an image folder, which both panels read: 00000.png and on, and a
    line of metadata.jsonl each. ConfigError when there is something in the folder."""

    def fill(temporary: Path) -> list[dict[str, str]]:
        rows: list[dict[str, str]] = []
        for i, (image, text) in enumerate(zip(read.images, read.sentences, strict=True)):
            to_pil(image).save(temporary / f"{i:05d}.png")
            rows.append({"file_name": f"{i:05d}.png", "text": text})
        return rows

    write_folder(folder, fill)


def to_pairs(read: Captioned, tokenizer: Tokenizer, config: DataConfig) -> Pairs:
    """Pictures and sentences as rows; those whose sentence does not fit data.length are dropped.
    ConfigError when none of them fits, DataError when the two are not as many."""
    if len(read.images) != len(read.sentences):
        raise DataError(
            f"{len(read.images)} pictures and {len(read.sentences)} sentences: a joint model "
            "learns pairs; expected one sentence for each picture"
        )
    corpus, fitting = Corpus(read.sentences), SentenceConfig(name="files", length=config.length)
    rows = to_rows(corpus, tokenizer, fitting)
    kept = torch.tensor(rows.kept)
    return Pairs(read.images[kept], rows.ids.short(), rows.dropped, read.left_out)


def _scenes(config: DataConfig, split: str, held_out: bool) -> Captioned:
    try:
        check_split(split)
    except ValueError as error:
        raise DataError(f"data.split, data.held_out: {error}") from None
    count = config.limit or PAIRS
    every = pairs(SEED, None, config.detail, config.narrowed())
    chosen = (pair for pair in every if split_of_scene(pair[0]) == split)
    found = list(islice(chosen, min(count, HELD_OUT_PAIRS) if held_out else count))
    scenes = [told for told, _ in found]
    return Captioned(render(scenes, config.size), [text for _, text in found], scenes)
