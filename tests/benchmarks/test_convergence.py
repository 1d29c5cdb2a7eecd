"""The benchmark of steps: what solvers leave shrinks with the steps, and is what was drawn."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.convergence import apart, run
from image.judge import open_judge
from image.metrics import frechet
from image.panel import PANEL
from shared.errors import ConfigError
from shared.train.loop import train
from tests.image.conftest import image_config


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model and a judge."""
    folder = tmp_path_factory.mktemp("runs")
    train(image_config("train.steps=30"), folder / "model", PANEL, quiet=True)
    train(image_config("model=classifier", "train.steps=5"), folder / "judge", PANEL, quiet=True)
    return folder / "model", folder / "judge"


def test_what_is_left_is_measured_in_levels_and_bounds_the_frechet_distance(
    runs: tuple[Path, Path],
):
    judge, generator = open_judge(runs[1]), torch.Generator().manual_seed(0)
    images = torch.randint(17, (90, 1, 8, 8), generator=generator)
    other = (images + torch.randint(-2, 3, images.shape, generator=generator)).clamp(0, 16)
    found = apart(images, other, judge)
    assert found["rmse"] == pytest.approx(float((images - other).double().pow(2).mean().sqrt()))
    distance = frechet.compute(judge.features(images), judge.features(other))["frechet_distance"]
    assert 0 < distance <= found["frechet_bound"]
    assert apart(images, images, judge) == {"rmse": 0, "frechet_bound": 0}
    assert apart(images, other, None) == {"rmse": found["rmse"]}


def test_more_steps_leave_less(runs: tuple[Path, Path], tmp_path: Path, capsys):
    file = tmp_path / "steps.json"
    asked = {"n": 4, "solvers": ("ddim", "dpmpp_2m"), "grids": ("logsnr",), "steps": (4, 16)}
    run(*runs, **asked, reference=48, json_file=file)
    rows = json.loads(file.read_text())["rows"]
    assert [(row["solver"], row["steps"]) for row in rows] == [
        (solver, steps) for solver in ("ddim", "dpmpp_2m") for steps in (4, 16)
    ]
    for few, many in (rows[:2], rows[2:]):
        assert many["rmse"] < few["rmse"] / 2
        assert many["frechet_bound"] < few["frechet_bound"]
    assert rows[3]["rmse"] < rows[1]["rmse"]  # order 2 beside order 1
    assert file.with_suffix(".png").stat().st_size > 1000
    assert "4 pictures, seeds from 0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"solvers": ("ancestral",)}, "solvers = .*ancestral.*: expected some of auto, ddim"),
        ({"grids": ("times",)}, "grids = .*: expected some of time, logsnr"),
        ({"steps": (20, 200)}, r"steps = \(20, 200\): expected numbers in \[1, reference = 160\)"),
    ],
)
def test_what_does_not_converge_is_refused(asked: dict, message: str, tmp_path: Path):
    with pytest.raises(ConfigError, match=message):
        run(tmp_path, **asked)
