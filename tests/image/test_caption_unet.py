"""The U-Net that reads captions: its contract, and that it reads them as sequences."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from image.caption_unet import CaptionUnet
from image.config import ImageConfig, UnetConfig
from image.net import build_net
from image.panel import PANEL
from image.pipeline import Pipeline
from shared.configs import load_config
from shared.errors import ConfigError
from shared.requests import EvaluateRequest

TINY = UnetConfig(
    channels=(8, 16, 16), layers=1, attention=(1,), head_dim=8, source_depth=1, source_dim=16
)
IDS = torch.tensor([[3, 4, 0], [5, 0, 0]])


def inputs(latent_shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """x, logsnr, previous."""
    torch.manual_seed(1)
    x, previous = torch.randn(2, 2, *latent_shape)
    return x, torch.tensor([-1.0, 2.0]), previous


def opened(latent_shape: tuple[int, ...], self_condition: bool = True) -> CaptionUnet:
    """Nothing is zero, so that the output depends on everything."""
    torch.manual_seed(0)
    net = CaptionUnet(latent_shape, TINY, self_condition, conditions=7)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return net.eval()


@pytest.mark.parametrize("latent_shape", [(3, 4, 8), (3, 4, 8, 5)])
def test_output_is_zero_at_first_and_then_depends_on_every_input(latent_shape):
    x, logsnr, previous = inputs(latent_shape)
    fresh = CaptionUnet(latent_shape, TINY, True, conditions=7)(x, logsnr, IDS, previous)
    assert fresh.shape == x.shape
    assert not bool(fresh.any())
    net = opened(latent_shape)
    out = net(x, logsnr, IDS, previous)
    for changed in (
        net(x + 0.1, logsnr, IDS, previous),
        net(x, logsnr + 1, IDS, previous),
        net(x, logsnr, IDS, previous + 0.1),
        net(x, logsnr, IDS + 1, previous),
        net(x, logsnr, None, previous),
    ):
        assert float((changed - out).flatten(1).abs().amax(1).min()) > 1e-3


def test_every_layer_learns_within_two_steps():
    """Zeros at the start may hide each other for one step, not for two."""
    torch.manual_seed(0)
    net = CaptionUnet((3, 4, 8), TINY, True, conditions=7)
    x, logsnr, previous = inputs((3, 4, 8))
    seen: set[str] = set()
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    for _ in range(5):
        optimizer.zero_grad()
        (net(x, logsnr, IDS, previous) - x).square().sum().backward()
        seen |= {n for n, p in net.named_parameters() if p.grad is not None and p.grad.any()}
        optimizer.step()
    assert {name for name, _ in net.named_parameters()} - seen == set()


def test_order_of_words_matters_and_padding_does_not():
    net = opened((3, 4, 8))
    x, logsnr, previous = inputs((3, 4, 8))
    out = net(x, logsnr, IDS, previous)
    assert_close(net(x, logsnr, IDS[:, :2], previous), out, atol=1e-5, rtol=1e-5)
    turned = net(x, logsnr, torch.tensor([[4, 3, 0], [5, 0, 0]]), previous)
    assert float((turned - out)[0].abs().max()) > 1e-3
    assert_close(turned[1], out[1], atol=1e-5, rtol=1e-5)
    zeros = torch.zeros(2, 3, dtype=torch.long)
    none = net(x, logsnr, None, previous)
    assert_close(net(x, logsnr, zeros, previous), none, atol=1e-5, rtol=1e-5)


def test_levels_that_do_not_divide_the_picture_are_refused():
    with pytest.raises(ConfigError, match="3 levels halve"):
        CaptionUnet((3, 6, 8), TINY, False, conditions=7)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"source_depth": -1}, "unet.source_depth = -1"),
        ({"source_depth": 1, "attention": ()}, "no level attends to a caption"),
        ({"source_dim": 12}, "unet.source_dim = 12: expected a multiple of 8"),
        ({"source_dim": 0}, "unet.source_dim"),
    ],
)
def test_impossible_readers_are_refused(settings, words: str):
    with pytest.raises(ValueError, match=words):
        UnetConfig(**settings)


def test_the_large_recipe_of_emoji_builds_at_full_size_without_memory():
    _, _, config, _ = load_config("image/emoji_text_gpu", [])
    assert isinstance(config, ImageConfig)
    with torch.device("meta"):
        net = build_net(config, (3, 64, 64), config.data.vocabulary)
        ids = torch.ones(2, config.data.caption_length, dtype=torch.long)
        out = net(torch.zeros(2, 3, 64, 64), torch.zeros(2), ids, None)
    assert out.shape == (2, 3, 64, 64)
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(202.8, rel=0.01)


def test_a_run_reads_captions_with_a_unet(make_run):
    run = make_run(
        "data.name=scene", "data.caption_column=scene", "data.limit=80", "network=unet",
        "unet.channels=[8, 16, 16]", "unet.layers=1", "unet.attention=[2]", "unet.head_dim=8",
        "unet.resample=conv", "unet.source_depth=1", "unet.source_dim=16", "train.optimizer=muon",
        "data.held_out=validation",
    )  # fmt: skip
    prompt = "small yellow solid star centre"
    pictures = Pipeline.from_pretrained(run)(prompt=prompt, num_inference_steps=2).images
    assert pictures[0].size == (32, 32)
    assert PANEL.evaluate(run, EvaluateRequest(n=4, steps=1))["samples"] == 4
