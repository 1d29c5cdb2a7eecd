"""How unlike two pictures are to a frozen classifier, whose run names it.

    d(x, y) = mean over stages of  mean over places of |f(x)/|f(x)| - f(y)/|f(y)||^2

LPIPS without its learned weights (Zhang et al. 2018, eq. 1 with w = 1), in the features of the
classifier of this suite in place of VGG's.
"""

from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from image.classifier import Block, Classifier
from image.config import ImageConfig
from image.data import DataFacts, read_facts
from shared.errors import ConfigError
from shared.frozen import Frozen
from shared.runs import copy_run, load_learner, open_run
from shared.tables import expand

FOLDER = "perceptual"  # in the run folder: the classifier's


class Perceptual(nn.Module):
    """x, y (B, C, H, W) in [-1, 1] -> d (B,), in [0, 4]."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.frozen = Frozen(classifier)

    def stages(self, x: Tensor) -> list[Tensor]:
        """What each block of the classifier says, of unit length at every place."""
        classifier = self.frozen.module
        assert isinstance(classifier, Classifier)
        found: list[Tensor] = []
        for layer in classifier.body:
            x = layer(x)
            if isinstance(layer, Block):
                found.append(F.normalize(x.float(), dim=1, eps=1e-6))
        return found

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        pairs = zip(self.stages(x), self.stages(y), strict=True)
        apart = [(a - b).square().sum(1).flatten(1).mean(1) for a, b in pairs]
        return sum(apart[1:], apart[0]) / len(apart)


def install_perceptual(named: str | None, facts: DataFacts, run: Path) -> None:
    """Copy the run of a classifier into a run folder, once. ConfigError when it is no classifier of
    clean pictures, or one of other channels; CheckpointError when it is no run."""
    if named is None or (run / FOLDER).is_dir():
        return
    source = Path(expand(named, "autoencoder.perceptual"))
    config = open_run(source).config
    if not isinstance(config, ImageConfig) or config.model != "classifier":
        raise ConfigError(
            f"autoencoder.perceptual = {named}: expected a run of model: classifier, trained with "
            "noisy=false"
        )
    if config.noisy:
        raise ConfigError(
            f"autoencoder.perceptual = {named}: learned from noisy pictures; expected a classifier "
            "of clean ones, trained with noisy=false"
        )
    if read_facts(source).shape[0] != facts.shape[0]:
        raise ConfigError(
            f"autoencoder.perceptual = {named}: learned from pictures of "
            f"{read_facts(source).shape[0]} channels, these have {facts.shape[0]}"
        )
    copy_run(source, run / FOLDER)


def load_perceptual(run: Path) -> Perceptual | None:
    """The one in a run folder, if there is one."""
    if not (run / FOLDER).is_dir():
        return None
    classifier = load_learner(run / FOLDER)
    assert isinstance(classifier, Classifier)
    classifier.autocast = None
    return Perceptual(classifier)
