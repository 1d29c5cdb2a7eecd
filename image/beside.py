"""A picture that stands beside the noisy one: channels which the network reads with those of x_t.

It is the same picture smaller (`image.cascade`), or its lines (`image.sketch`). As a condition it
stands behind the ids of the picture, in one row of floats (B, M + size).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from image.opening import PictureLike, open_picture, to_levels
from shared.errors import ConfigError
from shared.pictures import fit


class Beside(nn.Module, ABC):
    """What such pictures are and how a row says them; without weights.

    forward(data (B, C, H, W) of levels, ids (B, M) or None, keys (B,)) -> the condition of
    training, (B, M + size), a function of keys.

    Attributes:
        shape: (C, h, w) of the pictures that stand beside.
        levels: Of the data.
        channels: That the network reads with those of x_t.
        size: Numbers of a row behind its ids.
    """

    name: str  # of the argument that gives one
    task: str  # what a model does with it, for messages
    augment: float = 0.0  # the latest time that training noises it to

    def __init__(
        self, shape: tuple[int, int, int], levels: int, channels: int, size: int | None = None
    ) -> None:
        super().__init__()
        self.shape, self.levels, self.channels = shape, levels, channels
        self.size = math.prod(shape) if size is None else size

    def signed(self, data: Tensor) -> Tensor:
        """Levels (B, C, H, W) -> [-1, 1]."""
        return 2 * data.float() / (self.levels - 1) - 1

    @abstractmethod
    def seen(self, data: Tensor) -> Tensor:
        """Levels (B, C, H, W) -> what stands beside them, (B, *shape) in [-1, 1]."""

    @abstractmethod
    def row(self, pictures: Tensor, a: Tensor, ids: Tensor | None, keys: Tensor) -> Tensor:
        """pictures (B, *shape) in [-1, 1], noised to times a (B,) by noise of their keys, ids
        (B, M) or None -> the condition."""

    @abstractmethod
    def read(self, condition: Tensor) -> tuple[Tensor | None, Tensor]:
        """A condition -> ids (B, M) or None, and the channels (B, channels, H, W)."""

    def split(self, condition: Tensor) -> tuple[Tensor | None, Tensor]:
        """A condition -> ids (B, M) or None, and the numbers (B, size) behind them."""
        M = condition.shape[1] - self.size
        return condition[:, :M].round().long() if M else None, condition[:, M:]

    def unnamed(self, condition: Tensor) -> Tensor:
        """The same pictures under ids of "none": what guidance departs from."""
        M = condition.shape[1] - self.size
        return torch.cat([torch.zeros_like(condition[:, :M]), condition[:, M:]], dim=1)


class BesideNet(nn.Module):
    """A network of this panel that reads the conditions of `beside`: (x, logsnr, condition,
    previous) -> an output of x's shape. `net` takes the channels beside as its fifth argument."""

    def __init__(self, net: nn.Module, beside: Beside) -> None:
        super().__init__()
        self.net, self.beside = net, beside

    def forward(
        self, x: Tensor, logsnr: Tensor, condition: Tensor | None, previous: Tensor | None
    ) -> Tensor:
        if condition is None:
            raise ConfigError(
                f"{self.beside.name}: this model {self.beside.task}: name it; and the grid of "
                "solver auto is fitted without one: choose another solver"
            )
        ids, channels = self.beside.read(condition)
        return self.net(x, logsnr, ids, previous, channels)


@dataclass(frozen=True)
class BesidePictures:
    """What a model is shown: pictures (n, C, h, w) or (1, C, h, w) in [-1, 1], noised to a time in
    [0, 1): 0 for true pictures and sketches, about 0.1 for what a model drew."""

    pictures: Tensor
    noise: float


def readable(
    beside: Beside | None, shown: PictureLike | Sequence[PictureLike], n: int, name: str = "low"
) -> Tensor:
    """A picture or a list of them, taken in turn -> (n, C, h, w) in [-1, 1], as `beside` has them.
    ConfigError for a model that reads none of this name, and as `image.opening.open_picture`."""
    if beside is None or beside.name != name:
        raise _draws_alone(name)
    C, h, w = beside.shape
    listed = [shown] if isinstance(shown, str | Path | Image.Image | np.ndarray) else list(shown)
    box = Image.Resampling.BOX  # of a larger picture: the means of blocks, as in training
    parts = [to_levels(fit(open_picture(each, name), C, (h, w), box), 256) for each in listed]
    rows = torch.arange(n) % len(parts)
    return torch.stack(parts)[rows].float() / 127.5 - 1


def _draws_alone(name: str) -> ConfigError:
    return ConfigError(
        f"{name}: this model was not trained with it: one with upscale.factor enlarges pictures "
        "(low), one with sketch=true follows sketches"
    )


def beside_conditions(
    beside: Beside | None,
    shown: BesidePictures | None,
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
    if shown is None:
        _, h, w = beside.shape
        drawn = ", or a run that draws it" if beside.augment else ""
        raise ConfigError(
            f"{beside.name}: this model {beside.task} of {h} x {w} pixels: name one{drawn}"
        )
    if shown.pictures.shape[1:] != beside.shape:
        raise ConfigError(
            f"{beside.name}: pictures {tuple(shown.pictures.shape[1:])}: expected {beside.shape}, "
            "channels, height and width"
        )
    if not 0 <= shown.noise <= beside.augment:
        raise ConfigError(
            f"low_noise = {shown.noise}: expected a time in [0, {beside.augment}], what the model "
            "was trained with"
        )
    n, keys = len(seeds), torch.as_tensor(list(seeds))
    pictures = shown.pictures.float().cpu().expand(n, -1, -1, -1)
    rows = beside.row(pictures, torch.full((n,), shown.noise), ids, keys)
    if negative is not None:
        return rows, torch.cat([negative.to(rows), rows[:, negative.shape[1] :]], dim=1)
    return rows, beside.unnamed(rows)
