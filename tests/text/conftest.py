"""A small run of each kind of model, trained once for the tests of this folder."""

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
