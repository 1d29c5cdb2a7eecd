"""Latents of autoencoders as a codec of diffusion runs, and the runs that keep them."""

import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.autoencoders.vq_model import VQModel
from torch import Tensor, nn

from image import shards
from image.autoencoder import cache
from image.autoencoder.codec import LatentCodec, Measured, load_codec, measure, write_codec
from image.autoencoder.network import latent_shape, load_network
from image.codec import Pixels
from image.config import CodecConfig
from image.data import load_pictures, read_facts
from image.panel import PANEL
from shared import noise
from shared.errors import CheckpointError, ConfigError, DataError
from shared.objective.streams import ENCODE
from shared.requests import EvaluateRequest, SampleRequest
from shared.runs import load_learner
from shared.schedule import variance_preserving
from shared.scoring import UNDEFINED
from shared.train.checkpoint import load, newest
from shared.train.loop import train
from tests.image.conftest import image_config

N, LEVELS, SHAPE = 5, 17, (3, 8, 12)
CPU = torch.device("cpu")


def network(kind: str, **settings: Any) -> Any:
    """A tiny one of diffusers, far from zero everywhere."""
    torch.manual_seed(0)
    common = {
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "block_out_channels": (4, 8),
        "norm_num_groups": 4,
        "latent_channels": 2,
        "sample_size": 8,
    } | settings  # fmt: skip
    if kind == "kl":
        return AutoencoderKL(**common).eval()
    if kind == "vq":
        made = VQModel(**common, num_vq_embeddings=6)
        nn.init.normal_(made.quantize.embedding.weight)
        return made.eval()
    return AutoencoderTiny(
        encoder_block_out_channels=(4, 4), decoder_block_out_channels=(4, 4),
        num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1), latent_channels=2,
    ).eval()  # fmt: skip


def pictures(count: int = N) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(LEVELS, (count, *SHAPE), generator=generator).to(torch.uint8)


def codec_of(kind: str, sampled: bool = False, scale: float = 1.0, count: int = N) -> LatentCodec:
    """Measured on `pictures`."""
    made = network(kind)
    x = Pixels(LEVELS, SHAPE).encode(pictures(count))
    measured = measure(made, x, "here", sampled, True, CPU)
    return LatentCodec(made, LEVELS, SHAPE, measured, scale, sampled)


@pytest.mark.parametrize("kind", ["kl", "vq", "tiny"])
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_measured_latents_have_mean_zero_and_the_stated_deviation(kind: str, scale: float):
    codec = codec_of(kind, scale=scale)
    x0 = codec.encode(pictures()).double()
    assert tuple(x0.shape) == (N, *codec.latent_shape)
    assert float(x0.mean()) == pytest.approx(0, abs=1e-6)
    assert float(x0.std(correction=0)) == pytest.approx(scale, rel=1e-6)
    assert torch.equal(codec.draw(pictures(), torch.arange(N)), codec.encode(pictures()))


def test_draws_of_the_encoder_have_unit_deviation_and_follow_the_key():
    codec = codec_of("kl", sampled=True, count=200)
    data, keys = pictures(200), torch.arange(200) * 3
    x0 = codec.draw(data, keys)
    spread = float((x0 - codec.encode(data)).std())
    assert spread > 0.3
    # 9,600 numbers: the standard error of their deviation is below 0.01
    assert float(x0.std()) == pytest.approx(1, abs=0.04)
    found: Any = codec.network.encode(codec.pixels.encode(data[4:5]), return_dict=False)[0]
    z = found.mean + found.std * noise.normal(keys[4:5], ENCODE, codec.latent_shape)
    expected = (z - codec.measured.shift) / codec.measured.std
    torch.testing.assert_close(x0[4:5], expected, rtol=1e-5, atol=1e-5)
    stored = codec.moments(data)
    assert torch.equal(codec.draw(stored, keys), x0)
    assert torch.equal(codec.encode(stored), codec.encode(data))


@pytest.mark.parametrize("kind", ["kl", "vq", "tiny"])
@pytest.mark.parametrize("inside", ["", "vae"])
def test_folder_of_diffusers_gives_what_diffusers_gives(kind: str, inside: str, tmp_path: Path):
    made = network(kind).requires_grad_(False)  # as a codec's: torch rounds otherwise without
    made.save_pretrained(tmp_path / "theirs" / inside)
    found = load_network(tmp_path / "theirs")
    x = Pixels(LEVELS, SHAPE).encode(pictures())
    measured = measure(found, x, "theirs", False, False, CPU)
    write_codec(found, measured, tmp_path / "run" / "autoencoder")
    config = CodecConfig(kind="autoencoder", pretrained=str(tmp_path / "theirs"))
    codec = load_codec(config, LEVELS, SHAPE, tmp_path / "run")
    with torch.no_grad():
        said: Any = made.encode(x, return_dict=False)[0]
        if kind == "kl":
            said = said.mode()
        if kind == "vq":
            said = made.quantize(said)[0]
        x0, std, shift = codec.encode(pictures()), measured.std, measured.shift
        theirs = made.decode(x0 / codec.factor + shift, return_dict=False)[0]
        ours = codec.pictures(x0)
    torch.testing.assert_close(x0 * std + shift, said, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    levels = ((theirs + 1) * 8).round().clamp(0, 16).long()
    assert torch.equal(codec.decode(x0), levels)
    assert codec.log_prob is None
    again = load_network(tmp_path / "run" / "autoencoder")
    assert again.config["scaling_factor"] == pytest.approx(1 / std)
    if kind != "vq":
        assert again.config["shift_factor"] == pytest.approx(shift)


def test_any_x0_decodes_to_the_nearest_codes_of_a_table():
    codec = codec_of("vq")
    x0 = torch.randn(2, *codec.latent_shape, generator=torch.Generator().manual_seed(3)) * 3
    table: Any = codec.network.get_submodule("quantize.embedding").weight
    z = x0 * codec.measured.std + codec.measured.shift
    apart = (z.movedim(1, -1).unsqueeze(-2) - table).square().sum(-1)
    nearest = table[apart.argmin(-1)].movedim(-1, 1)
    with torch.no_grad():
        decode: Any = codec.network.decode
        expected = decode(nearest, force_not_quantize=True, return_dict=False)[0]
        torch.testing.assert_close(codec.pictures(x0), expected, rtol=1e-5, atol=1e-5)


def test_tiles_and_slices_decode_as_diffusers_does(tmp_path: Path):
    made = network("kl")
    shape = (3, 16, 20)
    x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(1)) * 2 - 1
    write_codec(made, measure(made, x, "here", False, False, CPU), tmp_path / "autoencoder")
    here: dict[str, Any] = {"kind": "autoencoder", "pretrained": "here"}
    more: list[dict[str, Any]] = [{}, {"slicing": True}, {"tiling": True}]
    whole, sliced, tiled = (
        load_codec(CodecConfig(**here, **each), LEVELS, shape, tmp_path) for each in more
    )
    with torch.no_grad():
        x0 = whole.encode(torch.randint(LEVELS, (2, *shape)))
        torch.testing.assert_close(sliced.pictures(x0), whole.pictures(x0), rtol=1e-5, atol=1e-5)
        made.enable_tiling()
        z = x0 * tiled.measured.std + tiled.measured.shift
        theirs = made.decode(z, return_dict=False)[0]
        torch.testing.assert_close(tiled.pictures(x0), theirs, rtol=1e-5, atol=1e-5)
        assert not torch.allclose(tiled.pictures(x0), whole.pictures(x0), atol=1e-3)
    write_codec(
        network("vq"), Measured("here", 1, 0.0, 1.0, None), tmp_path / "other" / "autoencoder"
    )
    with pytest.raises(ConfigError, match=r"codec\.tiling = true: a VQModel has none"):
        load_codec(CodecConfig(**here, tiling=True), LEVELS, shape, tmp_path / "other")
    with pytest.raises(ConfigError, match=r"codec\.sample = true: a VQModel has no Gaussian"):
        load_codec(CodecConfig(**here, sample=True), LEVELS, shape, tmp_path / "other")


def test_log_prob_is_a_laplace_around_the_decoded_latent_over_all_levels():
    levels, shape = 3, (1, 2, 2)
    made = network("kl", in_channels=1, out_channels=1)
    codec = LatentCodec(made, levels, shape, Measured("here", 1, 0.1, 0.7, 0.4))
    level = variance_preserving(torch.tensor([1.0, 3.0], dtype=torch.float64))
    z_0 = torch.randn(2, *codec.latent_shape, generator=torch.Generator().manual_seed(0))
    assert codec.log_prob is not None
    with torch.no_grad():
        z = z_0.double() / level.alpha.view(2, 1, 1, 1) * 0.7 + 0.1
        x_hat = made.decode(z.float(), return_dict=False)[0].double()
        total = torch.zeros(2, dtype=torch.float64)
        for values in itertools.product(range(levels), repeat=4):
            data = torch.tensor(values).view(1, *shape).expand(2, *shape)
            ours = codec.log_prob(data, z_0.double(), level)
            for i in range(2):
                expected = 0.0
                for place, value in zip(x_hat[i].flatten(), values, strict=True):
                    law = torch.distributions.Laplace(place, 0.4)
                    grid = law.log_prob(torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64))
                    expected += float(grid[value] - grid.logsumexp(0))
                assert float(ours[i]) == pytest.approx(expected, abs=1e-5)
            total += ours.exp()
    assert total.tolist() == pytest.approx([1.0, 1.0], abs=1e-9)


def test_scale_of_the_laplace_is_the_mean_error_on_the_data():
    codec = codec_of("kl")
    x = codec.pixels.encode(pictures())
    with torch.no_grad():
        error = (codec.pictures(codec.encode(pictures())) - x).abs().mean()
    assert codec.measured.laplace_scale == pytest.approx(float(error), rel=1e-5)


def test_frozen_autoencoder_moves_along_but_is_neither_trained_nor_saved():
    codec = codec_of("kl")
    assert not list(codec.parameters())
    assert not codec.state_dict()
    assert not any(p.requires_grad for p in codec.network.parameters())
    assert not codec.train().network.training
    nn.Sequential(codec).to("meta")
    assert {p.device.type for p in codec.network.parameters()} == {"meta"}


def test_pictures_of_another_shape_and_folders_of_other_things_are_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"3 channels, these have 1; set data\.channels=3"):
        latent_shape(network("kl"), (1, 8, 8))
    with pytest.raises(ConfigError, match="8 x 9 pixels are no multiple of 2"):
        latent_shape(network("tiny"), (3, 8, 9))
    with pytest.raises(CheckpointError, match=r"no config\.json in it"):
        load_network(tmp_path)
    (tmp_path / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    with pytest.raises(CheckpointError, match="a UNet2DModel; expected one of AutoencoderKL"):
        load_network(tmp_path)
    network("kl").save_pretrained(tmp_path / "whole")
    weights = tmp_path / "whole" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="not readable as an autoencoder"):
        load_network(tmp_path / "whole")


AUTOENCODER = (
    "model=autoencoder", "autoencoder.channels=[8, 16]", "autoencoder.latent_channels=2",
)  # fmt: skip
LATENT = ("codec.kind=autoencoder", "patch=2", "train.decay=none")


def drawn(run: Path, out: Path) -> np.ndarray:
    PANEL.sample(run, SampleRequest(n=3, steps=2, condition="all"), out)
    return np.load(out / "samples.npz")["images"]


def weights_of(run: Path) -> dict[str, Tensor]:
    found = newest(run)
    assert found is not None
    return load(found[0], "model")


@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_run_keeps_all_it_needs_of_its_autoencoder(make_run, tmp_path: Path, kind: str):
    """Sampling from a copy, evaluating and going on, when the autoencoder's run is gone."""
    source, run = tmp_path / "source", tmp_path / "run"
    shutil.copytree(make_run(*AUTOENCODER, f"autoencoder.kind={kind}"), source)
    words = (*LATENT, f"codec.run={source}")
    train(image_config(*words, "train.steps=2"), run, PANEL, quiet=True)
    before = drawn(run, tmp_path / "before")
    shutil.rmtree(source)
    shutil.copytree(run, tmp_path / "copy")
    assert np.array_equal(drawn(tmp_path / "copy", tmp_path / "after"), before)
    assert not any("codec" in name or "frozen" in name for name in weights_of(run))
    train(image_config(*words), run, PANEL, quiet=True)
    assert read_facts(run).data_std == 1
    result = PANEL.evaluate(run, EvaluateRequest(n=6, steps=2, likelihood=True, draws=2))
    assert result["likelihood"]["bits_per_dim"] > 0
    assert result["likelihood"]["dims"] == 64


def test_run_on_a_folder_of_diffusers_has_no_nats(make_run, tmp_path: Path):
    network("tiny").save_pretrained(tmp_path)
    scenes = ("data.name=scene", "data.limit=80")
    run = make_run(*LATENT, f"codec.pretrained={tmp_path}", *scenes)
    result = PANEL.evaluate(run, EvaluateRequest(n=6, steps=2, likelihood=True))
    assert result["likelihood"] == {"what": UNDEFINED}


def test_cached_latents_train_the_same_model_and_the_encoder_rests(
    make_run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    words = (*LATENT, f"codec.run={make_run(*AUTOENCODER)}", "codec.sample=true")
    train(image_config(*words), tmp_path / "plain", PANEL, quiet=True)
    cached = (*words, "codec.cache_latents=true")
    monkeypatch.setattr(shards, "SHARD", 500)
    train(image_config(*cached, "train.steps=1"), tmp_path / "cached", PANEL, quiet=True)
    files = sorted((tmp_path / "cached" / "latents").iterdir())
    assert [shard.name for shard in files] == [f"{i:05d}.safetensors" for i in range(3)]
    kept = [shard.stat().st_mtime_ns for shard in files]
    files[1].unlink()  # as if interrupted there
    train(image_config(*cached, "train.steps=2"), tmp_path / "cached", PANEL, quiet=True)
    assert [shard.stat().st_mtime_ns for shard in (files[0], files[2])] == [kept[0], kept[2]]

    def fail(*_: Any) -> None:
        raise AssertionError("the encoder was asked")

    def begin(*given: Any) -> None:  # what is measured before training is of another test
        return None

    monkeypatch.setattr(PANEL, "prepare", begin, raising=False)
    monkeypatch.setattr(LatentCodec, "moments", fail)
    train(image_config(*cached), tmp_path / "cached", PANEL, quiet=True)
    plain, ours = (weights_of(tmp_path / name) for name in ("plain", "cached"))
    for name in plain:
        torch.testing.assert_close(ours[name], plain[name], rtol=1e-4, atol=1e-6)
    latents = load_learner(tmp_path / "cached").codec
    assert isinstance(latents, LatentCodec)
    assert latents.sampled


def test_damaged_shard_is_named(make_run, tmp_path: Path):
    words = (*LATENT, f"codec.run={make_run(*AUTOENCODER)}", "codec.cache_latents=true")
    run = tmp_path / "run"
    train(image_config(*words, "train.steps=1"), run, PANEL, quiet=True)
    shard = run / "latents" / "00000.safetensors"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-50])
    with pytest.raises(DataError, match=r"00000\.safetensors: damaged"):
        train(image_config(*words), run, PANEL, quiet=True)
    codec = load_codec(CodecConfig(kind="autoencoder", run="x"), 17, (1, 8, 8), run)
    shard.unlink()
    few = load_pictures(image_config("data.limit=20").data)
    cache.cached_latents(codec, lambda: few, 20, run)
    with pytest.raises(DataError, match="latents of 20 pictures, expected 1433"):
        train(image_config(*words), run, PANEL, quiet=True)


def test_autoencoders_that_do_not_fit_are_refused(make_run, tmp_path: Path):
    run = make_run(*AUTOENCODER)
    other = make_run("model=classifier")
    for words, kind, message in (
        ((f"codec.run={tmp_path / 'none'}",), CheckpointError, "no such folder"),
        ((f"codec.run={other}",), ConfigError, "expected a run of model: autoencoder"),
        (("codec.run=$DIPTYCH_UNSET/ae",), ConfigError, "environment variable"),
        ((f"codec.run={run}", "data.name=scene", "data.limit=9"), ConfigError, "17 levels, these"),
        ((f"codec.pretrained={tmp_path}",), CheckpointError, r"no config\.json"),
    ):
        with pytest.raises(kind, match=message):
            train(image_config(*LATENT, *words), tmp_path / "run", PANEL, quiet=True)
        assert not (tmp_path / "run" / "autoencoder").exists()
        shutil.rmtree(tmp_path / "run")
