"""Pictures <-> the latents of a frozen autoencoder, as a codec of `shared.codec`.

    x0 = scale (z - shift) / std        z the mean of the encoder, a draw of it, or the nearest code

with the mean and standard deviation of all numbers of z on the training data (Rombach et al. 2022,
app. G, divide by the latter). A run keeps a copy of its autoencoder, as diffusers writes it:

    RUN/autoencoder/config.json, diffusion_pytorch_model.safetensors    the network
    RUN/autoencoder/latents.json                                        Measured

p(data | z_0) is a Laplace around the decoded z_0 / alpha, normalised over the grid of levels, of
the measured mean absolute error b: the law whose likelihood an L1 loss raises. It is there for
autoencoders trained on that loss alone; nats of one trained for looks compare with nothing.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.autoencoders.vq_model import VQModel
from torch import Tensor, nn

from image.autoencoder.network import (
    Network,
    chosen,
    decoded,
    encoded,
    latent_shape,
    load_network,
    nearest,
    posterior,
    table,
)
from image.codec import Pixels
from image.config import CodecConfig
from shared import noise
from shared.errors import CheckpointError, ConfigError
from shared.frozen import Frozen
from shared.objective.streams import ENCODE
from shared.schedule import Level

FOLDER = "autoencoder"  # in the run folder
MEASURED = "latents.json"
ROWS = 64  # pictures that the network takes at once


@dataclass(frozen=True)
class Measured:
    """What was measured of an autoencoder on the training data of a diffusion model."""

    source: str
    images: int
    shift: float  # mean of z
    std: float  # of z around it
    laplace_scale: float | None  # b, of pictures in [-1, 1]; None where nats would not compare


class LatentCodec(nn.Module):
    """data (B, C, H, W), integers in [0, levels) <-> x0 (B, c, h, w).

    Where `encode` and `draw` take pictures they also take their `moments`, in floating point.
    `log_prob` is None when `measured` has no `laplace_scale`.
    """

    def __init__(
        self,
        network: Network,
        levels: int,
        shape: tuple[int, int, int],
        measured: Measured,
        scale: float = 1.0,
        sampled: bool = False,
    ) -> None:
        super().__init__()
        if sampled and not isinstance(network, AutoencoderKL):
            raise ConfigError(
                f"codec.sample = true: a {type(network).__name__} has no Gaussian to draw from; "
                "leave it out"
            )
        self.frozen, self.pixels = Frozen(network), Pixels(levels, shape)
        self.measured, self.sampled = measured, sampled
        self.latent_shape = latent_shape(network, shape)
        self.factor = scale / measured.std
        self.log_prob: Callable[[Tensor, Tensor, Level], Tensor] | None = (
            None if measured.laplace_scale is None else self._log_prob
        )

    @property
    def network(self) -> Network:
        """The frozen autoencoder."""
        return cast(Network, self.frozen.module)

    @torch.no_grad()
    def moments(self, data: Tensor) -> Tensor:
        """Levels -> z (B, c, h, w); with `sampled` the standard deviation behind the mean, (B, 2 c,
        h, w). ValueError when a level is out of range."""
        x = self.pixels.encode(data)
        return torch.cat([moments(self.network, part, self.sampled) for part in x.split(ROWS)])

    def encode(self, data: Tensor) -> Tensor:
        """x0, the encoder's mean. ValueError when a level is out of range."""
        mean = self._moments(data)[:, : self.latent_shape[0]]
        return (mean - self.measured.shift) * self.factor

    def draw(self, data: Tensor, keys: Tensor) -> Tensor:
        """x0 from a draw of the encoder, a function of keys (B,); without `sampled`, its mean."""
        if not self.sampled:
            return self.encode(data)
        mean, std = self._moments(data).chunk(2, dim=1)
        z = mean + std * noise.normal(keys, ENCODE, self.latent_shape)
        return (z - self.measured.shift) * self.factor

    @property
    def smooth(self) -> bool:
        """Whether `pictures` has derivatives: a table of codes has none."""
        return not isinstance(self.network, VQModel)

    def pictures(self, x0: Tensor) -> Tensor:
        """x0 -> what the decoder makes of it (B, C, H, W), about [-1, 1]; of a table of codes, of
        the nearest ones."""
        z = x0.float() / self.factor + self.measured.shift
        return torch.cat([decoded(self.network, part) for part in z.split(ROWS)])

    def decode(self, x0: Tensor) -> Tensor:
        """x0 -> the nearest levels, int64."""
        return self.pixels.decode(self.pictures(x0))

    def _log_prob(self, data: Tensor, z_0: Tensor, level_0: Level) -> Tensor:
        """Takes memory for B C H W levels floats."""
        assert self.measured.laplace_scale is not None
        x_hat = self.pictures(z_0 / level_0.widen(z_0.ndim).alpha).to(z_0)
        apart = (x_hat.unsqueeze(-1) - self.pixels.values.to(z_0)).abs()
        fit = (-apart / self.measured.laplace_scale).log_softmax(-1)
        return fit.gather(-1, data.long().unsqueeze(-1)).flatten(1).sum(1)

    def _moments(self, data: Tensor) -> Tensor:
        return data if data.is_floating_point() else self.moments(data)


def moments(network: Network, x: Tensor, sampled: bool = False) -> Tensor:
    """Pictures (B, C, H, W) in [-1, 1] -> z (B, c, h, w), and with `sampled` its standard deviation
    behind it. Vectors of a table are those of the table."""
    if isinstance(network, AutoencoderKL):
        found = posterior(network, x)
        return torch.cat([found.mean, found.std], dim=1) if sampled else found.mean
    if isinstance(network, AutoencoderTiny):
        return encoded(network, x)
    assert isinstance(network, VQModel)
    codes = table(network)
    return chosen(codes, nearest(encoded(network, x), codes))


@torch.no_grad()
def measure(
    network: Network, x: Tensor, source: str, sampled: bool, likely: bool, device: torch.device
) -> Measured:
    """Shift, std and error of an autoencoder on pictures x (N, C, H, W) in [-1, 1], in float64.
    `likely`: its nats compare. CheckpointError when all its latents are one number."""
    nn.Module.to(network.eval(), device)
    total = square = error = 0.0
    count = 0
    for part in x.split(ROWS):
        found = moments(network, part.to(device), sampled).double()
        mean, std = found.chunk(2, dim=1) if sampled else (found, torch.zeros_like(found))
        total += float(mean.sum())
        square += float((mean.square() + std.square()).sum())
        count += mean.numel()
        x_hat = decoded(network, mean.float())
        error += float((part.to(device) - x_hat).abs().double().sum())
    shift = total / count
    variance = square / count - shift**2
    if not variance > 0:
        raise CheckpointError(f"{source}: its latents do not vary: nothing was learned")
    return Measured(source, len(x), shift, variance**0.5, error / x.numel() if likely else None)


def write_codec(network: Network, measured: Measured, folder: Path) -> None:
    """Write a network as diffusers does, its scale and shift in its configuration, and what was
    measured of it. VQModel has no shift there."""
    stated = {"scaling_factor": 1 / measured.std, "shift_factor": measured.shift}
    network.register_to_config(**{k: v for k, v in stated.items() if k in network.config})
    network.save_pretrained(folder)
    (folder / MEASURED).write_text(json.dumps(asdict(measured), indent=2), encoding="utf-8")


def load_codec(
    config: CodecConfig, levels: int, shape: tuple[int, int, int], run: Path
) -> LatentCodec:
    """The codec that a run keeps. CheckpointError when it is missing or damaged."""
    folder = run / FOLDER
    try:
        found = json.loads((folder / MEASURED).read_text(encoding="utf-8"))
        measured = Measured(**found)
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{folder / MEASURED}: missing or damaged ({error})") from None
    network = load_network(folder)
    for asked, name in ((config.tiling, "tiling"), (config.slicing, "slicing")):
        if asked:
            _enable(network, name)
    return LatentCodec(network, levels, shape, measured, config.scale, config.sample)


def _enable(network: Network, name: str) -> None:
    try:
        getattr(network, f"enable_{name}")()
    except NotImplementedError:
        raise ConfigError(
            f"codec.{name} = true: a {type(network).__name__} has none; leave it out"
        ) from None
