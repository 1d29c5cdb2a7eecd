"""What a panel hands to the core, behind one protocol.

The command finds panels through the entry points `diptych.panels`, so a third one needs no change
here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Protocol

import tyro
from torch import Tensor, nn

from shared.config import DiffusionConfig, TrainConfig
from shared.errors import ConfigError
from shared.sampling import Sampling
from shared.sweep import parse_sweep


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


@dataclass(frozen=True, kw_only=True)
class Request(Sampling):
    """What `diptych sample` and `evaluate` have in common.

    Attributes:
        n: How many samples.
        seed: Sample i is drawn with seed + i, whatever n is.
        weights: ema (the moving average) or model (the raw weights).
    """

    n: Annotated[int, tyro.conf.arg(aliases=["-n"])]
    seed: int = 0
    weights: str = "ema"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n < 1:
            raise ConfigError(f"n = {self.n}: expected 1 or more")
        if self.weights not in ("ema", "model"):
            raise ConfigError(f"weights = {self.weights!r}: expected ema or model")

    @property
    def seeds(self) -> range:
        """One for each sample."""
        return range(self.seed, self.seed + self.n)


@dataclass(frozen=True, kw_only=True)
class SampleRequest(Request):
    """What to sample, and how.

    Attributes:
        condition: What to sample: a class by name or number; `all` in turn.
        prompt: What to write from or to draw, in words; for a causal model that writes from
            nothing, how each sentence begins.
        given: What must stay, with [MASK] for what is free (panels that can infill).
        trajectory: Also write the denoising of the first sample.
        mbr: Draw this many candidates for each sample and keep the one that the others agree with
            most, by minimum Bayes risk (panels that can compare them).
        n_best: Also write the best of these candidates, this many (mbr at most), with how much the
            others agree with each.
    """

    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 16
    condition: Annotated[str | None, tyro.conf.arg(name="class")] = None
    prompt: str | None = None
    given: str | None = None
    trajectory: bool = False
    mbr: int = 1
    n_best: int = 1


@dataclass(frozen=True, kw_only=True)
class ControlRequest(Request):
    """How many controlled samples, and for which targets.

    Attributes:
        n: How many samples of each target.
        guidance: How strongly the whole sample follows what is asked for: 1 as much as the model's
            own probabilities say.
        mbr: Draw this many candidates for each sample and keep the one that the others agree with
            most, by minimum Bayes risk.
        targets: A file of targets, one JSON object of controls a line, in place of NAME=VALUE; or
            one of Diffusion-LM's, as text or gzip.
        evaluate: The same, and measure more: targets that cannot be satisfied count as missed, and
            samples are held against ones without control.
        tagged: A folder of sentences with the part of speech of each word, which judge and guide
            learn from (default for evaluate: the folder of its file).
    """

    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 8
    solver: str = "ancestral"
    steps: int = 64
    guidance: float = 1.5
    mbr: int = 1
    targets: Path | None = None
    evaluate: Path | None = None
    tagged: Path | None = None


@dataclass(frozen=True, kw_only=True)
class EvaluateRequest(Request):
    """What to measure, and on which samples.

    Attributes:
        n: How many samples to draw and to compare.
        likelihood: Also bound -log p of n held-out data: nats, bits/dim or nats/token.
        draws: Draws of noise a datum for that bound.
        frontier: Instead, likeness beside variety at several values of one setting:
            temperature=0.7,0.8,0.9 or steps=8,32 or td=0,1; writes RUN/frontier.json and
            RUN/frontier.png (panels that can).
    """

    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 256
    likelihood: bool = False
    draws: int = 8
    frontier: Annotated[str | None, tyro.conf.arg(metavar="NAME=VALUE,...")] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.draws < 1:
            raise ConfigError(f"draws = {self.draws}: expected 1 or more")
        if self.frontier is not None:
            if self.likelihood:
                raise ConfigError(
                    "likelihood, frontier: the bound is the same however samples are drawn; ask "
                    "for one of them"
                )
            self.points()

    def points(self) -> dict[float, "EvaluateRequest"]:
        """The same request at each value of its frontier. ConfigError for an impossible value."""
        sweep = parse_sweep("frontier", self.frontier or "")
        at: Any = {value: {sweep.name: value} for value in sweep.values}
        return {value: replace(self, frontier=None, **change) for value, change in at.items()}


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

    def control(
        self, run: Path, controls: Sequence[str], request: ControlRequest, out: Path
    ) -> dict[str, Any]:
        """Write samples that satisfy NAME=VALUE controls, or the request's targets, under `out`;
        returns the share that do, for --json. ConfigError for a panel without controls."""
        ...

    def evaluate(self, run: Path, request: EvaluateRequest) -> dict[str, Any]:
        """Measure a run; returns numbers with sample counts and settings."""
        ...

    def frontier(self, run: Path, request: EvaluateRequest) -> dict[str, Any]:
        """Measure a run at every value of request.frontier; writes frontier.json and frontier.png
        in the run folder and returns what the first holds. ConfigError when it cannot."""
        ...

    def datasets(self) -> dict[str, str]:
        """The embedded data sets: name -> one line on what it holds."""
        ...
