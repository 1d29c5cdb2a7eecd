"""Pictures from files: parquet, image folders, saved data sets, the hub, all through `datasets`.

Every picture is decoded here, before anything is trained, so that a broken one is found at once and
named by its row and file; or left out and counted, with `data.skip_bad`.
"""

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from image.config import DataConfig
from shared.errors import DataError
from shared.scene import split_of
from shared.tables import expand, load_saved, load_table
from shared.tokenizer import one_blank

HOLD_OUT_EVERY = 20  # of a source without splits
GREY = ("1", "L", "LA")
WIDE = ("I", "F")  # 16 and 32 bits a pixel; converting them to 8 would clip


@dataclass(frozen=True)
class Source:
    """images (N, C, H, W) uint8; labels (N,) int64, or None, with the names of the classes;
    captions, N or None; and how many bad pictures were left out."""

    images: Tensor
    labels: Tensor | None
    classes: tuple[str, ...]
    captions: tuple[str, ...] | None
    skipped: int


def read_source(config: DataConfig, held_out: bool, classes: Sequence[str] | None) -> Source:
    """A split. A source without splits holds out every 20th picture, or those whose caption
    `shared.scene.split_of` puts there: then no caption is on both sides.

    ConfigError for a variable that is not set, DataError for the rest: no such data set, split or
    column, a picture that cannot be read, no caption, a label out of range.
    """
    table, undivided = _open(config, held_out)
    labelled = _check_columns(config, table)
    captions = _captions(config, table)
    every = range(len(table))
    if undivided and captions is not None:
        some = [i for i in every if (split_of(captions[i]) != "train") == held_out]
    elif undivided:
        some = [i for i in every if (i % HOLD_OUT_EVERY == 0) == held_out]
    else:
        some = list(every)
    rows = [some[i] for i in spread(len(some), config.limit).tolist()]
    if not rows:
        raise DataError(f"data.name = {config.name!r}: no pictures in it")
    images, kept = _images(config, table, rows, captions)
    labels, names = _labels(config, table, kept, classes) if labelled else (None, ())
    told = None if captions is None else tuple(captions[i] for i in kept)
    return Source(images, labels, names, told, len(rows) - len(kept))


def _check_columns(config: DataConfig, table: Any) -> bool:
    """Whether labels are read: beside captions, only where there are any."""
    labelled = config.label_column is not None
    if config.caption_column is not None:
        labelled = config.label_column in table.column_names
    wanted = {
        "data.image_column": config.image_column,
        "data.caption_column": config.caption_column,
        "data.label_column": config.label_column if labelled else None,
    }
    for key, column in wanted.items():
        if column is not None and column not in table.column_names:
            hint = "; data.label_column=null trains without classes" if "label" in key else ""
            raise DataError(
                f"{key} = {column!r}: {config.name} has {', '.join(table.column_names)}{hint}"
            )
    return labelled


def _captions(config: DataConfig, table: Any) -> list[str] | None:
    """The caption of every row, blanks collapsed; "" where there is none."""
    if config.caption_column is None:
        return None
    key = f"data.caption_column = {config.caption_column!r}"
    values = list(table[config.caption_column])
    wrong = next((i for i, v in enumerate(values) if not isinstance(v, str | None)), None)
    if wrong is not None:
        kind = type(values[wrong]).__name__
        raise DataError(f"{key}: expected text, row {wrong} holds a {kind} ({values[wrong]!r:.60})")
    return [one_blank(value or "") for value in values]


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


def _images(
    config: DataConfig, table: Any, rows: list[int], captions: list[str] | None
) -> tuple[Tensor, list[int]]:
    """The decoded pictures (N, C, H, W), uint8, and the rows that they come from."""
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
    channels, shape, arrays, kept = config.channels, None, [], list[int]()
    for row, item in zip(rows, raw, strict=True):
        try:
            picture = _decode(config, item, row)
            if captions is not None and not captions[row]:
                raise DataError(f"{_named(config, item, row)} has no caption")
        except DataError as error:
            if not config.skip_bad:
                hint = "data.skip_bad=true leaves such pictures out and counts them"
                raise DataError(f"{error}; {hint}") from None
            continue
        if channels is None:
            channels = 1 if picture.mode in GREY else 3
        array = np.asarray(_fit(picture, channels, config.size))
        shape = shape or array.shape
        if array.shape != shape:
            raise DataError(
                f"{_named(config, item, row)} is {picture.height} x {picture.width}, the first one "
                f"is {shape[0]} x {shape[1]}; set data.size=PIXELS to scale them all"
            )
        arrays.append(array.reshape(*shape[:2], channels))
        kept.append(row)
    if not kept:
        raise DataError(f"data.name = {config.name!r}: all of its {len(rows):,} pictures are bad")
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous(), kept


def _named(config: DataConfig, item: Any, row: int) -> str:
    """A picture by its row, and by its file where it has one."""
    file = item["path"] if item and item["path"] else None
    return f"data.name = {config.name!r}: the picture in row {row}" + (f" ({file})" if file else "")


def _decode(config: DataConfig, item: Any, row: int) -> Image.Image:
    where = _named(config, item, row)
    if not item or (item["bytes"] is None and item["path"] is None):
        raise DataError(f"{where} is missing")
    file = item["path"] if item["bytes"] is None else io.BytesIO(item["bytes"])
    if isinstance(file, str) and not Path(file).is_file():
        raise DataError(f"{where} is missing: there is no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(file)
            picture.load()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{where} is larger than any picture should be: {error}") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{where} is corrupt: {type(error).__name__}: {error}") from None
    frames = getattr(picture, "n_frames", 1)
    if frames > 1 and picture.format != "MPO":  # a photograph with previews of itself
        raise DataError(f"{where} is animated: {frames} frames, expected one picture")
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
