"""Tar shards of pictures as webdataset lays them out: read in order; what is broken is named."""

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets.config
import numpy as np
import pytest
import torch
from PIL import Image

from image.data import load_pictures
from image.data_config import DataConfig
from shared.errors import DataError

Member = tuple[str, bytes]


def picture(value: int, kind: str = "PNG") -> bytes:
    """4 x 6 pixels of one level."""
    file = io.BytesIO()
    Image.fromarray(np.full((4, 6), value, np.uint8)).save(file, format=kind)
    return file.getvalue()


def write_tar(path: Path, members: list[Member]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            told = tarfile.TarInfo(name)
            told.size = len(content)
            tar.addfile(told, io.BytesIO(content))
    return path


def sample(i: int, said: str | None = None, kind: int | None = None, **fields: Any) -> list[Member]:
    """The members of picture i."""
    members = [(f"{i:04d}.png", picture(i))]
    if said is not None:
        members.append((f"{i:04d}.txt", said.encode()))
    if kind is not None:
        members.append((f"{i:04d}.cls", str(kind).encode()))
    if fields:
        members.append((f"{i:04d}.json", json.dumps(fields).encode()))
    return members


def flat(samples: list[list[Member]]) -> list[Member]:
    return [member for members in samples for member in members]


def levels(images: torch.Tensor) -> list[int]:
    return images[:, 0, 0, 0].tolist()


def test_shards_of_a_split_are_read_in_order_with_captions_and_classes(tmp_path: Path):
    for shard in (1, 0, 2):
        rows = range(10 * shard, 10 * shard + 10)
        made = [sample(i, f"text {i}", i % 3) for i in rows]
        write_tar(tmp_path / f"train-{shard:05d}.tar", flat(made))
    write_tar(tmp_path / "test-00000.tar", flat([sample(i, f"text {i}", 2) for i in (70, 71)]))
    config = DataConfig(name=str(tmp_path), caption_column="text")
    train, test = load_pictures(config), load_pictures(config, held_out=True)
    assert levels(train.images) == list(range(30))
    assert train.captions == tuple(f"text {i}" for i in range(30))
    assert train.condition is not None
    assert (train.condition[:, 0] - 1).tolist() == [i % 3 for i in range(30)]
    assert levels(test.images) == [70, 71]
    with pytest.raises(DataError, match="no split 'valid' in it; it has test, train"):
        load_pictures(DataConfig(name=str(tmp_path), split="valid"))


def test_fields_of_json_are_columns_and_jpeg_pictures_are_read(tmp_path: Path):
    rows = [
        (i, {"caption": f"a {i}", "kind": ("cat", "dog")[i % 2], "box": [1, 2]}) for i in range(6)
    ]
    members: list[Member] = []
    for i, said in rows:
        members.append((f"dir/{i:04d}.jpg", picture(8 * i, "JPEG")))
        members.append((f"dir/{i:04d}.json", json.dumps(said).encode()))
    write_tar(tmp_path / "train-0.tar", members)
    config = DataConfig(name=str(tmp_path), caption_column="caption", label_column="kind")
    found = load_pictures(config)
    assert [round(level / 8) for level in levels(found.images)] == list(range(6))
    assert found.captions == tuple(f"a {i}" for i in range(6))
    assert found.classes == ("cat", "dog")
    with pytest.raises(DataError, match=r"'text': .* has caption, kind, image"):
        load_pictures(DataConfig(name=str(tmp_path), caption_column="text"))


def test_a_shard_that_changes_is_read_again(tmp_path: Path):
    config = DataConfig(name=str(tmp_path), label_column=None)
    for values in ((1, 2), (3, 4, 5)):
        write_tar(tmp_path / "train-0.tar", flat([sample(i) for i in values]))
        assert levels(load_pictures(config).images) == list(values)


def test_the_tar_is_not_unpacked(tmp_path: Path):
    folder = tmp_path / "data"
    write_tar(folder / "train-0.tar", flat([sample(i) for i in range(3)]))
    load_pictures(DataConfig(name=str(folder), label_column=None))
    assert [path.name for path in folder.rglob("*")] == ["train-0.tar"]
    assert not list(Path(datasets.config.HF_DATASETS_CACHE).rglob("*.png"))


BROKEN: dict[str, tuple[list[Member], str]] = {
    "picture": (
        [("0003.png", picture(3)[:45]), ("0003.txt", b"x"), ("0003.cls", b"0")], "is corrupt",
    ),
    "no picture": ([("0003.txt", b"x"), ("0003.cls", b"0")], "is missing"),
    "no text": ([("0003.png", picture(3)), ("0003.cls", b"0")], "has no caption"),
    "text": (
        [("0003.png", picture(3)), ("0003.txt", b"\xff\xfe"), ("0003.cls", b"0")], "has no caption",
    ),
    "class": (
        [("0003.png", picture(3)), ("0003.txt", b"x"), ("0003.cls", b"cat")], "has no class",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
@pytest.mark.parametrize("place", [0, 7])
def test_broken_members_name_shard_and_member_or_are_left_out_and_counted(
    tmp_path: Path, what: str, place: int
):
    members, message = BROKEN[what]
    whole = [sample(i, f"a {i}", i % 2) for i in range(100, 107)]
    write_tar(tmp_path / "train-00000.tar", flat([sample(99, "a 99", 0)]))
    write_tar(tmp_path / "train-00001.tar", flat([*whole[:place], members, *whole[place:]]))
    config = DataConfig(name=str(tmp_path), caption_column="text")
    with pytest.raises(DataError, match=rf"\(train-00001\.tar/0003.*\) {message}.*skip_bad=true"):
        load_pictures(config)
    found = load_pictures(replace(config, skip_bad=True))
    assert levels(found.images) == list(range(99, 107))
    assert found.skipped == 1


def test_broken_members_among_the_first_are_no_reason_to_refuse_a_shard(tmp_path: Path):
    """`datasets` would take the first five samples for what all are like."""
    made = [sample(0), sample(1, "a 1"), [("0002.png", b"")], sample(3, "a 3")]
    write_tar(tmp_path / "train-0.tar", flat(made))
    config = DataConfig(name=str(tmp_path), caption_column="text", label_column=None, skip_bad=True)
    found = load_pictures(config)
    assert (levels(found.images), found.skipped) == ([1, 3], 2)


@pytest.mark.parametrize("shard", [0, 1])
def test_a_damaged_tar_is_named(tmp_path: Path, shard: int):
    for i in range(2):
        write_tar(tmp_path / f"train-{i}.tar", flat([sample(10 * i + j) for j in range(9)]))
    path = tmp_path / f"train-{shard}.tar"
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match=rf"train-{shard}\.tar: a damaged tar file"):
        load_pictures(DataConfig(name=str(tmp_path), label_column=None))
