"""Figures as training data: splits, and rows of condition ids.

A row of ids is the layout, a part for every pixel from the top left, row by row, and then the
texture of each garment, 0 where it is not worn. Splits are by a hash of the layout at 32 pixels, so
no layout is in two of them.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from image.figures import world
from image.figures.layout import drawn, layouts, without_eyes
from image.figures.render import paint
from image.figures.world import GARMENTS, PARTS, TEXTURES, Figures
from shared.scene import split_of

NUM_IDS = 1 + len(PARTS) + len(GARMENTS) * len(TEXTURES)
_TEXTURE_IDS = 1 + len(PARTS)  # the first
_CHUNK = 1024


def draw(
    split: str, n: int, seed: int = 0, keep: Callable[[Figures], Tensor] | None = None
) -> Figures:
    """The first n figures of the stream `seed` that belong to `split` and that `keep`, if given,
    says True of, bool of each row."""
    found: list[Figures] = []
    start = count = 0
    while count < n:
        figures = world.samples(seed, start, _CHUNK)
        if keep is not None:
            figures = figures[keep(figures)]
        some = figures[torch.tensor([each == split for each in splits(figures)], dtype=torch.bool)]
        found.append(some)
        count += len(some)
        start += _CHUNK
    return world.join(found)[:n]


def splits(figures: Figures) -> list[str]:
    """The split of each figure, by its layout."""
    rows = layouts(figures).to(torch.uint8).flatten(1) if len(figures) else []
    return [split_of(row.numpy().tobytes().decode("latin1")) for row in rows]


def columns(size: int) -> dict[str, tuple[int, ...]]:
    """The columns of `ids` by what they say: the layout, and the texture of each garment."""
    own = {garment: (size**2 + k,) for k, garment in enumerate(GARMENTS)}
    return {"layout": tuple(range(size**2)), **own}


def ids(figures: Figures, size: int) -> Tensor:
    """Figures -> rows of condition ids (n, size^2 + 3) in [0, NUM_IDS), int64."""
    return rows_of(layouts(figures, size), figures.textures)


def rows_of(layout: Tensor, textures: Tensor) -> Tensor:
    """Layouts (n, size, size) and textures (n, 3) -> rows of condition ids (n, size^2 + 3)."""
    first = _TEXTURE_IDS + len(TEXTURES) * torch.arange(len(GARMENTS))
    told = (first + textures).where(textures != world.NOT_WORN, 0)
    return torch.cat([layout.flatten(1) + 1, told], 1)


def from_ids(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The inverse of `rows_of`."""
    size = int((rows.shape[1] - len(GARMENTS)) ** 0.5)
    told = rows[:, size**2 :]
    first = _TEXTURE_IDS + len(TEXTURES) * torch.arange(len(GARMENTS))
    textures = (told - first).where(told != 0, world.NOT_WORN)
    return rows[:, : size**2].reshape(-1, size, size) - 1, textures


def pictures(figures: Figures, size: int) -> tuple[Tensor, Tensor]:
    """Figures -> pictures (n, 3, size, size), uint8, and condition ids (n, size^2 + 3)."""
    labels = drawn(figures, size)
    return paint(figures, labels), rows_of(without_eyes(labels), figures.textures)
