"""Figures as pictures: every pixel has the colour of its part; garments have two, in a pattern.

The colours of different parts differ, so that a picture says its own layout. Patterns are functions
of place, in units of 1/32 of a picture, and repeat after PERIOD of them:

    pixel = colour(part)                                 background, face, hair, skin, shoes
    pixel = first + pattern(place - phase) (second - first)      garments, pattern 0 or 1
"""

from functools import cache

import torch
from torch import Tensor

from image.figures.layout import EYES, check_size, drawn, middles
from image.figures.world import GARMENTS, PARTS, PERIOD, TEXTURES, TONES, Figures

Colour = tuple[int, int, int]
# What each part is drawn in, by the choice of its colour; a face goes with the skin.
PLAIN: dict[str, tuple[Colour, ...]] = {
    "background": ((222, 230, 238), (240, 232, 214), (214, 234, 220)),
    "face": ((255, 214, 172), (216, 160, 104), (146, 96, 64)),
    "hair": ((26, 22, 26), (72, 36, 12), (234, 202, 96)),
    "skin": ((238, 184, 148), (190, 128, 84), (106, 64, 44)),
    "shoes": ((62, 62, 68), (120, 8, 46), (150, 150, 158)),
}
DYED: dict[str, tuple[tuple[Colour, Colour], ...]] = {
    "upper": (
        ((200, 40, 60), (255, 150, 150)),
        ((240, 124, 28), (255, 216, 130)),
        ((226, 84, 150), (255, 190, 226)),
    ),
    "lower": (
        ((34, 52, 120), (140, 166, 226)),
        ((44, 112, 210), (168, 212, 255)),
        ((16, 124, 136), (136, 218, 218)),
    ),
    "outer": (
        ((26, 92, 46), (128, 188, 112)),
        ((108, 46, 150), (198, 152, 236)),
        ((118, 118, 28), (190, 196, 110)),
    ),
}
EYE: Colour = (0, 0, 66)
_CHUNK = 1024


def render(figures: Figures, size: int = 32) -> Tensor:
    """Figures -> pictures (n, 3, size, size), uint8. ValueError unless size is a multiple of 32."""
    return paint(figures, drawn(figures, size))


def paint(figures: Figures, labels: Tensor) -> Tensor:
    """Figures and their label maps, as `layout.drawn` gives them -> what `render` does."""
    parts = [slice(i, i + _CHUNK) for i in range(0, len(figures), _CHUNK)]
    return torch.cat([_paint(figures[part], labels[part]) for part in parts])


def layout_colours(layouts: Tensor) -> Tensor:
    """Layouts (n, size, size) -> pictures of them (n, 3, size, size), uint8, each part in the first
    of its colours."""
    colours, parts, _ = palette()
    first = torch.stack([colours[parts == k][0] for k in range(len(PARTS))])
    return first[layouts].movedim(-1, 1).contiguous()


@cache
def palette() -> tuple[Tensor, Tensor, Tensor]:
    """All colours (K, 3), uint8; the part that each is of (K,); and a number for each that only the
    two of a pair share (K,), int64. Those of each part are in the order of their choice, of a
    garment each first one with its second behind it; the last one is that of eyes."""
    rows: list[tuple[Colour, int, int]] = []
    for k, part in enumerate(PARTS):
        pairs = DYED[part] if part in DYED else [(colour,) for colour in PLAIN[part]]
        for number, pair in enumerate(pairs):
            rows += [(colour, k, TONES * k + number) for colour in pair]
    rows.append((EYE, PARTS.index("face"), TONES * len(PARTS)))
    colours, parts, sets = zip(*rows, strict=True)
    return torch.tensor(colours, dtype=torch.uint8), torch.tensor(parts), torch.tensor(sets)


@cache
def patterns(size: int) -> tuple[Tensor, Tensor, Tensor]:
    """All patterns that differ (T, size, size), bool; the texture of each (T,); and which one has a
    texture and phases (x, y), int64 (len(TEXTURES), PERIOD, PERIOD)."""
    check_size(size)
    phases = torch.arange(PERIOD)
    rows = torch.stack(
        [
            _pattern(texture, x, y, size)
            for texture in TEXTURES
            for x in phases.tolist()
            for y in phases.tolist()
        ]
    )
    of = torch.arange(len(TEXTURES)).repeat_interleave(PERIOD**2)
    _, which = torch.unique(
        torch.cat([of[:, None], rows.flatten(1)], 1), dim=0, return_inverse=True
    )
    first = torch.stack([(which == k).nonzero()[0, 0] for k in range(int(which.max()) + 1)])
    return rows[first], of[first], which.view(len(TEXTURES), PERIOD, PERIOD)


def _pattern(texture: str, x_phase: int, y_phase: int, size: int) -> Tensor:
    """Where the second colour is, bool (size, size)."""
    at = middles(size)
    x, y = (at - x_phase).view(1, -1), (at - y_phase).view(-1, 1)
    if texture == "stripe":
        return (y % 4 < 2).expand(size, size)
    if texture == "plaid":
        return (x % 4 < 1) | (y % 4 < 1)
    if texture == "denim":  # the diagonal of a twill
        return (x + y) % 3 < 1
    if texture == "floral":
        r = torch.hypot(x % 4 - 1.5, y % 4 - 1.5)
        return (r > 0.6) & (r < 1.4)
    return torch.zeros(size, size, dtype=torch.bool)


def _paint(figures: Figures, labels: Tensor) -> Tensor:
    colours, parts, _ = palette()
    rows = torch.empty(len(figures), EYES + 1, dtype=torch.int64)
    for k, part in enumerate(PARTS):
        chosen = figures.choice("skin colour" if part == "face" else f"{part} colour")
        rows[:, k] = (parts == k).nonzero()[0, 0] + chosen * (2 if part in DYED else 1)
    rows[:, EYES] = len(colours) - 1
    at = rows.gather(1, labels.flatten(1)).view_as(labels)
    table, _, which = patterns(labels.shape[-1])
    for k, garment in enumerate(GARMENTS):
        x, y = figures.phases[:, k].unbind(1)
        pattern = table[which[figures.textures[:, k].clamp(min=0), x, y]]
        at += pattern & (labels == PARTS.index(garment))
    return colours[at].movedim(-1, 1).contiguous()
