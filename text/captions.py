"""Pictures with a caption each: the caption is the sentence, the picture what it is written from.

The network reads a picture as a row of patches (`shared.nets.patches`), as it reads a text as a row
of ids. Captions may have the scene of their picture beside them, spelt out; `diptych data scene`
writes such folders.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from shared.errors import DataError
from shared.nets.patches import seen
from shared.pictures import (
    check_all_listed,
    decode,
    encoded_pictures,
    fit,
    named,
    open_pictures,
    stack,
)
from shared.scene import split_of
from shared.tables import called, check_columns, expand
from shared.tokenizer import one_blank
from text.config import DataConfig, PictureConfig

Shown = str | Path | Image.Image  # a picture, or its file


@dataclass(frozen=True)
class SourcePictures:
    """images (N, C, H, W), uint8, and the scenes that they show, spelt out, where that is known."""

    images: Tensor
    patch: int
    scenes: list[str] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: Tensor) -> Tensor:
        """rows (B,) -> what a network reads: patches (B, M, C patch^2), float32."""
        return seen(self.images[rows], self.patch)

    def select(self, rows: Sequence[int]) -> "SourcePictures":
        """Those of these rows."""
        scenes = None if self.scenes is None else [self.scenes[i] for i in rows]
        return SourcePictures(self.images[list(rows)], self.patch, scenes)


def read_captions(config: DataConfig, held_out: bool = False) -> tuple[list[str], SourcePictures]:
    """The captions of a split, blanks collapsed, and their pictures. A source without splits holds
    out those pictures that `shared.scene.split_of` does: then none is on both sides.

    ConfigError for a variable that is not set, DataError for the rest: no such data set, split or
    column, a picture that cannot be read or has another size, one without a caption.
    """
    assert config.picture is not None
    split = config.held_out if held_out else config.split
    opened = open_pictures(config.name, expand(config.name), split, config.split)
    table = opened.table
    place = called(config.name, split, opened.undivided)
    _check_columns(config, config.picture, table, place)
    every = range(len(table))
    encoded = encoded_pictures(table, every, "data.picture.column", config.picture.column)
    check_all_listed(config.name, opened)
    said: list[str] = []
    pictures: list[Image.Image] = []
    rows: list[int] = []
    for row, item, caption in zip(every, encoded, table[config.column][:], strict=True):
        where = named(config.name, item, row)
        picture = prepared(decode(item, where), config.picture, where)
        if not isinstance(caption, str) or not caption.strip():
            raise DataError(f"{where} has no caption in data.column = {config.column!r}")
        if opened.undivided and (split_of(picture.tobytes().hex()) != "train") != held_out:
            continue
        said.append(one_blank(caption))
        pictures.append(picture)
        rows.append(row)
        if len(rows) == config.limit:
            break
    if not rows:
        raise DataError(f"data.name = {config.name!r}, split {split!r}: no pictures in it")
    scenes = None
    if config.picture.scenes is not None:
        scenes = table.select(rows)[config.picture.scenes][:]
    return said, SourcePictures(stack(pictures), config.picture.patch, scenes)


def prepared(picture: Image.Image, config: PictureConfig, where: str) -> Image.Image:
    """Grey or RGB, of the model's size. DataError for another one, unless it is to be scaled."""
    size = config.size
    if not config.scale and picture.size != (size, size):
        raise DataError(
            f"{where} is {picture.height} x {picture.width} pixels, expected {size} x {size}: the "
            "model's data.picture.size (data.picture.scale=true in training scales all others)"
        )
    return fit(picture, config.channels, size)


def show(pictures: Sequence[Shown], config: PictureConfig) -> Tensor:
    """Pictures or files of them -> patches (n, M, C patch^2), as `SourcePictures` gives. DataError,
    with the file, for one that cannot be read or has another size."""
    found: list[Image.Image] = []
    for i, each in enumerate(pictures):
        where = f"image {i}" if isinstance(each, Image.Image) else f"image {each}"
        if not isinstance(each, Image.Image):
            each = decode({"bytes": None, "path": str(each)}, where)
        found.append(prepared(each, config, where))
    return seen(stack(found), config.patch)


def _check_columns(config: DataConfig, picture: PictureConfig, table: Any, place: str) -> None:
    wanted = {
        "data.picture.column": picture.column,
        "data.column": config.column,
        "data.picture.scenes": picture.scenes,
    }
    check_columns(place, table, wanted)
