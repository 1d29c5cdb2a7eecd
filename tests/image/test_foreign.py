"""Folders of diffusers: our pictures are their pipeline's, of the same noise at the same times."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.pipelines.ddim import pipeline_ddim
from diffusers.pipelines.ddim.pipeline_ddim import DDIMPipeline
from diffusers.pipelines.ddpm import pipeline_ddpm
from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline
from diffusers.pipelines.deprecated.latent_diffusion_uncond import (
    pipeline_latent_diffusion_uncond as pipeline_ldm,
)
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers import scheduling_ddpm
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_heun_discrete import HeunDiscreteScheduler
from diffusers.schedulers.scheduling_pndm import PNDMScheduler
from torch import Tensor

import image
from shared import noise
from shared.errors import CheckpointError, ConfigError
from shared.interop import DiptychScheduler, convention_of, own_times
from tests.borders import tiny_unet
from tests.folders import STABLE, stable_diffusion, tiny_tokenizer, tiny_vq

SEEDS = [3, 8]
NEAR = 1e-5  # of pixels in [0, 1], of latents times the largest of them


def start(*shape: int) -> Tensor:
    """The noise that our pipeline draws for SEEDS."""
    return noise.normal(SEEDS, 0, shape)


def assert_same(ours: Tensor, theirs: Tensor) -> None:
    """Latents of a random network are as large as 15, and float32 has 1e-6 of that."""
    near = NEAR * max(1.0, float(theirs.abs().max()))
    torch.testing.assert_close(ours, theirs, atol=near, rtol=0)


def in_unit(latents: Tensor) -> np.ndarray:
    """x0 of pixels -> pictures as diffusers gives them."""
    return (latents / 2 + 0.5).clamp(0, 1).movedim(1, -1).numpy()


@pytest.fixture(name="stable", scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("stable") / "pipeline"
    return folder, stable_diffusion(folder)


# -- pixels, latents ---------------------------------------------------------------------------


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_ddpm_folder_draws_what_ddim_pipeline_draws(
    prediction: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config: dict[str, Any] = {"prediction_type": prediction, "clip_sample": False}
    scheduler = DDIMScheduler(**config)
    pipeline: Any = DDIMPipeline(tiny_unet(sample_size=8), scheduler)
    pipeline.save_pretrained(tmp_path)
    monkeypatch.setattr(pipeline_ddim, "randn_tensor", lambda shape, **_: start(*shape[1:]))
    theirs = pipeline(batch_size=2, num_inference_steps=10, output_type="np").images
    ours = image.Pipeline.from_pretrained(tmp_path)
    settings: dict[str, Any] = {"seeds": SEEDS, "num_inference_steps": 10, "solver": "ddim"}
    latents = ours(**settings, output_type="latent").images
    assert latents.std() > 0.1
    np.testing.assert_allclose(in_unit(latents), theirs, atol=NEAR, rtol=0)
    pictures = ours(**settings, output_type="np").images
    np.testing.assert_allclose(pictures, theirs, atol=0.5 / 255 + NEAR, rtol=0)


@pytest.mark.parametrize(
    ("variance", "solver"), [("fixed_small", "ancestral"), ("fixed_large", "ancestral_large")]
)
def test_ddpm_folder_draws_what_ddpm_pipeline_draws_from_the_same_noise(
    variance: Any, solver: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """DDPM's Algorithm 2: the start and the noise of each step are ours, handed to theirs."""
    drawn, draw = list[Tensor](), noise.Normals.draw

    def kept(normals: noise.Normals, step: int) -> Tensor:
        found = draw(normals, step)
        drawn.append(found.clone())  # for its memory is that of the next, too
        return found

    scheduler = DDPMScheduler(variance_type=variance, clip_sample=False)
    pipeline: Any = DDPMPipeline(tiny_unet(sample_size=8), scheduler)
    pipeline.save_pretrained(tmp_path)
    ours = image.Pipeline.from_pretrained(tmp_path)
    settings: dict[str, Any] = {"seeds": SEEDS, "num_inference_steps": 10, "solver": solver}
    with monkeypatch.context() as patched:
        patched.setattr(noise.Normals, "draw", kept)
        latents = ours(**settings, output_type="latent").images
    assert len(drawn) == 10  # the start, and all steps but the last
    monkeypatch.setattr(pipeline_ddpm, "randn_tensor", lambda *_, **__: drawn[0])
    steps = iter(drawn[1:])
    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *_, **__: next(steps))
    theirs = pipeline(batch_size=2, num_inference_steps=10, output_type="np").images
    assert next(steps, None) is None
    np.testing.assert_allclose(in_unit(latents), theirs, atol=NEAR, rtol=0)


def test_latent_folder_draws_what_its_pipeline_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pipeline: Any = pipeline_ldm.LDMPipeline(
        tiny_vq(), tiny_unet(sample_size=8), DDIMScheduler(clip_sample=False)
    )
    pipeline.save_pretrained(tmp_path)
    monkeypatch.setattr(pipeline_ldm, "randn_tensor", lambda shape, **_: start(*shape[1:]))
    decode, given = pipeline.vqvae.decode, list[Tensor]()
    monkeypatch.setattr(pipeline.vqvae, "decode", lambda z: (given.append(z), decode(z))[1])
    theirs = pipeline(batch_size=2, num_inference_steps=7, output_type="np").images
    ours = image.Pipeline.from_pretrained(tmp_path)
    settings: dict[str, Any] = {"seeds": SEEDS, "num_inference_steps": 7, "solver": "ddim"}
    latents = ours(**settings, output_type="latent").images
    codec: Any = ours.learner.codec
    assert_same(latents / codec.factor + codec.shift, given[0])
    # of the decoder, before pictures are rounded to levels
    with torch.no_grad():
        decoded = codec.pictures(latents)
    np.testing.assert_allclose(in_unit(decoded), theirs, atol=NEAR, rtol=0)
    pictures = ours(**settings, output_type="np").images
    assert pictures.shape == (2, 16, 16, 3)
    assert theirs.std() > 0.01
    np.testing.assert_allclose(pictures, theirs, atol=0.5 / 255 + NEAR, rtol=0)


def test_autoencoder_of_a_folder_encodes_what_it_decodes(stable: tuple[Path, Any]):
    """x0 = scaling_factor (z - shift): the decoder's picture of the encoder's latent is theirs."""
    folder, pipeline = stable
    codec: Any = image.Pipeline.from_pretrained(folder).learner.codec
    levels = torch.randint(256, (2, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    x = levels / 255 * 2 - 1
    with torch.no_grad():
        z = pipeline.vae.encode(x).latent_dist.mode()
        picture = (pipeline.vae.decode(z).sample / 2 + 0.5).clamp(0, 1) * 255
    x0 = codec.encode(levels)
    torch.testing.assert_close(x0, 0.7 * z)
    assert float((codec.decode(x0) - picture).abs().max()) < 0.5 + 1e-2


# -- prompts -----------------------------------------------------------------------------------

PROMPTS = ["a hat", "red cube"]
DPM = {"final_sigmas_type": "zero", "algorithm_type": "dpmsolver++", "solver_order": 2}


def latents_of(pipeline: Any, **settings: Any) -> Tensor:
    return pipeline(latents=start(3, 8, 8), output_type="latent", return_dict=False, **settings)[0]


@pytest.mark.parametrize(
    ("solver", "scheduler"),
    [
        ("ddim", DDIMScheduler(**STABLE)),
        ("ddim", DDIMScheduler(**{**STABLE, "set_alpha_to_one": True})),
        ("ddim", DDIMScheduler(**STABLE, timestep_spacing="trailing")),
        ("ddim", DDIMScheduler(**STABLE, prediction_type="v_prediction")),
        (
            "dpmpp_2m",
            DPMSolverMultistepScheduler.from_config(DDIMScheduler(**STABLE).config, **DPM),
        ),
    ],
)
def test_stable_diffusion_folder_draws_what_its_pipeline_draws(
    solver: str, scheduler: Any, tmp_path: Path
):
    pipeline = stable_diffusion(tmp_path / "sd", scheduler)
    steps: dict[str, Any] = {"num_inference_steps": 8, "guidance_scale": 4.0}
    theirs = latents_of(pipeline, prompt=PROMPTS, negative_prompt=["blurred", "dim"], **steps)
    ours = image.Pipeline.from_pretrained(tmp_path / "sd")(
        prompt=PROMPTS, negative_prompt=["blurred", "dim"], seeds=SEEDS, solver=solver,
        output_type="latent", **steps,
    ).images  # fmt: skip
    assert_same(ours, theirs)


def test_prompt_negative_prompt_and_scale_are_heard_and_the_empty_prompt_is_the_base(
    stable: tuple[Path, Any],
):
    folder, pipeline = stable
    ours = image.Pipeline.from_pretrained(folder)
    steps: dict[str, Any] = {"num_inference_steps": 4}

    def drawn(**settings: Any) -> Tensor:
        return ours(seeds=SEEDS, solver="ddim", output_type="latent", **steps, **settings).images

    plain, guided = drawn(prompt="a hat"), drawn(prompt="a hat", guidance_scale=3.0)
    theirs = latents_of(pipeline, prompt=["a hat"] * 2, guidance_scale=3.0, **steps)
    assert_same(guided, theirs)
    theirs = latents_of(pipeline, prompt=["a hat"] * 2, guidance_scale=1.0, **steps)
    assert_same(plain, theirs)
    without = latents_of(pipeline, prompt=["", ""], guidance_scale=1.0, **steps)
    assert_same(drawn(), without)
    assert_same(drawn(prompt="a hat", guidance_scale=0.0), without)
    away = drawn(prompt="a hat", negative_prompt="dim", guidance_scale=3.0)
    for one, other in ((plain, without), (plain, guided), (guided, away)):
        assert float((one - other).abs().max()) > 1e-2


def test_a_prompted_picture_alone_is_the_picture_in_a_batch(stable: tuple[Path, Any]):
    ours = image.Pipeline.from_pretrained(stable[0])
    settings: dict[str, Any] = {
        "num_inference_steps": 3,
        "guidance_scale": 2.0,
        "output_type": "latent",
    }
    settings |= {"solver": "ancestral"}
    together = ours(prompt=PROMPTS, seeds=list(range(70)), **settings).images
    alone = ours(prompt=PROMPTS[1], seeds=[67], **settings).images
    assert_same(together[67:68], alone)


def test_a_prompt_that_is_too_long_is_cut_with_a_warning(stable: tuple[Path, Any]):
    ours = image.Pipeline.from_pretrained(stable[0])
    with pytest.warns(UserWarning, match="and only 9 are read"):
        long = ours.words("a b c d e f g h i j", 1)
    kept = ours.words("a b c d e f g", 1)
    assert long is not None
    assert kept is not None
    assert torch.equal(long, kept)


# -- times -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scheduler",
    [
        DDIMScheduler(**STABLE),
        DDPMScheduler(timestep_spacing="trailing"),
        DPMSolverMultistepScheduler(),
        PNDMScheduler(skip_prk_steps=True, steps_offset=1),
        HeunDiscreteScheduler(),
        EulerDiscreteScheduler(timestep_spacing="trailing"),
    ],
)
def test_own_times_are_the_timesteps_of_the_scheduler(scheduler: Any):
    times, clean = own_times(scheduler, 6)
    scheduler.set_timesteps(6)
    convention = convention_of(scheduler)
    told = convention.timestep(convention.schedule(times).logsnr)
    expected = sorted({float(t) for t in scheduler.timesteps}, reverse=True)
    torch.testing.assert_close(told[:-1], torch.tensor(expected).double(), atol=2e-3, rtol=0)
    assert float(told[-1]) == 0
    assert clean == (scheduler.config.get("set_alpha_to_one", True) is not False)


def test_own_times_that_end_at_the_first_step_do_not_name_it_twice():
    times, clean = own_times(DDIMScheduler(set_alpha_to_one=False), 4)
    assert not clean
    told = convention_of(DDIMScheduler()).schedule(times)
    timestep = convention_of(DDIMScheduler()).timestep(told.logsnr)
    torch.testing.assert_close(timestep, torch.tensor([750.0, 500.0, 250.0, 0.0]).double())


# -- back --------------------------------------------------------------------------------------


def test_what_was_loaded_goes_back_and_diffusers_draws_the_same(
    stable: tuple[Path, Any], tmp_path: Path
):
    folder, pipeline = stable
    ours = image.Pipeline.from_pretrained(folder)
    assert ours.save_pretrained(tmp_path / "back") == "StableDiffusionPipeline"
    again: Any = DiffusionPipeline.from_pretrained(tmp_path / "back", local_files_only=True)
    again.set_progress_bar_config(disable=True)
    settings: dict[str, Any] = {"prompt": PROMPTS, "num_inference_steps": 4, "guidance_scale": 3.0}
    expected = latents_of(pipeline, **settings)
    torch.testing.assert_close(latents_of(again, **settings), expected, atol=1e-6, rtol=0)
    assert not list((tmp_path / "back").rglob("*.bin"))
    with pytest.raises(ConfigError, match="back exists"):
        ours.save_pretrained(tmp_path / "back")


def test_another_scheduler_goes_back_with_it(stable: tuple[Path, Any], tmp_path: Path):
    ours = image.Pipeline.from_pretrained(stable[0])
    mine = DiptychScheduler.from_config(DDIMScheduler(**STABLE).config, solver="unipc2")
    ours.save_pretrained(tmp_path / "back", mine)
    again: Any = DiffusionPipeline.from_pretrained(tmp_path / "back", local_files_only=True)
    again.set_progress_bar_config(disable=True)
    assert type(again.scheduler) is DiptychScheduler
    settings: dict[str, Any] = {"prompt": PROMPTS, "num_inference_steps": 5, "guidance_scale": 3.0}
    theirs = latents_of(again, **settings)
    told = image.Pipeline.from_pretrained(tmp_path / "back")
    got = told(seeds=SEEDS, solver="unipc2", output_type="latent", **settings).images
    assert_same(got, theirs)


# -- what is refused ---------------------------------------------------------------------------


def test_requests_that_the_model_cannot_hear_are_refused(stable: tuple[Path, Any], tmp_path: Path):
    words = image.Pipeline.from_pretrained(stable[0])
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"class_labels": 3}, "this model draws from captions"),
        ({"class_labels": 3, "prompt": "a"}, "give one of them"),
        ({"prompt": []}, "prompt: expected one or more"),
        ({"guidance_scale": 3.0}, "nothing to guide towards"),
        ({"prompt": "a", "negative_prompt": "b"}, "guided by nothing; give guidance = 3"),
        ({"prompt": "a", "temperature": 0.5}, "no logits to divide"),
        ({"prompt": "a", "num_inference_steps": 2000}, "steps = 2000"),
    ]
    for settings, said in wrong:
        with pytest.raises(ConfigError, match=said):
            words(**settings)
    with pytest.raises(ConfigError, match="holds one set"):
        image.Pipeline.from_pretrained(stable[0], "model")
    DDIMPipeline(tiny_unet(), DDIMScheduler()).save_pretrained(tmp_path)  # type: ignore[arg-type]
    pixels = image.Pipeline.from_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="prompt: this model was trained without captions"):
        pixels(prompt="a hat")


def test_a_network_that_knows_no_none_wants_a_class_for_every_picture(tmp_path: Path):
    unet = tiny_unet(num_class_embeds=3)
    DDIMPipeline(unet, DDIMScheduler(clip_sample=False)).save_pretrained(tmp_path)  # type: ignore[arg-type]
    ours = image.Pipeline.from_pretrained(tmp_path)
    settings: dict[str, Any] = {"seeds": SEEDS, "num_inference_steps": 2, "output_type": "latent"}
    one, two = (ours(label, **settings).images for label in (0, 2))
    assert float((one - two).abs().max()) > 1e-3
    asked: list[dict[str, Any]] = [{}, {"class_labels": 1, "guidance_scale": 2.0}]
    for wrong in asked:
        with pytest.raises(ConfigError, match="knows no 'none'"):
            ours(**settings, **wrong)


def test_folders_that_are_not_read_are_refused_by_name(stable: tuple[Path, Any], tmp_path: Path):
    with pytest.raises(CheckpointError, match="not a run folder"):
        image.Pipeline.from_pretrained(tmp_path)
    index = tmp_path / "model_index.json"
    index.write_text(json.dumps({"_class_name": "NoSuchPipeline", "_diffusers_version": "0.42"}))
    with pytest.raises(CheckpointError, match="not readable as a pipeline of diffusers"):
        image.Pipeline.from_pretrained(tmp_path)
    index.write_text("{")
    with pytest.raises(CheckpointError, match="not readable as a pipeline of diffusers"):
        image.Pipeline.from_pretrained(tmp_path)


def test_pickled_weights_are_not_opened(tmp_path: Path):
    pipeline = DDIMPipeline(tiny_unet(), DDIMScheduler())  # type: ignore[arg-type]
    pipeline.save_pretrained(tmp_path, safe_serialization=False)
    assert list(tmp_path.rglob("*.bin"))
    with pytest.raises(CheckpointError, match="not readable as a pipeline"):
        image.Pipeline.from_pretrained(tmp_path)


def test_a_safety_checker_is_left_out_with_a_note(stable: tuple[Path, Any], tmp_path: Path):
    folder = tmp_path / "checked"
    stable_diffusion(folder)
    index = folder / "model_index.json"
    named = json.loads(index.read_text())
    named["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    index.write_text(json.dumps(named))
    with pytest.warns(UserWarning, match="its safety_checker is left out"):
        ours = image.Pipeline.from_pretrained(folder)
    assert ours(prompt="a", num_inference_steps=1).images[0].size == (16, 16)


def test_a_third_part_of_a_pipeline_is_refused_by_name(tmp_path: Path):
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        image_size=8, patch_size=4, projection_dim=8,
    )  # fmt: skip
    encoder = CLIPVisionModelWithProjection(config)
    stable_diffusion(tmp_path / "sd", image_encoder=encoder)
    with pytest.raises(ConfigError, match="its image_encoder is a CLIPVisionModelWithProjection"):
        image.Pipeline.from_pretrained(tmp_path / "sd")


def test_tokenizer_of_the_tests_reads_letters(tmp_path: Path):
    words: Any = tiny_tokenizer(tmp_path)
    assert words("a hat").input_ids == [0, 28, 9, 2, 47, 1]
