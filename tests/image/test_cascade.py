"""A cascade: what the second model is told, that it follows it, and what is refused."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from image.beside import BesideNet, BesidePictures
from image.cascade import Small, fidelity
from image.config import ImageConfig
from image.data import load_pictures
from image.panel import PANEL
from image.pipeline import Pipeline
from shared import noise
from shared.errors import ConfigError, DataError
from shared.learner import DiffusionLearner
from shared.requests import EvaluateRequest, SampleRequest
from shared.sampling import Sampling
from tests.image.conftest import image_config, opened_learner

UPSCALE = ("upscale.factor=2", "patch=2", "diffusion.self_condition=false")
KEYS = torch.tensor([4, 9])


def pictures(shape: tuple[int, ...] = (2, 3, 4, 8)) -> Tensor:
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(1)).to(torch.uint8)


def test_small_pictures_are_means_of_blocks_and_come_back_with_their_ids():
    small, data, ids = Small((3, 4, 8), 256, 2, 0.5), pictures(), torch.tensor([[5, 0], [7, 300]])
    means = data.double().view(2, 3, 2, 2, 4, 2).mean((3, 5)) / 127.5 - 1
    shrunk = small.seen(data)
    torch.testing.assert_close(shrunk.double(), means, atol=1e-6, rtol=0)
    read, beside = small.read(small.row(shrunk, torch.zeros(2), ids, KEYS))
    assert read is not None
    assert torch.equal(read, ids)
    torch.testing.assert_close(beside[:, :3], small.enlarged(shrunk))
    assert not bool(beside[:, 3].any())
    assert small.read(small.row(shrunk, torch.zeros(2), None, KEYS))[0] is None


def test_enlarging_is_piecewise_smooth_about_the_same_places():
    """A ramp stays the same ramp away from the border: half a pixel off would show."""
    small = Small((1, 16, 16), 256, 2, 0.5)
    ramp = torch.linspace(-1, 1, 16).expand(1, 1, 16, 16)
    large = small.enlarged(torch.nn.functional.avg_pool2d(ramp, 2))
    torch.testing.assert_close(large[..., 4:-4], ramp[..., 4:-4], atol=1e-5, rtol=0)


def test_augmentation_keeps_the_variance_and_is_told():
    small, a = Small((3, 4, 8), 256, 2, 0.5), torch.tensor([0.2, 0.4])
    shrunk = small.seen(pictures())
    told = small.row(shrunk, a, None, KEYS)
    drawn = noise.normal(KEYS, -11, (3, 2, 4))
    for i in range(2):
        signal, spread = math.cos(math.pi / 2 * a[i]), math.sin(math.pi / 2 * a[i])
        torch.testing.assert_close(
            told[i, 1:], (signal * shrunk[i] + spread * drawn[i]).flatten(), atol=1e-6, rtol=0
        )
    assert torch.equal(small.read(told)[1][:, 3], a.view(2, 1, 1).expand(2, 4, 8))
    many = small(pictures((400, 3, 4, 8)), None, torch.arange(400))[:, 0]
    assert 0 <= float(many.min()) < 0.02 < 0.48 < float(many.max()) < 0.5
    assert float(many.mean()) == pytest.approx(0.25, abs=5 * 0.5 / math.sqrt(12 * 400))


@pytest.mark.parametrize(
    "settings", [(), ("network=unet", "unet.channels=[8, 16]", "unet.attention=[1]",
                      "unet.head_dim=8"), ("codec.kind=bits",)]
)  # fmt: skip
def test_every_network_sees_the_small_picture_alone_as_in_a_batch(settings: tuple[str, ...]):
    pipeline = opened(image_config(*UPSCALE, *settings))
    low = [np.full((4, 4), 40 * i, np.uint8) for i in range(5)]
    how: dict[str, Any] = {"num_inference_steps": 4, "output_type": "latent", "guidance_scale": 2.0}
    seeds = [3, 4, 5, 6, 7]
    together = pipeline([1, 2, 3, 4, 5], seeds=seeds, low=low, **how).images
    for i in (0, 4):
        alone = pipeline(i + 1, seeds=[seeds[i]], low=low[i], **how).images
        assert float((together[i] - alone[0]).abs().max()) < 1e-5
    other = pipeline(1, seeds=seeds[:1], low=low[4], **how).images
    assert float((together[0] - other[0]).abs().max()) > 0.01


def opened(config: ImageConfig) -> Pipeline:
    """A pipeline whose network is random and far from zero everywhere."""
    from tests.image.test_pipeline import FACTS

    facts = type(FACTS)(9, (1, 8, 8), 17, tuple("0123456789"), 11, 0.7)
    learner = opened_learner(config, facts, seed=1, spread=0.2)
    return Pipeline(learner, facts, config)


def test_guidance_departs_from_the_same_small_picture_without_its_class():
    small, seen = Small((1, 8, 8), 17, 2, 0.5), list[tuple[Tensor | None, Tensor]]()
    pipeline = opened(image_config(*UPSCALE))
    assert isinstance(pipeline.learner, DiffusionLearner)
    net = pipeline.learner.denoiser.net
    assert isinstance(net, BesideNet)
    net.register_forward_pre_hook(lambda _, given: seen.append(small.read(given[2])))
    low = np.full((4, 4), 200, np.uint8)
    pipeline(3, seeds=[1], low=low, low_noise=0.2, guidance_scale=2.0, num_inference_steps=1)
    ids, beside = seen[0]
    assert ids is not None
    assert ids.tolist() == [[0], [4]]
    assert torch.equal(beside[0], beside[1])
    assert torch.allclose(beside[:, 1], torch.tensor(0.2))
    drawn = noise.normal([1], -11, (1, 4, 4))
    c = math.cos(0.1 * math.pi) * (200 / 127.5 - 1) + math.sin(0.1 * math.pi) * drawn
    torch.testing.assert_close(beside[:1, :1], small.enlarged(c))


@pytest.fixture(scope="module")
def enlarger(make_run) -> Path:
    return make_run(
        *UPSCALE, "net.dim=32", "net.depth=2", "train.steps=150", "train.batch=32",
        "train.optimizer=muon", "train.lr=3e-3", "train.warmup=20", "train.ema=0.97",
    )  # fmt: skip


def test_a_trained_model_draws_what_shrinks_to_what_it_was_given(enlarger: Path):
    pipeline = Pipeline.from_pretrained(enlarger)
    assert isinstance(pipeline.beside, Small)
    images = load_pictures(image_config().data, held_out=True).images[:40]
    low = BesidePictures(pipeline.beside.seen(images), 0.0)
    drawn = pipeline.decode(pipeline.latents(range(40), None, Sampling(steps=10), low=low))
    right = fidelity(pipeline.beside, drawn, images)
    wrong = fidelity(pipeline.beside, drawn, images.roll(1, 0))
    assert right["consistency_psnr"] > wrong["consistency_psnr"] + 4
    perfect = fidelity(pipeline.beside, images, images)
    assert perfect["consistency_psnr"] == pytest.approx(10 * math.log10(4e10))


def test_evaluation_enlarges_held_out_pictures(enlarger: Path):
    result = PANEL.evaluate(enlarger, EvaluateRequest(n=20, steps=4, likelihood=True, draws=2))
    assert result["upscaling"]["consistency_psnr"] > 10
    assert result["class_agreement"] > 0.3  # of the pictures that were enlarged
    assert math.isfinite(result["likelihood"]["bits_per_dim"])


def test_the_command_enlarges_a_file_or_what_another_run_draws(
    enlarger: Path, make_run, tmp_path: Path
):
    Image.fromarray(np.full((8, 8), 90, np.uint8)).save(tmp_path / "low.png")
    for name, low in (("file", tmp_path / "low.png"), ("run", make_run("data.limit=200"))):
        request = SampleRequest(n=3, steps=2, condition="4", low=low, low_noise=0.05)
        if name == "run":
            with pytest.raises(ConfigError, match=r"pictures \(1, 8, 8\): expected \(1, 4, 4\)"):
                PANEL.sample(enlarger, request, tmp_path / name)
            continue
        PANEL.sample(enlarger, request, tmp_path / name)
        settings = json.loads((tmp_path / name / "samples.json").read_text())["settings"]
        assert settings["low"] == str(low)
        assert settings["low_noise"] == 0.05
        assert np.load(tmp_path / name / "samples.npz")["images"].shape == (3, 1, 8, 8)


def test_what_cannot_be_enlarged_is_refused(enlarger: Path, make_run, tmp_path: Path):
    pipeline, plain = Pipeline.from_pretrained(enlarger), Pipeline.from_pretrained(make_run())
    low = np.zeros((4, 4), np.uint8)
    with pytest.raises(ConfigError, match="enlarges a picture of 4 x 4 pixels: name one"):
        pipeline()
    with pytest.raises(ConfigError, match="low: this model was not trained with it"):
        plain(low=low)
    with pytest.raises(ConfigError, match=r"low_noise = 0.6: expected a time in \[0, 0.5\]"):
        pipeline(low=low, low_noise=0.6)
    with pytest.raises(DataError, match=r"low = .*none\.png is missing"):
        pipeline(low=tmp_path / "none.png")
    wrong: Any = np.zeros((4, 4))
    with pytest.raises(ConfigError, match=r"low: an array \(4, 4\) of float64"):
        pipeline(low=wrong)
    with pytest.raises(ConfigError, match=r"guide = .*do not read the same beside"):
        pipeline(1, low=low, guide=str(make_run()), guidance_scale=2.0)
    other = make_run("upscale.factor=4", *UPSCALE[1:])
    with pytest.raises(ConfigError, match=r"guide = .*do not read the same beside"):
        pipeline(1, low=low, guide=str(other), guidance_scale=2.0)
    with pytest.raises(ConfigError, match="in diffusers: upscale, sketch, masked: their"):
        pipeline.save_pretrained(tmp_path / "out")
    with pytest.raises(ConfigError, match="expected a divisor of the picture's 8 x 8"):
        Small((1, 8, 8), 17, 3, 0.5)
    for model in ("model=classifier", "model=autoencoder"):
        with pytest.raises(ConfigError, match=r"upscale\.factor = 2: of model = 'diffusion'"):
            image_config("upscale.factor=2", model)
