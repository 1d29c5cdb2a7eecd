"""Networks across the border: what they are told, and what is made of their answers."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from torch import Tensor, nn

from shared.denoiser import Denoiser, RangeDenoise
from shared.guidance import classifier_free
from shared.interop import DiffusersDenoiser, DiptychModel, sample_with
from shared.interop.networks import halves
from shared.schedule import Level, variance_exploding
from tests.borders import B, C, H, W, normals, of_pictures, picture_mixture, tiny_unet


class Told(nn.Module):
    """A network that writes down what it is told and answers with half of what it sees."""

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones((), dtype=torch.float32))
        self.told: dict[str, Any] = {}
        self.channels = channels

    def forward(self, x: Tensor, timestep: Tensor, return_dict: bool, **given: Any) -> Any:
        self.told = {"x": x, "timestep": timestep, **given}
        return (x.repeat(1, self.channels, 1, 1) / 2,)


CHAIN: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    # x, output, alpha^2, sigma^2: Ho et al. 2020 after eq. 8; Salimans & Ho 2022, sec. 4
    "epsilon": lambda x, F, a2, s2: (x - s2.sqrt() * F) / a2.sqrt(),
    "sample": lambda x, F, a2, s2: F,
    "v_prediction": lambda x, F, a2, s2: a2.sqrt() * x - s2.sqrt() * F,
}


@pytest.mark.parametrize("prediction_type", list(CHAIN))
def test_estimate_of_a_unet_is_its_predictions_formula_at_its_own_step(prediction_type: Any):
    scheduler = DDPMScheduler(prediction_type=prediction_type, clip_sample=False)
    unet = tiny_unet(torch.float64)
    denoiser = DiffusersDenoiser(unet, scheduler)
    steps, x = torch.tensor([3, 700]), normals(2, 3, 8, 8)
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    a2 = (1 - betas).cumprod(0)[steps].reshape(2, 1, 1, 1)
    with torch.no_grad():
        F = unet(x, steps).sample
        got = denoiser(x, denoiser.convention.level(steps))
    torch.testing.assert_close(got, CHAIN[prediction_type](x, F, a2, 1 - a2), atol=1e-9, rtol=1e-9)


def test_estimate_of_a_flow_network_is_x_minus_sigma_velocity():
    net = Told()
    denoiser = DiffusersDenoiser(net, FlowMatchEulerDiscreteScheduler())
    sigma, x = torch.tensor([0.2, 0.7]), normals(2, 1, 3, 4, dtype=torch.float32)
    level = Level(2 * ((1 - sigma) / sigma).log(), 1 - sigma, sigma)
    got = denoiser(x, level)
    torch.testing.assert_close(net.told["timestep"], 1000 * sigma)
    torch.testing.assert_close(got, x - sigma.reshape(2, 1, 1, 1) * x / 2)


def test_network_is_asked_in_its_own_family_and_dtype():
    net = Told()
    denoiser = DiffusersDenoiser(net, DDPMScheduler(clip_sample=False))
    level = denoiser.convention.level(torch.tensor([9, 400]))
    x = normals(2, 1, 3, 4)
    estimate = denoiser(x, level)
    assert net.told["x"].dtype == torch.float32
    assert estimate.dtype == torch.float64
    assert net.told["timestep"].tolist() == [9.0, 400.0]
    exploding = variance_exploding(level.logsnr)
    again = denoiser(x / level.alpha.reshape(2, 1, 1, 1), exploding)
    torch.testing.assert_close(again, estimate, atol=1e-6, rtol=1e-6)


def test_one_level_for_all_samples_is_told_to_each():
    net = Told()
    denoiser = DiffusersDenoiser(net, DDPMScheduler())
    denoiser(normals(3, 1, 2, 2), denoiser.convention.level(torch.tensor(17)))
    assert net.told["timestep"].tolist() == [17.0] * 3


def test_whole_numbers_are_class_labels_and_others_hidden_states():
    net = Told()
    denoiser = DiffusersDenoiser(net, DDPMScheduler())
    level, x = denoiser.convention.level(torch.tensor(5)), normals(3, 1, 2, 2)
    denoiser(x, level, torch.tensor([[4], [2], [0]]))
    assert net.told["class_labels"].tolist() == [4, 2, 0]
    assert "encoder_hidden_states" not in net.told
    text = normals(3, 7, 5)
    denoiser(x, level, text)
    assert net.told["encoder_hidden_states"] is text
    denoiser(x, level)
    assert set(net.told) == {"x", "timestep"}
    with pytest.raises(ValueError, match=r"one class each for 3 samples"):
        denoiser(x, level, torch.zeros(3, 2, dtype=torch.long))


def test_dit_with_learned_variance_runs_under_guidance():
    """Class 4 of 4 + 1 stands for none; the second half of its channels is the variance."""
    torch.manual_seed(0)
    dit = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=4, in_channels=2, out_channels=4, num_layers=1,
        sample_size=4, patch_size=2, num_embeds_ada_norm=4, norm_num_groups=2,
    ).eval()  # fmt: skip
    for parameter in dit.parameters():
        nn.init.normal_(parameter, std=0.2)
    scheduler = DDPMScheduler(clip_sample=False, variance_type="learned_range")
    denoiser = DiffusersDenoiser(dit, scheduler)
    x = normals(3, 2, 4, 4, dtype=torch.float32)
    labels, none = torch.tensor([1, 3, 0]), torch.full((3,), 4)
    at = denoiser.convention.level(torch.tensor(600))
    with torch.no_grad():
        guided = classifier_free(denoiser, 2.5, null=4)(x, at, labels)
        step = torch.full((3,), 600)
        with_class, without = (
            dit(x, timestep=step, class_labels=c).sample[:, :2] for c in (labels, none)
        )
        fraction = denoiser.with_range(x, at, labels)[1]
    eps = without + 2.5 * (with_class - without)
    a2 = float((1 - torch.linspace(1e-4, 0.02, 1000).double()).cumprod(0)[600])
    assert float((with_class - without).abs().max()) > 0.01
    torch.testing.assert_close(guided, (x - (1 - a2) ** 0.5 * eps) / a2**0.5, atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        v = dit(x, timestep=step, class_labels=labels).sample[:, 2:]
    torch.testing.assert_close(fraction, (v + 1) / 2, atol=1e-5, rtol=1e-5)
    assert isinstance(denoiser, RangeDenoise)


def test_conditional_unet_hears_its_hidden_states():
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=4, in_channels=2, out_channels=2, block_out_channels=(8,), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",), up_block_types=("CrossAttnUpBlock2D",),
        cross_attention_dim=6, attention_head_dim=4, norm_num_groups=2,
    ).eval()  # fmt: skip
    denoiser = DiffusersDenoiser(unet, DDPMScheduler(prediction_type="sample", clip_sample=False))
    x, text = normals(3, 2, 4, 4, dtype=torch.float32), normals(3, 5, 6, dtype=torch.float32)
    with torch.no_grad():
        got = denoiser(x, denoiser.convention.level(torch.tensor(80)).to(x), text)
        expected = unet(x, torch.full((3,), 80), text).sample
        other = unet(x, torch.full((3,), 80), text.flip(0)).sample
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    assert float((other - expected).abs().max()) > 1e-3


def test_estimate_is_clipped_where_the_scheduler_clips():
    scheduler = DDPMScheduler(prediction_type="sample", clip_sample_range=0.3)
    denoiser = DiffusersDenoiser(Told(), scheduler)
    x = normals(2, 1, 3, 4)
    got = denoiser(x, denoiser.convention.level(torch.tensor(0)))
    torch.testing.assert_close(got, (x / 2).clamp(-0.3, 0.3), atol=1e-6, rtol=0)


def test_table_of_timesteps_is_asked_at_whole_ones():
    unet = tiny_unet(time_embedding_type="learned", num_train_timesteps=50)
    scheduler = DDPMScheduler(50, prediction_type="sample", clip_sample=False)
    denoiser = DiffusersDenoiser(unet, scheduler)
    x = normals(2, 3, 8, 8, dtype=torch.float32)
    with torch.no_grad():
        got = denoiser(x, denoiser.convention.level(torch.tensor([6.4, 30.7])))
        expected = unet(x, torch.tensor([6, 31])).sample
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_networks_that_are_told_sigma_are_refused():
    with pytest.raises(ValueError, match=r"'fourier' is refused.*from_k_diffusion"):
        DiffusersDenoiser(tiny_unet(time_embedding_type="fourier"), DDPMScheduler())


def test_a_network_without_learned_variance_says_so():
    denoiser = DiffusersDenoiser(Told(), DDPMScheduler())
    with pytest.raises(ValueError, match="learned no variance"):
        denoiser.with_range(normals(2, 1, 3, 4), denoiser.convention.level(torch.tensor(0)))
    with pytest.raises(ValueError, match="3 channels for 1"):
        halves(normals(2, 3, 4, 4), 1)


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
def test_our_denoiser_in_a_ddpm_pipeline_is_their_loop_around_it(prediction_type: Any):
    """float32, as their pipeline's tables are; the estimate is the mixture's exact one."""
    oracle = of_pictures(picture_mixture())
    scheduler = DDIMScheduler(prediction_type=prediction_type, clip_sample=False)
    net = DiptychModel(oracle, scheduler, (C, H, W), torch.float64)
    pipeline: Any = DDPMPipeline(net, scheduler)  # type: ignore[arg-type]
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(
        B, torch.Generator().manual_seed(3), num_inference_steps=8, output_type="pt"
    ).images
    x0 = sample_with(scheduler, oracle, normals(B, C, H, W, seed=3), 8)
    torch.testing.assert_close(images, (x0 / 2 + 0.5).clamp(0, 1), atol=1e-4, rtol=0)
    assert float(images.std()) > 0.1


def test_model_tells_the_condition_and_each_samples_level():
    seen: dict[str, Any] = {}

    def denoise(
        x_t: Tensor, level: Level, condition: Tensor | None = None, previous: Tensor | None = None
    ) -> Tensor:
        seen.update(level=level, condition=condition)
        return 0 * x_t

    net = DiptychModel(denoise, DDPMScheduler(prediction_type="v_prediction"), (1, 2, 3))
    x, labels = normals(2, 1, 2, 3), torch.tensor([7, 8])
    (v,) = net(x, torch.tensor([10, 900]), class_labels=labels, return_dict=False)
    level = net.convention.level(torch.tensor([10, 900]))
    torch.testing.assert_close(seen["level"].logsnr, level.logsnr)
    assert seen["condition"] is labels
    # x0 = 0: x_t = sigma eps and v = alpha eps
    torch.testing.assert_close(v, (level.alpha / level.sigma).reshape(2, 1, 1, 1) * x)
    net(x, 10, encoder_hidden_states=x)
    assert seen["condition"] is x
    assert seen["level"].logsnr.shape == ()


def test_a_self_conditioned_denoiser_is_refused_where_its_last_estimate_is_lost():
    denoiser = Denoiser(nn.Identity(), self_condition=True)
    with pytest.raises(ValueError, match="self-conditioning is refused: a diffusers pipeline"):
        DiptychModel(denoiser, DDPMScheduler(), (1, 2, 3))
