"""A small run of each kind of model, trained once for the tests of this folder."""

import shutil
from pathlib import Path

import pytest

from shared.schema import override, validate
from shared.train.loop import train
from text.config import TextConfig
from text.panel import PANEL

TINY = (
    "data.limit=400", "data.length=24", "net.dim=32", "net.depth=1", "net.heads=2", "codec.dim=6",
    "train.steps=30", "train.batch=16", "train.warmup=5", "train.lr=1e-2", "train.ema=0.9",
    "judge.net.dim=16", "judge.net.depth=1", "judge.net.heads=2",
    "judge.train.steps=8", "judge.train.batch=8",
)  # fmt: skip
POINTS = (
    "model=autoencoder", "autoencoder.dim=6", "autoencoder.beta=0.02", "train.lr=3e-3",
    "train.steps=60",
)  # fmt: skip
WRITER = ("diffusion.prediction=v", "diffusion.fit_density=false", "codec.kind=sentence")
OPERATOR = ("model=operator", "codec.kind=sentence", "operator.width=32", "train.steps=60")


def text_config(*assignments: str) -> TextConfig:
    return validate(TextConfig, override({"panel": "text"}, (*TINY, *assignments)), "test")


@pytest.fixture(scope="session")
def make_run(tmp_path_factory):
    """make_run(key=value, ...) -> the folder of a trained run with these settings."""
    made: dict[tuple[str, ...], Path] = {}

    def make(*assignments: str) -> Path:
        if assignments not in made:
            folder = tmp_path_factory.mktemp("runs") / "run"
            train(text_config(*assignments), folder, PANEL, quiet=True)
            made[assignments] = folder
        return made[assignments]

    return make


@pytest.fixture(scope="session")
def points(make_run) -> Path:
    """An autoencoder of sentences."""
    return make_run(*POINTS)


@pytest.fixture(scope="session")
def writer(make_run, points: Path, tmp_path_factory) -> Path:
    """A run on its latents with operators for tone, audience and, of clean latents only, count."""
    run = tmp_path_factory.mktemp("writer") / "run"
    shutil.copytree(make_run(*WRITER, f"codec.run={points}"), run)
    for column, more in (("tone", ()), ("audience", ()), ("count", ("operator.noised=false",))):
        trained = make_run(*OPERATOR, f"codec.run={run}", f"data.label_column={column}", *more)
        shutil.copytree(trained, run / "operators" / column)
    return run
