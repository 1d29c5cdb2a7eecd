"""The U-Net: what goes where, what it costs, and how it trains."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from image.config import ImageConfig, UnetConfig
from image.net import build_net
from image.panel import PANEL
from image.unet import Unet, timestep
from shared.configs import load_config
from shared.errors import ConfigError
from shared.runs import load_learner
from shared.schema import override, validate
from shared.train.checkpoint import load, newest
from shared.train.loop import train
from shared.train.optimizer import hidden_matrices
from tests.image.conftest import image_config

TINY = UnetConfig(channels=(8, 16), layers=1, attention=(1,), head_dim=8)
B = 2


def opened(latent_shape: tuple[int, ...], config: UnetConfig = TINY, **settings) -> Unet:
    """A net whose zero-initialised layers are opened, so that its output depends on everything."""
    torch.manual_seed(0)
    net = Unet(latent_shape, config, True, **settings)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return net.eval()


def inputs(latent_shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, logsnr, condition, previous."""
    torch.manual_seed(1)
    x, previous = torch.randn(2, B, *latent_shape)
    return x, torch.tensor([-1.0, 2.0]), torch.tensor([[3], [5]]), previous


def test_first_output_is_zero_whatever_comes_in():
    x, logsnr, condition, previous = inputs((3, 4, 6))
    out = Unet((3, 4, 6), TINY, True, conditions=7)(x, logsnr, condition, previous)
    assert out.shape == x.shape
    assert not bool(out.any())


@pytest.mark.parametrize("latent_shape", [(3, 4, 6), (3, 4, 6, 5)])
def test_output_has_the_shape_of_the_latent_and_depends_on_every_input(latent_shape):
    net = opened(latent_shape, conditions=7)
    x, logsnr, condition, previous = inputs(latent_shape)
    out = net(x, logsnr, condition, previous)
    assert out.shape == x.shape
    for changed in (
        net(x + 0.1, logsnr, condition, previous),
        net(x, logsnr + 1, condition, previous),
        net(x, logsnr, condition + 1, previous),
        net(x, logsnr, None, previous),
        net(x, logsnr, condition, previous + 0.1),
    ):
        assert not torch.allclose(out, changed, atol=1e-3)
    zeros = torch.zeros_like(x)
    torch.testing.assert_close(
        net(x, logsnr, condition, None), net(x, logsnr, condition, zeros), rtol=0, atol=0
    )


def test_id_0_is_no_condition_and_fills_rows_up():
    net = opened((3, 4, 6), conditions=7)
    x, logsnr, condition, previous = inputs((3, 4, 6))

    def out(ids: list[list[int]] | None) -> Tensor:
        given = None if ids is None else torch.tensor(ids)
        return net(x, logsnr, given, previous)

    torch.testing.assert_close(out([[0], [0]]), out(None))
    torch.testing.assert_close(out([[3, 0], [5, 0]]), out(condition.tolist()))
    torch.testing.assert_close(out([[3, 6], [5, 2]]), out([[6, 3], [2, 5]]))
    assert not torch.allclose(out([[3, 6], [5, 2]]), out([[3], [5]]), atol=1e-3)
    with pytest.raises(ValueError, match="conditions = 0"):
        opened((3, 4, 6))(x, logsnr, condition, previous)


def test_samples_do_not_see_each_other():
    net = opened((3, 4, 6), conditions=7)
    x, logsnr, condition, previous = inputs((3, 4, 6))
    alone = net(x[1:], logsnr[1:], condition[1:], previous[1:])
    torch.testing.assert_close(net(x, logsnr, condition, previous)[1:], alone, rtol=1e-4, atol=1e-5)


def test_numbers_of_a_pixel_return_to_the_pixel_and_channel_they_came_from(monkeypatch):
    """A trunk that hands channels through, without self-conditioning, leaves x as it is."""
    net = Unet((3, 4, 6, 5), TINY, False)
    monkeypatch.setattr(net.trunk, "forward", lambda h, t, told, return_dict: (h,))
    x = torch.randn(2, 3, 4, 6, 5)
    assert torch.equal(net(x, torch.zeros(2), None, None), x)


def test_levels_of_noise_span_the_timesteps_of_the_embedding_and_stay_apart():
    assert timestep(torch.tensor([20.0, 0.0, -20.0])).tolist() == [0, 500, 1000]
    logsnr = torch.linspace(-25, 25, 501)  # a tenth of a nat apart, and past both ends
    told = opened((3, 4, 6)).trunk.time_proj(timestep(logsnr))
    apart = torch.cdist(told, told) + 9 * torch.eye(501)
    assert float(apart.min()) > 0.05


def test_sides_that_halve_evenly_work_and_others_are_refused_with_what_would():
    three = UnetConfig(channels=(8, 8, 8), layers=1, attention=())
    x, logsnr, _, previous = inputs((1, 28, 28))
    assert opened((1, 28, 28), three)(x, logsnr, None, previous).shape == x.shape
    four = UnetConfig(channels=(8, 8, 8, 8), layers=1, attention=())
    for shape in ((1, 28, 28), (1, 32, 28)):
        with pytest.raises(ConfigError, match=r"multiples of 8, or at most 3 levels"):
            Unet(shape, four, False)
    with pytest.raises(ConfigError, match=r"15 x 16 pixels .* multiples of 2, or at most 1 level"):
        Unet((1, 15, 16), TINY, False)


def test_only_the_levels_asked_for_attend():
    config = UnetConfig(channels=(8, 16, 24), layers=2, attention=(0, 2), head_dim=8)
    trunk: Any = Unet((1, 8, 8), config, False).trunk
    attends = [hasattr(block, "attentions") for block in [*trunk.down_blocks, *trunk.up_blocks]]
    assert attends == [True, False, True, True, False, True]
    assert [a.heads for a in trunk.down_blocks[2].attentions] == [3, 3]
    assert trunk.mid_block.attentions[0] is not None
    plain: Any = Unet((1, 8, 8), UnetConfig(channels=(8, 16), layers=1, attention=()), False).trunk
    assert plain.mid_block.attentions[0] is None


@pytest.mark.parametrize("resample", ["residual", "conv"])
@pytest.mark.parametrize("scale_shift", [True, False])
def test_every_parameter_receives_a_gradient_once_opened(resample: str, scale_shift: bool):
    config = UnetConfig(
        channels=(8, 16), layers=1, attention=(1,), head_dim=8,
        scale_shift=scale_shift, resample=resample,
    )  # fmt: skip
    net = opened((3, 4, 6), config, conditions=7)
    net(*inputs((3, 4, 6))).square().sum().backward()
    # queries and keys of one attention may be too flat to tell; none may be cut off
    without = [name for name, p in net.named_parameters() if p.grad is None]
    assert without == []


def test_scale_and_shift_by_the_level_act_after_the_norm():
    """ADM's h -> norm(h) (1 + scale) + shift; with only a shift, before the norm."""
    for scale_shift, width in ((True, 2), (False, 1)):
        config = UnetConfig(channels=(8,), layers=1, attention=(), scale_shift=scale_shift)
        block: Any = opened((1, 4, 4), config).trunk.get_submodule("down_blocks.0.resnets.0")
        assert block.time_emb_proj.out_features == width * 8
        x, told = torch.randn(B, 8, 4, 4), torch.randn(B, 32)
        h = block.conv1(F.silu(block.norm1(x)))
        m = block.time_emb_proj(F.silu(told))[:, :, None, None]
        if scale_shift:
            scale, shift = m.chunk(2, dim=1)
            h = block.norm2(h) * (1 + scale) + shift
        else:
            h = block.norm2(h + m)
        expected = x + block.conv2(F.silu(h))
        torch.testing.assert_close(block(x, told), expected)


def test_dropout_acts_in_training_alone():
    net = opened((3, 4, 6), UnetConfig(channels=(8,), layers=1, attention=(), dropout=0.5))
    x, logsnr, _, previous = inputs((3, 4, 6))
    first, second = (net(x, logsnr, None, previous) for _ in range(2))
    assert torch.equal(first, second)
    net.train()
    first, second = (net(x, logsnr, None, previous) for _ in range(2))
    assert not torch.equal(first, second)


def test_muon_takes_what_lies_between_the_first_and_the_last_layer():
    net = Unet((3, 4, 6), TINY, True, conditions=7)
    chosen = {id(p) for p in hidden_matrices(net)}
    names = {name for name, p in net.named_parameters() if id(p) in chosen}
    matrices = {name for name, p in net.named_parameters() if p.ndim > 1}
    assert matrices - names == {
        "trunk.conv_in.weight",
        "trunk.conv_out.weight",
        "trunk.time_embedding.linear_1.weight",
        "trunk.time_embedding.linear_2.weight",
        "condition.weight",
    }
    assert len(hidden_matrices(net)) == len(chosen)


def configured(name: str, *assignments: str) -> ImageConfig:
    """A packaged configuration."""
    return load_config(name, assignments)[2]


def operations(name: str, shape: tuple[int, int, int]) -> int:
    """Floating-point operations of a forward pass for one picture of a packaged configuration."""
    net = build_net(configured(name), shape, 11)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.zeros(1, *shape), torch.zeros(1), None, None)
    return counter.get_total_flops()


def test_unet_of_fashion_mnist_costs_what_its_transformer_does():
    unet, transformer = (
        operations(f"image/{name}", (1, 28, 28)) for name in ("fashion_mnist_unet", "fashion_mnist")
    )
    assert unet / transformer == pytest.approx(1, abs=0.1)


def test_adm_has_the_size_that_its_paper_states():
    """296 M at 64 x 64, the learned variance's channels (5,187 parameters) included."""
    with torch.device("meta"):
        net = build_net(configured("image/imagenet64_adm"), (3, 64, 64), 1001)
        out = net(torch.zeros(2, 3, 64, 64), torch.zeros(2), torch.ones(2, 1).long(), None)
    assert out.shape == (2, 3, 64, 64)
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(296e6, rel=0.01)


SMALL = (
    "network=unet", "unet.channels=[8, 16]", "unet.layers=1", "unet.attention=[1]",
    "unet.head_dim=8", "unet.dropout=0.1", "train.batch=8", "train.optimizer=muon",
    "train.decay=none", "train.warmup=0",
)  # fmt: skip


def small_config(*assignments: str) -> ImageConfig:
    return validate(ImageConfig, override({"panel": "image"}, (*SMALL, *assignments)), "test")


@pytest.mark.parametrize("codec", ["pixels", "bits"])
def test_interrupted_run_goes_on_bit_for_bit(codec: str, tmp_path: Path):
    kind = f"codec.kind={codec}"
    train(small_config(kind, "train.steps=4"), tmp_path / "whole", PANEL, quiet=True)
    for steps in (2, 4):
        part = small_config(kind, f"train.steps={steps}")
        train(part, tmp_path / "parts", PANEL, quiet=True)
    found = [newest(tmp_path / name) for name in ("whole", "parts")]
    for part in ("model", "ema", "optimizer"):
        whole, resumed = (load(each[0], part) for each in found if each is not None)
        assert whole.keys() == resumed.keys()
        for name, value in whole.items():
            assert torch.equal(value, resumed[name]), name
    moved = load_learner(tmp_path / "whole").state_dict()
    assert bool(moved["denoiser.net.trunk.conv_out.weight"].any())


@pytest.mark.parametrize(
    ("assignments", "words"),
    [
        (("network=unett",), "did you mean unet?"),
        (("unet.layers=3",), "network = 'transformer' does not read it"),
        (("network=unet", "unet.channels=[]"), "a multiple of 8 for each level"),
        (("network=unet", "unet.channels=[32, 12]"), "a multiple of 8 for each level"),
        (("network=unet", "unet.channels=[0]"), "a multiple of 8 for each level"),
        (("network=unet", "unet.layers=0"), "unet.layers = 0"),
        (("network=unet", "unet.attention=[3]"), r"levels from 0 \(the finest\) to 2"),
        (("network=unet", "unet.attention=[-1]"), r"levels from 0 \(the finest\) to 2"),
        (("network=unet", "unet.head_dim=48"), "a divisor of the .* channels of level"),
        (("network=unet", "unet.head_dim=0"), "unet.head_dim = 0"),
        (("network=unet", "unet.attention=[1]", "unet.channels=[8, 64, 96]"), "level 2, which"),
        (("network=unet", "unet.resample=pool"), "expected one of residual, conv"),
        (("network=unet", "unet.dropout=1"), "unet.dropout = 1"),
        (("network=unet", "unet.chanels=[8]"), "did you mean unet.channels?"),
    ],
)
def test_impossible_setting_is_refused_by_key(assignments: tuple[str, ...], words: str):
    with pytest.raises(ConfigError, match=words):
        validate(ImageConfig, override({"panel": "image"}, assignments), "test")


def test_channels_last_trains_to_the_same_losses_goes_on_and_writes_the_usual_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    settings = (
        "data.name=scene", "data.limit=40", "network=unet", "unet.channels=[8, 16]",
        "unet.layers=1", "unet.attention=[1]", "unet.head_dim=8", "train.batch=4",
        "train.log_every=1", "train.decay=none",
    )  # fmt: skip
    laid_out, forward = list[bool](), Unet.forward

    def seen(net: Any, x: Tensor, *rest: Any) -> Tensor:
        both = (x, net.trunk.conv_in.weight)
        laid_out.extend(it.is_contiguous(memory_format=torch.channels_last) for it in both)
        return forward(net, x, *rest)

    monkeypatch.setattr(Unet, "forward", seen)
    losses: list[list[float]] = []
    for name, stops in (("false", (4,)), ("true", (2, 4))):
        laid_out.clear()
        for steps in stops:
            how = (f"train.steps={steps}", f"train.channels_last={name}")
            train(image_config(*settings, *how), tmp_path / name, PANEL, quiet=True)
        assert set(laid_out) == {name == "true"}
        rows = (tmp_path / name / "log.jsonl").read_text().splitlines()
        losses.append([json.loads(row)["loss"] for row in rows])
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    found = [newest(tmp_path / name) for name in ("false", "true")]
    for part in ("model", "ema", "optimizer"):
        plain, last = (load(folder[0], part) for folder in found if folder is not None)
        for key, value in plain.items():
            torch.testing.assert_close(last[key], value, atol=1e-5, rtol=0)


def test_channels_last_is_refused_where_nothing_has_channels(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"train\.channels_last = true: .* no convolutions"):
        train(image_config("train.channels_last=true"), tmp_path / "run", PANEL, quiet=True)
    with pytest.raises(ConfigError, match=r"needs whole weights: train\.zero_stage = 0, got 2"):
        image_config("train.channels_last=true", "train.zero_stage=2")
