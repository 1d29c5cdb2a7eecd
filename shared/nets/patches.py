"""Pictures as rows of patches, from the top left: what a transformer of either panel reads.

    byte p -> 2 p / 255 - 1 in [-1, 1], which is 0 for none of the 256 bytes

So a row of patches that is 0 everywhere is no picture: it is free to mean "none".
"""

import torch.nn.functional as F
from torch import Tensor

from shared.errors import ConfigError
from shared.levels import signed


def check_patch(patch: int, height: int, width: int) -> None:
    """ConfigError unless patches fill a picture."""
    if height % patch or width % patch:
        raise ConfigError(
            f"patch = {patch}: expected a divisor of the picture's {height} x {width} pixels"
        )


def patchify(x: Tensor, patch: int) -> Tensor:
    """(B, C, H, W) -> (B, L, C patch^2), L = H W / patch^2, rows of patches from the top left."""
    return F.pixel_unshuffle(x, patch).flatten(2).transpose(1, 2)


def unpatchify(tokens: Tensor, patch: int, height: int, width: int) -> Tensor:
    """The inverse of `patchify`: (B, L, C patch^2) -> (B, C, height, width)."""
    grid = tokens.transpose(1, 2).unflatten(2, (height // patch, width // patch))
    return F.pixel_shuffle(grid, patch)


def seen(pictures: Tensor, patch: int) -> Tensor:
    """Pictures (B, C, H, W), uint8 -> their patches (B, L, C patch^2), float32 in [-1, 1]."""
    return patchify(signed(pictures), patch)
