"""Pictures as rows of patches, from the top left: what a transformer of either panel reads.

    byte p -> 2 p / 255 - 1 in [-1, 1], which is 0 for none of the 256 bytes

So a row of patches that is 0 everywhere is no picture: it is free to mean "none".
"""

from torch import Tensor

LEVELS = 256


def patchify(x: Tensor, patch: int) -> Tensor:
    """(B, C, H, W) -> (B, L, C patch^2), L = H W / patch^2, rows of patches from the top left."""
    b, c, h, w = x.shape
    grid = x.reshape(b, c, h // patch, patch, w // patch, patch).permute(0, 2, 4, 1, 3, 5)
    return grid.reshape(b, (h // patch) * (w // patch), c * patch**2)


def unpatchify(tokens: Tensor, patch: int, height: int, width: int) -> Tensor:
    """The inverse of `patchify`: (B, L, C patch^2) -> (B, C, height, width)."""
    b, _, width_of_patch = tokens.shape
    rows, columns, c = height // patch, width // patch, width_of_patch // patch**2
    grid = tokens.reshape(b, rows, columns, c, patch, patch).permute(0, 3, 1, 4, 2, 5)
    return grid.reshape(b, c, height, width)


def seen(pictures: Tensor, patch: int) -> Tensor:
    """Pictures (B, C, H, W), uint8 -> their patches (B, L, C patch^2), float32 in [-1, 1]."""
    return patchify(pictures.float() * (2 / (LEVELS - 1)) - 1, patch)
