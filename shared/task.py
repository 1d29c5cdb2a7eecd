"""What a panel hands to the core: data, codec and network of one run, behind one protocol.

The command finds panels through the entry points `diptych.panels`, so a third one needs no change
here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from shared.codec import Codec
from shared.config import DiffusionConfig, TrainConfig
from shared.denoiser import Denoiser


class RunConfig(Protocol):
    """The sections the core reads of any panel's configuration."""

    @property
    def panel(self) -> str: ...
    @property
    def train(self) -> TrainConfig: ...
    @property
    def diffusion(self) -> DiffusionConfig: ...


class Examples(Protocol):
    """Training data: row numbers in, tensors out."""

    def __len__(self) -> int: ...

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """rows (B,) -> data (B, *data_shape) and condition (B, M) of ids or None."""
        ...


@dataclass(frozen=True)
class Model:
    """The trained parts: a Denoiser (its network, its codec) and the rate of dropped conditions."""

    denoiser: Denoiser
    codec: Codec
    drop_rate: float


@dataclass(frozen=True)
class SampleRequest:
    """`diptych sample`: what every panel understands."""

    n: int
    seed: int
    solver: str
    steps: int
    guidance: float
    condition: str | None = None
    given: str | None = None


class Panel(Protocol):
    """A modality: its configuration and how to build, sample and evaluate a run of it."""

    @property
    def name(self) -> str: ...

    @property
    def config_type(self) -> type[Any]: ...

    def prepare(self, config: Any, run: Path) -> None:
        """Make what the run needs beside its weights (a tokenizer) and save it in the run folder."""
        ...

    def examples(self, config: Any, run: Path) -> Examples:
        """The training data."""
        ...

    def model(self, config: Any, run: Path) -> Model:
        """A fresh model of this configuration."""
        ...

    def sample(self, run: Path, request: SampleRequest, out: Path) -> dict[str, Any]:
        """Write samples under `out`; returns what was written, for --json."""
        ...

    def evaluate(self, run: Path, n: int, seed: int, steps: int, solver: str) -> dict[str, Any]:
        """Measure a run; returns numbers with sample counts and settings."""
        ...

    def data(self) -> Sequence[dict[str, Any]]:
        """The embedded data sets: name, size, what they hold."""
        ...
