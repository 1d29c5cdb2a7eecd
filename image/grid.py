"""Pictures side by side in one PNG, and as arrays in one file."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from shared.files import write_atomic

CELL = 48  # pixels; smaller pictures are enlarged by a whole factor to about this
GAP = 2


def to_bytes(images: Tensor, levels: int) -> Tensor:
    """Levels (N, C, H, W) in [0, levels) -> 0 to 255, uint8."""
    return (images.float() * (255 / (levels - 1))).round().to(torch.uint8)


def to_pil(image: Tensor) -> Image.Image:
    """One picture (C, H, W), uint8, grey or RGB."""
    array = image.movedim(0, -1).numpy()
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)


def tile(images: Tensor, columns: int | None = None) -> Image.Image:
    """Pictures (N, C, H, W), uint8 -> one picture of rows on white; about square by default."""
    N, C, H, W = images.shape
    columns = min(N, columns or math.ceil(math.sqrt(N)))
    scale = max(1, round(CELL / max(H, W)))
    big = images.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    h, w = H * scale + GAP, W * scale + GAP
    sheet = torch.full((C, -(-N // columns) * h + GAP, columns * w + GAP), 255, dtype=torch.uint8)
    for i, picture in enumerate(big):
        top, left = i // columns * h + GAP, i % columns * w + GAP
        sheet[:, top : top + h - GAP, left : left + w - GAP] = picture
    return to_pil(sheet)


def save_png(picture: Image.Image, path: Path) -> None:
    """Write a PNG atomically."""
    write_atomic(path, lambda temporary: picture.save(temporary, format="PNG"))


def save_npz(path: Path, arrays: dict[str, Any]) -> None:
    """Write numpy arrays by name atomically, compressed."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:  # given a name, numpy would add a suffix to it
            np.savez_compressed(file, **arrays)

    write_atomic(path, write)
