"""Given pictures through autoencoders, and through folders of diffusers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.pipelines.stable_diffusion import pipeline_stable_diffusion_img2img as img2img
from torch import Tensor, nn

import image
from image.data import DataFacts
from image.edits import Inpaint, Invert, Measured, Posterior, Upscale, Vary
from image.measurements import luma
from image.pipeline import Pipeline
from shared import noise
from shared.denoiser import Denoise
from shared.errors import ConfigError
from shared.schedule import Cosine, Level, Schedule
from tests.folders import stable_diffusion
from tests.image.test_foreign import NEAR
from tests.image.test_latent_codec import LEVELS, SHAPE, codec_of

PICTURE = np.random.default_rng(2).integers(0, 256, (8, 12, 3), np.uint8)


class Normal(nn.Module):
    """Latents that are standard normal: x0_hat = alpha x_t."""

    data_std = 1.0
    schedule: Schedule = Cosine(-8.0, 8.0)

    def __init__(self, codec: Any) -> None:
        super().__init__()
        self.codec, self.groups = codec, dict[str, Any]()
        self.device = nn.Parameter(torch.zeros(1))

    @property
    def denoiser(self) -> Denoise:
        return self.estimate

    def estimate(
        self,
        x_t: Tensor,
        level: Level,
        condition: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> Tensor:
        return level.alpha * x_t

    def drops(self, names: Any = ()) -> bool:
        return True

    def own_times(self, steps: int) -> None:
        return None


def pipe(kind: str = "kl") -> Pipeline:
    return Pipeline(Normal(codec_of(kind)), DataFacts(1, SHAPE, LEVELS, (), 0, 1.0), None)


def test_a_measurement_is_met_through_a_decoder_with_attention():
    model, codec = pipe(), codec_of("kl")
    with torch.no_grad():  # of a picture that the decoder can make
        y = luma(codec.pictures(noise.normal([77], 0, codec.latent_shape)))

    def apart(**settings: Any) -> float:
        x0 = model(seeds=[1, 2], num_inference_steps=16, output_type="latent", **settings).images
        with torch.no_grad():
            return float((luma(codec.pictures(x0)) - y).square().mean())

    assert apart(edit=Measured(y, luma, Posterior(0.01, 12))) < 0.3 * apart()


@pytest.mark.parametrize("kind", ["kl", "vq", "tiny"])
def test_a_latent_place_is_known_when_all_of_its_pixels_are(kind: str):
    mask = np.zeros((8, 12), np.uint8)
    mask[3, 5] = 255
    model, codec = pipe(kind), pipe(kind).learner.codec
    edit = Inpaint(PICTURE, mask)
    x0 = model(edit=edit, seeds=[1, 2], num_inference_steps=4, output_type="latent").images
    shown = (torch.from_numpy(PICTURE).permute(2, 0, 1)[None].float() * 16 / 255).round()
    known = codec.encode(shown.to(torch.uint8))
    same = torch.isclose(x0, known, atol=1e-4).all(1)
    expected = torch.ones(2, 4, 6, dtype=torch.bool)
    expected[:, 1, 2] = False
    assert torch.equal(same, expected)
    arrays = model(edit=edit, seeds=[1, 2], num_inference_steps=4, output_type="np").images
    kept = shown[0].permute(1, 2, 0).numpy() / 16
    assert np.allclose(arrays[:, mask == 0], kept[mask == 0])


def test_codes_of_a_table_give_no_gradient_and_are_refused():
    with pytest.raises(ConfigError, match="without a table of codes"):
        pipe("vq")(edit=Upscale(PICTURE, 2))


@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_variations_of_a_folder_are_those_of_its_own_image_to_image_pipeline(
    strength: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    theirs: Any = img2img.StableDiffusionImg2ImgPipeline(
        **stable_diffusion(tmp_path / "sd").components, requires_safety_checker=False
    )
    monkeypatch.setattr(img2img, "randn_tensor", lambda shape, **_: noise.normal([3], 0, shape[1:]))
    monkeypatch.setattr(
        DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode()
    )
    picture = PICTURE[:8, :8].repeat(2, 0).repeat(2, 1)
    how: dict[str, Any] = {"prompt": "a hat", "num_inference_steps": 10, "guidance_scale": 3.0}
    expected = theirs(
        image=torch.from_numpy(picture).permute(2, 0, 1)[None] / 255,
        strength=strength, output_type="latent", **how,
    ).images  # fmt: skip
    ours = image.Pipeline.from_pretrained(tmp_path / "sd")
    got = ours(edit=Vary(picture, strength), seeds=[3], solver="ddim", output_type="latent", **how)
    near = NEAR * max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(got.images, expected, atol=near, rtol=0)


def test_a_picture_of_a_folder_goes_there_and_back(tmp_path: Path):
    stable_diffusion(tmp_path / "sd")
    ours = image.Pipeline.from_pretrained(tmp_path / "sd")
    picture = PICTURE[:8, :8].repeat(2, 0).repeat(2, 1)
    x0 = ours.learner.codec.encode(torch.from_numpy(picture).permute(2, 0, 1)[None])
    how: dict[str, Any] = {"seeds": [3], "solver": "ddim", "output_type": "latent"}
    errors = [
        float(
            (ours(edit=Invert(picture, strength=0.5), num_inference_steps=n, **how).images - x0)
            .abs()
            .mean()
        )
        for n in (10, 100)
    ]
    assert errors[1] < 0.4 * errors[0], errors
    with pytest.raises(ConfigError, match=r"strength = 0\.05 of 10 steps is none"):
        ours(edit=Vary(picture, 0.05), num_inference_steps=10, **how)
