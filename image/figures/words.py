"""What a figure is to wear, in words -> condition ids.

    "stripe upper, denim lower"               trousers or a skirt of denim
    "floral upper, plaid outer"               a dress under a coat or a jacket

Layouts are those of held-out figures that wear just the garments named, or are given.
"""

import difflib
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from image.figures.layout import layouts
from image.figures.source import draw, rows_of
from image.figures.world import GARMENTS, NOT_WORN, PARTS, TEXTURES, Figures
from shared.errors import ConfigError

EXAMPLE = "stripe upper, denim lower, plaid outer"


def parse_outfit(text: str) -> tuple[int, ...]:
    """TEXTURE GARMENT, ... -> the texture of each garment, its place in TEXTURES or NOT_WORN.

    ConfigError names the word that is not known, with the nearest one, or what is missing or named
    twice.
    """
    found: dict[str, str] = {}
    for part in text.lower().replace(";", ",").split(","):
        words = part.split()
        for word in words:
            if word not in (*TEXTURES, *GARMENTS):
                near = difflib.get_close_matches(word, [*TEXTURES, *GARMENTS], n=1)
                hint = f"did you mean {near[0]}?" if near else f"figures read like: {EXAMPLE}"
                raise ConfigError(f"class {text!r}: unknown word {word!r}; {hint}")
        kinds = [word in GARMENTS for word in words]
        if sorted(kinds) != [False, True]:
            raise ConfigError(
                f"class {text!r}: {part.strip()!r}: expected a texture ({', '.join(TEXTURES)}) and "
                f"a garment ({', '.join(GARMENTS)}), as in: {EXAMPLE}"
            )
        texture, garment = sorted(words, key=lambda word: word in GARMENTS)
        if garment in found:
            raise ConfigError(f"class {text!r}: {garment} is there twice")
        found[garment] = texture
    if "upper" not in found:
        raise ConfigError(f"class {text!r}: no upper; every figure wears one, alone a dress")
    return tuple(TEXTURES.index(found[g]) if g in found else NOT_WORN for g in GARMENTS)


def spell(textures: Sequence[int]) -> str:
    """The inverse of `parse_outfit`."""
    worn = zip(textures, GARMENTS, strict=True)
    return ", ".join(f"{TEXTURES[k]} {garment}" for k, garment in worn if k != NOT_WORN)


def outfit_rows(outfits: Sequence[str], n: int, split: str, size: int) -> Tensor:
    """n rows of condition ids (n, M): the outfits in turn, each time in another layout of `split`.
    ConfigError as of `parse_outfit`."""
    asked = torch.tensor([parse_outfit(text) for text in outfits])
    rows: list[Tensor] = []
    for k, textures in enumerate(asked):
        count = len(range(k, n, len(asked)))
        figures = draw(split, count, keep=partial(_wear, textures != NOT_WORN))
        rows.append(rows_of(layouts(figures, size), textures.expand(count, -1)))
    return torch.stack([rows[i % len(asked)][i // len(asked)] for i in range(n)])


def dressed_rows(outfits: Sequence[str], layouts: Tensor) -> Tensor:
    """Layouts (n, size, size) of places in PARTS, dressed in the outfits in turn -> n rows of
    condition ids (n, M); without outfits, and of garments that one does not name, the texture is
    left open. ConfigError as of `parse_outfit`, or for a garment that its layout does not have."""
    asked = torch.tensor([parse_outfit(text) for text in outfits] or [(NOT_WORN,) * len(GARMENTS)])
    textures = asked[torch.arange(len(layouts)) % len(asked)]
    for k, garment in enumerate(GARMENTS):
        there = (layouts == PARTS.index(garment)).flatten(1).any(1)
        missing = ((textures[:, k] != NOT_WORN) & ~there).nonzero().flatten().tolist()
        if missing:
            raise ConfigError(
                f"class {outfits[missing[0] % len(outfits)]!r}: the layout of picture {missing[0]} "
                f"has no {garment}, which is {PARTS.index(garment)} in layouts"
            )
    return rows_of(layouts, textures)


def _wear(worn: Tensor, figures: Figures) -> Tensor:
    """Whether figures wear just these garments (3,), bool (n,)."""
    return ((figures.textures != NOT_WORN) == worn).all(1)
