"""Random crops: a window of each sample, by its key, of training alone, which reads more pixels."""

from pathlib import Path

import pytest
import torch

from image.crops import cropped
from image.data import load_pictures, read_facts
from image.flips import flipped
from image.learners import build_learner
from image.panel import PANEL
from shared.errors import ConfigError
from shared.learner import DiffusionLearner
from shared.objective import sample_keys
from shared.train.loop import train
from tests.image.conftest import image_config
from tests.image.test_source import CLASSES, gradient, png, write_parquet


def test_every_window_comes_as_often_and_each_by_its_key_alone():
    data = torch.arange(2 * 5 * 6).view(1, 2, 5, 6).expand(6000, -1, -1, -1)
    keys = sample_keys(3, torch.arange(6000))
    found = cropped(data, keys, 3)
    assert found.shape == (6000, 2, 3, 3)
    corners = found[:, 0, 0, 0]
    assert sorted(corners.unique().tolist()) == [6 * y + x for y in range(3) for x in range(4)]
    first = data[0].unfold(1, 3, 1).unfold(2, 3, 1).permute(1, 2, 0, 3, 4)
    for corner, window in zip(corners[:50].tolist(), found[:50], strict=True):
        assert torch.equal(window, first[corner // 6, corner % 6])
    counts = corners.bincount()[corners.unique()].double()
    # 12 places, chi-square of 11 degrees: mean 11, standard deviation 4.7
    assert float(((counts - 500) ** 2 / 500).sum()) < 11 + 5 * 4.7
    order = torch.randperm(6000)
    parts = [cropped(data[rows], keys[rows], 3) for rows in order.split(701)]
    assert torch.equal(torch.cat(parts), found[order])
    other = cropped(data, sample_keys(3, torch.arange(6000, 12000)), 3)  # the next time round
    assert 0.8 < float((other != found).flatten(1).any(1).double().mean()) < 1


def test_windows_do_not_go_with_mirror_images():
    """Their streams of noise are different ones."""
    data = torch.arange(6).expand(4000, 1, 6, -1)
    keys = torch.arange(4000)
    left = cropped(data, keys, 5)[:, 0, 0, 0] == 0
    mirrored = flipped(data, keys)[:, 0, 0, 0] == 5
    assert float((left == mirrored).double().mean()) == pytest.approx(0.5, abs=0.04)


@pytest.fixture
def words(tmp_path: Path) -> tuple[str, ...]:
    pictures = [png(gradient(3 * i, 9, 12)) for i in range(41)]
    path = write_parquet(tmp_path / "all.parquet", pictures, [i % 3 for i in range(41)], CLASSES)
    return (f"data.name={path}", "data.size=6", "data.crop=3", "train.decay=none")


def test_a_run_sees_windows_of_pictures_that_are_read_larger(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seen: list[torch.Tensor] = []
    plain = DiffusionLearner._losses
    monkeypatch.setattr(
        DiffusionLearner,
        "_losses",
        lambda self, data, *rest: seen.append(data) or plain(self, data, *rest),
    )
    config, run = image_config(*words, "data.flip=true", "train.steps=1"), tmp_path / "run"
    train(config, run, PANEL, quiet=True)
    assert read_facts(run).shape == (1, 6, 6)
    larger = load_pictures(config.data.larger()).images
    assert larger.shape[2:] == (9, 9)
    assert torch.equal(PANEL.examples(config, run).take(torch.arange(len(larger)))[0], larger)
    assert seen[0].shape[1:] == (1, 6, 6)
    windows = larger.unfold(2, 6, 1).unfold(3, 6, 1).flatten(0, 3)
    every = {tuple(each.flatten().tolist()) for each in (*windows, *windows.flip(-1))}
    assert {tuple(each.flatten().tolist()) for each in seen[0]} <= every


def test_a_model_that_is_measured_sees_whole_pictures(words: tuple[str, ...], tmp_path: Path):
    config, run = image_config(*words, "train.steps=1"), tmp_path / "run"
    train(config, run, PANEL, quiet=True)
    plain = image_config(*words, "data.crop=0")
    held_out = load_pictures(config.data, held_out=True).images
    assert torch.equal(held_out, load_pictures(plain.data, held_out=True).images)
    learner = build_learner(config, read_facts(run), run).eval()
    losses, _ = learner(held_out, None, torch.arange(3), torch.full((3,), 0.5))
    assert losses.shape == (3,)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("data.name=scene",), "of scene says where things are"),
        (("data.name=figures",), "of figures says where things are"),
        (("data.name=digits",), "data.name = 'digits', data.size = None"),
        (("data.name=x.parquet",), "set data.size=PIXELS"),
        (("data.name=x.parquet", "data.size=4", "model=classifier"), "got 'classifier'"),
        (
            ("data.name=x", "data.size=4", "codec.kind=autoencoder", "codec.run=y",
             "codec.cache_latents=true"),
            "every window has latents of its own",
        ),
        (
            ("data.name=x", "data.size=4", "data.layout_column=y", "data.layout_classes=2"),
            "layouts say where things are, and would be wrong of windows",
        ),
        (("data.name=x", "data.size=4", "data.crop=-1"), "expected 0 pixels or more"),
    ],
)  # fmt: skip
def test_windows_that_would_be_wrong_or_unread_are_refused(words: tuple[str, ...], message: str):
    with pytest.raises(ConfigError, match=message):
        image_config("data.crop=2", *words)
