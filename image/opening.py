"""A picture as Python users hold it -> the levels of a model's data.

Files are read as in data sets (`shared.pictures`): grey, RGB, palettes, CMYK and transparency are
defined; what is truncated, animated, of more than 8 bits or a decompression bomb is refused.
"""

from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from shared.errors import ConfigError
from shared.pictures import channels_first, check, read

PictureLike: TypeAlias = (
    str | Path | Image.Image | NDArray[np.uint8]
)  # a file, or what is held in memory


def open_picture(picture: PictureLike, where: str) -> Image.Image:
    """What a user gave: a file, a PIL picture, or an array (H, W), (H, W, 3) or (H, W, 4), uint8.

    DataError for a bad file, ConfigError for an array of another kind, beginning with `where`.
    """
    if isinstance(picture, str | Path):
        return read(picture, f"{where} = {picture}")
    if isinstance(picture, Image.Image):
        return check(picture, where)
    shape, dtype = np.shape(picture), np.asarray(picture).dtype
    if dtype != np.uint8 or len(shape) not in (2, 3) or shape[2:] not in ((), (3,), (4,)):
        raise ConfigError(
            f"{where}: an array {shape} of {dtype}: expected uint8 (H, W), (H, W, 3) or (H, W, 4)"
        )
    return Image.fromarray(picture)


def to_levels(picture: Image.Image, levels: int) -> Tensor:
    """Grey or RGB -> the nearest of `levels` levels, (C, H, W), uint8."""
    values = channels_first(picture).float()
    return (values * ((levels - 1) / 255)).round().to(torch.uint8)
