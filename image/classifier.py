"""A small residual network that tells what a picture shows: the judge of generated ones.

Pre-activation blocks (He et al. 2016) with group norm, so that it has no running statistics and any
batch gives the same answers. Its last hidden layer is the feature space in which `image.metrics`
measures. The map before it keeps 4 x 4 places: features see where things are, not only which.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared import noise
from shared.levels import signed

SHIFT = 0  # stream of `noise` under a sample's key


class Block(nn.Module):
    """x + two convolutions of x; with `stride` 2, half the side. With `told` numbers (B, told) of
    what else it is to know, scaled and shifted by them after the second norm; at first by none."""

    def __init__(self, channels: int, out: int, stride: int, told: int = 0) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.GroupNorm(8, channels), nn.GroupNorm(8, out)])
        self.first = nn.Conv2d(channels, out, 3, stride, 1)
        self.second = nn.Conv2d(out, out, 3, 1, 1)
        self.skip = (
            nn.Identity() if stride == 1 and channels == out else nn.Conv2d(channels, out, 1)
        )
        self.stride = stride
        self.modulate = nn.Linear(told, 2 * out) if told else None
        if self.modulate is not None:
            nn.init.zeros_(self.modulate.weight)
            nn.init.zeros_(self.modulate.bias)

    def forward(self, x: Tensor, told: Tensor | None = None) -> Tensor:
        h = self.norms[1](self.first(F.silu(self.norms[0](x))))
        if self.modulate is not None:
            scale, shift = self.modulate(told)[:, :, None, None].chunk(2, dim=1)
            h = torch.addcmul(shift, h, 1 + scale)
        h = self.second(F.silu(h))
        return h + self.skip(x if self.stride == 1 else F.avg_pool2d(x, 2, ceil_mode=True))


def stages(channels: int, side: int, width: int, told: int = 0) -> tuple[list[nn.Module], int]:
    """A convolution of pictures of so many channels, and blocks until at most 4 places are left
    along a side; with how many channels that ends."""
    stride = 1 if side <= 16 else 2
    layers: list[nn.Module] = [
        nn.Conv2d(channels, width, 3, stride, 1), Block(width, width, 1, told)
    ]  # fmt: skip
    side, inner = side // stride, width
    while side > 4:
        out = min(2 * inner, 4 * width)
        layers.append(Block(inner, out, 2, told))
        side, inner = -(-side // 2), out
    return layers, inner


def label_losses(logits: Tensor, condition: Tensor, several: bool) -> Tensor:
    """logits (B, ids - 1), one per id from 1 on, and condition (B, M) -> cross-entropy (B,), nats;
    of several ids, the mean of the binary ones of all ids."""
    if not several:
        return F.cross_entropy(logits, condition[:, 0] - 1, reduction="none")
    there = torch.zeros(len(logits), logits.shape[1] + 1, device=logits.device)
    there = there.scatter_(1, condition, 1.0)[:, 1:]
    return F.binary_cross_entropy_with_logits(logits, there, reduction="none").mean(1)


class Classifier(nn.Module):
    """A learner as `shared.task.Panel.learner` wants it, over pictures (B, C, H, W) of levels.

    With conditions of one id it learns which one; of several (a scene), which of all ids are there.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        levels: int,
        conditions: int,
        several: bool,
        width: int = 32,
        dropout: float = 0.2,
        autocast: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        C, H, W = shape
        self.levels, self.several, self.autocast = levels, several, autocast
        layers, channels = stages(C, min(H, W), width)
        self.body = nn.Sequential(
            *layers, nn.GroupNorm(8, channels), nn.SiLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten()
        )
        self.hidden = nn.Linear(16 * channels, 2 * width)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(2 * width, conditions - 1)

    def features(self, images: Tensor) -> Tensor:
        """images (B, C, H, W) of levels -> the last hidden layer (B, 2 width), float32."""
        x = signed(images, self.levels)
        with torch.autocast(x.device.type, self.autocast, enabled=self.autocast is not None):
            hidden = self.hidden(self.dropout(self.body(x)))
        return F.silu(hidden.float())

    def logits(self, features: Tensor) -> Tensor:
        """features (B, 2 width) -> one logit per condition id from 1 on (B, conditions - 1)."""
        return self.out(features)

    def forward(
        self, data: Tensor, condition: Tensor, keys: Tensor, t: Tensor
    ) -> tuple[Tensor, None]:
        """Cross-entropy (B,), nats; of several ids, the mean of their binary ones. In training each
        picture is shifted by a few pixels, a function of its key."""
        if self.training:
            data = jittered(data, keys)
        return label_losses(self.logits(self.features(data)), condition, self.several), None


def jittered(images: Tensor, keys: Tensor) -> Tensor:
    """images (B, C, H, W) moved by up to a fourteenth of their side, as keys (B,) say."""
    most = max(1, min(images.shape[2:]) // 14)
    return shifted(images, noise.uniform(keys, SHIFT, (2,)), most)


def shifted(images: Tensor, uniforms: Tensor, most: int) -> Tensor:
    """images (B, C, H, W) moved by -most .. most pixels each way as uniforms (B, 2) in (0, 1) say;
    edges are repeated."""
    B, _, H, W = images.shape
    move = (uniforms * (2 * most + 1)).long() - most
    rows = (torch.arange(H, device=images.device) + move[:, :1]).clamp(0, H - 1)
    columns = (torch.arange(W, device=images.device) + move[:, 1:]).clamp(0, W - 1)
    each = torch.arange(B, device=images.device)[:, None, None]
    return images.movedim(1, -1)[each, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)
