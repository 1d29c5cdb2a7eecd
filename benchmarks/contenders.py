"""Models trained in turn for equal time, so that what else the machine does falls on all alike.

Time is that of `benchmarks.measure.now`. Everything is kept in files, training after every turn and
samples after every batch: a run that was killed goes on.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from benchmarks.measure import now
from image.grid import save_npz

TURN = 20.0  # seconds
BATCH = 100  # samples drawn at a time


class Contender(Protocol):
    """A model in training: `step` updates of its weights are done, in `spent` seconds."""

    step: int
    spent: float

    @property
    def parameters(self) -> int:
        """How many numbers are trained."""
        ...

    @property
    def batch(self) -> int:
        """Pictures of an update."""
        ...

    @property
    def how(self) -> str:
        """How it draws samples."""
        ...

    @property
    def evaluations(self) -> int:
        """Of the network, for a sample."""
        ...

    def update(self, share: float) -> None:
        """One more, when a `share` of the training time, in [0, 1), is over."""
        ...

    def save(self) -> None:
        """Keep everything that another process needs to go on."""
        ...

    def draw(self, seeds: range) -> Tensor:
        """Samples (len(seeds), C, H, W), integer levels, from the averaged weights."""
        ...


def expected_steps(step: int, share: float) -> int:
    """Of all training, when `step` updates took a `share` of its time: what a learning rate that
    falls to zero has to know."""
    return max(step + 1, round(step / share) if share > 0 else 0)


def train_in_turn(contenders: Mapping[str, Contender], seconds: float, turn: float = TURN) -> None:
    """Train each of them for `seconds` altogether."""
    while any(each.spent < seconds for each in contenders.values()):
        for name, each in contenders.items():
            if each.spent < seconds:
                _train(each, min(each.spent + turn, seconds), seconds)
                print(f"{name}: {each.step:,} steps in {each.spent:.0f} s", flush=True)


def _train(contender: Contender, until: float, seconds: float) -> None:
    began = now() - contender.spent
    while contender.spent < until:
        contender.update(contender.spent / seconds)
        contender.spent = now() - began
    contender.save()


def drawn(contender: Contender, folder: Path, n: int) -> tuple[Tensor, float]:
    """Samples (n, C, H, W) of seeds 0 to n - 1 and the seconds that they took, from `folder` where
    they are there already."""
    images: list[Tensor] = []
    seconds = 0.0
    for start in range(0, n, BATCH):
        seeds = range(start, min(start + BATCH, n))
        how = contender.how.replace(",", "").replace(" ", "-")
        file = folder / f"{contender.step}-{how}" / f"{seeds.start}-{seeds.stop}.npz"
        if not file.is_file():
            began = now()
            levels = contender.draw(seeds)
            arrays = {"images": levels.numpy(), "seconds": np.array(now() - began)}
            save_npz(file, arrays)
        with np.load(file) as kept:
            images.append(torch.from_numpy(kept["images"]))
            seconds += float(kept["seconds"])
    return torch.cat(images), seconds
