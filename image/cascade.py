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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from image.metrics.reconstruction import WINDOW, psnr, ssim
from image.opening import Given, given, to_levels
from image.sketch import Sketch
from shared import noise
from shared.errors import ConfigError
from shared.objective.streams import AUGMENT
from shared.pictures import fit

LOW_NOISE = 0.1  # time to which what a model drew is noised before it is enlarged


class Small(nn.Module):
    """What small pictures are and how they are told, as `image.sketch.Sketch`; without weights.

    forward(data (B, C, H, W) of levels, ids (B, M) or None, keys (B,)) -> the condition of
    training, (B, M + 1 + C h w), a function of keys. ConfigError when the factor does not divide
    the picture.
    """

    name, task = "low", "enlarges a picture"

    def __init__(
        self, shape: tuple[int, int, int], levels: int, factor: int, augment: float
    ) -> None:
        super().__init__()
        C, H, W = shape
        if H % factor or W % factor:
            raise ConfigError(
                f"upscale.factor = {factor}: expected a divisor of the picture's {H} x {W} pixels"
            )
        self.shape, self.levels = (C, H // factor, W // factor), levels
        self.factor, self.augment = factor, augment

    @property
    def channels(self) -> int:
        """That stand beside those of x_t."""
        return self.shape[0] + 1

    def forward(self, data: Tensor, ids: Tensor | None, keys: Tensor) -> Tensor:
        a = self.augment * noise.uniform(keys, AUGMENT, device=data.device)
        return self.told(self.seen(data), a, ids, keys)

    def seen(self, data: Tensor) -> Tensor:
        """Levels (B, C, H, W) -> the means of blocks, (B, C, h, w) in [-1, 1]."""
        return F.avg_pool2d(2 * data.float() / (self.levels - 1) - 1, self.factor)

    def enlarged(self, small: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, H, W), bicubic. `antialias` changes the kernel alone here: to that
        of Keys (1981), which keeps slopes (Pillow has it too), from torch's, which does not."""
        return F.interpolate(small, scale_factor=float(self.factor), mode="bicubic", antialias=True)

    def told(self, small: Tensor, a: Tensor, ids: Tensor | None, keys: Tensor) -> Tensor:
        """small (B, C, h, w) in [-1, 1], a (B,), ids (B, M) or None -> the condition; its noise is
        a function of keys (B,)."""
        drawn = noise.normal(keys, AUGMENT - 1, self.shape, device=small.device)
        angle = (math.pi / 2 * a).view(-1, 1, 1, 1)
        c = angle.cos() * small + angle.sin() * drawn
        parts = [a[:, None], c.flatten(1)]
        return torch.cat(parts if ids is None else [ids.to(c), *parts], dim=1)

    def read(self, condition: Tensor) -> tuple[Tensor | None, Tensor]:
        """A condition -> ids (B, M) or None, and the channels (B, C + 1, H, W)."""
        M = condition.shape[1] - 1 - math.prod(self.shape)
        a, c = condition[:, M], condition[:, M + 1 :].unflatten(1, self.shape)
        large = self.enlarged(c)
        planes = a.view(-1, 1, 1, 1).expand(-1, 1, *large.shape[2:])
        ids = condition[:, :M].round().long() if M else None
        return ids, torch.cat([large, planes], dim=1)

    def unnamed(self, condition: Tensor) -> Tensor:
        """The same small pictures under ids of "none": what guidance departs from."""
        M = condition.shape[1] - 1 - math.prod(self.shape)
        return torch.cat([torch.zeros_like(condition[:, :M]), condition[:, M:]], dim=1)


Beside = Small | Sketch  # what stands beside a noisy picture


class BesideNet(nn.Module):
    """A network of this panel that reads the conditions of `given`: (x, logsnr, condition,
    previous) -> an output of x's shape. `net` takes the channels beside as its fifth argument."""

    def __init__(self, net: nn.Module, given: Beside) -> None:
        super().__init__()
        self.net, self.given = net, given

    def forward(
        self, x: Tensor, logsnr: Tensor, condition: Tensor | None, previous: Tensor | None
    ) -> Tensor:
        if condition is None:
            raise ConfigError(
                f"{self.given.name}: this model {self.given.task}: name it; and the grid of solver "
                "auto is fitted without one: choose another solver"
            )
        ids, beside = self.given.read(condition)
        return self.net(x, logsnr, ids, previous, beside)


@dataclass(frozen=True)
class Low:
    """What a model of a cascade is to enlarge, or the sketch that another is to follow: pictures
    (n, C, h, w) or (1, C, h, w) in [-1, 1], noised to a time in [0, 1): 0 for true pictures and
    sketches, about 0.1 for what a model drew."""

    pictures: Tensor
    noise: float


def readable(
    beside: Beside | None, low: Given | Sequence[Given], n: int, name: str = "low"
) -> Tensor:
    """A picture or a list of them, taken in turn -> (n, C, h, w) in [-1, 1], as `beside` has them.
    ConfigError for a model that reads none of this name, and as `image.opening.given`."""
    if beside is None or beside.name != name:
        raise _draws_alone(name)
    C, h, w = beside.shape
    listed = [low] if isinstance(low, str | Path | Image.Image | np.ndarray) else list(low)
    box = Image.Resampling.BOX  # of a larger picture: the means of blocks, as in training
    parts = [to_levels(fit(given(each, name), C, (h, w), box), 256) for each in listed]
    rows = torch.arange(n) % len(parts)
    return torch.stack(parts)[rows].float() / 127.5 - 1


def _draws_alone(name: str) -> ConfigError:
    return ConfigError(
        f"{name}: this model was not trained with it: one with upscale.factor enlarges pictures "
        "(low), one with sketch=true follows sketches"
    )


def beside_conditions(
    beside: Beside | None,
    low: Low | None,
    ids: Tensor | None,
    negative: Tensor | None,
    seeds: Sequence[int],
) -> tuple[Tensor, Tensor]:
    """Ids (n, M) or None, and those that guidance departs from -> the conditions of a model that
    reads pictures and what guidance departs from: the same ones, under `negative` or "none".

    Their noise is a function of the seeds. ConfigError for a model or pictures of another kind.
    """
    if beside is None:
        raise _draws_alone("low")
    if low is None:
        _, h, w = beside.shape
        drawn = ", or a run that draws it" if isinstance(beside, Small) else ""
        raise ConfigError(
            f"{beside.name}: this model {beside.task} of {h} x {w} pixels: name one{drawn}"
        )
    if low.pictures.shape[1:] != beside.shape:
        raise ConfigError(
            f"{beside.name}: pictures {tuple(low.pictures.shape[1:])}: expected {beside.shape}, "
            "channels, height and width"
        )
    if not 0 <= low.noise <= beside.augment:
        raise ConfigError(
            f"low_noise = {low.noise}: expected a time in [0, {beside.augment}], what the model "
            "was trained with"
        )
    n, keys = len(seeds), torch.as_tensor(list(seeds))
    pictures = low.pictures.float().cpu().expand(n, -1, -1, -1)
    told = beside.told(pictures, torch.full((n,), low.noise), ids, keys)
    if negative is not None:
        return told, torch.cat([negative.to(told), told[:, negative.shape[1] :]], dim=1)
    return told, beside.unnamed(told)


def fidelity(small: Small, images: Tensor, originals: Tensor) -> dict[str, float]:
    """Enlarged pictures (n, C, H, W) of levels beside those they were enlarged from: PSNR, SSIM
    where sides reach its window, both of a bicubic enlargement too, and the PSNR between what both
    become when shrunk: whether a picture still shows what it was made of."""
    large = small.enlarged(small.seen(originals))
    bicubic = ((large + 1) / 2 * (small.levels - 1)).round().clamp(0, small.levels - 1)
    again = small.seen(images) - small.seen(originals)
    error = again.double().square().mean((1, 2, 3)).clamp_min(1e-10)  # 106 dB: within rounding
    found = {"consistency_psnr": float((10 * torch.log10(4 / error)).mean())}
    for name, drawn in (("", images), ("bicubic_", bicubic)):
        found[f"{name}psnr"] = float(psnr(drawn, originals, small.levels).mean())
        if min(originals.shape[-2:]) >= WINDOW:
            found[f"{name}ssim"] = float(ssim(drawn, originals, small.levels).mean())
    return found
