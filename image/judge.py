"""The judge: a classifier trained on the training split, kept between runs in the cache folder.

It is a run like any other (`model: classifier`), trained by the same engine, in a folder named by
the digest of what it depends on, so that one judge serves every run on the same data and an
interrupted one goes on.
"""

import dataclasses
import hashlib
import json
from typing import Any

import torch
from torch import Tensor

from image.classifier import Classifier
from image.config import ImageConfig
from image.data import Pictures
from shared.files import cache_dir
from shared.runs import load_learner
from shared.task import Panel
from shared.train.loop import train

VERSION = 1  # of what the judge is; raise it when its architecture or training changes
BATCH = 256


@dataclasses.dataclass(frozen=True)
class Judge:
    """A trained judge with a name that says which one it is."""

    model: Classifier
    name: str
    facts: dict[str, Any]

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """images (N, C, H, W) -> features (N, D) float32, on the CPU."""
        device = next(self.model.parameters()).device
        parts = images.split(BATCH)
        return torch.cat([self.model.features(part.to(device)).cpu() for part in parts])

    @torch.no_grad()
    def labels(self, features: Tensor) -> Tensor:
        """features (N, D) -> the likeliest condition id of each (N,)."""
        device = next(self.model.parameters()).device
        return self.model.logits(features.to(device)).argmax(1).cpu() + 1


def find_judge(config: ImageConfig, training: Pictures, panel: Panel) -> Judge:
    """The judge of a run's data: from the cache, or trained now."""
    settings = ImageConfig(
        model="classifier",
        data=config.data,
        judge=config.judge,
        train=config.judge.train,
    )
    stated = {"data": settings.data, "judge": settings.judge}
    described = {key: dataclasses.asdict(value) for key, value in stated.items()}
    digest = hashlib.sha256(json.dumps([VERSION, described], sort_keys=True).encode())
    assert training.condition is not None
    for tensor in (training.images, training.condition):
        digest.update(tensor.numpy().tobytes())
    name = f"image-judge-{digest.hexdigest()[:12]}"
    run = cache_dir() / name
    trained = train(settings, run, panel)
    model = load_learner(run)
    assert isinstance(model, Classifier)
    model.autocast = None
    facts = {
        "name": name,
        "kind": "residual classifier trained by this suite on the training split",
        "features": model.hidden.out_features,
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": trained["step"],
    }
    return Judge(model, name, facts)
