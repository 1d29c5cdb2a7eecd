"""The figure world: dressed people of whom everything is known, drawn independently by attribute.

A figure is a row of choices (`CHOICES`: how it is dressed, of which textures and colours), a row of
numbers in [0, 1] (`POSES`: where and how it stands), and where on the picture the pattern of each
garment begins. Each choice is independent of the others and has the probabilities of `WEIGHTS`, or
equal ones; two follow from others: a dress is an upper garment, and nothing is worn below it.

Figure `index` of stream `seed` is a function of the two integers (`shared.scene.uniforms`), so
streams are infinite, seekable, and alike on every machine. Rows of figures are tensors throughout.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from shared import scene

PARTS = ("background", "face", "hair", "skin", "upper", "lower", "outer", "shoes")
GARMENTS = ("upper", "lower", "outer")
TEXTURES = ("pure", "stripe", "plaid", "floral", "denim")
HAIR = ("short", "bob", "long", "bun")
SLEEVES = ("none", "short", "long")
LOWER = ("trousers", "shorts", "skirt", "long skirt", "dress")
OUTER = ("none", "jacket", "coat")
TONES = 3  # of skin, and colours of all else
COLOURED = ("background", "skin", "hair", *GARMENTS, "shoes")

# What is uneven is so on purpose: a mistaken weight then shows in every frequency.
WEIGHTS: dict[str, tuple[float, ...]] = {
    "hair": (0.3, 0.2, 0.3, 0.2),
    "sleeves": (0.2, 0.4, 0.4),
    "lower": (0.3, 0.15, 0.2, 0.15, 0.2),
    "outer": (0.5, 0.3, 0.2),
}
CHOICES: dict[str, int] = {
    "hair": len(HAIR),
    "sleeves": len(SLEEVES),
    "lower": len(LOWER),
    "outer": len(OUTER),
    **{f"{garment} texture": len(TEXTURES) for garment in GARMENTS},
    **{f"{part} colour": TONES for part in COLOURED},
}
POSES = (
    "place", "height", "width", "left arm", "right arm", "left elbow", "right elbow", "stance",
    "hem", "opening",
)  # fmt: skip
NOT_WORN = -1
PERIOD = 12  # after how many units every pattern repeats, across and down
_MEDIUM = 64  # keeps the noise of figures apart from that of scenes and of those who tell them


@dataclass(frozen=True)
class Figures:
    """n figures.

    choices (n, len(CHOICES)), int64: the place of each choice among what there is. poses (n,
    len(POSES)), float32 in (0, 1). textures (n, 3), int64: of each garment its place in TEXTURES,
    or NOT_WORN. phases (n, 3, 2), int64: where each garment's pattern begins, x and y.
    """

    choices: Tensor
    poses: Tensor
    textures: Tensor
    phases: Tensor

    def __len__(self) -> int:
        return len(self.choices)

    def __getitem__(self, rows: Tensor | slice) -> "Figures":
        return Figures(*(getattr(self, field.name)[rows] for field in fields(self)))

    def choice(self, name: str) -> Tensor:
        """One of CHOICES (n,)."""
        return self.choices[:, list(CHOICES).index(name)]

    def pose(self, name: str) -> Tensor:
        """One of POSES (n,)."""
        return self.poses[:, POSES.index(name)]

    def wears(self, garment: str) -> Tensor:
        """Whether each wears a garment, bool (n,)."""
        return self.textures[:, GARMENTS.index(garment)] != NOT_WORN


def join(parts: list[Figures]) -> Figures:
    """Rows of figures after each other."""
    return Figures(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Figures)))


def samples(seed: int, start: int, n: int) -> Figures:
    """Figures start ... start + n - 1 of the stream `seed`. ValueError when out of range, as of
    `shared.scene.uniforms`."""
    kinds, poses = len(CHOICES), len(POSES)
    u = scene.uniforms(seed, start, n, kinds + poses + 2 * len(GARMENTS), _MEDIUM)
    drawn = [
        torch.bucketize(u[:, i].contiguous(), probabilities(name).cumsum(0)[:-1], right=True)
        for i, name in enumerate(CHOICES)
    ]
    choices = torch.stack(drawn, 1)
    phases = (u[:, kinds + poses :] * PERIOD).long().view(n, len(GARMENTS), 2)
    figures = Figures(choices, u[:, kinds : kinds + poses], choices[:, :0], phases)
    worn = torch.stack(
        [
            torch.ones(n, dtype=torch.bool),
            figures.choice("lower") != LOWER.index("dress"),
            figures.choice("outer") != OUTER.index("none"),
        ],
        1,
    )
    textures = torch.stack([figures.choice(f"{garment} texture") for garment in GARMENTS], 1)
    return Figures(choices, figures.poses, textures.where(worn, NOT_WORN), phases)


def probabilities(choice: str) -> Tensor:
    """Of each value of one of CHOICES, float32."""
    count = CHOICES[choice]
    return torch.tensor(WEIGHTS.get(choice, (1 / count,) * count))


def unseen(textures: Tensor) -> Tensor:
    """textures (n, 3) -> whether a compositional split keeps them out of training, bool (n,): 5 of
    the 25 pairs of an upper and a lower texture, one of each texture in each of the two garments,
    so that all else of both is trained on."""
    upper, lower = textures[:, 0], textures[:, 1]
    return (lower != NOT_WORN) & ((upper + lower) % len(TEXTURES) == 0)
