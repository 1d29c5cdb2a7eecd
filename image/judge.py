"""The judge of pictures: a classifier trained on the training split (see `shared.judges`)."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from image.classifier import Classifier
from image.config import ImageConfig
from image.data import Pictures
from shared.errors import ConfigError
from shared.judges import judge_folder, trained_judge
from shared.runs import load_learner
from shared.task import Panel

BATCH = 256
RESIZE = "none"  # pictures are judged as they are
# of data: no part of a judge
UNREAD: dict[str, Any] = {
    "text_encoder": None,
    "pad_captions": False,
    "flip": False,
    "crop": 0,
    "layout_column": None,
    "layout_classes": None,
}
UNSTATED = {*UNREAD, "cache"}  # of data: no other judge for it


@dataclasses.dataclass(frozen=True)
class Judge:
    """A trained judge with a name that says which one it is; an `image.features.FeatureNetwork`."""

    model: Classifier
    name: str
    facts: dict[str, Any]
    resize: str = RESIZE

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """images (N, C, H, W) -> features (N, D) float32, on the CPU."""
        device = next(self.model.parameters()).device
        parts = images.split(BATCH)
        return torch.cat([self.model.features(part.to(device)).cpu() for part in parts])

    @torch.no_grad()
    def logits(self, features: Tensor) -> Tensor | None:
        """features (N, D) -> one for each class (N, K); None when a picture has several ids."""
        device = next(self.model.parameters()).device
        return None if self.model.several else self.model.logits(features.to(device)).cpu()

    @torch.no_grad()
    def scores(self, images: Tensor) -> Tensor:
        """images (N, C, H, W) -> a logit for each id from 1 on (N, ids), on the CPU."""
        device = next(self.model.parameters()).device
        return self.model.logits(self.features(images).to(device)).cpu()

    def labels(self, features: Tensor) -> Tensor:
        """features (N, D) -> the condition id of the likeliest class of each (N,)."""
        logits = self.logits(features)
        assert logits is not None
        return logits.argmax(1) + 1


def open_judge(run: Path, weights: str = "ema") -> Judge:
    """The classifier of a run, trained on whatever that was. ConfigError for another model, or one
    of noisy pictures."""
    model = load_learner(run, weights)
    if not isinstance(model, Classifier):
        raise ConfigError(f"judge = {run}: expected a run of model=classifier, without noise")
    model.autocast = None
    return Judge(model, run.name, {})


def find_judge(config: ImageConfig, training: Pictures, panel: Panel) -> Judge:
    """The judge of a run's data: from the cache, or trained now."""
    settings = _settings(config)
    model, run, facts = trained_judge(settings, _stated(settings), _read(training), panel)
    assert isinstance(model, Classifier)
    model.autocast = None
    facts |= {
        "kind": "residual classifier trained by this suite on the training split",
        "features": model.hidden.out_features,
    }
    return Judge(model, run.name, facts)


def judge_name(config: ImageConfig, training: Pictures, panel: Panel) -> str:
    """What `find_judge` calls its judge, which need not be trained to tell."""
    return judge_folder(_stated(_settings(config)), _read(training), panel).name


def _settings(config: ImageConfig) -> ImageConfig:
    data = dataclasses.replace(config.data, **UNREAD)
    return ImageConfig(model="classifier", data=data, judge=config.judge, train=config.judge.train)


def _stated(settings: ImageConfig) -> dict[str, Any]:
    stated = {key: dataclasses.asdict(getattr(settings, key)) for key in ("data", "judge")}
    stated["data"] = {key: value for key, value in stated["data"].items() if key not in UNSTATED}
    return stated


def _read(training: Pictures) -> tuple[Tensor, Tensor]:
    assert training.condition is not None
    return training.images, training.condition
