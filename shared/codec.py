"""The only border to a modality: data <-> clean latent x0.

A continuous codec gives `encode`, `decode` and log p(data | z_0), with z_0 the noisy latent at the
cleanest level (Kingma et al. 2021, eq. 8). A codec of discrete data also turns a network's logits
into the posterior mean of x0 and into a cross-entropy, so that a network may predict classes.
"""

from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.schedule import Level


class Codec(Protocol):
    """data (B, *data_shape) <-> x0 (B, *latent_shape), float32, mean about 0."""

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of one latent."""
        ...

    def encode(self, data: Tensor) -> Tensor:
        """data (B, *data_shape) -> x0 (B, *latent_shape). ValueError when data is out of range."""
        ...

    def decode(self, x0: Tensor) -> Tensor:
        """x0 (B, *latent_shape) -> the most likely data (B, *data_shape)."""
        ...

    def log_prob(self, data: Tensor, z_0: Tensor, level_0: Level) -> Tensor:
        """log p(data | z_0) in nats, (B,), summed over a datum's elements."""
        ...


@runtime_checkable
class DiscreteCodec(Protocol):
    """What a codec of discrete data adds: a categorical head."""

    @property
    def logit_channels(self) -> int:
        """Size of the last axis of the logits."""
        ...

    def evidence(self, x_t: Tensor, level: Level) -> Tensor:
        """Exact logits (B, ..., K) of independent, uniform data given x_t: the matched filter."""
        ...

    def mean(self, logits: Tensor) -> Tensor:
        """logits (B, ..., K) -> E[x0] under them (B, *latent_shape)."""
        ...

    def log_probs(self, logits: Tensor) -> Tensor:
        """logits (B, ..., K) -> log-probabilities of every value (B, ..., size)."""
        ...

    def nll(self, logits: Tensor, data: Tensor) -> Tensor:
        """Cross-entropy of data under logits, nats, (B,), summed over a datum's elements."""
        ...


@runtime_checkable
class PointCodec(Codec, DiscreteCodec, Protocol):
    """What a codec adds whose latents are points of a learned table."""

    def table(self) -> Tensor:
        """The points (K, C), C the last axis of a latent."""
        ...


@runtime_checkable
class SampledCodec(Codec, Protocol):
    """What a codec adds whose encoder is a distribution: training draws from it."""

    def draw(self, data: Tensor, keys: Tensor) -> Tensor:
        """data (B, *data_shape), keys (B,) -> x0 ~ q(x0 | data) (B, *latent_shape)."""
        ...


def check_range(data: Tensor, size: int) -> None:
    """ValueError unless data holds integers in [0, size). Compared as Python integers: a uint8
    tensor would compare 256 as 0."""
    if data.numel() == 0:
        return
    low, high = int(data.min()), int(data.max())
    if low < 0 or high >= size:
        raise ValueError(f"codec: data in [{low}, {high}], expected integers in [0, {size})")


class Identity(nn.Module):
    """x0 = data; p(data | z_0) is the Gaussian that z_0 implies."""

    def __init__(self, latent_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.latent_shape = latent_shape

    def encode(self, data: Tensor) -> Tensor:
        return data.float()

    def decode(self, x0: Tensor) -> Tensor:
        return x0

    def log_prob(self, data: Tensor, z_0: Tensor, level_0: Level) -> Tensor:
        level_0 = level_0.widen(z_0.ndim)
        std = (level_0.sigma / level_0.alpha).expand_as(z_0)
        normal = torch.distributions.Normal(z_0 / level_0.alpha, std)
        return normal.log_prob(self.encode(data)).flatten(1).sum(1)


class Bits(nn.Module):
    """Analog bits: integers in [0, size) as bits in {-scale, +scale} (Chen et al. 2022).

    data (B, *shape) of integers <-> x0 (B, *shape, n), n = ceil(log2 size), the most significant
    bit first, in base 2 or Gray code. When size is no power of two, x0 decodes to the nearest
    *valid* word, so that no id is ever invalid. The head has one logit per bit; `evidence` is
    that of fair bits, which uniform data has when size is a power of two.
    """

    def __init__(
        self, size: int, shape: tuple[int, ...], scale: float = 1.0, gray: bool = False
    ) -> None:
        super().__init__()
        if size < 2:
            raise ValueError(f"codec: size = {size}: analog bits need two values or more")
        self.size, self.shape, self.scale = size, shape, scale
        bits = (size - 1).bit_length()
        self.latent_shape = (*shape, bits)
        self.logit_channels = bits
        values = torch.arange(size)
        words = values ^ (values >> 1) if gray else values
        places = torch.arange(bits - 1, -1, -1)
        self.table: Tensor
        signs = ((words[:, None] >> places) & 1).float() * 2 - 1
        self.register_buffer("table", signs, persistent=False)

    def signs(self, data: Tensor) -> Tensor:
        """data (B, *shape) -> its bits as +-1 (B, *shape, n)."""
        check_range(data, self.size)
        return self.table[data.long()]

    def encode(self, data: Tensor) -> Tensor:
        return self.signs(data) * self.scale

    def decode(self, x0: Tensor) -> Tensor:
        # all words have one norm, so the largest correlation is the nearest word
        return (x0 @ self.table.to(x0).T).argmax(-1)

    def evidence(self, x_t: Tensor, level: Level) -> Tensor:
        level = level.widen(x_t.ndim)
        return 2 * self.scale * level.alpha / level.sigma**2 * x_t

    def mean(self, logits: Tensor) -> Tensor:
        return torch.tanh(logits / 2) * self.scale

    def log_probs(self, logits: Tensor) -> Tensor:
        return (logits @ self.table.to(logits).T / 2).log_softmax(-1)  # of the valid words only

    def nll(self, logits: Tensor, data: Tensor) -> Tensor:
        return F.softplus(-logits * self.signs(data)).flatten(1).sum(1)

    def log_prob(self, data: Tensor, z_0: Tensor, level_0: Level) -> Tensor:
        """p(value | z_0) over the valid words, each equally likely a priori."""
        check_range(data, self.size)
        fit = self.evidence(z_0, level_0) @ self.table.to(z_0).T / 2
        return fit.log_softmax(-1).gather(-1, data.long().unsqueeze(-1)).flatten(1).sum(1)
