"""Decoded pictures: kept in memory or in mapped files, the same batches; what is kept is whole, and
follows the data."""

import os
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from image import decoding
from image.captions import captioned
from image.data import Pictures, load_pictures
from image.data_config import DataConfig
from image.panel import PANEL
from image.source import read_source
from shared.errors import ConfigError, DataError
from shared.tokenizer import train_tokenizer
from shared.train.loop import train
from tests.image.conftest import image_config
from tests.image.test_source import CLASSES, gradient, png, write_listed, write_parquet


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "pictures"


def kept(cache: Path) -> list[Path]:
    return [path for path in cache.iterdir() if path.is_dir()]


def config_of(path: Path, **settings: object) -> DataConfig:
    return replace(DataConfig(name=str(path)), **settings)


def write(path: Path, values: list[int]) -> Path:
    pictures = [png(gradient(value, 4, 6)) for value in values]
    return write_parquet(path, pictures, [i % 3 for i in range(len(values))], CLASSES)


def bytes_in_memory(tensor: Tensor) -> int:
    """Of the pages that a tensor's storage shares with no file."""
    place, found, inside = tensor.data_ptr(), 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, *rest = line.split()
        if "-" in first and not first.endswith(":"):
            start, end = (int(x, 16) for x in first.split("-"))
            inside = start <= place < end
        elif inside and first == "Anonymous:":
            found = 1024 * int(rest[0])
    return found


def test_pictures_on_disk_are_those_in_memory_and_stay_there(tmp_path: Path, cache: Path):
    bad = [png(gradient(10 * i)) for i in range(45)]
    bad[7] = {"bytes": None, "path": "seven"}
    path = write_parquet(tmp_path / "all.parquet", bad, [i % 3 for i in range(45)], CLASSES)
    for held_out in (False, True):
        memory, disk = (
            load_pictures(config_of(path, skip_bad=True, size=3, channels=3, cache=where), held_out)
            for where in ("memory", "disk")
        )
        assert disk.shape == memory.shape == (3, 3, 3)
        assert (disk.left_out, len(disk)) == (memory.left_out, len(memory))
        rows = torch.arange(len(disk)).flip(0)
        for ours, theirs in zip(disk.take(rows), memory.take(rows), strict=True):
            assert ours is not None
            assert theirs is not None
            assert torch.equal(ours, theirs)
        assert bytes_in_memory(disk.stored) == 0
    assert len(kept(cache)) == 2
    assert bytes_in_memory(torch.zeros(2**22)) >= 2**22  # what the measure says of memory


def test_layouts_on_disk_are_those_in_memory(tmp_path: Path, cache: Path):
    folder = write_listed(tmp_path / "laid", 5, 5)
    lines = (folder / "metadata.jsonl").read_text().splitlines()
    (folder / "parts").mkdir()
    for i, line in enumerate(lines):
        (folder / "parts" / f"{i}.png").write_bytes(png(gradient(i) % 4)["bytes"])
        lines[i] = line[:-1] + f', "parts_file_name": "parts/{i}.png"}}'
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    settings = {"layout_column": "parts", "layout_classes": 3, "size": 4}
    memory, disk = (
        read_source(config_of(folder, cache=where, **settings), False, None)
        for where in ("memory", "disk")
    )
    assert disk.layouts is not None
    assert memory.layouts is not None
    assert torch.equal(disk.layouts, memory.layouts)
    assert torch.equal(disk.images, memory.images)


def test_what_is_kept_is_read_without_decoding_and_made_again_when_the_data_change(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    decoded: list[object] = []
    plain = decoding.decode
    monkeypatch.setattr(
        decoding, "decode", lambda item, where: decoded.append(item) or plain(item, where)
    )
    folder = write_listed(tmp_path / "mine", 21, 21)
    config = config_of(folder, cache="disk")
    first = load_pictures(config)
    assert len(decoded) == 19
    assert torch.equal(load_pictures(config).images, first.images)
    assert len(decoded) == 19
    wide = load_pictures(replace(config, channels=3))
    assert (wide.shape, len(decoded)) == ((3, 4, 6), 38)
    (folder / "03.png").write_bytes(png(gradient(200))["bytes"])
    os.utime(folder / "03.png", (time.time() + 9, time.time() + 9))
    again = load_pictures(config)
    assert len(decoded) == 57
    assert (again.images != first.images).flatten(1).any(1).nonzero().flatten().tolist() == [2]
    assert len(kept(cache)) == 3


def test_a_write_that_was_killed_is_done_again_and_leaves_nothing(tmp_path: Path, cache: Path):
    path = write(tmp_path / "all.parquet", [10, 20, 30])
    config = config_of(path, cache="disk")
    child = os.fork()
    if not child:  # dies in the middle, as by SIGKILL: nothing is cleaned up
        decoding.channels_first = lambda _: os._exit(9)  # type: ignore[assignment]
        load_pictures(config)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    left = kept(cache)
    assert [path.name.split(".tmp-")[1] for path in left] == [f"{socket.gethostname()}-{child}"]
    found = load_pictures(config).images
    assert torch.equal(found, load_pictures(replace(config, cache="memory")).images)
    assert [path.name for path in kept(cache)] == [left[0].name.split(".")[1]]


def test_a_failed_write_is_told_and_leaves_nothing(tmp_path: Path, cache: Path):
    path = tmp_path / "all.parquet"
    write_parquet(path, [png(gradient(1)), png(gradient(2)), None], [0, 1, 2], CLASSES)
    with pytest.raises(DataError, match="the picture in row 2 is missing"):
        load_pictures(config_of(path, cache="disk"))
    assert kept(cache) == []


@pytest.mark.parametrize("name", ["images", "kept.json"])
def test_damage_is_named_with_what_to_do(tmp_path: Path, cache: Path, name: str):
    config = config_of(write(tmp_path / "all.parquet", [10, 20, 30]), cache="disk")
    load_pictures(config)
    (kept(cache)[0] / name).write_bytes(b"")
    with pytest.raises(DataError, match=r"damaged .*; delete it, and the same command makes it"):
        load_pictures(config)


def test_captions_that_are_too_long_copy_no_pictures(tmp_path: Path):
    folder = write_listed(tmp_path / "said", 6, 6, text="one two")
    lines = (folder / "metadata.jsonl").read_text().splitlines()
    lines[2] = lines[2].replace("one two", "one two two two")
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    both: list[Pictures] = []
    for where in ("memory", "disk"):
        config = config_of(folder, caption_column="text", caption_length=3, cache=where)
        read = load_pictures(config)
        assert read.captions is not None
        short = captioned(read, train_tokenizer(read.captions, "word", 99, 1), config)
        assert short.stored is read.stored
        assert len(short) == len(read) - 1 == len(short.images)
        both.append(short)
    for rows in (torch.arange(len(both[0])), torch.tensor([3, 0])):
        for ours, theirs in zip(*(each.take(rows) for each in both), strict=True):
            assert ours is not None
            assert theirs is not None
            assert torch.equal(ours, theirs)
    assert both[1].images[:, 0, 0, 0].tolist() == both[1].some()[:, 0, 0, 0].tolist()


def test_a_run_may_go_on_with_pictures_on_disk(tmp_path: Path, cache: Path):
    write(tmp_path / "all.parquet", [10, 20, 30])
    words = (f"data.name={tmp_path / 'all.parquet'}", "data.size=8", "train.decay=none")
    both: list[dict[str, object]] = []
    for name, end in (("kept", "disk"), ("again", "memory")):
        train(image_config(*words, "train.steps=1"), tmp_path / name, PANEL, quiet=True)
        config = image_config(*words, "train.steps=2", f"data.cache={end}")
        both.append(train(config, tmp_path / name, PANEL, quiet=True))
    assert both[0]["loss"] == both[1]["loss"]
    assert len(kept(cache)) == 1


@pytest.mark.parametrize("name", ["digits", "scene", "figures"])
def test_embedded_pictures_are_not_kept_on_disk(name: str):
    with pytest.raises(ConfigError, match=r"data\.cache = 'disk': of pictures in files"):
        image_config(f"data.name={name}", "data.label_column=null", "data.cache=disk")
