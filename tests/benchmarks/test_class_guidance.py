"""The benchmark of guidance towards a class: what is judged is what was drawn for it."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.class_guidance import FREE, TOWARDS, rows, run
from image.comparison import some_rows
from image.data import load_pictures
from image.judge import open_judge
from image.panel import PANEL
from shared.errors import ConfigError
from shared.requests import EvaluateRequest
from shared.sampling import Sampling
from shared.train.loop import train
from tests.image.conftest import image_config

N = 60


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model, a classifier to guide by, and one that judges."""
    made = {name: tmp_path_factory.mktemp("runs") / name for name in ("model", "guide", "judge")}
    classifier = ("model=classifier", "train.steps=60", "train.batch=64", "train.lr=3e-3")
    train(image_config("train.steps=20"), made["model"], PANEL, quiet=True)
    train(image_config(*classifier, "noisy=true"), made["guide"], PANEL, quiet=True)
    other = ("train.seed=7", "data.split=test", "data.held_out=train")
    train(image_config(*classifier, *other), made["judge"], PANEL, quiet=True)
    return made


def test_pictures_are_judged_against_the_classes_that_they_were_drawn_for(runs: dict[str, Path]):
    data = image_config().data
    training, held_out = load_pictures(data), load_pictures(data, held_out=True)
    chosen = some_rows(len(training), N, 3, training.labels)
    shifts = {1.0: 0, 2.0: 1}  # of the pictures against what was asked for

    def latents(seeds: list[int], condition: torch.Tensor, how: Sampling, **_: Any) -> torch.Tensor:
        assert (len(seeds), seeds[0]) == (N, 3)
        assert isinstance(how.guidance, float)
        return training.images[chosen].roll(shifts[how.guidance], 0)

    pipeline: Any = SimpleNamespace(
        beside=None,
        conditions_of=lambda pictures, at: pictures.condition[at],
        latents=latents,
        decode=lambda x: x,
    )
    ways = [(FREE, scale, EvaluateRequest(n=N, seed=3, guidance=scale)) for scale in shifts]
    right, wrong = rows(pipeline, open_judge(runs["judge"]), (training, held_out), ways)
    assert right["class_agreement"] > 0.8
    assert wrong["class_agreement"] < 0.3
    assert right["recall"] == wrong["recall"]  # the same pictures
    assert (right["guided"], right["scale"], wrong["scale"]) == (FREE, 1.0, 2.0)


def test_a_run_is_measured_whole(runs: dict[str, Path], tmp_path: Path, capsys: Any):
    file = tmp_path / "guidance.json"
    far = 1000.0  # a model that is hardly trained hardly knows classes
    interval, scales = (-3.0, 2.0), ((1.0, far), (2.0,))
    run(runs["model"], runs["judge"], runs["guide"], 12, 0, 2, interval, *scales, file)
    found = json.loads(file.read_text())
    assert [(row["guided"], row["scale"]) for row in found["rows"]] == [
        (FREE, 1.0), (FREE, far), (TOWARDS, 2.0)
    ]  # fmt: skip
    assert found["about"]["held_out_agreement"] > 0.8
    assert len({row["kernel_distance"] for row in found["rows"]}) == 3  # three kinds of pictures
    assert file.with_suffix(".png").stat().st_size > 1000
    assert "12 pictures of each scale" in capsys.readouterr().out


def test_only_a_classifier_of_clean_pictures_judges(runs: dict[str, Path]):
    for name in ("model", "guide"):
        with pytest.raises(ConfigError, match="without noise"):
            open_judge(runs[name])
