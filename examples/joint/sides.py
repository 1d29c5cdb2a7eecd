"""Two modalities, one network: a noise level each (Bao et al. 2023, UniDiffuser).

    x^i_t = alpha(t^i) x^i + sigma(t^i) eps^i,  i = 0, 1

and one estimate of (E[x^0 | x^0_t, x^1_t], E[x^1 | x^0_t, x^1_t]) for all (t^0, t^1). Nothing here
knows pixels or words: a side is a codec, and what the network predicts of it.
"""

import math
from typing import NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from shared.codec import Codec
from shared.denoiser import estimate, unit_scaled
from shared.schedule import Level

Pair: TypeAlias = tuple[Tensor, Tensor]
Levels: TypeAlias = tuple[Level, Level]


class Previous(NamedTuple):
    """The last estimates of both sides; None where there is none."""

    first: Tensor | None = None
    second: Tensor | None = None


NOTHING = Previous()


class PairDenoise(Protocol):
    """x_t, a pair of (B, ...), with a level for each -> x0_hat of both. At temperatures other than
    1, from the logits of a categorical side divided by it."""

    def __call__(
        self,
        x_t: Pair,
        levels: Levels,
        previous: Previous = NOTHING,
        temperature: float = 1.0,
    ) -> Pair: ...


class Side(nn.Module):
    """One modality: its codec, what is predicted of it, and the root mean square of its x0."""

    def __init__(self, codec: Codec, prediction: str, data_std: float, weighting: str) -> None:
        super().__init__()
        self.codec, self.prediction = codec, prediction
        self.data_std, self.weighting = data_std, weighting

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one latent."""
        return self.codec.latent_shape

    @property
    def size(self) -> int:
        """Numbers in one latent."""
        return math.prod(self.shape)

    def estimate(self, output: Tensor, x_t: Tensor, level: Level) -> Tensor:
        """Network output (B, ...) -> x0_hat (B, *shape)."""
        return estimate(self.prediction, output, x_t, level, self.data_std, self.codec)


class PairDenoiser(nn.Module):
    """A network of both sides as a `PairDenoise`, in x_t's dtype; inside, `autocast` if given.

    net(x, logsnr, previous) takes pairs: x (B, *shape) scaled to unit variance, logsnr (B,), and,
    with self-conditioning, the last estimates (zeros where there is none), else None; and gives a
    pair of outputs.
    """

    def __init__(
        self,
        net: nn.Module,
        sides: tuple[Side, Side],
        self_condition: bool = False,
        autocast: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.net, self.sides = net, nn.ModuleList(sides)
        self.self_condition, self.autocast = self_condition, autocast

    @property
    def both(self) -> tuple[Side, Side]:
        """The two sides."""
        first, second = self.sides
        assert isinstance(first, Side)
        assert isinstance(second, Side)
        return first, second

    def outputs(self, x_t: Pair, levels: Levels, previous: Previous = NOTHING) -> Pair:
        """What the network says of x_t, a pair of (B, *shape), each at its level, () or (B,)."""
        x, logsnr, last = [], [], []
        for side, state, level, before in zip(self.both, x_t, levels, previous, strict=True):
            x.append(unit_scaled(state, level, side.data_std))
            logsnr.append(level.logsnr.reshape(-1).expand(len(state)))
            last.append(torch.zeros_like(state) if before is None else before / side.data_std)
        device = x_t[0].device.type
        with torch.autocast(device, self.autocast, enabled=self.autocast is not None):
            first, second = self.net(x, logsnr, last if self.self_condition else None)
        return first.to(x_t[0].dtype), second.to(x_t[1].dtype)

    def forward(
        self,
        x_t: Pair,
        levels: Levels,
        previous: Previous = NOTHING,
        temperature: float = 1.0,
    ) -> Pair:
        outputs = self.outputs(x_t, levels, previous)
        first, second = (
            side.estimate(
                output / temperature if side.prediction == "categorical" else output, state, level
            )
            for side, output, state, level in zip(self.both, outputs, x_t, levels, strict=True)
        )
        return first, second


class PairCodec(nn.Module):
    """Two sides' data, one row of numbers (B, N0 + N1), <-> their latents, one row (B, D0 + D1).

    `shapes` are those of the data, which are integers, or of what is `encoded` floating point that
    its codec takes as it is. ValueError for rows of another length.
    """

    def __init__(
        self,
        codecs: tuple[Codec, Codec],
        shapes: tuple[tuple[int, ...], ...],
        encoded: tuple[bool, bool] = (False, False),
    ) -> None:
        super().__init__()
        self.codecs, self.shapes, self.encoded = codecs, shapes, encoded
        self.sizes = [math.prod(codec.latent_shape) for codec in codecs]
        self.latent_shape = (sum(self.sizes),)

    def data(self, rows: Tensor) -> Pair:
        """Rows of both -> the data of each (B, *data_shape), int64 or floating point."""
        sizes = [math.prod(shape) for shape in self.shapes]
        if rows.ndim != 2 or rows.shape[1] != sum(sizes):
            raise ValueError(
                f"data {tuple(rows.shape)}: expected (B, {sizes[0]} + {sizes[1]}), both of a pair"
            )
        first, second = (
            (part if encoded else part.long()).unflatten(1, shape)
            for part, shape, encoded in zip(
                rows.split(sizes, 1), self.shapes, self.encoded, strict=True
            )
        )
        return first, second

    def split(self, x: Tensor) -> Pair:
        """Latents of both (B, D0 + D1) -> those of each (B, *latent_shape)."""
        first, second = x.split(self.sizes, 1)
        return (
            first.unflatten(1, self.codecs[0].latent_shape),
            second.unflatten(1, self.codecs[1].latent_shape),
        )

    def encode(self, data: Tensor) -> Tensor:
        return join([c.encode(one) for c, one in zip(self.codecs, self.data(data), strict=True)])

    def decode(self, x0: Tensor) -> Tensor:
        return join([c.decode(one) for c, one in zip(self.codecs, self.split(x0), strict=True)])

    def log_prob(self, data: Tensor, z_0: Tensor, level_0: Level) -> Tensor:
        parts = zip(self.codecs, self.data(data), self.split(z_0), strict=True)
        first, second = (codec.log_prob(one, z, level_0) for codec, one, z in parts)
        return first + second


def join(parts: list[Tensor] | Pair) -> Tensor:
    """Tensors (B, ...) -> one row for each sample (B, N0 + N1 + ...)."""
    return torch.cat([part.flatten(1) for part in parts], 1)
