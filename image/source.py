"""Pictures of files with their labels, captions and layouts, decoded by `image.decoding`; bad ones
are refused by `shared.pictures`, or left out and told of, with `data.skip_bad`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from image.data_config import DataConfig
from image.decoding import EncodedSplit, decoded
from shared.errors import DataError
from shared.pictures import Opened, check_all_listed, open_pictures, unlisted
from shared.scene import split_of
from shared.tables import called, check_columns, expand, side_of
from shared.tokenizer import one_blank


@dataclass(frozen=True)
class Source:
    """images (N, C, H, W) uint8; labels (N,) int64, or None, with the names of the classes;
    captions, N or None; layouts (N, H, W) uint8, or None; why each bad picture was left out; and
    whether there are splits."""

    images: Tensor
    labels: Tensor | None
    classes: tuple[str, ...]
    captions: tuple[str, ...] | None
    layouts: Tensor | None
    left_out: tuple[str, ...]
    divided: bool


def read_source(config: DataConfig, held_out: bool, classes: Sequence[str] | None) -> Source:
    """A split; `classes` are those of one read before, none where it has no labels. A source
    without splits holds out every 20th picture, or those whose caption `shared.scene.split_of`
    puts there: then no caption is on both sides.

    ConfigError for a variable that is not set, DataError for the rest: no such data set, split or
    column, a picture that cannot be read, no caption, a label out of range, a layout that is none
    of its picture, a picture of an image folder that its metadata does not name.
    """
    split = config.held_out if held_out else config.split
    opened = open_pictures(config.name, expand(config.name), split, config.split)
    table, undivided = opened.table, opened.undivided
    place = called(config.name, split, undivided)
    labelled = _check_columns(config, table, place, classes)
    left_out = _unlisted(config, opened, held_out)
    captions = _captions(config, table, place)
    every = range(len(table))
    if undivided and captions is not None:
        some = [i for i in every if (split_of(captions[i]) != "train") == held_out]
    elif undivided:
        some = side_of(len(table), held_out)
    else:
        some = list(every)
    rows = [some[i] for i in spread(len(some), config.limit).tolist()]
    if not rows:
        raise DataError(f"data.name = {config.name!r}: no pictures in it")
    found = decoded(config, EncodedSplit(table, rows, captions, labelled))
    kept, bad = found.kept, (*found.left_out, *left_out)
    labels, names = _labels(config, table, kept, place, classes) if labelled else (None, ())
    told = None if captions is None else tuple(captions[i] for i in kept)
    return Source(found.images, labels, names, told, found.layouts, bad, not undivided)


def _check_columns(
    config: DataConfig, table: Any, place: str, classes: Sequence[str] | None
) -> bool:
    """Whether labels are read: beside captions, only where the split has any, or, of a further
    split, where the first one had. `place` is what the split is called."""
    labelled = config.label_column is not None
    if config.caption_column is not None:
        labelled = config.label_column in table.column_names if classes is None else bool(classes)
    wanted = {
        "data.image_column": config.image_column,
        "data.caption_column": config.caption_column,
        "data.layout_column": config.layout_column,
    }
    check_columns(place, table, wanted)
    if labelled:
        hint = "; data.label_column=null trains without classes"
        check_columns(place, table, {"data.label_column": config.label_column}, hint)
    return labelled


def _captions(config: DataConfig, table: Any, place: str) -> list[str] | None:
    """The caption of every row, blanks collapsed; "" where there is none."""
    if config.caption_column is None:
        return None
    key = f"data.caption_column = {config.caption_column!r} in {place}"
    values = list(table[config.caption_column])
    wrong = next((i for i, v in enumerate(values) if not isinstance(v, str | None)), None)
    if wrong is not None:
        kind = type(values[wrong]).__name__
        raise DataError(f"{key}: expected text, row {wrong} holds a {kind} ({values[wrong]!r:.60})")
    return [one_blank(value or "") for value in values]


def _unlisted(config: DataConfig, opened: Opened, held_out: bool) -> list[str]:
    """Why the pictures that no row names are left out; of a source without splits they count with
    the training split. DataError for the first of them, unless bad ones are left out."""
    if not config.skip_bad:
        check_all_listed(config.name, opened)
    if not config.skip_bad or (opened.undivided and held_out):
        return []
    said = f"data.name = {config.name!r}: the metadata says nothing of"
    return [f"{said} {file}" for file in unlisted(opened)]


def spread(count: int, limit: int | None) -> Tensor:
    """At most `limit` of `count` row numbers, evenly spread: sorted data keeps its classes."""
    if limit is None or limit >= count:
        return torch.arange(count)
    return torch.arange(limit) * count // limit


def _labels(
    config: DataConfig, table: Any, rows: list[int], said: str, classes: Sequence[str] | None
) -> tuple[Tensor, tuple[str, ...]]:
    """Labels (N,) as places in the names of the classes, and these names; the split is called as
    `said`."""
    import datasets

    feature = table.features[config.label_column]
    values = list(table.select(rows)[config.label_column])
    key = f"data.label_column = {config.label_column!r} in {said}"
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
