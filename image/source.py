"""Pictures from files: parquet, image folders, saved data sets, the hub, all through `datasets`.

Every picture is decoded here, before anything is trained, so that a broken one is found at once and
named by its row.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from image.config import DataConfig
from shared.errors import DataError
from shared.tables import expand, load_saved, load_table

HOLD_OUT_EVERY = 20  # of a source without splits
GREY = ("1", "L", "LA")
WIDE = ("I", "F")  # 16 and 32 bits a pixel; converting them to 8 would clip


def read_source(
    config: DataConfig, held_out: bool, classes: Sequence[str] | None
) -> tuple[Tensor, Tensor | None, tuple[str, ...]]:
    """images (N, C, H, W) uint8, labels (N,) int64 or None, names of the classes.

    ConfigError for a variable that is not set, DataError for the rest: no such data set, split or
    column, a picture that cannot be read, a label out of range.
    """
    table, undivided = _open(config, held_out)
    rows = torch.arange(len(table))
    if undivided:
        rows = rows[(rows % HOLD_OUT_EVERY == 0) == held_out]
    rows = rows[spread(len(rows), config.limit)].tolist()
    if not rows:
        raise DataError(f"data.name = {config.name!r}: no pictures in it")
    wanted = {"data.image_column": config.image_column}
    if config.label_column is not None:
        wanted["data.label_column"] = config.label_column
    for key, column in wanted.items():
        if column not in table.column_names:
            hint = "; data.label_column=null trains without classes" if "label" in key else ""
            raise DataError(
                f"{key} = {column!r}: {config.name} has {', '.join(table.column_names)}{hint}"
            )
    if config.label_column is None:
        labels, names = None, ()
    else:
        labels, names = _labels(config, table, rows, classes)
    return _images(config, table, rows), labels, names


def spread(count: int, limit: int | None) -> Tensor:
    """At most `limit` of `count` row numbers, evenly spread: sorted data keeps its classes."""
    if limit is None or limit >= count:
        return torch.arange(count)
    return torch.arange(limit) * count // limit


def _open(config: DataConfig, held_out: bool) -> tuple[Any, bool]:
    """A split as a table of `datasets`, and whether the source has no splits."""
    split = config.held_out if held_out else config.split
    name = expand(config.name)
    path = Path(name)
    if path.is_file():
        if path.suffix != ".parquet":
            raise DataError(f"data.name = {config.name!r}: a single file must be .parquet")
        files = {"train": name}
        return load_table(config.name, "parquet", "train", data_files=files), True
    if path.is_dir():
        return _open_folder(config, path, split)
    if path.is_absolute() or name.startswith("."):
        raise DataError(f"data.name = {config.name!r}: no such file or folder: {name}")
    return load_table(config.name, name, split), False


def _open_folder(config: DataConfig, folder: Path, split: str) -> tuple[Any, bool]:
    if (folder / "dataset_dict.json").is_file():
        saved = [entry.name for entry in folder.iterdir() if entry.is_dir()]
        _check_split(config, split, saved)
        return load_saved(config.name, str(folder / split), split), False
    if (folder / "state.json").is_file():
        return load_saved(config.name, str(folder), split), True
    shards = sorted([*folder.glob("*.parquet"), *folder.glob("data/*.parquet")])
    if shards:  # train.parquet, or train-00000-of-00002.parquet as the hub names them
        splits = {shard: shard.stem.split("-")[0] for shard in shards}
        _check_split(config, split, list(splits.values()))
        files = [str(shard) for shard in shards if splits[shard] == split]
        return load_table(config.name, "parquet", split, data_files={split: files}), False
    folders = [entry.name for entry in folder.iterdir() if entry.is_dir()]
    divided = config.split in folders
    if divided:
        _check_split(config, split, folders)
        folder = folder / split
    return load_table(config.name, "imagefolder", "train", data_dir=str(folder)), not divided


def _check_split(config: DataConfig, split: str, found: list[str]) -> None:
    if split not in found:
        known = ", ".join(sorted(set(found)))
        raise DataError(f"data.name = {config.name!r}: no split {split!r} in it; it has {known}")


def _labels(
    config: DataConfig, table: Any, rows: list[int], classes: Sequence[str] | None
) -> tuple[Tensor, tuple[str, ...]]:
    """Labels (N,) as places in the names of the classes, and these names."""
    import datasets

    feature = table.features[config.label_column]
    values = list(table.select(rows)[config.label_column])
    key = f"data.label_column = {config.label_column!r}"
    wrong = next((i for i, v in enumerate(values) if not isinstance(v, str | int)), None)
    if wrong is not None:
        raise DataError(f"{key}: row {rows[wrong]} holds {values[wrong]!r}, expected a class")
    if isinstance(feature, datasets.ClassLabel):
        own = list(feature.names)
    elif isinstance(values[0], str):
        own = sorted(set(values))
    else:
        own = [str(i) for i in range(max(values) + 1)]
    names = tuple(own if classes is None else classes)
    place = {name: i for i, name in enumerate(names)}
    labels = torch.empty(len(values), dtype=torch.int64)
    for i, value in enumerate(values):
        known = isinstance(value, str) or 0 <= value < len(own)
        name = value if isinstance(value, str) else own[value] if known else None
        if name not in place:
            raise DataError(
                f"{key}: row {rows[i]} holds {value!r}, which is none of the {len(names)} classes"
            )
        labels[i] = place[name]
    return labels, names


def _images(config: DataConfig, table: Any, rows: list[int]) -> Tensor:
    """The decoded pictures (N, C, H, W), uint8."""
    import datasets

    column = config.image_column
    feature = table.features[column]
    if not isinstance(feature, datasets.Image):
        pictures = [c for c in table.column_names if isinstance(table.features[c], datasets.Image)]
        raise DataError(
            f"data.image_column = {column!r}: holds no pictures ({feature}); columns that do: "
            f"{', '.join(pictures) or 'none'}"
        )
    raw = table.select(rows).cast_column(column, datasets.Image(decode=False))[column]
    channels, shape, arrays = config.channels, None, []
    for row, item in zip(rows, raw, strict=True):
        picture = _decode(config, item, row)
        if channels is None:
            channels = 1 if picture.mode in GREY else 3
        array = np.asarray(_fit(picture, channels, config.size))
        shape = shape or array.shape
        if array.shape != shape:
            raise DataError(
                f"data.name = {config.name!r}: the picture in row {row} is {picture.height} x "
                f"{picture.width}, the first one is {shape[0]} x {shape[1]}; set data.size=PIXELS "
                "to scale them all"
            )
        arrays.append(array.reshape(*shape[:2], channels))
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()


def _decode(config: DataConfig, item: Any, row: int) -> Image.Image:
    where = f"data.name = {config.name!r}: the picture in row {row}"
    if not item or (item["bytes"] is None and item["path"] is None):
        raise DataError(f"{where} is missing")
    try:
        picture = Image.open(item["path"] if item["bytes"] is None else io.BytesIO(item["bytes"]))
        picture.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{where} is corrupt: {type(error).__name__}: {error}") from None
    if picture.mode.startswith(WIDE):
        raise DataError(f"{where} has more than 8 bits a channel (mode {picture.mode})")
    return picture


def _fit(picture: Image.Image, channels: int, size: int | None) -> Image.Image:
    """Grey or RGB, transparency over white; with a size, the centred square scaled to it."""
    if picture.has_transparency_data:
        over = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
    picture = picture.convert("L" if channels == 1 else "RGB")
    if size is None or picture.size == (size, size):
        return picture
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    square = picture.crop((left, top, left + side, top + side))
    return square.resize((size, size), Image.Resampling.LANCZOS)
