"""A diffusion model of the suite as a contender: its own trainer, for a time in place of steps."""

import dataclasses
import json
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.contenders import expected_steps
from benchmarks.recipe import parameters
from image.config import ImageConfig
from image.panel import PANEL
from image.pipeline import Pipeline
from shared.files import write_text
from shared.runs import begin, read_config
from shared.sampling import Sampling
from shared.train import checkpoint
from shared.train.engine import set_up
from shared.train.loop import Trainer

SPENT = "spent.json"  # seconds of training up to the steps of the kept checkpoints


class Ours:
    """A run of the image panel; its folder is one that the command reads."""

    def __init__(self, config: ImageConfig, folder: Path, sampling: Sampling) -> None:
        device = set_up()
        begin(config, folder, PANEL)
        self.config, self.folder, self.sampling = read_config(folder, PANEL), folder, sampling
        PANEL.prepare(self.config, folder)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.train.seed)
            learner = PANEL.learner(self.config, folder)
        self.step, self.spent, start = 0, 0.0, None
        self.drawer: tuple[int, Pipeline] | None = None
        found = checkpoint.newest(folder)
        if found is not None:
            at, self.step = found
            start = {part: checkpoint.load(at, part) for part in checkpoint.PARTS}
            checkpoint.assign(learner.state_dict(), start["model"], str(at))
            self.spent = self._ledger()[self.step]
        examples = PANEL.examples(self.config, folder)
        self.trainer = Trainer(
            self.config.train, folder, learner, examples, device, self.step, start, quiet=True
        )

    @property
    def parameters(self) -> int:
        return parameters(self.trainer.learner)

    @property
    def batch(self) -> int:
        return self.config.train.batch

    @property
    def how(self) -> str:
        return f"{self.sampling.solver}, {self.sampling.steps} steps"

    @property
    def evaluations(self) -> int:
        return self.sampling.steps

    def update(self, share: float) -> None:
        """The learning rate is that of a run of as many steps as are to be expected."""
        steps = expected_steps(self.step, share)
        self.trainer.config = dataclasses.replace(self.config.train, steps=steps)
        with torch.random.fork_rng(devices=[]):
            self.trainer.update()
        self.step = self.trainer.step

    def save(self) -> None:
        train = dataclasses.replace(self.config.train, steps=self.step)
        begin(dataclasses.replace(self.config, train=train), self.folder, PANEL)
        kept = dict(sorted((self._ledger() | {self.step: self.spent}).items())[-train.keep :])
        write_text(self.folder / SPENT, json.dumps(kept))
        checkpoint.save(self.folder, self.step, self.trainer.engine.state(), train.keep)

    def draw(self, seeds: range) -> Tensor:
        if self.drawer is None or self.drawer[0] != self.step:
            self.drawer = self.step, Pipeline.from_pretrained(self.folder)
        pipeline = self.drawer[1]
        return pipeline.decode(pipeline.latents(seeds, None, self.sampling))

    def _ledger(self) -> dict[int, float]:
        path = self.folder / SPENT
        if not path.is_file():
            return {}
        return {int(step): s for step, s in json.loads(path.read_text(encoding="utf-8")).items()}
