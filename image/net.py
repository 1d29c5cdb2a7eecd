"""The network of the image panel: patches of a picture as the tokens of the shared transformer.

A latent is (B, C, H, W), or (B, C, H, W, n) when a codec gives n numbers for a pixel; these become
n C channels. Positions are the trunk's learned table, one entry a patch (Dosovitskiy et al. 2021,
sec. 3.1), since rotary angles know one dimension only.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.config import NetConfig
from shared.errors import ConfigError
from shared.nets.transformer import Transformer


def patchify(x: Tensor, patch: int) -> Tensor:
    """(B, C, H, W) -> (B, L, C patch^2), L = H W / patch^2, rows of patches from the top left."""
    return F.pixel_unshuffle(x, patch).flatten(2).transpose(1, 2)


def unpatchify(tokens: Tensor, patch: int, height: int, width: int) -> Tensor:
    """The inverse of `patchify`: (B, L, C patch^2) -> (B, C, height, width)."""
    grid = tokens.transpose(1, 2).unflatten(2, (height // patch, width // patch))
    return F.pixel_shuffle(grid, patch)


class PatchNet(nn.Module):
    """net(x, logsnr, condition, previous) -> an output of x's shape.

    x and previous (B, *latent_shape), logsnr (B,), condition (B, M) of ids in [0, conditions).
    ConfigError when `patch` does not divide the picture.
    """

    def __init__(
        self,
        latent_shape: tuple[int, ...],
        patch: int,
        config: NetConfig,
        self_condition: bool,
        conditions: int = 0,
    ) -> None:
        super().__init__()
        channels, height, width, *depth = latent_shape
        if height % patch or width % patch:
            raise ConfigError(
                f"patch = {patch}: expected a divisor of the picture's {height} x {width} pixels"
            )
        self.latent_shape, self.patch, self.self_condition = latent_shape, patch, self_condition
        token = channels * (depth[0] if depth else 1) * patch**2
        self.trunk = Transformer(
            token * (2 if self_condition else 1),
            token,
            height * width // patch**2,
            dim=config.dim,
            depth=config.depth,
            heads=config.heads,
            rotary=False,
            conditions=conditions,
            cross_attention=config.cross_attention,
            dropout=config.dropout,
        )

    def forward(
        self, x: Tensor, logsnr: Tensor, condition: Tensor | None, previous: Tensor | None
    ) -> Tensor:
        h = self._channels(x)
        if self.self_condition:
            last = torch.zeros_like(h) if previous is None else self._channels(previous)
            h = torch.cat([h, last], dim=1)
        tokens = self.trunk(patchify(h, self.patch), logsnr, condition)
        out = unpatchify(tokens, self.patch, *self.latent_shape[1:3])
        if len(self.latent_shape) == 3:
            return out
        return out.unflatten(1, (-1, self.latent_shape[0])).movedim(1, -1)

    def _channels(self, x: Tensor) -> Tensor:
        """(B, C, H, W, n) -> (B, n C, H, W); four axes stay as they are."""
        return x if x.ndim == 4 else x.movedim(-1, 1).flatten(1, 2)
