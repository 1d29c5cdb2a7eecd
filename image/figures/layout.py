"""Where the parts of figures are: label maps, each pixel of one part, at any multiple of 32 pixels.

Bodies are unions of ellipses, limbs (points near a segment) and cloths (trapezoids) in a frame of
32 x 32 units, tested at the middle of each pixel and painted from back to front. Edges are hard: a
layout says all of a picture but its colours and patterns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from image.figures.world import HAIR, LOWER, OUTER, PARTS, SLEEVES, Figures

UNITS = 32.0
EYES = len(PARTS)
_GROUND = 30.8  # where figures stand, units from the top
_CHUNK = 256
_NAMES = {"hair": HAIR, "sleeves": SLEEVES, "lower": LOWER, "outer": OUTER}
_SIDES = {"left": -1.0, "right": 1.0}

Point = tuple[Tensor | float, Tensor | float]
Rows = Sequence[tuple[Tensor | float, Tensor | float]]


def layouts(figures: Figures, size: int = 32) -> Tensor:
    """Figures -> label maps (n, size, size), int64, of places in PARTS. ValueError unless size is a
    multiple of 32."""
    return without_eyes(drawn(figures, size))


def without_eyes(labels: Tensor) -> Tensor:
    """Label maps as `drawn` gives them -> as `layouts` does: EYES are of the face."""
    return labels.masked_fill(labels == EYES, PARTS.index("face"))


def drawn(figures: Figures, size: int) -> Tensor:
    """As `layouts`, with EYES by themselves."""
    check_size(size)
    parts = [figures[i : i + _CHUNK] for i in range(0, len(figures), _CHUNK)]
    return torch.cat([_Painter(part, size).labels for part in parts])


def check_size(size: int) -> None:
    """ValueError unless a multiple of 32."""
    if size < 32 or size % 32:
        raise ValueError(f"size = {size}: expected a multiple of 32")


def middles(size: int, device: torch.device | None = None) -> Tensor:
    """Where the middles of pixels are along a side, in units (size,)."""
    return (torch.arange(size, device=device) + 0.5) * (UNITS / size)


@dataclass(frozen=True)
class _Bone:
    """A segment as points see it, (n, size, size): the squared distance, and how far along it they
    are, 0 at its start and 1 at its end."""

    apart: Tensor
    along: Tensor

    def within(self, radius: float, end: float | None = None) -> Tensor:
        """Points of a limb around it, cut off at `end`."""
        near = self.apart <= radius**2
        return near if end is None else near & (self.along <= end)


class _Painter:
    """Label maps of a batch. u and v (n, size, size) are points in the frame of each figure, u to
    the right of its middle and v down; numbers of a figure are (n, 1, 1)."""

    def __init__(self, figures: Figures, size: int) -> None:
        self.figures = figures
        at = middles(size, figures.poses.device)
        self.height = self.pose("height", 0.88, 1.0)
        self.beside = at.view(1, 1, size) - self.pose("place", 13.0, 20.0).floor()
        self.u = self.beside / self.height
        self.y = at.view(1, size, 1)
        self.v = (self.y - _GROUND) / self.height + _GROUND
        self.width = self.pose("width", 0.88, 1.12)
        self.hem = self.pose("hem", -0.7, 0.7)
        self.labels = torch.zeros_like(self.u + self.v, dtype=torch.int64)
        self.paint()

    def paint(self) -> None:
        """From back to front."""
        self.put("hair", self.has("hair", "long") & self.cloth([(4.0, 3.9), (14.0, 4.4)]))
        self.legs()
        self.trunk()
        for side in _SIDES:
            self.arm(side)
        self.outer()
        self.head()

    def legs(self) -> None:
        stance = self.pose("stance", 0.1, 2.0)
        for sign in _SIDES.values():
            hip = (sign * 1.8 * self.width, 17.8)
            foot = (sign * (1.8 * self.width + stance), 28.6)
            leg = self.bone(hip, foot)
            self.put("skin", leg.within(1.35))
            self.put("shoes", self.ellipse((foot[0] + 0.5 * sign, 29.7), 2.1, 1.3))
            self.put("lower", self.has("lower", "trousers") & leg.within(1.9, end=0.87))
            self.put("lower", self.has("lower", "shorts") & leg.within(2.05, end=0.36))
        waist = (16.5, 3.3 * self.width)
        seat, short = (19.2, 3.7 * self.width), (22.8 + self.hem, 5.4 * self.width)
        long = (26.6 + self.hem, 5.6 * self.width)
        self.put("lower", self.has("lower", "trousers", "shorts") & self.cloth([waist, seat]))
        self.put("lower", self.has("lower", "skirt") & self.cloth([waist, short]))
        self.put("lower", self.has("lower", "long skirt") & self.cloth([waist, long]))

    def trunk(self) -> None:
        self.put("skin", self.cloth([(8.0, 1.25), (11.0, 1.25)]))
        shoulders, waist = (10.3, 3.9 * self.width), (15.8, 3.2 * self.width)
        self.put("upper", self.cloth([shoulders, waist, (18.4, 3.6 * self.width)]))
        hem = (23.6 + 2 * self.hem, 5.4 * self.width)
        self.put("upper", self.has("lower", "dress") & self.cloth([waist, hem]))

    def arm(self, side: str) -> None:
        """An arm and its sleeves. Angles are from straight down, outwards."""
        sign = _SIDES[side]
        upper, fore = self.pose(f"{side} arm", 0.15, 1.2), self.pose(f"{side} elbow", -0.5, 0.9)
        shoulder = (sign * 3.4 * self.width, 11.7)
        elbow = _from(shoulder, sign, upper, 4.4)
        above = self.bone(shoulder, elbow)
        below = self.bone(elbow, _from(elbow, sign, upper + fore, 4.2))
        self.put("skin", above.within(1.1) | below.within(1.1))
        short, long = self.has("sleeves", "short"), self.has("sleeves", "long")
        self.put("upper", short & above.within(1.5, end=0.75))
        self.put("upper", long & (above.within(1.4) | below.within(1.4, end=0.9)))
        worn = ~self.has("outer", "none")
        self.put("outer", worn & (above.within(1.75) | below.within(1.75, end=0.9)))

    def outer(self) -> None:
        shoulders, hips = (9.9, 4.4 * self.width), (19.2, 4.9 * self.width)
        opening = self.pose("opening", 2.0, 2.7)
        closed = self.u.abs() > opening + 0.2 * (self.v - hips[0]).clamp(min=0)
        self.put("outer", self.has("outer", "jacket") & closed & self.cloth([shoulders, hips]))
        coat = self.cloth([shoulders, hips, (25.0 + self.hem, 5.9 * self.width)])
        self.put("outer", self.has("outer", "coat") & closed & coat)

    def head(self) -> None:
        self.put("hair", self.has("hair", "bun") & self.ellipse((0.0, 1.6), 1.9, 1.7))
        self.put("hair", self.ellipse((0.0, 5.2), 3.75, 3.6))
        falls = self.has("hair", "bob", "long")
        self.put("hair", falls & self.cloth([(5.0, 3.75), (9.6, 4.0)]))
        self.put("face", self.ellipse((0.0, 6.6), 2.9, 3.2) & (self.v > 4.7))
        # whole units, so that both eyes are alike on the coarsest grid
        row = (_GROUND + (6.6 - _GROUND) * self.height).floor()
        column = self.beside.abs()
        eyes = (column >= 1) & (column < 2) & (self.y >= row) & (self.y < row + 1)
        self.labels.masked_fill_(eyes, EYES)

    def put(self, part: str, where: Tensor) -> None:
        """Paint over what is there."""
        self.labels.masked_fill_(where, PARTS.index(part))

    def pose(self, name: str, low: float, high: float) -> Tensor:
        """A number of each pose, in [low, high]."""
        return (low + (high - low) * self.figures.pose(name)).view(-1, 1, 1)

    def has(self, choice: str, *values: str) -> Tensor:
        """Whether a choice is among `values`."""
        wanted = torch.tensor([name in values for name in _NAMES[choice]])
        return wanted.to(self.u.device)[self.figures.choice(choice)].view(-1, 1, 1)

    def ellipse(self, middle: Point, across: float, down: float) -> Tensor:
        u, v = middle
        return ((self.u - u) / across) ** 2 + ((self.v - v) / down) ** 2 <= 1

    def bone(self, start: Point, end: Point) -> "_Bone":
        du, dv = end[0] - start[0], end[1] - start[1]
        u, v = self.u - start[0], self.v - start[1]
        along = (u * du + v * dv) / (du**2 + dv**2)
        nearest = along.clamp(0, 1)
        return _Bone((u - nearest * du) ** 2 + (v - nearest * dv) ** 2, along)

    def cloth(self, rows: Rows) -> Tensor:
        """Around the middle, as far to both sides as (v, distance) in `rows` say, straight between
        them."""
        inside = torch.zeros_like(self.labels, dtype=torch.bool)
        for (top, above), (bottom, below) in pairwise(rows):
            at = (self.v - top) / (bottom - top)
            inside |= (at >= 0) & (at < 1) & (self.u.abs() <= above + at * (below - above))
        return inside


def _from(start: Point, sign: float, angle: Tensor, length: float) -> Point:
    return start[0] + sign * length * torch.sin(angle), start[1] + length * torch.cos(angle)
