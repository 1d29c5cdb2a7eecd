"""Sentences written from pictures: from files to the network, and that the picture counts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from shared import scene
from shared.cli import main
from shared.errors import ConfigError, DataError
from shared.requests import EvaluateRequest, SampleRequest
from shared.runs import open_run
from shared.scene import COLOURS, Scene, Thing
from shared.tokenizer import train_tokenizer
from tests.text.conftest import text_config
from text.captions import read_captions
from text.config import DataConfig, PictureConfig
from text.data import read_corpus, to_rows
from text.metrics import recovery
from text.panel import PANEL
from text.pipeline import Pipeline
from text.references import find_references

SIZE, PATCH = 8, 4
PICTURE = PictureConfig(size=SIZE, patch=PATCH)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch) -> None:
    """Keep what `datasets` caches out of the user's folder."""
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def flat(level: Any, height: int = SIZE, width: int = SIZE) -> Image.Image:
    return Image.fromarray(np.full((height, width, 3), level, np.uint8))


def write_folder(folder: Path, pictures: list[Image.Image], rows: list[dict[str, Any]]) -> Path:
    """An image folder as `diptych data scene DIR` writes it."""
    folder.mkdir(parents=True)
    for i, picture in enumerate(pictures):
        picture.save(folder / f"{i:03d}.png")
    lines = [json.dumps({"file_name": f"{i:03d}.png"} | row) + "\n" for i, row in enumerate(rows)]
    (folder / "metadata.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def config_of(folder: Path, picture: PictureConfig = PICTURE, **settings: Any) -> DataConfig:
    return DataConfig(name=str(folder), source="picture", picture=picture, **settings)


def test_captions_stay_with_their_pictures_and_no_picture_is_on_both_sides(tmp_path: Path) -> None:
    levels = [i % 50 for i in range(150)]  # each picture three times
    texts = [{"text": f"level  {level} again {i}"} for i, level in enumerate(levels)]
    folder = write_folder(tmp_path / "a", [flat(4 * level) for level in levels], texts)
    sides = [read_captions(config_of(folder), held_out) for held_out in (False, True)]
    seen = [{int(level) for level in pictures.images[:, 0, 0, 0]} for _, pictures in sides]
    assert sum(len(said) for said, _ in sides) == 150
    assert 0 < len(seen[1]) < 15
    assert not seen[0] & seen[1]
    for said, pictures in sides:
        assert [int(one.split()[1]) * 4 for one in said] == pictures.images[:, 0, 0, 0].tolist()
    few, _ = read_captions(config_of(folder, limit=7))
    assert few == sides[0][0][:7]


def test_folders_of_splits_are_read_as_they_are(tmp_path: Path) -> None:
    for split, n in (("train", 5), ("validation", 3)):
        rows = [{"text": f"{split} {i}"} for i in range(n)]
        write_folder(tmp_path / split, [flat(i) for i in range(n)], rows)
    assert read_captions(config_of(tmp_path))[0] == [f"train {i}" for i in range(5)]
    assert read_captions(config_of(tmp_path), held_out=True)[0] == [
        f"validation {i}" for i in range(3)
    ]


def test_rows_give_the_patches_of_the_sentences_that_fit(tmp_path: Path) -> None:
    rows = [{"text": "a b"}, {"text": "a b c d"}, {"text": "c a"}]
    folder = write_folder(tmp_path / "train", [flat(v) for v in (0, 100, 255)], rows).parent
    config = config_of(folder, length=4)
    found = to_rows(read_corpus(config), train_tokenizer(["a b c d"], "word", 20), config)
    assert (len(found), found.dropped) == (2, 1)
    _, patches = found.take(torch.tensor([1, 0]))
    assert patches is not None
    assert patches.shape == (2, *PICTURE.row_shape) == (2, 4, 48)
    assert_close(patches[:, 0, 0], torch.tensor([1.0, -1.0]))


def test_without_a_source_captions_are_sentences_like_others(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "train", [flat(3)], [{"text": "a b"}]).parent
    corpus = read_corpus(DataConfig(name=str(folder), picture=PICTURE))
    assert (corpus.sentences, corpus.pictures) == (["a b"], None)


def test_pictures_of_another_size_are_scaled_on_request_or_refused(tmp_path: Path) -> None:
    pictures = [flat(9), flat(200, 12, 10)]
    rows = [{"text": "a"}, {"text": "b"}]
    folder = write_folder(tmp_path / "train", pictures, rows).parent
    with pytest.raises(DataError, match=r"row 1 \(.*001\.png\) is 12 x 10 pixels, expected 8 x 8"):
        read_captions(config_of(folder))
    scaled = PictureConfig(size=SIZE, patch=PATCH, scale=True, channels=1)
    assert read_captions(config_of(folder, scaled))[1].images.shape == (2, 1, SIZE, SIZE)


@pytest.mark.parametrize("caption", ["", "  ", None])
def test_a_picture_without_a_caption_is_named(tmp_path: Path, caption: str | None) -> None:
    rows = [{"text": "a"}, {"text": caption}]
    folder = write_folder(tmp_path / "train", [flat(9), flat(8)], rows).parent
    with pytest.raises(DataError, match=r"row 1 \(.*001\.png\) has no caption in data\.column"):
        read_captions(config_of(folder))


def test_a_caption_without_a_picture_is_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "train", [flat(9), flat(8)], [{"text": "a"}, {"text": "b"}])
    (folder / "001.png").unlink()
    with pytest.raises(DataError, match=r"001\.png"):
        read_captions(config_of(tmp_path))


def test_a_picture_that_no_caption_names_is_named(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", [flat(9), flat(8)], [{"text": "a"}])
    with pytest.raises(DataError, match=r"001\.png"):
        read_captions(config_of(tmp_path))


def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "train", [flat(9), flat(8)], [{"text": "a"}, {"text": "b"}])
    (folder / "001.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"row 1 \(.*001\.png\) is corrupt"):
        read_captions(config_of(tmp_path))


def test_columns_that_are_missing_are_named(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", [flat(9)], [{"text": "a"}])
    for config, key in (
        (config_of(tmp_path, column="said"), r"data\.column = 'said'"),
        (config_of(tmp_path, PictureConfig(size=8, column="x")), r"data\.picture\.column = 'x'"),
        (config_of(tmp_path, PictureConfig(size=8, scenes="s")), r"data\.picture\.scenes = 's'"),
        (config_of(tmp_path, PictureConfig(size=8, column="text")), "holds no pictures"),
    ):
        with pytest.raises(DataError, match=rf"{key}"):
            read_captions(config)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (("data.name=scene",), "diptych data scene DIR"),
        (("data.source=text",), "beside data.picture expected 'picture'"),
        (("data.partial_sources=0.5",), "not of captions"),
        (("data.picture.patch=5",), "expected a divisor of data.picture.size = 8"),
        (("data.picture.channels=2",), r"expected 1 \(grey\) or 3"),
        (("model=causal", "net.source_depth=0"), "the causal reference reads words"),
        (("net.source_depth=0",), "needs blocks that read it"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    settings: tuple[str, ...], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        text_config("data.name=./nowhere", *READS, *settings)


# A world of one thing in eight colours, and pictures of nothing but its colour.
READS = (
    "data.source=picture", f"data.picture={{size: {SIZE}, patch: {PATCH}, scenes: scene}}",
    "net.cross_attention=true", "net.source_depth=1", "diffusion.drop_condition=0.1",
)  # fmt: skip


def caption_of(colour: str) -> str:
    article = "an" if colour == "orange" else "a"
    return f"there is {article} {colour} star at the top ."


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("captioned")
    for split, n in (("train", 160), ("validation", 16)):
        seen = [COLOURS[i % 8] for i in range(n)]
        pictures = [tint(COLOURS.index(c), i // 8 % 5) for i, c in enumerate(seen)]
        rows = [{"text": caption_of(c), "scene": spelt(c)} for c in seen]
        write_folder(folder / split, pictures, rows)
    return folder


def tint(number: int, shade: int) -> Image.Image:
    """The corners of the cube of colours, each in some shades."""
    return flat([220 * (number >> bit & 1) + 7 * shade for bit in range(3)])


def spelt(colour: str) -> str:
    return scene.spell(Scene((Thing("star", colour, "solid", "small", "top"),)))


@pytest.fixture(scope="module")
def run(told: Path, make_run) -> Path:
    steps = ("train.steps=200", "train.batch=32", "train.lr=1e-2", "data.length=10")
    return make_run(f"data.name={told}", *READS, *steps)


def colours_right(texts: list[str], seen: list[str]) -> float:
    facts = [recovery.compute([text], [spelt(c)]) for text, c in zip(texts, seen, strict=True)]
    return sum(found["colour"] for found in facts) / len(facts)


def test_captions_follow_their_pictures_and_shuffled_pictures_destroy_them(
    run: Path, told: Path
) -> None:
    pipe = Pipeline.from_pretrained(run)
    files = sorted((told / "validation").glob("*.png"))
    seen = [COLOURS[i % 8] for i in range(len(files))]
    texts = pipe(image=files, seeds=range(len(files)), num_inference_steps=12).texts
    assert colours_right(texts, seen) >= 0.9
    moved = [*files[3:], *files[:3]]  # every one has another colour
    shuffled = pipe(image=moved, seeds=range(len(files)), num_inference_steps=12).texts
    assert colours_right(shuffled, seen) <= 0.1
    assert colours_right(shuffled, [*seen[3:], *seen[:3]]) >= 0.9


def test_a_caption_depends_on_its_own_picture_and_seed_alone(run: Path, told: Path) -> None:
    pipe = Pipeline.from_pretrained(run)
    files = [str(told / "validation" / f"{i:03d}.png") for i in range(3)]
    texts = pipe(image=files, seeds=[4, 5, 6], num_inference_steps=4).texts
    assert pipe(image=files[1], seeds=[5], num_inference_steps=4).texts == texts[1:2]
    opened = Image.open(files[2])
    assert pipe(image=opened, seeds=[6], num_inference_steps=4).texts == texts[2:]


def test_guidance_at_0_does_not_see_the_picture(run: Path, told: Path) -> None:
    pipe = Pipeline.from_pretrained(run)
    files = sorted((told / "validation").glob("*.png"))[:8]

    def said(scale: float) -> list[list[str]]:
        return [
            pipe(
                image=[file] * 4, seeds=range(4), guidance_scale=scale, num_inference_steps=6
            ).texts
            for file in files
        ]

    assert len({tuple(texts) for texts in said(0.0)}) == 1
    assert len({tuple(texts) for texts in said(3.0)}) > 4


def test_the_command_writes_captions_of_files_and_measures_them(
    run: Path, told: Path, tmp_path: Path, capsys
) -> None:
    files = [str(told / "validation" / f"{i:03d}.png") for i in range(2)]
    asked = ["--image", *files, "--steps", "4", "--mbr", "2", "--out", str(tmp_path), "--json"]
    assert main(["sample", str(run), *asked]) == 0
    result = json.loads(capsys.readouterr().out)
    assert list(result["captions"]) == files
    written = json.loads((tmp_path / "samples.json").read_text())
    assert (written["images"], written["texts"]) == (files, [*result["captions"].values()])
    found = PANEL.evaluate(run, EvaluateRequest(n=16, steps=12, likelihood=True, draws=1))
    assert found["colour"] >= 0.9
    assert found["attributes_of_others"] < found["attributes"]
    assert {"bleu", "rouge_l", "relation"} - set(found) == {"relation"}  # of one thing
    assert found["sources"] == 8
    assert found["likelihood"]["sentences"] == 16


def test_what_a_model_cannot_be_asked_is_refused(
    run: Path, told: Path, tmp_path: Path, make_run
) -> None:
    file = told / "validation" / "000.png"
    flat(3, 9, 7).save(tmp_path / "large.png")
    (tmp_path / "text.png").write_text("no picture")
    for request, error, words in (
        (SampleRequest(image=(tmp_path / "large.png",)), DataError, r"large\.png is 9 x 7 pixels"),
        (SampleRequest(image=(tmp_path / "text.png",)), DataError, r"text\.png is corrupt"),
        (SampleRequest(image=(tmp_path / "none.png",)), DataError, r"none\.png is missing"),
        (SampleRequest(image=(file, file)), ConfigError, "named twice"),
        (SampleRequest(n=3, image=(file,)), ConfigError, "one sample for each of 1 images"),
        (SampleRequest(prompt="red"), ConfigError, "writes from pictures"),
        (SampleRequest(image=(file,), prompt="red"), ConfigError, "writes from pictures"),
        (SampleRequest(guidance=2.0), ConfigError, "guidance: towards what"),
    ):
        with pytest.raises(error, match=words):
            PANEL.sample(run, request, tmp_path / "out")
    with pytest.raises(ConfigError, match="reads no pictures"):
        PANEL.sample(make_run(), SampleRequest(image=(file,)), tmp_path / "out")
    with pytest.raises(ConfigError, match="writes from pictures; leave it out"):
        PANEL.evaluate(run, EvaluateRequest(n=2, prompt="red"))


def test_references_are_the_different_pictures_with_all_their_captions(
    run: Path, told: Path
) -> None:
    pipe = Pipeline.from_pretrained(run)
    found = find_references(open_run(run).config.data, pipe.tokenizer)
    assert found is not None
    assert len(found) == 16
    assert found.sources == [spelt(COLOURS[i % 8]) for i in range(16)]
    assert found.sentences == [[caption_of(COLOURS[i % 8])] for i in range(16)]
    assert found.rows.shape == (16, *PICTURE.row_shape)
