"""A picture that stands beside the noisy one: channels which the network reads with those of x_t.

It is the same picture smaller (`image.cascade`), its lines (`image.sketch`), or what a mask leaves
of it (`image.masked`). As a condition it stands behind the ids of the picture, in one row of floats
(B, M + size). Where training drops it (`diffusion.drop_condition` names it), it is a group of the
condition as others are, "none" is zeros there too, and one more number says whether there is a
picture, which the network reads as a channel of ones or zeros: a grey picture is not none.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from image.opening import PictureLike, open_picture, to_levels
from shared import noise
from shared.errors import ConfigError
from shared.groups import Groups
from shared.levels import BYTES, signed
from shared.objective.streams import AUGMENT
from shared.pictures import fit


class Beside(nn.Module, ABC):
    """What such pictures are and how a row says them; without weights.

    forward(data (B, C, H, W) of levels, ids (B, M) or None, keys (B,)) -> the condition of
    training, (B, M + size), a function of keys.

    Attributes:
        shape: (C, h, w) of the pictures that stand beside.
        levels: Of the data.
        optional: Whether there may be none, as in training that drops it.
        says: Whether a row begins with a number that says whether there is one.
        channels: That the network reads with those of x_t.
        size: Numbers of a row behind its ids.
    """

    name: str  # of the argument that gives one
    task: str  # what a model does with it, for messages
    given = "name one"  # how users give one, for messages
    augment: float = 0.0  # the latest time that training noises it to
    none_is_seen = False  # whether zeros stand for nothing else than none: no number need say so

    def __init__(
        self,
        shape: tuple[int, int, int],
        levels: int,
        channels: int,
        size: int | None = None,
        optional: bool = False,
    ) -> None:
        super().__init__()
        self.shape, self.levels, self.optional = shape, levels, optional
        self.says = optional and not self.none_is_seen
        self.channels = channels + self.says
        self.size = (math.prod(shape) if size is None else size) + self.says

    @property
    def groups(self) -> Groups:
        """The columns of a row that are dropped together, from its end: where there may be none."""
        return {self.name: range(-self.size, 0)} if self.optional else {}

    def signed(self, data: Tensor) -> Tensor:
        """Levels (B, C, H, W) -> [-1, 1]."""
        return signed(data, self.levels)

    def forward(self, data: Tensor, ids: Tensor | None, keys: Tensor) -> Tensor:
        a = self.augment * noise.uniform(keys, AUGMENT, device=data.device)
        return self.row(self.made(data, keys), a, ids, keys)

    @abstractmethod
    def made(self, data: Tensor, keys: Tensor) -> Tensor:
        """Levels (B, C, H, W) -> what stands beside them, (B, *shape) in [-1, 1], where it is
        random a function of keys (B,)."""

    @abstractmethod
    def measure(self, images: Tensor, originals: Tensor, keys: Tensor) -> dict[str, Any]:
        """How pictures (n, C, H, W) of levels follow what was made of the originals and keys."""

    def finish(self, images: Tensor, pictures: Tensor) -> Tensor:
        """Pictures (n, C, H, W) of levels drawn beside pictures (n, *shape) -> as they are given to
        users."""
        return images

    @abstractmethod
    def numbers(self, pictures: Tensor, a: Tensor, keys: Tensor) -> Tensor:
        """pictures (B, *shape) in [-1, 1], noised to times a (B,) by noise of their keys -> what a
        row says of them."""

    @abstractmethod
    def planes(self, numbers: Tensor) -> Tensor:
        """What a row says of pictures -> the channels of them, (B, K, H, W)."""

    def row(self, pictures: Tensor, a: Tensor, ids: Tensor | None, keys: Tensor) -> Tensor:
        """pictures and times as in `numbers`, ids (B, M) or None -> the condition."""
        numbers = self.numbers(pictures, a, keys)
        there = [torch.ones_like(numbers[:, :1])] if self.says else []
        return _behind(ids, torch.cat([*there, numbers], dim=1))

    def none(self, ids: Tensor | None, n: int) -> Tensor:
        """The condition of n samples that are shown nothing, with ids (n, M) or None."""
        return _behind(ids, torch.zeros(n, self.size))

    def read(self, condition: Tensor) -> tuple[Tensor | None, Tensor]:
        """A condition -> ids (B, M) or None, and the channels (B, channels, H, W)."""
        ids, rest = self.split(condition)
        planes = self.planes(rest[:, 1:] if self.says else rest)
        return ids, with_plane(planes, rest[:, 0]) if self.says else planes

    def split(self, condition: Tensor) -> tuple[Tensor | None, Tensor]:
        """A condition -> ids (B, M) or None, and the numbers (B, size) behind them."""
        M = condition.shape[1] - self.size
        return condition[:, :M].round().long() if M else None, condition[:, M:]

    def under(self, ids: Tensor | None, condition: Tensor) -> Tensor:
        """The same pictures under other ids (B, M), None for "none"."""
        M = condition.shape[1] - self.size
        told = torch.zeros_like(condition[:, :M]) if ids is None else ids.to(condition)
        return torch.cat([told, condition[:, M:]], dim=1)


def with_plane(planes: Tensor, values: Tensor) -> Tensor:
    """Channels (B, K, H, W), and behind them one more that is values (B,) everywhere."""
    plane = values.view(-1, 1, 1, 1).expand(-1, 1, *planes.shape[2:])
    return torch.cat([planes, plane], dim=1)


def _behind(ids: Tensor | None, numbers: Tensor) -> Tensor:
    return numbers if ids is None else torch.cat([ids.to(numbers), numbers], dim=1)


class BesideNet(nn.Module):
    """A network of this panel that reads the conditions of `beside`: (x, logsnr, condition,
    previous) -> an output of x's shape. `net` takes the channels beside as its fifth argument."""

    def __init__(self, net: nn.Module, beside: Beside) -> None:
        super().__init__()
        self.net, self.beside = net, beside

    def forward(
        self, x: Tensor, logsnr: Tensor, condition: Tensor | None, previous: Tensor | None
    ) -> Tensor:
        if condition is None and self.beside.optional:
            condition = self.beside.none(None, len(x)).to(x)
        if condition is None:
            raise ConfigError(
                f"{self.beside.name}: this model {self.beside.task}: {self.beside.given}; and the "
                "grid of solver auto is fitted without one: choose another solver"
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
    parts = [to_levels(fit(open_picture(each, name), C, (h, w), box), BYTES) for each in listed]
    rows = torch.arange(n) % len(parts)
    return signed(torch.stack(parts)[rows])


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
) -> tuple[Tensor, Tensor | None]:
    """Ids (n, M) or None, and those that guidance departs from -> the conditions of a model that
    reads pictures and what guidance departs from: the same ones, under `negative` or "none"; or
    None, nothing at all, for a model that knows pictures drawn of none.

    Their noise is a function of the seeds. ConfigError for a model or pictures of another kind.
    """
    if beside is None:
        raise _draws_alone("low")
    if ids is None and negative is not None:
        ids = torch.zeros_like(negative)
    rows = _rows(beside, shown, ids, seeds)
    if negative is None and beside.optional:
        return rows, None
    return rows, beside.under(negative, rows)


def _rows(
    beside: Beside, shown: BesidePictures | None, ids: Tensor | None, seeds: Sequence[int]
) -> Tensor:
    if shown is None and beside.optional:
        return beside.none(ids, len(seeds))
    if shown is None:
        _, h, w = beside.shape
        raise ConfigError(
            f"{beside.name}: this model {beside.task} of {h} x {w} pixels: {beside.given}"
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
    return beside.row(pictures, torch.full((n,), shown.noise), ids, keys)
