"""The pictures of a split as one array, decoded once: in memory, or in files that are mapped.

    CACHE/pictures/DIGEST/images       (S, C, H, W), uint8, without a header
                          layouts      (S, H, W), uint8, if any
                          kept.json    how many are kept, their shapes, and what became of each row

The cache holds what `data.cache=disk` asks for, for data that memory cannot: rows are read when
they are taken, and processes of one machine share them. The digest is of what the rows hold, bytes
or files with their sizes and times, and of the settings that decoding depends on.
"""

import hashlib
import json
import math
import os
import sys
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from PIL import Image
from torch import Tensor

from image.data_config import DataConfig
from image.layouts import fit_layout, layout_of
from shared.errors import DataError
from shared.files import cache_dir, clear_temporary, make_folder
from shared.pictures import GREY, channels_first, decode, encoded_pictures, fit, named

VERSION = 1  # of what is kept; raise it when decoding changes
FOLDER, KEPT = "pictures", "kept.json"

# name, shape -> an empty array of bytes
Allocate = Callable[[str, tuple[int, ...]], Tensor]


@dataclass(frozen=True)
class Encoded:
    """A row as its table keeps it: the picture and the layout (None without), bytes or a file, and
    what else a picture needs that it has not, "caption" or "class"."""

    row: int
    picture: Any
    layout: Any
    lacks: str | None


@dataclass(frozen=True)
class Decoded:
    """images (n, C, H, W), uint8; layouts (n, H, W), uint8, if any; the rows that they come from,
    and why each of the others is left out."""

    images: Tensor
    layouts: Tensor | None
    kept: list[int]
    left_out: list[str]


@dataclass(frozen=True)
class EncodedSplit:
    """Rows of a table. `captions` are those of all its rows, where pictures need one, and
    `labelled` says whether they need a class."""

    table: Any
    rows: list[int]
    captions: list[str] | None
    labelled: bool

    def read(self, config: DataConfig) -> Generator[Encoded]:
        """Row by row, so that a part of what is encoded is held at a time. DataError when a column
        holds no pictures."""
        pictures = encoded_pictures(self.table, self.rows, "data.image_column", config.image_column)
        layouts: Iterable[Any] = [None] * len(self.rows)
        if config.layout_column is not None:
            layouts = encoded_pictures(
                self.table, self.rows, "data.layout_column", config.layout_column
            )
        labels: Iterable[Any] = self.rows
        if self.labelled:
            labels = self.table.select(self.rows)[config.label_column]
        for row, picture, layout, label in zip(self.rows, pictures, layouts, labels, strict=True):
            lacks = "class" if label is None else None
            if self.captions is not None and not self.captions[row]:
                lacks = "caption"
            yield Encoded(row, picture, layout, lacks)


def decoded(config: DataConfig, split: EncodedSplit) -> Decoded:
    """All that can be read, in memory or, with `data.cache=disk`, as maps of files of the cache,
    which are written where they are missing.

    DataError for a picture or layout that cannot be read, has another shape than the first, or
    lacks its caption or class, unless bad ones are left out, and where none is good; OSError where
    the disk is full.
    """
    if config.cache == "memory":
        return _decode(config, split, _in_memory)
    folder = cache_dir() / FOLDER / _digest(config, split)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not folder.is_dir():
            clear_temporary(folder)  # of one that was killed
            make_folder(folder, lambda temporary: _write(config, split, temporary))
    return _read(folder)


def _decode(config: DataConfig, split: EncodedSplit, allocate: Allocate) -> Decoded:
    """Picture by picture into arrays for all of the rows, of which the first ones are then used."""
    channels, count, arrays = config.channels, len(split.rows), list[Tensor]()
    kept, left_out = list[int](), list[str]()
    for each in split.read(config):
        where = named(config.name, each.picture, each.row)
        try:
            picture, layout = _decode_row(config, each, where)
        except DataError as error:
            if not config.skip_bad:
                hint = "data.skip_bad=true leaves such pictures out and counts them"
                raise DataError(f"{error}; {hint}") from None
            left_out.append(str(error))
            continue
        if channels is None:
            channels = 1 if picture.mode in GREY else 3
        shown = [channels_first(fit(picture, channels, config.size))]
        if layout is not None:
            shown.append(channels_first(layout)[0])
        if not arrays:
            names = ("images", "layouts")[: len(shown)]
            pairs = zip(names, shown, strict=True)
            arrays = [allocate(name, (count, *one.shape)) for name, one in pairs]
        _check_shape(shown[0], arrays[0], where)
        for array, one in zip(arrays, shown, strict=True):
            array[len(kept)] = one
        kept.append(each.row)
    if not kept:
        raise DataError(f"data.name = {config.name!r}: all of its {count:,} pictures are bad")
    images, *layouts = (array[: len(kept)] for array in arrays)
    return Decoded(images, layouts[0] if layouts else None, kept, left_out)


def _decode_row(
    config: DataConfig, each: Encoded, where: str
) -> tuple[Image.Image, Image.Image | None]:
    """A picture as it is and its layout, cropped and scaled as that will be. DataError."""
    picture = decode(each.picture, where)
    if each.lacks is not None:
        raise DataError(f"{where} has no {each.lacks}")
    if config.layout_column is None:
        return picture, None
    assert config.size is not None  # as the configuration has checked
    what = named(config.name, each.layout, each.row, "layout")
    layout = layout_of(decode(each.layout, what), config.parts(), what)
    if layout.size != picture.size:
        raise DataError(
            f"{what} is {layout.height} x {layout.width}, its picture {picture.height} x "
            f"{picture.width}: expected the same"
        )
    return picture, fit_layout(layout, config.size)


def _check_shape(picture: Tensor, images: Tensor, where: str) -> None:
    """picture (C, H, W) and the array of all (S, C, H, W)."""
    (_, height, width), (_, first_height, first_width) = picture.shape, images.shape[1:]
    if (height, width) != (first_height, first_width):
        raise DataError(
            f"{where} is {height} x {width}, the first one is {first_height} x {first_width}; set "
            "data.size=PIXELS to scale them all"
        )


def _in_memory(name: str, shape: tuple[int, ...]) -> Tensor:
    return torch.empty(shape, dtype=torch.uint8)


def _write(config: DataConfig, split: EncodedSplit, folder: Path) -> None:
    def allocate(name: str, shape: tuple[int, ...]) -> Tensor:
        with (folder / name).open("wb") as file:
            if sys.platform == "linux":  # a map cannot say that the disk is full
                os.posix_fallocate(file.fileno(), 0, math.prod(shape))
            else:
                file.truncate(math.prod(shape))
        return _mapped(folder / name, shape, written=True)

    found = _decode(config, split, allocate)
    facts = {
        "images": found.images.shape,
        "layouts": None if found.layouts is None else found.layouts.shape,
        "kept": found.kept,
        "left_out": found.left_out,
    }
    (folder / KEPT).write_text(json.dumps(facts), encoding="utf-8")


def _read(folder: Path) -> Decoded:
    try:
        facts = json.loads((folder / KEPT).read_text(encoding="utf-8"))
        shapes = {name: facts[name] for name in ("images", "layouts") if facts[name] is not None}
        arrays = {name: _mapped(folder / name, shape) for name, shape in shapes.items()}
        return Decoded(arrays["images"], arrays.get("layouts"), facts["kept"], facts["left_out"])
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{folder}: damaged ({error}); delete it, and the same command makes it again"
        ) from None


def _mapped(path: Path, shape: tuple[int, ...], written: bool = False) -> Tensor:
    """A file as an array of bytes; what is put into it reaches the file if it is to be written."""
    size = math.prod(shape)
    return torch.from_file(str(path), shared=written, size=size, dtype=torch.uint8).view(*shape)


def _digest(config: DataConfig, split: EncodedSplit) -> str:
    said = [VERSION, config.name, config.size, config.channels, config.skip_bad, config.parts()]
    digest = hashlib.sha256(json.dumps(said).encode())
    for each in split.read(config):
        line = [each.row, each.lacks, _identity(each.picture), _identity(each.layout)]
        digest.update(json.dumps(line).encode())
    return digest.hexdigest()[:24]


def _identity(item: Any) -> list[Any]:
    """What changes when a picture does: the digest of its bytes, or the size and time of its
    file, and its name."""
    if not item:
        return []
    if item["bytes"] is not None:
        return [item["path"], hashlib.sha256(item["bytes"]).hexdigest()]
    if item["path"] is None or not os.path.isfile(item["path"]):
        return [item["path"]]
    found = os.stat(item["path"])
    return [item["path"], found.st_size, found.st_mtime_ns]
