"""Layouts and captions in one model: each is read, dropped and guided by itself."""

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor

from image.captions import captioned
from image.data import DataFacts, load_pictures
from image.data_config import DataConfig
from image.pipeline import Pipeline
from shared.cli import main
from shared.tokenizer import train_tokenizer
from tests.image.conftest import image_config, opened_learner
from tests.image.test_layouts import SIDE, UNET, blocks, correlation, drawn, pictures_of
from tests.image.test_source import png

CAPTIONS = ("a dim one", "a bright one")
LENGTH = 5
READ = (
    "data.layout_column=map", "data.layout_classes=2", f"data.size={SIDE}",
    "data.caption_column=text", f"data.caption_length={LENGTH}", "diffusion.self_condition=false",
    "diffusion.drop_condition={all: 0.1, layout: 0.1, text: 0.1}",
)  # fmt: skip
ATTENDS = ("net.cross_attention=true", "net.source_depth=1")


def write(folder: Path) -> Path:
    """Pictures of blocks, as bright as their layout and their caption say, in two splits."""
    folder.mkdir(parents=True)
    for split, n, seed in (("train", 400, 2), ("test", 40, 3)):
        maps, labels = blocks(n, seed), np.arange(n) % 2
        rows: dict[str, Any] = {
            "image": [png(each) for each in pictures_of(maps, labels)],
            "map": [png(each) for each in maps],
            "text": [CAPTIONS[label] for label in labels],
        }
        kinds = {
            "image": datasets.Image(),
            "map": datasets.Image(),
            "text": datasets.Value("string"),
        }
        table = pa.table(rows, schema=datasets.Features(kinds).arrow_schema)
        pq.write_table(table, folder / f"{split}.parquet")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("laid") / "data")


@pytest.fixture(scope="module")
def run(make_run, folder: Path) -> Path:
    return make_run(
        f"data.name={folder}", *READ, *ATTENDS, "net.dim=32", "train.steps=250", "train.batch=32",
        "train.lr=0.01", "train.ema=0.9",
    )  # fmt: skip


def test_a_row_is_the_layout_and_behind_it_the_caption(folder: Path):
    config = DataConfig(
        name=str(folder), layout_column="map", layout_classes=2, size=SIDE, caption_column="text",
        caption_length=LENGTH,
    )  # fmt: skip
    read = load_pictures(config)
    tokenizer = train_tokenizer(CAPTIONS, "word", 100, 1)
    found = captioned(read, tokenizer, config)
    assert found.condition is not None
    assert found.shows is not None
    layouts, words = found.condition.split([SIDE**2, LENGTH], 1)
    assert np.array_equal(layouts.view(-1, SIDE, SIDE), blocks(400, 2))
    for i in (0, 1, 7):
        ids = tokenizer.encode(CAPTIONS[i % 2])
        assert words[i].tolist() == ids + [0] * (LENGTH - len(ids))
    assert torch.equal(found.shows, words)  # what a judge is told: never the layout
    assert found.conditions == len(tokenizer) > 2
    groups = config.condition_groups()
    assert groups == {
        "layout": tuple(range(SIDE**2)), "text": tuple(range(SIDE**2, SIDE**2 + LENGTH))
    }  # fmt: skip


def test_layout_and_caption_are_told_and_guided_each_by_itself(run: Path):
    pipe, maps = Pipeline.from_pretrained(run), blocks(40, 78)
    dim, bright = (drawn(pipe, maps, prompt=caption) for caption in CAPTIONS)
    assert float((bright - dim).mean()) > 0.1
    for images in (dim, bright):
        assert correlation(images, maps) > 0.9
        assert abs(correlation(images, np.roll(maps, 1, 0))) < 0.2
    one = drawn(pipe, maps, prompt=CAPTIONS[0], guidance_scale={"layout": 1.0, "text": 1.0})
    torch.testing.assert_close(one, dim, atol=2e-2, rtol=0)
    either = drawn(pipe, maps, prompt=CAPTIONS[1], guidance_scale={"layout": 1.0, "text": 0.0})
    assert float(dim.mean()) + 0.03 < float(either.mean()) < float(bright.mean()) - 0.03
    assert correlation(either, maps) > 0.9
    words = drawn(pipe, maps, prompt=CAPTIONS[1], guidance_scale={"layout": 0.0, "text": 0.0})
    assert abs(correlation(words, maps)) < 0.2


def test_each_may_be_given_alone_and_a_negative_prompt_keeps_the_layout(run: Path):
    pipe, maps = Pipeline.from_pretrained(run), blocks(30, 79)
    assert correlation(drawn(pipe, maps), maps) > 0.9
    how: dict[str, Any] = {"seeds": list(range(30)), "output_type": "np", "num_inference_steps": 10}
    dim, bright = (float(pipe(prompt=each, **how).images.mean()) for each in CAPTIONS)
    assert bright - dim > 0.1
    away: dict[str, Any] = {"negative_prompt": CAPTIONS[1], "guidance_scale": 0.0}
    images = drawn(pipe, maps, prompt=CAPTIONS[0], **away)
    torch.testing.assert_close(images, drawn(pipe, maps, prompt=CAPTIONS[1]), atol=2e-2, rtol=0)


@pytest.mark.parametrize("network", [ATTENDS, (*UNET, "unet.source_depth=1", "unet.source_dim=16")])
def test_every_network_reads_both_alone_as_in_a_batch(network: tuple[str, ...]):
    config = image_config("data.name=x", *READ, *network)
    facts = DataFacts(9, (1, SIDE, SIDE), 256, (), 9, 0.7)
    learner = opened_learner(config, facts, seed=0, spread=0.1)
    pipe, maps = Pipeline(learner, facts, config), blocks(3, 5)
    words = torch.tensor([[5, 6, 0, 0, 0], [5, 7, 8, 0, 0], [6, 0, 0, 0, 0]])
    pipe.texts = lambda prompts, name: words[[int(each) for each in prompts]]
    how: dict[str, Any] = {"num_inference_steps": 3, "output_type": "latent", "guidance_scale": 2}
    together = pipe(prompt=["0", "1", "2"], layout=list(maps), seeds=[4, 4, 4], **how).images
    assert isinstance(together, Tensor)
    for i in range(3):
        alone = pipe(prompt=str(i), layout=maps[i], seeds=[4], **how).images
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-4, rtol=1e-4)
    for prompt, place in (("1", maps[0]), ("0", maps[1])):
        other = pipe(prompt=prompt, layout=place, seeds=[4], **how).images
        assert float((other[0] - together[0]).abs().max()) > 1e-3


def test_a_run_of_both_is_used_from_the_command_line(run: Path, tmp_path: Path):
    layout = str(tmp_path / "layout.png")
    Image.fromarray(blocks(1, 5)[0]).save(layout)
    out = tmp_path / "out"
    words = ["sample", str(run), "-n", "2", "--steps", "2", "--out", str(out)]
    both = ["--layout", layout, "--prompt", CAPTIONS[1], "--guidance", "layout=2,text=3"]
    assert main([*words, *both]) == 0
    asked = np.load(out / "samples.npz")["condition"]
    assert np.array_equal(asked[0, : SIDE**2].reshape(SIDE, SIDE), blocks(1, 5)[0])
    assert asked[0, SIDE**2 :].any()
    assert (out / "layouts.png").is_file()
    assert main([*words, "--layout", layout, "--class", "1"]) == 2
    assert main([*words, *both[:-1], "layout=2,caption=3"]) == 2
    assert main(["evaluate", str(run), "-n", "20", "--steps", "4", "--likelihood"]) == 0
    found = json.loads((run / "evaluation.json").read_text())
    assert found["samples"] == 20
    assert "caption_retrieval" in found
