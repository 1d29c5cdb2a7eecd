"""Captioned runs as StableDiffusionPipelines: the same latents from the same noise and words."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

import image
from image.pipeline import Pipeline
from image.text_encoder import TextEncoder
from shared import noise
from shared.cli import main
from shared.errors import ConfigError
from tests.folders import LENGTH, save_text_encoder, tiny_vae
from tests.image.test_text_encoder import TEXTS, UNET, of_transformers, pictures, settings

__all__ = ["pictures"]  # a fixture

SEEDS = [3, 8]
STABLE = (
    *UNET, "unet.told=step", "data.pad_captions=true", "diffusion.schedule=scaled_linear",
    "diffusion.prediction=eps", "diffusion.scale_input=false", "data.channels=3", "data.size=16",
    "train.steps=2",
)  # fmt: skip


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_text_encoder("clip", tmp_path_factory.mktemp("encoder") / "clip")


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vae") / "vae"
    network = tiny_vae()
    for bias in (network.quant_conv.bias, network.post_quant_conv.bias):
        torch.nn.init.normal_(bias)
    network.save_pretrained(folder)
    return folder


@pytest.fixture
def opened(
    make_run: Callable[..., Path], pictures: Path, encoder: Path, vae: Path
) -> Callable[..., Pipeline]:
    """A run whose network is random but far from zero everywhere."""

    def make(*more: str) -> Pipeline:
        codec = ("codec.kind=autoencoder", f"codec.pretrained={vae}")
        pipeline = Pipeline.from_pretrained(
            make_run(*settings(pictures, encoder, *STABLE, *codec, *more))
        )
        learner: Any = pipeline.learner
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in learner.denoiser.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
        return pipeline

    return make


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_a_stable_diffusion_pipeline_draws_our_latents(
    opened: Callable[..., Pipeline], prediction: str, tmp_path: Path
):
    ours = opened(f"diffusion.prediction={prediction}")
    assert ours.save_pretrained(tmp_path / "out") == "StableDiffusionPipeline"
    theirs: Any = DiffusionPipeline.from_pretrained(tmp_path / "out", local_files_only=True)
    theirs.set_progress_bar_config(disable=True)
    again = image.Pipeline.from_pretrained(tmp_path / "out")
    shape = ours.learner.codec.latent_shape
    drawn: list[torch.Tensor] = []
    how: dict[str, Any] = {"num_inference_steps": 10, "output_type": "latent"}
    for prompt, negative, scale in (
        ("red a", None, 1.0),
        ("sky b", "dim", 3.0),
        ("red a", None, 3),
    ):
        told = {"prompt": prompt, "negative_prompt": negative, "guidance_scale": scale}
        expected = theirs(
            **told, num_images_per_prompt=2, latents=noise.normal(SEEDS, 0, shape), **how
        ).images
        for pipeline in (ours, again):
            found = pipeline(**told, seeds=SEEDS, solver="ddim", **how).images
            assert float((found - expected).abs().max()) < 1e-4 * float(expected.abs().max())
        drawn.append(expected)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert float((drawn[one] - drawn[other]).abs().max()) > 1e-2
    with torch.no_grad():
        decoded = theirs.vae.decode(drawn[0] / theirs.vae.config.scaling_factor).sample
        codec: Any = ours.learner.codec
        torch.testing.assert_close(codec.pictures(drawn[0]), decoded, atol=1e-4, rtol=1e-4)


def test_padded_states_are_those_of_transformers_without_a_mask(encoder: Path):
    states = TextEncoder(encoder, LENGTH, "here", padded=True)(TEXTS)
    for row, text in zip(states, TEXTS, strict=True):
        own = of_transformers("clip", encoder, text)
        torch.testing.assert_close(row[: len(own)], own, atol=1e-5, rtol=1e-5)  # it is causal
        assert bool((row != 0).any(1).all())
    assert not torch.allclose(states[0, -1], states[1, -1], atol=1e-3)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("unet.told=level",), "unet.told, data.pad_captions: .*train with unet.told=step"),
        (("data.pad_captions=false",), "unet.told, data.pad_captions: "),
        (("codec.kind=pixels", "codec.pretrained=null"), "draws in latents"),
    ],
)
def test_captioned_runs_that_diffusers_cannot_represent_are_refused(
    opened: Callable[..., Pipeline], more: tuple[str, ...], message: str, tmp_path: Path
):
    with pytest.raises(ConfigError, match=f"not representable in diffusers: .*{message}"):
        opened(*more).save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_chain_is_refused(opened: Callable[..., Pipeline], tmp_path: Path):
    with pytest.raises(ConfigError, match=r"timesteps = 500: .*chain of 1,000"):
        opened().save_pretrained(tmp_path / "out", timesteps=500)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("data.name=x", "data.pad_captions=true"), "of captions that data.text_encoder reads"),
        (("network=unet", "unet.told=step"), "by data.text_encoder"),
        (("network=unet", "unet.told=mean"), "unet.told = 'mean'"),
    ],
)
def test_what_nothing_reads_is_refused(words: tuple[str, ...], message: str):
    from tests.image.conftest import image_config

    with pytest.raises(ConfigError, match=message):
        image_config(*words)


def test_a_schedule_without_a_chain_is_refused(
    pictures: Path, encoder: Path, vae: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    codec = ("codec.kind=autoencoder", f"codec.pretrained={vae}", "diffusion.schedule=flow")
    words = settings(pictures, encoder, *STABLE, *codec, f"run={tmp_path / 'run'}")
    assert main(["train", "image/captioned", *words]) == 2
    assert "unet.told = 'step': " in capsys.readouterr().err
