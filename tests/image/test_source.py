"""Pictures from files: every layout, every way they can be wrong, and the real sets bit for bit."""

import hashlib
import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from image.data import load_pictures
from image.data_config import DataConfig
from image.source import spread
from shared.errors import ConfigError, DataError


def png(array: np.ndarray) -> dict[str, Any]:
    """An array as the `datasets` library keeps a picture."""
    file = io.BytesIO()
    Image.fromarray(array).save(file, format="PNG")
    return {"bytes": file.getvalue(), "path": None}


def gradient(value: int, height: int = 4, width: int = 6) -> np.ndarray:
    """A grey picture in which no two pixels are alike, different for each value."""
    return (np.arange(height * width).reshape(height, width) + value).astype(np.uint8)


def write_parquet(path: Path, images: list[Any], labels: list[Any], label_type: Any) -> Path:
    features = datasets.Features({"image": datasets.Image(), "label": label_type})
    table = pa.table(
        {"image": images, "label": labels},
        schema=features.arrow_schema,  # carries the features, as the hub's files do
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


CLASSES = datasets.ClassLabel(names=["cat", "dog", "owl"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two splits of 4 x 6 pictures, the training one in two shards."""
    pictures = [png(gradient(10 * i)) for i in range(5)]
    write_parquet(tmp_path / "train-00000-of-00002.parquet", pictures[:2], [2, 0], CLASSES)
    write_parquet(tmp_path / "train-00001-of-00002.parquet", pictures[2:4], [1, 2], CLASSES)
    write_parquet(tmp_path / "test.parquet", pictures[4:], [1], CLASSES)
    return tmp_path


def test_folder_of_parquet_splits_is_read_in_order_with_its_classes(folder: Path):
    config = DataConfig(name=str(folder))
    train, test = load_pictures(config), load_pictures(config, held_out=True)
    assert train.images.shape == (4, 1, 4, 6)
    assert train.images.dtype == torch.uint8
    for i in range(4):
        assert np.array_equal(train.images[i, 0].numpy(), gradient(10 * i))
    assert train.condition is not None
    assert train.condition.tolist() == [[3], [1], [2], [3]]  # label + 1: 0 is "none"
    assert train.classes == ("cat", "dog", "owl")
    assert (train.levels, train.conditions) == (256, 4)
    assert np.array_equal(test.images[0, 0].numpy(), gradient(40))
    data, condition = train.take(torch.tensor([3, 1]))
    assert torch.equal(data, train.images[[3, 1]])
    assert condition is not None
    assert condition.tolist() == [[3], [1]]


def test_single_file_holds_out_every_twentieth_picture(tmp_path: Path):
    pictures = [png(gradient(i)) for i in range(45)]
    path = write_parquet(tmp_path / "all.parquet", pictures, [0] * 45, CLASSES)
    config = DataConfig(name=str(path))
    train, test = load_pictures(config), load_pictures(config, held_out=True)
    assert test.images[:, 0, 0, 0].tolist() == [0, 20, 40]
    assert train.images[:, 0, 0, 0].tolist() == [i for i in range(45) if i % 20]


@pytest.mark.parametrize("divided", [True, False])
def test_image_folder_names_its_classes_by_their_folders(tmp_path: Path, divided: bool):
    for split in ("train", "test") if divided else ("",):
        for kind, value in (("dog", 60), ("ant", 90)):
            for i in range(21):
                path = tmp_path / split / kind / f"{i:02d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(gradient(value + (split == "test"))).save(path)
    config = DataConfig(name=str(tmp_path))
    train = load_pictures(config)
    test = load_pictures(config, held_out=True, classes=train.classes)
    assert train.classes == ("ant", "dog")
    assert train.divided == test.divided == divided
    for pictures, count in ((train, 42 if divided else 39), (test, 42 if divided else 3)):
        assert len(pictures) == count
        assert pictures.condition is not None
        kinds = {90: 1, 60: 2} if pictures is train or not divided else {91: 1, 61: 2}
        corners = pictures.images[:, 0, 0, 0].tolist()
        assert pictures.condition.flatten().tolist() == [kinds[corner] for corner in corners]


def write_listed(folder: Path, count: int, listed: int, **columns: Any) -> Path:
    """An image folder whose metadata names the first `listed` of its pictures."""
    folder.mkdir(parents=True)
    for i in range(count):
        Image.fromarray(gradient(10 * i)).save(folder / f"{i:02d}.png")
    rows = [{"file_name": f"{i:02d}.png", "label": i % 2, **columns} for i in range(listed)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metadata.jsonl").write_text(lines, encoding="utf-8")
    return folder


@pytest.mark.parametrize("divided", [True, False])
def test_pictures_that_the_metadata_does_not_name_are_refused_or_left_out(
    tmp_path: Path, divided: bool
):
    folder = tmp_path / "pictures"
    for split in ("train", "test") if divided else ("",):
        write_listed(folder / split, 12, 10)
    config = DataConfig(name=str(folder))
    for held_out in (False, True):
        with pytest.raises(DataError, match=r"says nothing of 2 of its pictures, .*10\.png first"):
            load_pictures(config, held_out)
    skipping = DataConfig(name=str(folder), skip_bad=True)
    train, test = (load_pictures(skipping, held_out) for held_out in (False, True))
    assert (len(train), train.skipped) == (10 if divided else 9, 2)
    assert (len(test), test.skipped) == ((10, 2) if divided else (1, 0))
    assert "10.png" in train.left_out[0]
    assert "11.png" in train.left_out[1]


def test_files_that_other_columns_name_and_hidden_ones_are_not_missed(tmp_path: Path):
    folder = write_listed(tmp_path / "pictures", 3, 2, mask_file_name="02.png")
    (folder / ".02.png").write_bytes((folder / "02.png").read_bytes())
    (folder / "notes.txt").write_text("no picture")
    found = load_pictures(DataConfig(name=str(folder), label_column=None))
    assert found.images[:, 0, 0, 0].tolist() == [10]  # of two, the first is held out


@pytest.mark.parametrize("captioned", [True, False])
def test_a_split_without_the_column_of_the_other_is_named(tmp_path: Path, captioned: bool):
    """Labels beside captions are read where there are any: of both splits, or of none."""
    caption: dict[str, Any] = {"caption_column": "text"} if captioned else {}
    write_listed(tmp_path / "train", 3, 3, text="a")
    rows = [{"file_name": "00.png", "text": "a"}, {"file_name": "01.png", "text": "b"}]
    write_listed(tmp_path / "test", 2, 2)
    (tmp_path / "test" / "metadata.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    config = DataConfig(name=str(tmp_path), **caption)
    train = load_pictures(config)
    said = rf"data\.label_column = 'label': split 'test' of {tmp_path} has image, text"
    with pytest.raises(DataError, match=said):
        load_pictures(config, held_out=True, classes=train.classes)
    said = rf"data\.caption_column = 'words': split 'test' of {tmp_path} has"
    with pytest.raises(DataError, match=said):
        load_pictures(DataConfig(name=str(tmp_path), caption_column="words"), held_out=True)


def test_labels_of_the_held_out_split_alone_are_not_read_beside_captions(tmp_path: Path):
    for split in ("train", "test"):
        write_listed(tmp_path / split, 2, 2, text="a")
    config = DataConfig(name=str(tmp_path), caption_column="text")
    assert load_pictures(config).labels is not None
    assert load_pictures(config, held_out=True, classes=()).labels is None


def test_saved_data_set_is_read(folder: Path, tmp_path: Path):
    loaded = datasets.load_dataset("parquet", data_files={"test": str(folder / "test.parquet")})
    assert isinstance(loaded, datasets.DatasetDict)
    loaded.save_to_disk(tmp_path / "saved")
    config = DataConfig(name=str(tmp_path / "saved"), split="test")
    assert np.array_equal(load_pictures(config).images[0, 0].numpy(), gradient(40))
    with pytest.raises(DataError, match="no split 'train' in it; it has test"):
        load_pictures(DataConfig(name=str(tmp_path / "saved")))
    loaded["test"].save_to_disk(tmp_path / "whole")
    assert load_pictures(config).divided
    assert not load_pictures(DataConfig(name=str(tmp_path / "whole")), held_out=True).divided


def test_string_labels_of_another_split_keep_the_numbers_of_the_first(tmp_path: Path):
    kind = datasets.Value("string")
    pictures = [png(gradient(i)) for i in range(3)]
    write_parquet(tmp_path / "train.parquet", pictures, ["owl", "cat", "owl"], kind)
    write_parquet(tmp_path / "test.parquet", pictures[:1], ["owl"], kind)
    config = DataConfig(name=str(tmp_path))
    train = load_pictures(config)
    test = load_pictures(config, held_out=True, classes=train.classes)
    assert train.classes == test.classes == ("cat", "owl")
    assert train.condition is not None
    assert test.condition is not None
    assert (train.condition.tolist(), test.condition.tolist()) == ([[2], [1], [2]], [[2]])


def test_pictures_are_cropped_to_the_centre_square_scaled_and_made_grey_on_request(tmp_path: Path):
    wide = np.zeros((4, 8, 3), np.uint8)
    wide[:, 2:6] = (255, 0, 0)  # the centre is red, the sides are black
    path = write_parquet(tmp_path / "a.parquet", [png(wide)] * 2, [0, 0], CLASSES)
    colour = load_pictures(DataConfig(name=str(path), size=2)).images
    assert colour.shape == (1, 3, 2, 2)
    assert colour[0, :, 0, 0].tolist() == [255, 0, 0]
    grey = load_pictures(DataConfig(name=str(path), size=2, channels=1)).images
    assert grey.shape == (1, 1, 2, 2)
    assert grey.unique().tolist() == [76]  # 0.299 of 255


def test_transparency_is_laid_over_white(tmp_path: Path):
    clear = np.zeros((4, 4, 4), np.uint8)
    path = write_parquet(tmp_path / "a.parquet", [png(clear)] * 2, [0, 0], CLASSES)
    assert load_pictures(DataConfig(name=str(path))).images.unique().tolist() == [255]


def test_limit_spreads_over_the_split_so_that_sorted_data_keeps_its_classes(tmp_path: Path):
    assert spread(10, 4).tolist() == [0, 2, 5, 7]
    assert spread(3, 4).tolist() == spread(3, None).tolist() == [0, 1, 2]
    labels = [0] * 10 + [1] * 10 + [2] * 10
    pictures = [png(gradient(i)) for i in range(30)]
    write_parquet(tmp_path / "train.parquet", pictures, labels, CLASSES)
    few = load_pictures(DataConfig(name=str(tmp_path), limit=6))
    assert few.condition is not None
    assert few.condition.flatten().tolist() == [1, 1, 2, 2, 3, 3]


def test_labels_may_be_left_out(folder: Path):
    pictures = load_pictures(DataConfig(name=str(folder), label_column=None))
    assert (pictures.condition, pictures.classes, pictures.conditions) == (None, (), 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "/nowhere/at/all"}, ["data.name", "no such file or folder"]),
        ({"split": "training"}, ["no split 'training'", "test, train"]),
        ({"image_column": "picture"}, ["data.image_column = 'picture'", "image, label"]),
        ({"image_column": "label"}, ["holds no pictures", "columns that do: image"]),
        ({"label_column": "kind"}, ["data.label_column = 'kind'", "image, label", "null"]),
    ],
)
def test_what_is_not_there_is_named_with_what_is(folder: Path, change, words):
    with pytest.raises(DataError) as caught:
        load_pictures(DataConfig(**({"name": str(folder)} | change)))
    for word in words:
        assert word in str(caught.value)
    assert caught.value.code == 3


def test_variable_that_is_not_set_is_named():
    with pytest.raises(ConfigError, match="environment variable"):
        load_pictures(DataConfig(name="$NO_SUCH_VARIABLE/data"))


def broken() -> dict[str, Any]:
    content = png(gradient(0, 40, 40))["bytes"]
    return {"bytes": content[: len(content) // 2], "path": None}


def encoded(picture: Image.Image, kind: str, **more: Any) -> dict[str, Any]:
    file = io.BytesIO()
    picture.save(file, format=kind, **more)
    return {"bytes": file.getvalue(), "path": None}


def animated() -> dict[str, Any]:
    frames = [Image.fromarray(gradient(90 * i)) for i in range(3)]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


def bomb(side: int) -> dict[str, Any]:
    """A small file that says its picture has side x side pixels."""
    content = bytearray(png(gradient(0))["bytes"])
    content[16:24] = struct.pack(">II", side, side)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return {"bytes": bytes(content), "path": None}


def deep_png(kind: int, channels: int) -> dict[str, Any]:
    """A PNG of 16 bits a channel, of a colour type that Pillow reads as 8 bits."""

    def chunk(name: bytes, content: bytes) -> bytes:
        check = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)

    rows = b"".join(b"\0" + bytes(range(2 * channels * 6)) for _ in range(4))
    header = struct.pack(">IIBBBBB", 6, 4, 16, kind, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return {"bytes": b"\x89PNG\r\n\x1a\n" + body, "path": None}


def deep_tiff(planar: int) -> dict[str, Any]:
    """An RGB TIFF of 16 bits a channel, its channels interleaved (1) or one after another (2)."""
    shorts = {256: 6, 257: 4, 259: 1, 262: 2, 277: 3, 278: 4, 284: planar}
    planes = 1 if planar == 1 else 3
    end = 8 + 2 + 12 * (len(shorts) + 3) + 4
    tags = [(tag, 3, 1, value) for tag, value in shorts.items()] + [(258, 3, 3, end)]
    if planes == 1:
        tags += [(273, 4, 1, end + 30), (279, 4, 1, 144)]
    else:
        tags += [(273, 4, 3, end + 6), (279, 4, 3, end + 18)]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    places = struct.pack("<3I3I", *(end + 30 + 48 * i for i in range(3)), 48, 48, 48)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0)
    return {
        "bytes": head + struct.pack("<3H", 16, 16, 16) + places + bytes(range(144)),
        "path": None,
    }


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (broken(), "row 2 is corrupt"),
        ({"bytes": b"no picture at all", "path": None}, "row 2 is corrupt"),
        (None, "row 2 is missing"),
        (png(gradient(0, 5, 6)), "row 2 is 5 x 6, the first one is 4 x 6; set data.size"),
        (png(np.full((4, 6), 999, np.uint16)), "row 2 has more than 8 bits"),
        (deep_png(2, 3), r"row 2 has more than 8 bits a channel \(mode RGB;16B\)"),
        (deep_png(4, 2), r"row 2 has more than 8 bits a channel \(mode LA;16B\)"),
        (deep_png(6, 4), r"row 2 has more than 8 bits a channel \(mode RGBA;16B\)"),
        (deep_tiff(1), r"row 2 has more than 8 bits a channel \(mode RGB, 16 bits\)"),
        (deep_tiff(2), r"row 2 has more than 8 bits a channel \(mode RGB, 16 bits\)"),
        (animated(), "row 2 is animated: 3 frames"),
        (bomb(20_000), "row 2 is larger than any picture should be"),
        (bomb(10_000), "row 2 is larger than any picture should be"),
    ],
)
def test_bad_picture_is_named_by_its_row(tmp_path: Path, bad: Any, words: str):
    good = png(gradient(0))
    write_parquet(tmp_path / "train.parquet", [good, good, bad, good], [0, 1, 2, 0], CLASSES)
    with pytest.raises(DataError, match=words):
        load_pictures(DataConfig(name=str(tmp_path)))


def test_bad_pictures_are_left_out_and_counted_on_request(tmp_path: Path):
    pictures = [png(gradient(0)), broken(), png(gradient(9)), None, animated(), bomb(20_000)]
    write_parquet(tmp_path / "train.parquet", pictures, [0, 1, 2, 0, 1, 2], CLASSES)
    found = load_pictures(DataConfig(name=str(tmp_path), skip_bad=True))
    assert found.skipped == 4
    words = ("row 1 is corrupt", "row 3 is missing", "row 4 is animated", "row 5 is larger than")
    assert all(said in why for said, why in zip(words, found.left_out, strict=True))
    assert found.images[:, 0, 0, 0].tolist() == [0, 9]
    assert found.condition is not None
    assert found.condition.flatten().tolist() == [1, 3]
    write_parquet(tmp_path / "test.parquet", [None, broken()], [0, 1], CLASSES)
    with pytest.raises(DataError, match="all of its 2 pictures are bad"):
        load_pictures(DataConfig(name=str(tmp_path), skip_bad=True), held_out=True)


def test_pictures_of_every_mode_of_8_bits_are_read_as_they_look(tmp_path: Path):
    colours = np.zeros((4, 6, 3), np.uint8)
    colours[:, :3], colours[:, 3:] = (255, 0, 0), (0, 0, 255)
    whole = Image.fromarray(colours)
    clear = whole.convert("RGBA")
    clear.putalpha(255)
    pictures = [
        encoded(whole, "PNG"),
        encoded(whole.convert("P", palette=Image.Palette.ADAPTIVE), "PNG"),
        encoded(clear, "PNG"),
        encoded(whole.convert("CMYK"), "TIFF"),
        encoded(whole, "MPO", save_all=True, append_images=[whole], quality=100, subsampling=0),
    ]
    write_parquet(tmp_path / "train.parquet", pictures, [0] * 5, CLASSES)
    images = load_pictures(DataConfig(name=str(tmp_path), channels=3)).images
    assert torch.equal(images[1:4], images[:1].expand(3, -1, -1, -1))
    assert bool((images[4].int() - images[0].int()).abs().le(60).all())  # JPEG within


@pytest.mark.parametrize("kind", [CLASSES, datasets.Value("int64")])
@pytest.mark.parametrize("label", [-1, 3, None])
def test_bad_label_is_named_by_its_row(tmp_path: Path, kind: Any, label: int | None):
    """Plain integers have no upper end of their own: there the training split's classes give it."""
    write_parquet(tmp_path / "train.parquet", [png(gradient(0))] * 3, [0, 2, label], kind)
    names = kind.names if kind is CLASSES else ["0", "1", "2"]
    said = "row 2 has no class" if label is None else f"row 2 holds {label}"
    with pytest.raises(DataError, match=said):
        load_pictures(DataConfig(name=str(tmp_path)), classes=names)


def test_damaged_parquet_is_refused(tmp_path: Path):
    (tmp_path / "train.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(DataError, match="cannot be read"):
        load_pictures(DataConfig(name=str(tmp_path)))


# MD5 of the files as their authors publish them: a header of four integers, then the pixels.
@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("fashion_mnist", "8181f5470baa50b63fa0f6fddb340f0a"),
        ("mnist", "2646ac647ad5339dbf082846283269ea"),
    ],
)
def test_real_pictures_are_those_of_the_original_bit_for_bit(real_data, name: str, digest: str):
    test = load_pictures(DataConfig(name=str(real_data / name)), held_out=True)
    header = struct.pack(">4i", 2051, 10_000, 28, 28)
    assert hashlib.md5(header + test.images.numpy().tobytes()).hexdigest() == digest
    assert test.condition is not None
    assert test.condition.unique().tolist() == list(range(1, 11))


def test_real_data_of_other_kinds_is_read(real_data: Path):
    cifar = load_pictures(DataConfig(name=str(real_data / "cifar10_jpeg"), limit=20))
    assert cifar.images.shape == (20, 3, 32, 32)
    assert len(cifar.classes) == 10
    emoji = load_pictures(
        DataConfig(name="$DIPTYCH_DATA/emoji", label_column="group", size=32, limit=90)
    )
    assert emoji.images.shape == (90, 3, 32, 32)
    assert "Food & Drink" in emoji.classes
