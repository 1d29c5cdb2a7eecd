"""What the tests of the image panel share."""

import os
from pathlib import Path

import pytest
import torch

from image.config import ImageConfig
from image.data import DataFacts
from image.learners import build_learner
from image.panel import PANEL
from shared.learner import DiffusionLearner
from shared.schema import override, validate
from shared.train.loop import train


@pytest.fixture(autouse=True)
def own_caches(tmp_path_factory: pytest.TempPathFactory, monkeypatch) -> None:
    """Neither judges nor converted data sets of the tests go to the user's caches."""
    import datasets.config

    folder = tmp_path_factory.getbasetemp() / "caches"
    monkeypatch.setenv("DIPTYCH_CACHE", str(folder / "diptych"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "datasets")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets that DIPTYCH_DATA names."""
    folder = os.environ.get("DIPTYCH_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("DIPTYCH_DATA does not name a folder of data sets")
    return Path(folder)


TINY = (
    "net.dim=16", "net.depth=1", "net.heads=2", "train.steps=4", "train.batch=8",
    "judge.width=16", "judge.train.steps=60", "judge.train.batch=32", "judge.train.warmup=5",
    "judge.train.lr=5e-3",
)  # fmt: skip


def opened_learner(
    config: ImageConfig, facts: DataFacts, seed: int, spread: float
) -> DiffusionLearner:
    """A diffusion model in which nothing is zero, so that its output depends on everything."""
    torch.manual_seed(seed)
    learner = build_learner(config, facts, Path("unused"))
    assert isinstance(learner, DiffusionLearner)
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.add_(torch.randn_like(parameter) * spread)
    return learner


def image_config(*assignments: str) -> ImageConfig:
    """A configuration of a tiny run."""
    return validate(ImageConfig, override({"panel": "image"}, (*TINY, *assignments)), "test")


@pytest.fixture(scope="session")
def make_run(tmp_path_factory: pytest.TempPathFactory):
    """make_run(key=value, ...) -> the folder of a trained run with these settings."""
    made: dict[tuple[str, ...], Path] = {}

    def make(*assignments: str) -> Path:
        if assignments not in made:
            folder = tmp_path_factory.mktemp("runs") / "run"
            train(image_config(*assignments), folder, PANEL, quiet=True)
            made[assignments] = folder
        return made[assignments]

    return make
