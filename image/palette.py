"""Pictures as words of a palette: K colours, and the analog bits of the index of each pixel's.

A palette is exact where the training pictures have no more than K colours, such as drawings. Else
its colours are those of Pillow's median cut (Heckbert 1982), and a picture becomes the nearest it
can show. They are sorted by brightness, so that in Gray code neighbours look alike. A run keeps

    RUN/palette.json     levels of each colour, and whether pictures come back exactly
"""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from image.measurements import luma
from image.source import spread
from shared.codec import Bits, check_range
from shared.errors import CheckpointError, ConfigError
from shared.files import write_text
from shared.schedule import Level

FILE = "palette.json"  # in the run folder
PIXELS = 2**20  # of them, that the median cut sees
AT_ONCE = 2**16  # pixels held against the colours


class Palette(nn.Module):
    """data (B, C, H, W) of levels <-> x0 (B, 1, H, W, n), n = ceil(log2 K): `shared.codec.Bits` of
    the index of the nearest of the colours (K, C)."""

    def __init__(self, colours: Tensor, levels: int, bits: Bits) -> None:
        super().__init__()
        self.levels, self.bits = levels, bits
        self.latent_shape, self.logit_channels = bits.latent_shape, bits.logit_channels
        self.evidence, self.mean, self.log_probs = bits.evidence, bits.mean, bits.log_probs
        self.colours: Tensor
        self.register_buffer("colours", colours.long(), persistent=False)

    def index(self, data: Tensor) -> Tensor:
        """data (B, C, H, W) -> the index of each pixel's nearest colour (B, 1, H, W), the first
        among equals. ValueError when a level is out of range."""
        check_range(data, self.levels)
        pixels, known = data.movedim(1, -1).float(), self.colours.float()
        parts = [torch.cdist(part, known).argmin(1) for part in pixels.flatten(0, 2).split(AT_ONCE)]
        return torch.cat(parts).view(pixels.shape[:-1])[:, None]

    def encode(self, data: Tensor) -> Tensor:
        return self.bits.encode(self.index(data))

    def decode(self, x0: Tensor) -> Tensor:
        return self.colours[self.bits.decode(x0)[:, 0]].movedim(-1, 1)

    def nll(self, logits: Tensor, data: Tensor) -> Tensor:
        return self.bits.nll(logits, self.index(data))


class ExactPalette(Palette):
    """One that gives every picture back, so that its probability is that of its indices."""

    def log_prob(self, data: Tensor, z_0: Tensor, level_0: Level) -> Tensor:
        """p(data | z_0), each colour equally likely a priori."""
        return self.bits.log_prob(self.index(data), z_0, level_0)


def install_palette(images: Tensor, count: int, run: Path) -> None:
    """Write the palette of some training pictures (N, C, H, W), uint8. ConfigError for a single
    colour."""
    pixels = images.movedim(1, -1).flatten(0, 2)
    colours, exact = torch.unique(pixels, dim=0), True
    if len(colours) > count:
        colours, exact = _median_cut(pixels[spread(len(pixels), PIXELS)], count), False
    if len(colours) < 2:
        raise ConfigError("codec.kind = 'palette': all pictures are of one colour")
    colours = colours[_brightness(colours).argsort(stable=True)]
    write_text(run / FILE, json.dumps({"exact": exact, "colours": colours.tolist()}))


def load_palette(
    levels: int, shape: tuple[int, int, int], run: Path, scale: float, gray: bool
) -> Palette:
    """The codec that a run keeps. CheckpointError when it is missing or damaged."""
    try:
        kept = json.loads((run / FILE).read_text(encoding="utf-8"))
        colours = torch.tensor(kept["colours"])
        if colours.ndim != 2 or colours.shape[1] != shape[0]:
            raise ValueError(f"colours {tuple(colours.shape)} for {shape[0]} channels")
        bits = Bits(len(colours), (1, *shape[1:]), scale, gray)
        return (ExactPalette if kept["exact"] else Palette)(colours, levels, bits)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{run / FILE}: missing or damaged ({error})") from None


def _median_cut(pixels: Tensor, count: int) -> Tensor:
    """pixels (P, 1 or 3), uint8 -> at most `count` colours, as many channels."""
    C = pixels.shape[1]
    strip = Image.fromarray(pixels.expand(-1, 3).numpy()[None], "RGB")
    cut = strip.quantize(count, method=Image.Quantize.MEDIANCUT)
    found = np.asarray(cut.getpalette(), dtype=np.uint8).reshape(-1, 3)[:count, :C]
    return torch.unique(torch.from_numpy(found.copy()), dim=0)


def _brightness(colours: Tensor) -> Tensor:
    if colours.shape[1] == 1:
        return colours[:, 0].float()
    return luma(colours.float()[:, :, None, None]).flatten()
