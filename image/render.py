"""Scenes as pictures: a board of 3 x 3 cells, anti-aliased, at any multiple of 32 pixels.

A thing fills its cell with a mask (shape and size) and a shade (texture): with coverage m and
shaded coverage s, both area averages over a fine grid,

    pixel = (1 - m) background + (m - s) colour + s tint

The cell's side is a whole number of pixels, so a thing looks the same in each place, there are
only 768 different cells, and a picture is nine look-ups.
"""

from collections.abc import Callable, Sequence
from functools import cache
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from shared import scene
from shared.scene import COLOURS, PLACES, SHAPES, SIZES, TEXTURES, Scene

BACKGROUND = (196, 204, 214)
RGB: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40),
    "orange": (247, 127, 0),
    "yellow": (250, 214, 10),
    "green": (44, 145, 62),
    "blue": (36, 92, 200),
    "purple": (122, 48, 168),
    "pink": (246, 112, 178),
    "black": (30, 30, 34),
}
EMPTY = len(SHAPES) * len(COLOURS) * len(TEXTURES) * len(SIZES)  # the cell without a thing

_RADIUS = {"small": 0.29, "medium": 0.38, "large": 0.49}  # of the cell's side
_TINT = 0.92  # how far the second colour of a texture goes to white
_FINE = 16  # sub-pixels along a pixel's side
_BANDS = 3.0  # periods of a texture along a cell's side


def render(scenes: Sequence[Scene], size: int = 32) -> Tensor:
    """Scenes -> pictures (B, 3, size, size), uint8. ValueError unless size is a multiple of 32."""
    cells = cell_table(size)
    return _assemble(cells[torch.from_numpy(_cell_ids(scenes))], size, BACKGROUND)


def layout(scenes: Sequence[Scene], size: int = 32) -> Tensor:
    """Scenes -> segmentation maps (B, size, size), int64: 0 background, 1 + k where SHAPES[k]
    covers at least half of the pixel."""
    _check_size(size)
    ids = torch.from_numpy(_cell_ids(scenes))
    maps = _layout_table(size)[ids][:, :, None]
    return _assemble(maps, size, (0,))[:, 0]


def pictures(
    split: str,
    n: int,
    size: int = 32,
    seed: int = 0,
    keep: Callable[[Scene], bool] = lambda _: True,
) -> tuple[Tensor, list[Scene]]:
    """The first n scenes of the stream `seed` that belong to `split` and are to be kept, with their
    pictures (n, 3, size, size), uint8."""
    found = list(islice(filter(keep, scene.stream(seed, split)), n))
    return render(found, size), found


@cache
def cell_table(size: int) -> Tensor:
    """All cells (EMPTY + 1, 3, side, side), uint8, by `cell_id`; the last is background."""
    _check_size(size)
    background = np.array(BACKGROUND, float)[:, None, None]
    cells: list[np.ndarray] = []
    for shape in SHAPES:
        for colour in COLOURS:
            first = np.array(RGB[colour], float)[:, None, None]
            second = first + _TINT * (255 - first)
            for texture in TEXTURES:
                for extent in SIZES:
                    m, s = _coverage(shape, texture, extent, size)
                    cells.append((1 - m) * background + (m - s) * first + s * second)
    cells.append(np.broadcast_to(background, cells[0].shape))
    return torch.from_numpy(np.stack(cells).round().astype(np.uint8))


def cell_id(shape: str, colour: str, texture: str, size: str) -> int:
    """The row of a thing in `cell_table`."""
    row = SHAPES.index(shape) * len(COLOURS) + COLOURS.index(colour)
    return (row * len(TEXTURES) + TEXTURES.index(texture)) * len(SIZES) + SIZES.index(size)


def cell_side(size: int) -> int:
    """Pixels along a cell's side; what three cells leave of a picture is its margin."""
    return 10 * size // 32


def _check_size(size: int) -> None:
    if size < 32 or size % 32:
        raise ValueError(f"size = {size}: expected a multiple of 32")


def _cell_ids(scenes: Sequence[Scene]) -> np.ndarray:
    ids = np.full((len(scenes), len(PLACES)), EMPTY)
    for row, sampled in zip(ids, scenes, strict=True):
        for thing in sampled.things:
            row[PLACES.index(thing.place)] = cell_id(
                thing.shape, thing.colour, thing.texture, thing.size
            )
    return ids


def _assemble(cells: Tensor, size: int, background: tuple[int, ...]) -> Tensor:
    """cells (B, 9, C, side, side) -> (B, C, size, size) with a margin of background."""
    B, _, C, side, _ = cells.shape
    board = cells.reshape(B, 3, 3, C, side, side).permute(0, 3, 1, 4, 2, 5)
    margin = (size - 3 * side) // 2
    fill = torch.tensor(background, dtype=cells.dtype).view(1, C, 1, 1)
    picture = fill.repeat(B, 1, size, size)
    inner = slice(margin, margin + 3 * side)
    picture[:, :, inner, inner] = board.reshape(B, C, 3 * side, 3 * side)
    return picture


@cache
def _layout_table(size: int) -> Tensor:
    maps: list[np.ndarray] = []
    for k, shape in enumerate(SHAPES):
        covered = [_coverage(shape, "solid", extent, size)[0] >= 0.5 for extent in SIZES]
        for _ in range(len(COLOURS) * len(TEXTURES)):
            maps += [(k + 1) * m.astype(np.int64) for m in covered]
    maps.append(np.zeros_like(maps[0]))
    return torch.from_numpy(np.stack(maps))


@cache
def _coverage(shape: str, texture: str, extent: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Mask and shaded mask (side, side), area averages in [0, 1]."""
    side = cell_side(size)
    fine = (np.arange(side * _FINE) + 0.5) / (side * _FINE) - 0.5
    y, x = np.meshgrid(fine, fine, indexing="ij")
    inside = _inside(shape, x / _RADIUS[extent], y / _RADIUS[extent]).astype(float)
    shaded = inside * _shade(texture, x, y)

    def average(grid: np.ndarray) -> np.ndarray:
        return grid.reshape(side, _FINE, side, _FINE).mean(axis=(1, 3))

    return average(inside), average(shaded)


def _shade(texture: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """How much of the second colour, in [0, 1]; x and y in cells from the centre."""
    across = np.cos(2 * np.pi * _BANDS * x) > 0
    down = np.cos(2 * np.pi * _BANDS * y) > 0
    if texture == "stripes":
        return down.astype(float)
    if texture == "plaid":
        return (across.astype(float) + down) / 2
    if texture == "dots":
        return (np.cos(2 * np.pi * _BANDS * x) + np.cos(2 * np.pi * _BANDS * y) > 0.6).astype(float)
    return np.zeros_like(x)


def _inside(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether points belong to a shape that fills the square [-1, 1]^2; y points down."""
    r = np.hypot(x, y)
    if shape == "circle":
        return r <= 1
    if shape == "square":
        return np.maximum(abs(x), abs(y)) <= 0.86
    if shape == "triangle":
        return (y <= 0.86) & (abs(x) <= (y + 1) / 1.86)
    if shape == "star":
        return _in_polygon(x, y + 0.06, _star_corners())
    if shape == "heart":
        u, v = 1.22 * x, 0.12 - 1.18 * y
        return (u**2 + v**2 - 1) ** 3 <= u**2 * v**3
    if shape == "diamond":
        return abs(x) / 0.78 + abs(y) <= 1
    if shape == "cross":
        return (np.minimum(abs(x), abs(y)) <= 0.32) & (np.maximum(abs(x), abs(y)) <= 0.95)
    return (r <= 1) & (np.hypot(x - 0.5, y) >= 0.82)  # moon


def _star_corners() -> list[tuple[float, float]]:
    angles = np.pi * np.arange(10) / 5 - np.pi / 2
    radii = np.where(np.arange(10) % 2, 0.45, 1.06)
    return [(r * np.cos(a), r * np.sin(a)) for r, a in zip(radii, angles, strict=True)]


def _in_polygon(x: np.ndarray, y: np.ndarray, corners: list[tuple[float, float]]) -> np.ndarray:
    """Even-odd rule."""
    inside = np.zeros(x.shape, bool)
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        crosses = (y0 > y) != (y1 > y)
        with np.errstate(divide="ignore", invalid="ignore"):
            inside ^= crosses & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
    return inside
