"""What a panel hands to the core, behind one protocol.

The command finds panels through the entry points `diptych.panels`, so a third one needs no change
here.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from shared.config import DiffusionConfig, TrainConfig
from shared.edits import EditRequest
from shared.requests import (
    ControlRequest,
    EvaluateRequest,
    ExportRequest,
    PairRequest,
    SampleRequest,
    WriteRequest,
)
from shared.scene import Scene


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
        """rows (B,) -> data (B, *data_shape) and condition (B, M) of ids, (B, M, D) of vectors, or
        None."""
        ...


@runtime_checkable
class Stepwise(Protocol):
    """A learner whose loss changes in the course of training."""

    def begin_step(self, step: int) -> None:
        """Told how many updates were done, before each."""
        ...


class Trainable(Protocol):
    """What training needs of a panel: its configuration, data and model."""

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
        or None. Diffusion models are a `shared.learner.DiffusionLearner`; a learner may be
        `Stepwise`."""
        ...


class Panel(Trainable, Protocol):
    """A modality: its configuration and how to build, sample and evaluate a run of it."""

    def sample(self, run: Path, request: SampleRequest, out: Path) -> dict[str, Any]:
        """Write samples under `out`; returns what was written, for --json."""
        ...

    def control(
        self, run: Path, controls: Sequence[str], request: ControlRequest, out: Path
    ) -> dict[str, Any]:
        """Write samples that satisfy NAME=VALUE controls, or the request's targets, under `out`;
        returns the share that do, for --json. ConfigError for a panel without controls."""
        ...

    def edit(self, run: Path, request: EditRequest, out: Path) -> dict[str, Any]:
        """Write what a given datum becomes under `out`; returns what was written, for --json.
        ConfigError for a panel that has another way."""
        ...

    def export(self, run: Path, request: ExportRequest, out: Path) -> dict[str, Any]:
        """Write a run as a folder of another library at `out`, which must not exist; returns what
        it is, for --json. ConfigError, with the part, for what that library cannot represent."""
        ...

    def write(self, run: Path, request: WriteRequest, out: Path) -> dict[str, Any]:
        """Write what a message, a tone and an audience ask for under `out`; returns it, for --json.
        ConfigError for a panel or a run that cannot."""
        ...

    def reads(self, folder: Path) -> bool:
        """Whether it can sample this folder, which is no run."""
        ...

    def evaluate(self, run: Path, request: EvaluateRequest) -> dict[str, Any]:
        """Measure a run; returns numbers with sample counts and settings."""
        ...

    def frontier(self, run: Path, request: EvaluateRequest) -> dict[str, Any]:
        """Measure a run at every value of request.frontier; writes frontier.json and frontier.png
        in the run folder and returns what the first holds. ConfigError when it cannot."""
        ...

    def express(
        self, scenes: Sequence[Scene], request: PairRequest, folder: Path
    ) -> list[dict[str, str]]:
        """Scenes in this modality: what is written under `folder`, and the columns that belong to
        each scene, such as {"file_name": "00000.png"} or {"text": "there is a red star ."}."""
        ...

    def datasets(self) -> dict[str, str]:
        """The embedded data sets: name -> one line on what it holds."""
        ...
