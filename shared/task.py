"""What a panel hands to the core, behind one protocol.

The command finds panels through the entry points `diptych.panels`, so a third one needs no change
here.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from shared.config import DiffusionConfig, TrainConfig
from shared.errors import ConfigError
from shared.solver import SOLVERS


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
class SampleRequest:
    """`diptych sample` and `evaluate`: what every panel understands. Sample i has the seed
    `seed + i`. With `likelihood`, evaluation takes `draws` draws of noise a datum for the bound."""

    n: int
    seed: int = 0
    solver: str = "dpmpp_2m"
    steps: int = 20
    guidance: float = 1.0
    guidance_interval: tuple[float, float] | None = None
    temperature: float = 1.0
    condition: str | None = None
    given: str | None = None
    trajectory: bool = False
    weights: str = "ema"
    likelihood: bool = False
    draws: int = 8

    def __post_init__(self) -> None:
        for name, value in (("n", self.n), ("steps", self.steps), ("draws", self.draws)):
            if value < 1:
                raise ConfigError(f"{name} = {value}: expected 1 or more")
        interval = self.guidance_interval
        if interval is not None and not interval[0] < interval[1]:
            raise ConfigError(
                f"guidance_interval = {interval[0]} {interval[1]}: expected two values of logsnr, "
                "the lower (noisier) one first"
            )
        if not self.temperature > 0:
            raise ConfigError(f"temperature = {self.temperature}: expected a number above 0")
        if self.solver not in SOLVERS:
            raise ConfigError(f"solver = {self.solver!r}: expected one of {', '.join(SOLVERS)}")
        if self.weights not in ("ema", "model"):
            raise ConfigError(f"weights = {self.weights!r}: expected ema or model")


class Panel(Protocol):
    """A modality: its configuration and how to build, sample and evaluate a run of it."""

    @property
    def name(self) -> str: ...

    @property
    def config_type(self) -> type[Any]: ...

    def prepare(self, config: Any, run: Path) -> None:
        """Make what the run needs beside its weights (a tokenizer), in the run folder."""
        ...

    def examples(self, config: Any, run: Path) -> Examples:
        """The training data."""
        ...

    def learner(self, config: Any, run: Path) -> nn.Module:
        """A fresh trainable module: forward(data, condition, keys, t) -> losses (B,), logsnr (B,)
        or None. Diffusion models are a `shared.learner.DiffusionLearner`."""
        ...

    def sample(self, run: Path, request: SampleRequest, out: Path) -> dict[str, Any]:
        """Write samples under `out`; returns what was written, for --json."""
        ...

    def evaluate(self, run: Path, request: SampleRequest) -> dict[str, Any]:
        """Measure a run; returns numbers with sample counts and settings."""
        ...

    def datasets(self) -> dict[str, str]:
        """The embedded data sets: name -> one line on what it holds."""
        ...
