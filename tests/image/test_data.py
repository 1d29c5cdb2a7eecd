"""The embedded data sets, and what a run keeps of its data."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from image.data import DataFacts, load_pictures, read_facts, write_facts
from image.data_config import DataConfig
from image.render import render
from shared import scene
from shared.errors import CheckpointError, ConfigError, DataError

FACTS = DataFacts(
    images=9, shape=(1, 8, 6), levels=17, classes=("a", "b"), conditions=3, data_std=0.5
)


def test_digits_are_split_by_class_without_overlap():
    from sklearn.datasets import load_digits

    train, test = load_pictures(DataConfig()), load_pictures(DataConfig(), held_out=True)
    assert train.images.shape == (1433, 1, 8, 8)
    assert (train.levels, train.conditions, train.classes) == (17, 11, tuple("0123456789"))
    assert int(train.images.max()) == 16
    assert train.condition is not None
    assert test.condition is not None
    shares = torch.bincount(test.condition.flatten()) / (
        torch.bincount(test.condition.flatten()) + torch.bincount(train.condition.flatten())
    )
    assert float((shares[1:] - 0.2).abs().max()) < 0.01
    # together they are the whole data set, labels and all
    rows = torch.cat(
        [
            torch.cat([each.images.flatten(1).long(), each.condition - 1], 1)
            for each in (train, test)
            if each.condition is not None
        ]
    )
    found: Any = load_digits()
    whole = torch.cat(
        [torch.from_numpy(found.data).long(), torch.from_numpy(found.target)[:, None]], 1
    )
    assert sorted(map(tuple, rows.tolist())) == sorted(map(tuple, whole.tolist()))


def test_digits_without_labels_are_the_same_pictures():
    plain = load_pictures(DataConfig(label_column=None))
    assert (plain.condition, plain.classes, plain.conditions) == (None, (), 0)
    assert torch.equal(plain.images, load_pictures(DataConfig()).images)


def test_digits_are_8_by_8_and_have_two_splits():
    with pytest.raises(ConfigError, match="digits are 8 x 8"):
        load_pictures(DataConfig(size=16))
    with pytest.raises(ConfigError, match="digits has train, test"):
        load_pictures(DataConfig(split="all"))


def test_scenes_come_with_the_ids_of_what_they_show():
    config = DataConfig(name="scene", limit=7)
    train, test = load_pictures(config), load_pictures(config, held_out=True)
    assert train.images.shape == (7, 3, 32, 32)
    assert train.condition is not None
    assert train.condition.shape == (7, scene.ID_COUNT)
    scenes = [scene.from_ids(ids) for ids in train.condition.tolist()]
    assert torch.equal(train.images, render(scenes))
    assert train.conditions == scene.NUM_IDS
    assert not torch.equal(train.images, test.images)
    assert load_pictures(DataConfig(name="scene", limit=2, size=64)).images.shape[-1] == 64


def test_scenes_at_an_odd_size_or_in_grey_are_refused():
    for wrong in (DataConfig(name="scene", size=48), DataConfig(name="scene", channels=1)):
        with pytest.raises(ConfigError, match="multiple of 32 pixels and in colour"):
            load_pictures(wrong)


def test_facts_are_read_back_and_kept_when_the_run_goes_on(tmp_path: Path):
    write_facts(FACTS, tmp_path)
    assert read_facts(tmp_path) == FACTS
    before = (tmp_path / "data.json").read_text()
    write_facts(dataclasses.replace(FACTS, data_std=0.5000001), tmp_path)
    assert (tmp_path / "data.json").read_text() == before


def test_run_on_data_that_has_changed_is_refused(tmp_path: Path):
    write_facts(FACTS, tmp_path)
    with pytest.raises(DataError, match="images was 9, now 8"):
        write_facts(dataclasses.replace(FACTS, images=8), tmp_path)


@pytest.mark.parametrize("content", [None, "not json", "{}", '{"shape": [1, 8]}'])
def test_facts_that_are_missing_or_damaged_are_refused(tmp_path: Path, content: str | None):
    if content is not None:
        (tmp_path / "data.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"data\.json: missing or damaged"):
        read_facts(tmp_path)
