"""Sketches: Sobel's gradient by hand, and models that draw after them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.testing import assert_close

from image.data import DataFacts, load_pictures
from image.learners import build_learner
from image.pipeline import Pipeline
from image.sketch import Sketch, likeness, sketched
from shared.cli import main
from shared.errors import ConfigError
from shared.learner import DiffusionLearner
from tests.image.conftest import image_config, opened_learner

SKETCH = ("sketch=true", "patch=2", "diffusion.self_condition=false")
UNET = (
    "network=unet", "unet.channels=[8, 16]", "unet.layers=1", "unet.attention=[1]",
    "unet.head_dim=8",
)  # fmt: skip


def test_an_edge_is_a_dark_line_and_a_ramp_as_grey_as_its_slope():
    edge = torch.full((1, 1, 6, 7), -1.0)
    edge[..., 3:] = 1
    lines = sketched(edge)
    assert torch.equal(lines[..., 2:4], torch.full((1, 1, 6, 2), -1.0))
    assert torch.equal(lines[..., :2], torch.ones(1, 1, 6, 2))
    assert torch.equal(lines[..., 4:], torch.ones(1, 1, 6, 3))
    assert_close(sketched(edge.mT), lines.mT)
    assert_close(sketched(-edge), lines)
    for across, down in ((0.1, 0.0), (0.06, 0.08)):  # levels a pixel, of white 1
        y, x = torch.meshgrid(torch.arange(8.0), torch.arange(9.0), indexing="ij")
        ramp = (2 * (across * x + down * y) - 1)[None, None]
        inner = sketched(ramp)[..., 1:-1, 1:-1]  # a central difference spans two pixels
        assert_close(inner, torch.full_like(inner, 1 - 2 * 2 * 0.1), atol=1e-5, rtol=0)


def test_colours_count_by_their_luma():
    red, grey = torch.full((1, 3, 4, 6), -1.0), torch.full((1, 1, 4, 6), -1.0)
    red[:, 0, :, 3:] = 1
    grey[..., 3:] = 2 * 0.299 - 1
    assert_close(sketched(red), sketched(grey), atol=1e-6, rtol=0)


def test_a_condition_gives_ids_and_sketch_back():
    sketch, ids = Sketch((3, 4, 8), 256), torch.tensor([[5, 0], [7, 300]])
    data = torch.randint(256, (2, 3, 4, 8), generator=torch.Generator().manual_seed(1))
    row = sketch(data, ids, torch.arange(2))
    read, beside = sketch.read(row)
    assert read is not None
    assert torch.equal(read, ids)
    assert torch.equal(beside, sketch.seen(data))
    assert bool((beside != 1).any())
    named, same = sketch.read(sketch.under(None, row))
    assert named is not None
    assert not named.any()
    assert torch.equal(same, beside)
    assert sketch.read(sketch(data, None, torch.arange(2)))[0] is None
    assert likeness(sketch, data, data) == {"sketch_error": 0.0}
    assert likeness(sketch, data, data.flip(-1))["sketch_error"] > 10


@pytest.mark.parametrize("network", [(), UNET, ("codec.kind=bits",)])
def test_every_network_sees_the_sketch_alone_as_in_a_batch(network: tuple[str, ...]):
    config = image_config(*SKETCH, *network)
    facts = DataFacts(9, (1, 8, 8), 17, ("a", "b"), 3, 0.7)
    learner = opened_learner(config, facts, seed=0, spread=0.1)
    pipeline = Pipeline(learner, facts, config)
    drawings = [np.full((8, 8), 255, np.uint8) for _ in range(3)]
    drawings[1][3, 1:6] = 0
    drawings[2][2:7, 4] = 0
    how: dict[str, Any] = {
        "num_inference_steps": 3, "output_type": "latent", "class_labels": "a", "guidance_scale": 2
    }  # fmt: skip
    together = pipeline(sketch=drawings, seeds=[4, 4, 4], **how).images
    for i in (1, 2):
        alone = pipeline(sketch=drawings[i], seeds=[4], **how).images
        assert_close(together[i : i + 1], alone, atol=1e-4, rtol=1e-4)
        assert float((together[i] - together[0]).abs().max()) > 1e-3


def test_a_run_is_trained_drawn_from_and_measured_from_the_command_line(make_run, tmp_path: Path):
    run = make_run(*SKETCH, "train.steps=40", "train.batch=16", "train.lr=0.01", "data.limit=60")
    drawing = Image.new("RGBA", (16, 16))  # transparent is white paper
    drawing.paste((0, 0, 0, 255), (8, 2, 10, 14))
    drawing.save(tmp_path / "drawing.png")
    words = ["sample", str(run), "-n", "2", "--steps", "2", "--out", str(tmp_path / "out")]
    assert main([*words, "--sketch", str(tmp_path / "drawing.png"), "--class", "1"]) == 0
    assert (tmp_path / "out" / "grid.png").is_file()
    assert main(words) == 2
    assert main([*words, "--low", str(tmp_path / "drawing.png")]) == 2
    assert main(["evaluate", str(run), "-n", "5", "--steps", "2", "--likelihood"]) == 0
    pipeline = Pipeline.from_pretrained(run)
    with pytest.raises(ConfigError, match="sketch: this model follows a sketch of 8 x 8 pixels"):
        pipeline(num_images=1)


def test_training_is_told_the_sketch_of_the_picture_it_sees():
    """Also of one that is flipped."""
    config = image_config(*SKETCH, "data.flip=true", "diffusion.drop_condition=0.0")
    facts = DataFacts(9, (1, 8, 8), 17, (), 0, 0.7)
    learner = build_learner(config, facts, Path("unused"))
    assert isinstance(learner, DiffusionLearner)
    heard: list[torch.Tensor] = []
    inner = nn.Module()
    inner.forward = lambda x, logsnr, ids, previous, beside: heard.append(beside) or x
    learner.denoiser.net.net = inner
    data = load_pictures(image_config().data).images[:30]
    learner.train()(data, None, torch.arange(30), torch.full((30,), 0.5))
    plain = sketched(2 * data.float() / 16 - 1)
    flipped = (heard[0] == sketched(2 * data.flip(-1).float() / 16 - 1)).flatten(1).all(1)
    assert bool(((heard[0] == plain).flatten(1).all(1) | flipped).all())
    assert 4 < int(flipped.sum()) < 26


@pytest.mark.parametrize(
    "words",
    [
        ("model=classifier",),
        ("upscale.factor=2",),
        ("codec.kind=autoencoder", "codec.run=x"),
    ],
)
def test_sketches_that_nothing_reads_are_refused(words: tuple[str, ...]):
    with pytest.raises(ConfigError, match="sketch = true: of model = 'diffusion' with pixels"):
        image_config("sketch=true", *words)


def test_models_without_sketches_refuse_them(make_run):
    with pytest.raises(ConfigError, match="sketch: this model was not trained with it"):
        Pipeline.from_pretrained(make_run())(sketch=np.zeros((8, 8), np.uint8))
