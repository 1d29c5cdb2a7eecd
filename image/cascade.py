"""A model of a cascade: it draws a picture given the same one `factor` times smaller.

The small picture, means of blocks of factor x factor pixels, is noised (Ho et al. 2021, cascaded
diffusion, sec. 4.2: conditioning augmentation), so that the model also takes what another model
drew, which is never quite right:

    c = cos(pi a / 2) small + sin(pi a / 2) noise,     a uniform in [0, augment] in training

and chosen when pictures are drawn. Enlarged, it is concatenated with the channels of x_t (Saharia
et al. 2021, SR3), and with it one more that is a everywhere. As a condition it stands behind the
ids of the picture, in one row of floats (B, M + 1 + C h w): ids, a, c.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from image.beside import Beside, with_plane
from image.metrics.reconstruction import WINDOW, psnr, ssim
from shared import noise
from shared.errors import ConfigError
from shared.levels import nearest
from shared.objective.streams import AUGMENT

LOW_NOISE = 0.1  # time to which what a model drew is noised before it is enlarged


class Small(Beside):
    """The picture smaller by a factor: rows hold ids, a, c. ConfigError when the factor does not
    divide the picture."""

    name, task = "low", "enlarges a picture"
    given = "name one, or a run that draws it"

    def __init__(
        self,
        shape: tuple[int, int, int],
        levels: int,
        factor: int,
        augment: float,
        optional: bool = False,
    ) -> None:
        C, H, W = shape
        if H % factor or W % factor:
            raise ConfigError(
                f"upscale.factor = {factor}: expected a divisor of the picture's {H} x {W} pixels"
            )
        small = (C, H // factor, W // factor)
        super().__init__(small, levels, C + 1, 1 + math.prod(small), optional)
        self.factor, self.augment = factor, augment

    def made(self, data: Tensor, keys: Tensor) -> Tensor:
        return self.seen(data)

    def measure(self, images: Tensor, originals: Tensor, keys: Tensor) -> dict[str, Any]:
        return {"upscaling": fidelity(self, images, originals)}

    def seen(self, data: Tensor) -> Tensor:
        """The means of blocks."""
        return F.avg_pool2d(self.signed(data), self.factor)

    def enlarged(self, small: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, H, W), bicubic. `antialias` changes the kernel alone here: to that
        of Keys (1981), which keeps slopes (Pillow has it too), from torch's, which does not."""
        return F.interpolate(small, scale_factor=float(self.factor), mode="bicubic", antialias=True)

    def numbers(self, pictures: Tensor, a: Tensor, keys: Tensor) -> Tensor:
        drawn = noise.normal(keys, AUGMENT - 1, self.shape, device=pictures.device)
        angle = (math.pi / 2 * a).view(-1, 1, 1, 1)
        c = angle.cos() * pictures + angle.sin() * drawn
        return torch.cat([a[:, None], c.flatten(1)], dim=1)

    def planes(self, numbers: Tensor) -> Tensor:
        return with_plane(self.enlarged(numbers[:, 1:].unflatten(1, self.shape)), numbers[:, 0])


def fidelity(small: Small, images: Tensor, originals: Tensor) -> dict[str, float]:
    """Enlarged pictures (n, C, H, W) of levels beside those they were enlarged from: PSNR, SSIM
    where sides reach its window, both of a bicubic enlargement too, and the PSNR between what both
    become when shrunk: whether a picture still shows what it was made of."""
    large = small.enlarged(small.seen(originals))
    bicubic = nearest(large, small.levels)
    again = small.seen(images) - small.seen(originals)
    error = again.double().square().mean((1, 2, 3)).clamp_min(1e-10)  # 106 dB: within rounding
    found = {"consistency_psnr": float((10 * torch.log10(4 / error)).mean())}
    for name, drawn in (("", images), ("bicubic_", bicubic)):
        found[f"{name}psnr"] = float(psnr(drawn, originals, small.levels).mean())
        if min(originals.shape[-2:]) >= WINDOW:
            found[f"{name}ssim"] = float(ssim(drawn, originals, small.levels).mean())
    return found
