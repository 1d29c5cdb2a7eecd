"""A packaged configuration with its data, ready to be trained with small changes."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from shared.configs import load_config
from shared.learner import DiffusionLearner
from shared.runs import begin, read_config
from shared.task import Examples, Panel
from shared.train.loop import Trainer


@dataclass(frozen=True)
class Recipe:
    """A configuration, and the run folder that the panel prepared for it."""

    name: str
    panel: Panel
    config: Any
    run: Path
    examples: Examples

    def with_train(self, **changes: Any) -> Any:
        """The configuration with other values in its section `train`."""
        return dataclasses.replace(
            self.config, train=dataclasses.replace(self.config.train, **changes)
        )

    def learner(self, config: Any) -> DiffusionLearner:
        """A fresh model, the same weights at every call."""
        torch.manual_seed(config.train.seed)
        learner = self.panel.learner(config, self.run)
        assert isinstance(learner, DiffusionLearner)
        return learner

    def trainer(self, **changes: Any) -> Trainer:
        """The suite's own training loop at step 0; close its engine when done."""
        config = self.with_train(**changes)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        learner = self.learner(config)
        return Trainer(config.train, self.run, learner, self.examples, device, 0, None, quiet=True)


def prepare(name: str, run: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and its data. Raises ConfigError, or DataError when the data is not there."""
    _, panel, given, _ = load_config(name, overrides)
    begin(given, run, panel)
    config = read_config(run, panel)  # whose precision is settled
    panel.prepare(config, run)
    return Recipe(name, panel, config, run, panel.examples(config, run))


def parameters(module: nn.Module) -> int:
    """How many numbers are trained."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def tokens(learner: DiffusionLearner) -> int:
    """Positions that the transformer sees of one sample."""
    trunk: Any = learner.denoiser.net.trunk
    return len(trunk.place)
