"""Pictures -> layouts and textures of figures, from pixels alone.

Each part has one colour in a figure, a garment one pair: that to which most pixels are nearest
among all of the part, if they are MIN_PART or more. A pixel is of the part whose colour is then
nearest. A garment has the texture under which its pixels are
likeliest, every phase being as likely as any other and a share ERRORS of pixels showing the other
colour of the garment:

    p(pixels | texture) = mean over phases of  ERRORS^wrong (1 - ERRORS)^right

and none when not even MIN_RIGHT of its pixels are right under the best phase. A picture is read
only when it looks like a figure:

    its pixels: root-mean-square distance to the nearest colours at most MAX_RMS
    neighbours: at least MIN_SMOOTH of the pairs are of the same part
    a face, and a ground around: at least MIN_FACE and MIN_GROUND of the picture
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from image.figures.render import palette, patterns
from image.figures.world import GARMENTS, NOT_WORN, PARTS, PERIOD, TEXTURES
from image.reader import check_pictures

MIN_PART = 0.003  # of the picture
ERRORS = 0.05
MIN_RIGHT = 0.8
MAX_RMS = 28.0  # of 255, over the three channels
MIN_SMOOTH = 0.75
MIN_FACE = 0.005
MIN_GROUND = 0.25
_CHUNK = 256


@dataclass(frozen=True)
class Reading:
    """layouts (B, size, size), int64, of places in PARTS; textures (B, 3), int64, of each garment
    its place in TEXTURES, or NOT_WORN where none is read; readable, bool (B,). What is not readable
    has no textures."""

    layouts: Tensor
    textures: Tensor
    readable: Tensor


def read(pictures: Tensor) -> Reading:
    """pictures (B, 3, size, size), uint8 -> what each shows. ValueError unless uint8, square, and a
    multiple of 32."""
    check_pictures(pictures)
    found = [_read(chunk) for chunk in pictures.split(_CHUNK)]
    return Reading(
        torch.cat([each.layouts for each in found]),
        torch.cat([each.textures for each in found]),
        torch.cat([each.readable for each in found]),
    )


def _read(pictures: Tensor) -> Reading:
    colours, parts, sets = (table.to(pictures.device) for table in palette())
    pixels = pictures.float().flatten(2)
    apart = torch.stack(  # (B, K, P), squared
        [(pixels - colour.float()[:, None]).square().sum(1) for colour in colours], 1
    )
    worn = _worn(apart.argmin(1), parts, sets)
    apart, nearest = apart.masked_fill_(~worn[:, :, None], torch.inf).min(1)
    B, size = len(pictures), pictures.shape[-1]
    labels = parts[nearest]
    layouts = labels.view(B, size, size)
    readable = apart.mean(1) <= 3 * MAX_RMS**2
    readable &= _smoothness(layouts) >= MIN_SMOOTH
    for part, least in (("face", MIN_FACE), ("background", MIN_GROUND)):
        readable &= (labels == PARTS.index(part)).float().mean(1) >= least
    second = _is_second().to(pictures.device)[nearest]
    textures = [_texture(labels == PARTS.index(g), second, size) for g in GARMENTS]
    return Reading(layouts, torch.stack(textures, 1).where(readable[:, None], NOT_WORN), readable)


def _worn(nearest: Tensor, parts: Tensor, sets: Tensor) -> Tensor:
    """The nearest of all colours (B, P) -> which colours a picture has, bool (B, K)."""
    B, P = nearest.shape
    count = torch.zeros(B, int(sets.max()) + 1, device=nearest.device)
    count.scatter_add_(1, sets[nearest], torch.ones(B, P, device=nearest.device))
    worn = torch.zeros(B, len(parts), dtype=torch.bool, device=nearest.device)
    for k in range(len(PARTS)):
        own = sets[parts == k].unique()
        most, which = count[:, own].max(1)
        worn |= (sets == own[which][:, None]) & (most >= MIN_PART * P)[:, None]
    worn[:, -1] = True  # eyes
    return worn


def _smoothness(layouts: Tensor) -> Tensor:
    """The share of pairs of neighbours, across and down, that are alike (B,)."""
    across = (layouts[:, :, 1:] == layouts[:, :, :-1]).float().mean((1, 2))
    down = (layouts[:, 1:] == layouts[:, :-1]).float().mean((1, 2))
    return (across + down) / 2


def _is_second() -> Tensor:
    """Of all colours, which are the second of a garment, bool (K,)."""
    _, _, sets = palette()
    return torch.cat([torch.zeros(1, dtype=torch.bool), sets[1:] == sets[:-1]])


def _texture(worn: Tensor, second: Tensor, size: int) -> Tensor:
    """Pixels of a garment and those of second colours, bool (B, P) -> its texture (B,)."""
    table, of, which = (each.to(worn.device) for each in patterns(size))
    count = worn.sum(1).float()
    ones, shown = table.flatten(1).float(), (worn & second).float()
    # right where both are 1, or both 0
    right = (2 * shown - worn.float()) @ ones.T + (count - shown.sum(1))[:, None]
    wrong = count[:, None] - right
    phases = which.flatten().bincount(minlength=len(table)).float() / PERIOD**2
    fit = phases.log() + right * math.log(1 - ERRORS) + wrong * math.log(ERRORS)
    likely = torch.stack([fit[:, of == k].logsumexp(1) for k in range(len(TEXTURES))], 1)
    best = likely.argmax(1)
    most = torch.stack([right[:, of == k].amax(1) for k in range(len(TEXTURES))], 1)
    clear = most.gather(1, best[:, None])[:, 0] >= MIN_RIGHT * count
    return best.where(clear & (count > 0), NOT_WORN)
