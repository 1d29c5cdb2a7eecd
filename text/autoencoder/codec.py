"""Sentences <-> the latents of a frozen autoencoder, as a codec of `shared.codec`.

    x0 = (z - shift) / std        z the mean of q(z | x)

with the mean of each coordinate and one standard deviation of all around it, on the training data
of the run that first took the latents. A run keeps all it needs:

    RUN/autoencoder/     the autoencoder's run, as `shared.runs.copy_run` copies it
    RUN/latents.json     Measured

p(data | z_0) is what the decoder says of the sentence at z = shift + std z_0 / alpha: exact.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from shared.codec import check_range
from shared.errors import CheckpointError
from shared.files import write_text
from shared.frozen import Frozen
from shared.runs import load_learner, open_run
from shared.schedule import Level
from text.autoencoder.health import ROWS, Health, posteriors
from text.autoencoder.learner import AutoencoderLearner
from text.autoencoder.network import SentenceNetwork

FOLDER = "autoencoder"  # in the run folder
MEASURED = "latents.json"


@dataclass(frozen=True)
class Measured:
    """What was measured of an autoencoder, and which one it is. Latents are the same where `digest`
    is, of its weights, shift and std."""

    source: str
    sentences: int
    shift: list[float]
    std: float
    digest: str
    health: Health


class SentenceCodec(nn.Module):
    """Rows of ids (B, L) <-> x0 (B, latents, dim). What is encoded already passes as it is: data in
    floating point are x0. `temperature` is that of `words`."""

    def __init__(
        self, network: SentenceNetwork, measured: Measured, temperature: float = 0.0
    ) -> None:
        super().__init__()
        self.frozen, self.measured, self.temperature = Frozen(network), measured, temperature
        self.latent_shape = network.latent_shape
        self.shift: Tensor
        shift = torch.tensor(measured.shift).view(self.latent_shape)
        self.register_buffer("shift", shift, persistent=False)

    @property
    def network(self) -> SentenceNetwork:
        """The frozen autoencoder."""
        return cast(SentenceNetwork, self.frozen.module)

    def encode(self, data: Tensor) -> Tensor:
        if data.is_floating_point():
            return data
        check_range(data, self.network.size)
        mean, _ = posteriors(self.network, data)
        return (mean - self.shift) / self.measured.std

    def latents(self, x0: Tensor) -> Tensor:
        """x0 -> z, float32."""
        return x0.float() * self.measured.std + self.shift

    def decode(self, x0: Tensor) -> Tensor:
        """x0 -> the ids (B, L) that are likeliest one by one."""
        return self.write(x0)

    def write(
        self, x0: Tensor, seeds: Sequence[int] | None = None, temperature: float = 1.0
    ) -> Tensor:
        """x0 -> ids (B, L): greedy, or drawn with one seed a row at a temperature above 0."""
        z = self.latents(x0.to(self.shift.device))
        rows: list[Tensor] = []
        for start in range(0, len(z), ROWS):
            part = slice(start, start + ROWS)
            some = None if seeds is None else seeds[part]
            rows.append(self.network.write(z[part], some, temperature))
        return torch.cat(rows)

    def words(self, x0: Tensor, seeds: Sequence[int]) -> Tensor:
        """x0 -> ids (B, L) on the CPU: greedy at temperature 0, else drawn with these seeds."""
        if self.temperature == 0:
            return self.write(x0).cpu()
        return self.write(x0, seeds, self.temperature).cpu()

    def log_prob(self, data: Tensor, z_0: Tensor, level_0: Level) -> Tensor:
        """The decoder's log p(data | z_0), nats, (B,), the sentence's end included."""
        check_range(data, self.network.size)
        z = self.latents(z_0 / level_0.widen(z_0.ndim).alpha)
        return -self.network.nll(data, z).sum(1).to(z_0)


def load_codec(run: Path, temperature: float = 0.0) -> SentenceCodec:
    """The codec that a run keeps. CheckpointError when it is missing or damaged."""
    measured = read_measured(run)
    learner = load_learner(run / FOLDER)
    if not isinstance(learner, AutoencoderLearner):
        raise CheckpointError(f"{run / FOLDER}: not an autoencoder; train the run again")
    codec = SentenceCodec(learner.network, measured, temperature)
    return codec.to(next(learner.parameters()).device)


def read_shape(run: Path) -> tuple[int, int]:
    """(latents, dim) of the codec that a run keeps. CheckpointError when it is missing."""
    config = open_run(run / FOLDER).config.autoencoder
    return config.latents, config.dim


def read_measured(run: Path) -> Measured:
    """latents.json of a run. CheckpointError when it is missing or damaged."""
    path = run / MEASURED
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Measured(**found | {"health": Health(**found["health"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path}: missing or damaged ({error})") from None


def write_measured(measured: Measured, run: Path) -> None:
    """Write latents.json."""
    write_text(run / MEASURED, json.dumps(asdict(measured), indent=1))
