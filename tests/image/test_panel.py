"""Runs of the image panel from configuration to numbers."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from image.autoencoder.codec import Measured, write_codec
from image.autoencoder.network import build_network
from image.comparison import some_rows
from image.config import ImageConfig
from image.data import load_pictures, read_facts
from image.figures.source import columns
from image.grid import tile, to_bytes
from image.judge import find_judge
from image.panel import PANEL
from shared.configs import load_config, packaged_configs
from shared.errors import CheckpointError, ConfigError
from shared.requests import EvaluateRequest, SampleRequest
from shared.runs import load_learner
from shared.scene import ID_COUNT
from shared.schema import override, validate
from tests.image.conftest import image_config


def request(n: int, **settings: Any) -> SampleRequest:
    values: dict[str, Any] = {"steps": 2} | settings
    return SampleRequest(n=n, **values)


def measured(n: int, **settings: Any) -> EvaluateRequest:
    values: dict[str, Any] = {"steps": 2} | settings
    return EvaluateRequest(n=n, **values)


def is_large(name: str) -> bool:
    """Whether tests of its network build it without memory instead (test_recipes.py has most)."""
    return name.endswith(("_gpu", "_adm", "_f8", "/sd_like"))


@pytest.mark.parametrize("name", [n for n in packaged_configs("image") if not is_large(n)])
def test_every_packaged_configuration_builds_its_network(name: str, tmp_path: Path):
    _, panel, config, _ = load_config(name, [])
    small = ("scene", "caption", "figures", "cifar10")
    sides = {"mnist": [1, 28, 28], "emoji": [3, 64, 64]} | {key: [3, 32, 32] for key in small}
    shape = next((sides[key] for key in sides if key in name), [1, 8, 8])
    facts = {
        "images": 1, "shape": shape, "levels": 17, "classes": ["a"], "conditions": 2, "data_std": 1
    }  # fmt: skip
    (tmp_path / "data.json").write_text(json.dumps(facts))
    if config.codec.kind == "autoencoder":
        source = config.codec.run.removeprefix("runs/image-")  # the recipe to train first
        network = build_network(load_config(f"image/{source}", [])[2].autoencoder, shape[0])
        write_codec(network, Measured("here", 1, 0.0, 1.0, None), tmp_path / "autoencoder")
    learner = panel.learner(config, tmp_path)
    data = torch.zeros(2, *shape, dtype=torch.uint8)
    ids = ID_COUNT if config.data.groups else 1
    ids = sum(map(len, columns(32).values())) if config.data.name == "figures" else ids
    condition = torch.ones(2, ids, dtype=torch.long)
    losses, logsnr = learner(data, condition, torch.arange(2), torch.rand(2))
    assert losses.shape == (2,)
    assert (logsnr is None) == (config.model in ("autoencoder", "clip"))
    assert bool(losses.isfinite().all())


def test_facts_of_a_run_are_measured(make_run):
    facts = read_facts(make_run())
    x0 = load_pictures(image_config().data).images.double() / 8 - 1
    assert facts.data_std == pytest.approx(float(x0.square().mean().sqrt()), rel=1e-6)
    assert (facts.shape, facts.levels, facts.conditions) == ((1, 8, 8), 17, 11)
    assert read_facts(make_run("codec.kind=bits", "codec.scale=0.5")).data_std == 0.5


def test_sampling_writes_a_grid_the_pictures_and_how_they_were_made(make_run, tmp_path: Path):
    PANEL.sample(make_run(), request(12, seed=5, condition="all", trajectory=True), tmp_path)
    names = {"grid.png", "samples.npz", "samples.json", "trajectory.png", "trajectory.json"}
    assert {path.name for path in tmp_path.iterdir()} == names
    arrays = np.load(tmp_path / "samples.npz")
    assert arrays["images"].shape == (12, 1, 8, 8)
    assert arrays["images"].dtype == np.uint8
    assert arrays["seeds"].tolist() == list(range(5, 17))
    assert arrays["condition"].flatten().tolist() == [*range(1, 11), 1, 2]
    told = json.loads((tmp_path / "samples.json").read_text())
    assert told["seeds"] == list(range(5, 17))
    assert told["settings"]["class"] == "all"
    # ten classes in a row, each picture enlarged six times, with gaps of two
    assert Image.open(tmp_path / "grid.png").size == (10 * 50 + 2, 2 * 50 + 2)
    grid = np.asarray(Image.open(tmp_path / "grid.png"))
    assert np.array_equal(grid[2:50:6, 52:100:6], arrays["images"][1, 0])
    strip = np.asarray(Image.open(tmp_path / "trajectory.png"))
    assert np.array_equal(strip[52:100:6, -50:-2:6], arrays["images"][0, 0])


def test_samples_do_not_depend_on_their_number(make_run, tmp_path: Path):
    for n, out in ((3, tmp_path / "few"), (9, tmp_path / "many")):
        PANEL.sample(make_run(), request(n, seed=2, condition="4"), out)
    few, many = (np.load(tmp_path / name / "samples.npz")["images"] for name in ("few", "many"))
    assert np.array_equal(few, many[:3])


def test_a_weaker_run_guides_and_is_recorded(make_run, tmp_path: Path):
    run, weaker = make_run("train.lr=0.05", "train.steps=12"), make_run()
    PANEL.sample(run, request(3, condition="all"), tmp_path / "alone")
    how = request(3, condition="all", guidance=2.0, guide=str(weaker))
    PANEL.sample(run, how, tmp_path / "guided")
    alone, guided = (np.load(tmp_path / name / "samples.npz") for name in ("alone", "guided"))
    assert not np.array_equal(alone["images"], guided["images"])
    settings = json.loads((tmp_path / "guided" / "samples.json").read_text())["settings"]
    assert settings["guide"] == str(weaker)


def test_guide_of_other_classes_or_none_at_all_is_refused(make_run, tmp_path: Path):
    run = make_run()
    other = make_run("data.name=scene", "data.limit=80", "patch=4")
    with pytest.raises(ConfigError, match=f"guide = {other}: a model of .* one has 11"):
        PANEL.sample(run, request(2, guidance=2.0, guide=str(other)), tmp_path)
    with pytest.raises(CheckpointError, match="no such folder"):
        PANEL.sample(run, request(2, guidance=2.0, guide=str(tmp_path / "none")), tmp_path)


@pytest.mark.parametrize(
    ("asked", "words"),
    [({"given": "a [MASK]"}, "cannot infill"), ({"image": (Path("a.png"),)}, "draws from words")],
)
def test_what_is_asked_of_sentences_is_refused(
    make_run, tmp_path: Path, asked: dict[str, Any], words: str
):
    with pytest.raises(ConfigError, match=words):
        PANEL.sample(make_run(), request(1, **asked), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("codec", ["pixels", "bits"])
def test_evaluation_of_digits_is_complete_and_repeatable(make_run, codec: str):
    run = make_run(f"codec.kind={codec}")
    result = PANEL.evaluate(run, measured(30, seed=3))
    assert result == PANEL.evaluate(run, measured(30, seed=3))
    assert result["samples"] == 30
    assert result["frechet"]["floor_images"] == 30  # as many as there are samples
    assert result["frechet"]["reference_images"] == 1433
    assert result["frechet"]["features"] == result["judge"]["name"]
    assert result["kernel"]["features"] == result["judge"]["name"]
    assert result["kernel"]["subset_images"] == 30
    # four steps of training: noise, and the judge can tell
    assert result["frechet_ratio"] > 3
    assert result["kernel_distance"] > 3 * abs(result["kernel_floor"])
    assert result["class_agreement"] < 0.6
    assert result["precision_held_out"] > 0.5
    assert result["recall_held_out"] > 0.2
    assert result["judge"]["accuracy"] > 0.8
    assert result["settings"]["seed"] == 3
    assert {"torch", "diptych"} <= set(result["provenance"])
    assert json.loads(json.dumps(result)) == result


def test_evaluation_of_real_pictures_gives_the_floor(make_run, monkeypatch):
    """What is measured is what is drawn: training pictures in place of samples score perfectly."""
    run = make_run()
    held_out = load_pictures(image_config().data, held_out=True)
    monkeypatch.setattr("image.evaluation._source", lambda *_: held_out)
    monkeypatch.setattr(
        "image.evaluation.draw_rows",
        lambda *_: held_out.images[some_rows(364, 300, 3, held_out.labels)].long(),
    )
    result = PANEL.evaluate(run, measured(300, seed=3))
    assert result["frechet_ratio"] == pytest.approx(1, abs=1e-9)
    assert result["recall"] == result["recall_held_out"]
    assert result["class_agreement"] > 0.8


def test_rows_are_drawn_without_replacement_and_then_again():
    rows = some_rows(7, 17, seed=2)
    assert sorted(rows[:7].tolist()) == sorted(rows[7:14].tolist()) == list(range(7))
    assert rows[:7].tolist() != rows[7:14].tolist()
    assert torch.equal(some_rows(7, 3, seed=2), rows[:3])


@pytest.mark.parametrize("n", [1, 10, 37, 100, 230])
def test_of_any_number_of_rows_classes_have_their_share(n: int):
    labels = torch.tensor([3] * 50 + [1] * 30 + [7] * 20)[torch.randperm(100)]
    rows = some_rows(100, n, 4, labels)
    for label, share in ((3, 0.5), (1, 0.3), (7, 0.2)):
        assert abs(int((labels[rows] == label).sum()) - share * n) <= 1
    assert len(set(rows[:100].tolist())) == min(n, 100)
    other = some_rows(100, n, 5, labels)
    assert not torch.equal(rows, other)


def test_classes_by_chance_are_no_part_of_a_distance():
    """Classes of one point each: the first 40 rows have the moments of all, to the last digit."""
    labels = torch.arange(400) % 4
    points = torch.tensor([0.0, 1.0, 5.0, 9.0])[labels]
    some = points[some_rows(400, 40, 0, labels)]
    assert some.mean() == points.mean()
    assert points[some_rows(400, 40, 0)].mean() != points.mean()


def test_scenes_are_judged_by_what_is_read_in_them(make_run, monkeypatch):
    run = make_run("data.name=scene", "data.limit=80", "patch=8")
    result = PANEL.evaluate(run, measured(6))
    assert result["readable"] == 0.0
    assert result["scene_agreement"] == result["shape_agreement"] == 0.0
    # drawn perfectly, they are read perfectly
    held_out = load_pictures(image_config("data.name=scene", "data.limit=80").data, held_out=True)
    monkeypatch.setattr(
        "image.evaluation.draw_rows", lambda *_: held_out.images[some_rows(80, 6, 0)]
    )
    result = PANEL.evaluate(run, measured(6))
    keys = ("readable", "scene_agreement", "shape_agreement", "place_agreement")
    assert [result[key] for key in keys] == [1.0] * 4


def test_judge_is_trained_once_for_all_runs_on_the_same_data():
    config = image_config()
    pictures = load_pictures(config.data)
    first = find_judge(config, pictures, PANEL)
    again = find_judge(image_config("net.dim=32", "train.lr=1e-4"), pictures, PANEL)
    other = find_judge(config, load_pictures(image_config("data.limit=900").data), PANEL)
    assert first.name == again.name != other.name
    assert first.facts["steps"] == 60


def test_classifier_can_be_trained_and_measured_as_a_run(make_run):
    result = PANEL.evaluate(
        make_run(
            "model=classifier",
            "train.steps=60",
            "train.batch=32",
            "train.lr=5e-3",
            "train.warmup=5",
        ),
        measured(8),
    )
    assert result["held_out_images"] == 364
    assert result["accuracy"] > 0.8


def test_pictures_without_classes_are_trained_on_but_not_judged(
    tmp_path: Path, tmp_path_factory, make_run
):
    for i in range(40):
        Image.fromarray(np.full((4, 4), 6 * i, np.uint8)).save(tmp_path / f"{i:02d}.png")
    settings = (f"data.name={tmp_path}", "data.label_column=null")
    run = make_run(*settings)
    assert read_facts(run).conditions == 0
    PANEL.sample(run, request(2), tmp_path_factory.mktemp("out"))
    with pytest.raises(ConfigError, match="needs classes"):
        PANEL.evaluate(run, measured(8))
    with pytest.raises(ConfigError, match="needs classes"):
        make_run(*settings, "model=classifier")


def test_too_few_samples_to_measure_are_refused(make_run):
    with pytest.raises(ConfigError, match="expected more than 3"):
        PANEL.evaluate(make_run(), measured(3))


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("codec.kind=pixel", "codec.kind"),
        ("codec.gray=true", "codec.gray"),
        ("data.channels=2", "data.channels"),
        ("data.limit=0", "data.limit"),
        ("patch=0", "patch"),
        ("judge.width=12", "multiple of 8"),
        ("diffusion.prediction=categorical", "needs codec.kind = 'bits'"),
        ("diffusion.fit_density=true", "a loss that only falls as logsnr rises"),
        (
            "diffusion={schedule: sqrt, prediction: x0, weighting: x0, end_to_end: 9}",
            "end_to_end: learns a table of latents",
        ),
        ("model=gan", "expected one of diffusion, classifier"),
        ("data.nam=digits", "did you mean data.name?"),
    ],
)
def test_impossible_configuration_is_refused_by_key(assignment: str, words: str):
    with pytest.raises(ConfigError, match=words):
        validate(ImageConfig, override({"panel": "image"}, [assignment]), "test")


def test_resumed_run_gives_the_samples_of_an_uninterrupted_one(make_run, tmp_path: Path):
    from shared.train.loop import train

    whole = make_run("train.decay=none")
    for steps in (2, 4):
        train(
            image_config("train.decay=none", f"train.steps={steps}"),
            tmp_path / "run",
            PANEL,
            quiet=True,
        )
    learners = [load_learner(run).state_dict() for run in (whole, tmp_path / "run")]
    for name, value in learners[0].items():
        assert torch.equal(value, learners[1][name]), name


def test_tile_keeps_rows_and_enlarges_by_a_whole_factor():
    images = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1).expand(5, 1, 20, 24) * 50
    sheet = tile(images)
    assert sheet.size == (3 * (2 * 24 + 2) + 2, 2 * (2 * 20 + 2) + 2)
    array = np.asarray(sheet)
    assert (array[10, 10], array[10, 110], array[60, 60], array[60, 110]) == (0, 100, 200, 255)


def test_levels_become_bytes_from_black_to_white():
    assert to_bytes(torch.tensor([[[[0, 8, 16]]]]), 17).flatten().tolist() == [0, 128, 255]
    assert math.isclose(float(to_bytes(torch.tensor([[[[255]]]]), 256)), 255)
