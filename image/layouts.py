"""Layouts: pictures that say of every pixel which part is there, by its number.

They are grey, where the number is the grey level, or have a palette, where it is the place in that;
0 is no part. The number k is the k-th of what `DataConfig.parts` names. `image.layout_reader` shows
them to a network.
"""

import colorsys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from image.opening import PictureLike, open_picture
from shared.errors import ConfigError, DataError
from shared.pictures import fit

Layouts: TypeAlias = PictureLike | Sequence[PictureLike]
NUMBERS = ("1", "L", "P")  # modes of pictures with one number a pixel
TURN = 0.381966  # of the circle of hues from one part to the next: the golden angle


def layout_of(picture: Image.Image, parts: Sequence[str], where: str) -> Image.Image:
    """The numbers of a picture's pixels, grey, each the place of one of `parts`. DataError, which
    says `where`, for a picture in colours without a palette, or a number that no part has."""
    if picture.mode not in NUMBERS:
        raise DataError(
            f"{where} has mode {picture.mode}: a layout is grey or has a palette; its pixels hold "
            f"the numbers of parts, 0 to {len(parts) - 1}"
        )
    numbers = np.asarray(picture).astype(np.uint8)
    most = int(numbers.max())
    if most >= len(parts):
        raise DataError(
            f"{where} holds the number {most}: expected 0 to {len(parts) - 1}, for "
            f"{', '.join(parts)}"
        )
    return Image.fromarray(numbers)


def fit_layout(layout: Image.Image, size: int) -> Image.Image:
    """As `shared.pictures.fit` crops and scales the picture that it is of; each pixel takes the
    nearest one's number."""
    return fit(layout, 1, size, Image.Resampling.NEAREST)


def listed_layouts(layouts: Layouts | None) -> list[PictureLike]:
    """One, several or none as a list."""
    if layouts is None:
        return []
    if isinstance(layouts, str | Path | Image.Image | np.ndarray):
        return [layouts]
    return list(layouts)


def given_layouts(layouts: Layouts, n: int, size: tuple[int, int], parts: Sequence[str]) -> Tensor:
    """A layout or a list of them, taken in turn -> numbers of parts (n, H, W), int64.

    DataError as of `layout_of` and for a bad file, ConfigError for a layout of another size.
    """
    listed = listed_layouts(layouts)
    if not listed:
        raise ConfigError("layout: expected one or more")
    found = [_given(each, size, parts) for each in listed]
    return torch.stack(found)[torch.arange(n) % len(found)]


def _given(layout: PictureLike, size: tuple[int, int], parts: Sequence[str]) -> Tensor:
    where = f"layout = {layout}" if isinstance(layout, str | Path) else "layout"
    picture, (height, width) = open_picture(layout, "layout"), size
    if picture.size != (width, height):
        raise ConfigError(
            f"{where}: {picture.height} x {picture.width} pixels, this model reads layouts of "
            f"{height} x {width}"
        )
    return torch.from_numpy(np.array(layout_of(picture, parts, where))).long()


def part_colours(layouts: Tensor, parts: int) -> Tensor:
    """Layouts (n, H, W) of so many parts, 0 included -> pictures of them (n, 3, H, W), uint8: 0
    is white, and every part has a colour of its own, dark and light in turn."""
    hues = [(TURN * k % 1, 0.75, 0.5 + 0.4 * (k % 2)) for k in range(parts - 1)]
    rows = [(1.0, 1.0, 1.0), *(colorsys.hsv_to_rgb(*hue) for hue in hues)]
    colours = (torch.tensor(rows) * 255).round().to(torch.uint8)
    return colours[layouts].movedim(-1, 1).contiguous()
