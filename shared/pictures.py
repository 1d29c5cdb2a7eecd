"""Pictures of tables of `datasets` -> bytes: data of one panel, and sources of the other.

Every picture is decoded before anything is trained, so that a broken one is found at once and named
by its row and file.
"""

import io
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import BITSPERSAMPLE, TiffImageFile
from torch import Tensor

from shared.errors import DataError
from shared.tables import load_saved, load_table

GREY = ("1", "L", "LA")
WIDE = ("I", "F")  # 16 and 32 bits a pixel; converting them to 8 would clip
NAMED = 3  # of those left out


@dataclass(frozen=True)
class Opened:
    """The table of a split, whether the source has no splits, and the image folder that the split
    is, if it is one."""

    table: Any
    undivided: bool
    folder: Path | None = None


def open_pictures(name: str, path: str, split: str, training: str) -> Opened:
    """A split of pictures: of a .parquet file, a folder of such files, or of tar shards
    (`shared.tars`), an image folder, a folder that `datasets` saved, or a data set of the hub.

    `path` is `name`, data.name, expanded; an image folder has splits when it holds a folder called
    as `training` is. DataError when there is no such source or split.
    """
    place = Path(path)
    if place.is_file():
        if place.suffix != ".parquet":
            raise DataError(f"data.name = {name!r}: a single file must be .parquet")
        return Opened(load_table(name, "parquet", "train", data_files={"train": path}), True)
    if place.is_dir():
        return _open_folder(name, place, split, training)
    if place.is_absolute() or path.startswith("."):
        raise DataError(f"data.name = {name!r}: no such file or folder: {path}")
    return Opened(load_table(name, path, split), False)


def _open_folder(name: str, folder: Path, split: str, training: str) -> Opened:
    if (folder / "dataset_dict.json").is_file():
        saved = [entry.name for entry in folder.iterdir() if entry.is_dir()]
        _check_split(name, split, saved)
        return Opened(load_saved(name, str(folder / split), split), False)
    if (folder / "state.json").is_file():
        return Opened(load_saved(name, str(folder), split), True)
    files = _files(name, folder, "parquet", split)
    if files:
        found = [str(file) for file in files]
        return Opened(load_table(name, "parquet", split, data_files={split: found}), False)
    files = _files(name, folder, "tar", split)
    if files:
        from shared.tars import load_shards  # a second of `datasets`

        return Opened(load_shards(name, split, files), False)
    folders = [entry.name for entry in folder.iterdir() if entry.is_dir()]
    divided = training in folders
    if divided:
        _check_split(name, split, folders)
        folder = folder / split
    # named outright: looking for splits by name, `datasets` would go through the folder 66 times
    every = {"train": f"{folder}/**"}
    table = load_table(name, "imagefolder", "train", data_files=every)
    return Opened(table, not divided, folder)


def _files(name: str, folder: Path, suffix: str, split: str) -> list[Path]:
    """The files of a split, if the folder holds any of this kind: train.parquet, or
    train-00000-of-00002.parquet as the hub names them, there or in data/."""
    every = sorted([*folder.glob(f"*.{suffix}"), *folder.glob(f"data/*.{suffix}")])
    splits = {file: file.stem.split("-")[0] for file in every}
    if every:
        _check_split(name, split, list(splits.values()))
    return [file for file in every if splits[file] == split]


def _check_split(name: str, split: str, found: list[str]) -> None:
    if split not in found:
        known = ", ".join(sorted(set(found)))
        raise DataError(f"data.name = {name!r}: no split {split!r} in it; it has {known}")


def encoded_pictures(table: Any, rows: Sequence[int], key: str, column: str) -> Iterable[Any]:
    """The pictures of these rows as they are kept, bytes or the path of a file, read one by one.
    DataError, with the configuration's key, when the column holds none."""
    import datasets

    feature = table.features[column]
    if not isinstance(feature, datasets.Image):
        pictures = [c for c in table.column_names if isinstance(table.features[c], datasets.Image)]
        raise DataError(
            f"{key} = {column!r}: holds no pictures ({feature}); columns that do: "
            f"{', '.join(pictures) or 'none'}"
        )
    return table.select(rows).cast_column(column, datasets.Image(decode=False))[column]


def unlisted(opened: Opened) -> list[Path]:
    """Pictures of an image folder that are no row of its table, in order: `datasets` leaves those
    that a metadata file does not name out without a word."""
    import datasets

    if opened.folder is None:
        return []
    listed = set[Path]()
    for column, feature in opened.table.features.items():
        if isinstance(feature, datasets.Image):
            kept = opened.table.cast_column(column, datasets.Image(decode=False))[column]
            listed |= {Path(item["path"]).resolve() for item in kept if item and item["path"]}
    read = {end for end, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    return [
        file
        for file in sorted(opened.folder.rglob("*"))
        if file.suffix.lower() in read
        and not any(part.startswith((".", "__")) for part in file.relative_to(opened.folder).parts)
        and file.resolve() not in listed
    ]


def check_all_listed(name: str, opened: Opened) -> None:
    """DataError for `unlisted` pictures, with the first of them and how many there are."""
    files = unlisted(opened)
    if files:
        raise DataError(
            f"data.name = {name!r}: its metadata says nothing of {len(files):,} of its pictures, "
            f"{files[0]} first; add a row for each, or take them out of the folder"
        )


def first_of(left_out: Sequence[str]) -> str:
    """Why the first few were left out, a line each, and how many more there are."""
    more = len(left_out) - NAMED
    lines = [*left_out[:NAMED], *([f"and {more:,} more"] if more > 0 else [])]
    return "".join(f"\n  {line}" for line in lines)


def named(name: str, item: Any, row: int, what: str = "picture") -> str:
    """A picture of data.name, or what else it is, by its row, and by its file where it has one."""
    file = item["path"] if item and item["path"] else None
    return f"data.name = {name!r}: the {what} in row {row}" + (f" ({file})" if file else "")


def decode(item: Any, where: str) -> Image.Image:
    """One of `encoded_pictures`. DataError, which says `where`, when it is missing or broken, has
    several frames, or more than 8 bits a channel."""
    if not item or (item["bytes"] is None and item["path"] is None):
        raise DataError(f"{where} is missing")
    return read(item["path"] if item["bytes"] is None else io.BytesIO(item["bytes"]), where)


def read(file: str | Path | io.BytesIO, where: str) -> Image.Image:
    """A picture from a file, as `decode`."""
    if not isinstance(file, io.BytesIO) and not Path(file).is_file():
        raise DataError(f"{where} is missing: there is no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(file)
            _check_depth(picture, where)
            picture.load()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{where} is larger than any picture should be: {error}") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{where} is corrupt: {type(error).__name__}: {error}") from None
    return check(picture, where)


def check(picture: Image.Image, where: str) -> Image.Image:
    """The same, if it is one picture of 8 bits a channel. DataError, which says `where`. Of PNG
    files in colour only those not yet loaded tell that they had more."""
    _check_depth(picture, where)
    frames = getattr(picture, "n_frames", 1)
    if frames > 1 and picture.format != "MPO":  # a photograph with previews of itself
        raise DataError(f"{where} is animated: {frames} frames, expected one picture")
    return picture


def _check_depth(picture: Image.Image, where: str) -> None:
    """DataError for more than 8 bits a channel: by the mode, or by the file where Pillow cuts each
    channel to 8 as it loads it (colour, and grey with transparency, of PNG and TIFF)."""
    stored = picture.mode if picture.mode.startswith(WIDE) else ""
    if isinstance(picture, PngImageFile) and picture.tile:
        args = str(picture.tile[0].args)  # as "RGB;16B"; gone once it is loaded
        stored = args if args.endswith(";16B") else stored
    elif isinstance(picture, TiffImageFile):
        bits = max(picture.tag_v2.get(BITSPERSAMPLE, (1,)))
        stored = f"{picture.mode}, {bits} bits" if bits > 8 else stored
    if stored:
        raise DataError(f"{where} has more than 8 bits a channel (mode {stored})")


def fit(
    picture: Image.Image,
    channels: int,
    size: int | tuple[int, int] | None,
    resampling: Image.Resampling = Image.Resampling.LANCZOS,
) -> Image.Image:
    """Grey or RGB, transparency over white; with a size, of a square or (height, width), the
    centred part of its shape scaled to it."""
    if picture.has_transparency_data:
        over = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
    picture = picture.convert("L" if channels == 1 else "RGB")
    height, width = (size, size) if isinstance(size, int) else size or picture.size[::-1]
    if picture.size == (width, height):
        return picture
    scale = min(picture.height / height, picture.width / width)
    h, w = max(1, round(height * scale)), max(1, round(width * scale))
    left, top = (picture.width - w) // 2, (picture.height - h) // 2
    part = picture.crop((left, top, left + w, top + h))
    return part.resize((width, height), resampling)


def channels_first(picture: Image.Image) -> Tensor:
    """A grey or RGB picture -> (C, H, W), uint8."""
    array = np.asarray(picture)
    array = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    return torch.from_numpy(array.copy())


def stack(pictures: Sequence[Image.Image]) -> Tensor:
    """Grey or RGB pictures of one size -> (N, C, H, W), uint8."""
    return torch.stack([channels_first(picture) for picture in pictures])
