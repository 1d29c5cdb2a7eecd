"""`diptych evaluate --features` and `--reference`: a second network under its own name."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from image import evaluation, features
from image.comparison import compare
from image.data import load_pictures
from image.metrics import frechet, statistics
from image.panel import PANEL
from shared.cli import main
from shared.errors import ConfigError, DataError
from shared.requests import EvaluateRequest
from tests.image.conftest import image_config


class Pixels:
    """Pictures as they are, shrunk to 2 x 2: quick, and easily done by hand."""

    resize = "mean over quarters"

    def __init__(self, file: Path, levels: int) -> None:
        self.name, self.levels = f"pixels-{file.name}", levels
        self.facts: dict[str, Any] = {"kind": "pixels", "resize": self.resize}

    def features(self, images: Tensor) -> Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(images.float(), 2).flatten(1)

    def logits(self, features: Tensor) -> Tensor | None:
        return features[:, :3]


@pytest.fixture(autouse=True)
def pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(features.NETWORKS, "pixels", Pixels)


def asked(n: int, **settings: Any) -> EvaluateRequest:
    return EvaluateRequest(n=n, steps=2, **settings)


def test_second_network_is_measured_under_its_name_beside_the_judge(make_run, capsys):
    run = make_run()
    arguments = ["evaluate", str(run), "-n", "40", "--steps", "2", "--features", "pixels:file"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "pixels-file.frechet_distance" in printed
    written = json.loads((run / "evaluation.json").read_text())
    assert written["frechet"]["features"] == written["judge"]["name"]
    found = written["pixels-file"]
    assert found["frechet"]["features"] == "pixels-file"
    assert found["frechet"]["resize"] == "mean over quarters"
    assert found["network"] == {"kind": "pixels", "resize": "mean over quarters"}
    assert found["frechet_ratio"] > 1
    for key in ("kernel_distance", "precision", "recall", "density", "coverage", "inception_score"):
        assert isinstance(found[key], float), key
        assert isinstance(written[key], float), key


def test_comparison_is_what_the_measures_say_of_features_taken_by_hand():
    config = image_config().data
    training, held_out = load_pictures(config), load_pictures(config, held_out=True)
    network = Pixels(Path("file"), 17)
    found = compare(network, held_out.images[:100], training, held_out, seed=1)
    ours, data = (network.features(x) for x in (held_out.images[:100], training.images))
    expected = frechet.compute(ours, data)["frechet_distance"]
    assert found["frechet_distance"] == pytest.approx(expected, rel=1e-9)
    assert found["frechet"]["reference_images"] == len(training)
    # real pictures: as near as real pictures are, among the data and covering it
    assert 0.5 < found["frechet_ratio"] < 2
    assert found["density"] == pytest.approx(1, abs=0.25)
    assert found["coverage"] == pytest.approx(found["coverage_held_out"], abs=0.15)


def test_pictures_without_classes_are_compared_in_given_features(make_run, tmp_path: Path):
    for i in range(120):
        Image.fromarray(np.full((4, 4), 2 * i, np.uint8)).save(tmp_path / f"{i:03d}.png")
    run = make_run(f"data.name={tmp_path}", "data.label_column=null")
    with pytest.raises(ConfigError, match="--features inception:FILE"):
        PANEL.evaluate(run, asked(4))
    result = PANEL.evaluate(run, asked(4, features="pixels:file"))
    assert "judge" not in result
    assert result["pixels-file"]["frechet_distance"] > 0


def test_reference_statistics_stand_in_for_the_training_split(
    make_run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run, network = make_run(), Pixels(Path("file"), 17)
    training = load_pictures(image_config().data)
    some = statistics.of(network, training.images[:90].split(40), "ninety pictures")
    some.save(tmp_path / "ninety.safetensors")
    how = {"features": "pixels:file", "reference": tmp_path / "ninety.safetensors"}
    told = PANEL.evaluate(run, asked(9, **how))["pixels-file"]["frechet"]
    assert (told["reference"], told["reference_images"]) == ("ninety pictures", 90)
    assert told["statistics"] == "ninety.safetensors"
    # of another network: refused, by the judge too, before it is trained or anything is drawn
    monkeypatch.setattr(evaluation, "find_judge", None)
    monkeypatch.setattr(evaluation, "draw_rows", None)
    with pytest.raises(DataError, match="features of samples: 'pixels-other'"):
        PANEL.evaluate(run, asked(9, **how | {"features": "pixels:other"}))
    with pytest.raises(DataError, match=r"features of samples: 'image-judge-.*'pixels-file'"):
        PANEL.evaluate(run, asked(9, **how | {"features": "judge"}))
    with pytest.raises(DataError, match=r"none\.safetensors: missing"):
        PANEL.evaluate(run, asked(9, **how | {"reference": tmp_path / "none.safetensors"}))
    replace(some, resize="cut").save(tmp_path / "cut.safetensors")
    with pytest.raises(DataError, match=r"resize of samples: 'mean over quarters', .*'cut'"):
        PANEL.evaluate(run, asked(9, **how | {"reference": tmp_path / "cut.safetensors"}))


@pytest.mark.parametrize(
    ("asked_for", "words"),
    [
        ("inceptoin:file", "inception"),
        ("inception", "expected inception:FILE"),
        ("inception:", "expected inception:FILE"),
        ("judge:file", "the judge is trained here; give judge"),
    ],
)
def test_unknown_networks_and_missing_files_are_refused(asked_for: str, words: str):
    with pytest.raises(ConfigError, match=words):
        features.build_features(asked_for, 256)


def test_other_features_are_refused_where_there_are_none(make_run):
    with pytest.raises(ConfigError, match="frontier is measured by the judge alone"):
        asked(9, features="pixels:file", frontier="steps=2,3")
    classifier = make_run("model=classifier", "train.steps=4")
    with pytest.raises(ConfigError, match="features: a classifier draws no pictures"):
        PANEL.evaluate(classifier, asked(9, features="pixels:file"))
