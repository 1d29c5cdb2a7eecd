"""Pictures of integer levels <-> clean latents: pixels here, analog bits in `shared.codec`, those
of an autoencoder in `image.autoencoder.codec`.

x0 = scale (2 level / (levels - 1) - 1)
"""

from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from image.config import CodecConfig
from image.palette import load_palette
from shared.codec import Bits, Codec, check_range
from shared.levels import nearest, signed
from shared.schedule import Level


class Pixels(nn.Module):
    """data (B, C, H, W), integers in [0, levels) <-> x0 (B, C, H, W) in [-scale, scale]."""

    def __init__(self, levels: int, shape: tuple[int, int, int], scale: float = 1.0) -> None:
        super().__init__()
        if levels < 2:
            raise ValueError(f"codec: levels = {levels}: pixels need two levels or more")
        self.levels, self.scale = levels, scale
        self.latent_shape = shape
        self.values: Tensor
        self.register_buffer(
            "values", scale * signed(torch.arange(levels), levels), persistent=False
        )

    def encode(self, data: Tensor) -> Tensor:
        """Levels -> x0. ValueError when a level is out of range."""
        check_range(data, self.levels)
        return self.values[data.long()]

    def pictures(self, x0: Tensor) -> Tensor:
        """x0 -> pictures (B, C, H, W), about [-1, 1]."""
        return x0 / self.scale

    def decode(self, x0: Tensor) -> Tensor:
        """x0 -> the nearest levels, int64."""
        return nearest(self.pictures(x0), self.levels).long()

    def log_prob(self, data: Tensor, z_0: Tensor, level_0: Level) -> Tensor:
        """The Gaussian around z_0 / alpha on the grid of levels, normalised over them: the exact
        posterior of equally likely levels (Kingma et al. 2021, eq. 8). Takes memory for
        B C H W levels floats."""
        level_0 = level_0.widen(z_0.ndim)
        precision = (level_0.alpha / level_0.sigma) ** 2
        apart = (z_0 / level_0.alpha).unsqueeze(-1) - self.values.to(z_0)
        fit = -0.5 * precision.unsqueeze(-1) * apart**2
        return fit.log_softmax(-1).gather(-1, data.long().unsqueeze(-1)).flatten(1).sum(1)


def build_codec(
    config: CodecConfig, levels: int, shape: tuple[int, int, int], run: Path | None = None
) -> Codec:
    """The codec that a configuration names, for pictures (C, H, W) of so many levels; autoencoder
    and palette are those that the run folder keeps."""
    if config.kind == "autoencoder":
        from image.autoencoder.codec import load_codec  # seconds of diffusers, as in `build_net`

        assert run is not None
        return cast(Codec, load_codec(config, levels, shape, run))  # its log_prob may be None
    if config.kind == "palette":
        assert run is not None
        return cast(Codec, load_palette(levels, shape, run, config.scale, config.gray))
    if config.kind == "bits":
        return Bits(levels, shape, config.scale, config.gray)
    return Pixels(levels, shape, config.scale)
