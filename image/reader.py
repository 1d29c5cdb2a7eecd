"""Pictures -> the things in them: each cell is matched against every rendering of a cell.

The nearest of the 769 cells in squared distance is the most likely one under white noise. A picture
is read only when it looks like a rendering:

    every cell and the margin: root-mean-square residual at most MAX_RMS
    the margin: mean within MAX_SHADE of the background (a shade over everything is no thing)
    a cell with a thing: e^EVIDENCE times likelier than empty under noise like its residual

Clean renderings have residual 0, noise of standard deviation 10 has 10, uniform noise more than 70.
In noise on an empty board some thing finds that much evidence less than once in a thousand
pictures, for the mean likelihood ratio over noise is 1 and a board offers 9 x 768 things.
"""

from itertools import product

import torch
from torch import Tensor

from image.render import BACKGROUND, EMPTY, cell_side, cell_table
from shared.scene import COLOURS, PLACES, SHAPES, SIZES, TEXTURES, Thing

MAX_RMS = 32.0  # of 255, over the three channels of one cell
MAX_SHADE = 12.0  # of 255, in each channel
EVIDENCE = 16.0  # nats
_CHUNK = 256
_CELLS = list(product(SHAPES, COLOURS, TEXTURES, SIZES))  # in the order of `render.cell_id`


def check_pictures(pictures: Tensor) -> None:
    """ValueError unless (B, 3, size, size), uint8."""
    if pictures.dtype != torch.uint8 or pictures.ndim != 4 or pictures.shape[1] != 3:
        raise ValueError(
            f"pictures {tuple(pictures.shape)}, {pictures.dtype}: "
            "expected (B, 3, size, size), uint8"
        )
    if pictures.shape[2] != pictures.shape[3]:
        raise ValueError(f"pictures {tuple(pictures.shape)}: expected squares")


def read(pictures: Tensor) -> list[tuple[Thing, ...] | None]:
    """pictures (B, 3, size, size), uint8 -> the things of each, sorted by place; None where a
    picture is unreadable or empty.

    Things need not make a scene (`shared.scene.possible`): a picture may show four, or two stars.
    ValueError unless uint8, square, and a multiple of 32.
    """
    check_pictures(pictures)
    found: list[tuple[Thing, ...] | None] = []
    for chunk in pictures.split(_CHUNK):
        nearest, readable = match(chunk)
        for cells, good in zip(nearest.tolist(), readable.tolist(), strict=True):
            things = [
                Thing(*_CELLS[cell], place=place)
                for cell, place in zip(cells, PLACES, strict=True)
                if cell != EMPTY
            ]
            found.append(tuple(things) if good and things else None)
    return found


def match(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """pictures (B, 3, size, size), uint8 -> nearest cells (B, 9), rows of `render.cell_table`, and
    whether each picture is near enough to a rendering (B,)."""
    B, size = len(pictures), pictures.shape[-1]
    side, table = cell_side(size), cell_table(size).to(pictures.device)
    margin = (size - 3 * side) // 2
    # Distances from the background, not from black, keep float32 sums small.
    ground = torch.tensor(BACKGROUND, device=pictures.device).view(3, 1, 1)
    shifted = (pictures.to(torch.int16) - ground).float()
    inner = slice(margin, margin + 3 * side)
    cells = shifted[:, :, inner, inner].reshape(B, 3, 3, side, 3, side)
    cells = cells.permute(0, 2, 4, 1, 3, 5).reshape(B * 9, -1)
    templates = (table.to(torch.int16) - ground).float().flatten(1)
    scores = templates.square().sum(1) - 2 * cells @ templates.T
    least, nearest = scores.min(1)
    dim, energy = cells.shape[1], cells.square().sum(1)
    residual = (least + energy).clamp(min=0)
    like = residual <= MAX_RMS**2 * dim
    # log-likelihood ratio (energy - residual) / (2 variance), with variance = residual / dim
    like &= (nearest == EMPTY) | ((energy - residual) * dim >= 2 * EVIDENCE * residual)
    outside = torch.ones(size, size, dtype=torch.bool, device=pictures.device)
    outside[inner, inner] = False
    edge = shifted[:, :, outside]
    like_edge = edge.square().mean((1, 2)) <= MAX_RMS**2
    like_edge &= edge.mean(2).abs().amax(1) <= MAX_SHADE
    return nearest.view(B, 9), like.view(B, 9).all(1) & like_edge
