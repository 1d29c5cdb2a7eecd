"""Runs as pipelines of diffusers: the same pictures from the same noise, or a refusal by name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.pipelines.consistency_models import pipeline_consistency_models as pipeline_classes
from diffusers.pipelines.ddim import pipeline_ddim
from diffusers.pipelines.deprecated.latent_diffusion_uncond import (
    pipeline_latent_diffusion_uncond as pipeline_ldm,
)
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from torch import Tensor

import image
from image.autoencoder.codec import LatentCodec, Measured
from image.codec import build_codec
from image.config import CodecConfig, ImageConfig, UnetConfig
from image.data import DataFacts
from image.export import to_diffusers
from image.net import build_net
from image.pipeline import Pipeline
from shared import noise
from shared.cli import main
from shared.config import DiffusionConfig, NetConfig
from shared.configs import load_config
from shared.errors import ConfigError
from shared.learner import DiffusionLearner
from tests.folders import tiny_vae, tiny_vq

SEEDS = [3, 8]
NEAR = 3e-5  # of pixels in [0, 1]: betas and their products are float32 in diffusers
PLAIN: dict[str, Any] = {"self_condition": False, "scale_input": False}
CLASSES = ("ape", "bee", "cow")
MEASURED = Measured("here", 9, 0.3, 0.7, None)  # shift and std of latents


def start(shape: tuple[int, ...]) -> Tensor:
    return noise.normal(SEEDS, 0, shape[1:])


def facts_of(classes: tuple[str, ...], side: tuple[int, int]) -> DataFacts:
    return DataFacts(9, (3, *side), 256, classes, len(classes) + 1 if classes else 0, 0.7)


def build(
    diffusion: DiffusionConfig | None = None,
    classes: tuple[str, ...] = (),
    side: tuple[int, int] = (8, 8),
    autoencoder: Any = None,
    **settings: Any,
) -> Pipeline:
    """A pipeline whose network is random but far from zero everywhere."""
    settings = {
        "network": "unet",
        "unet": UnetConfig(channels=(8, 16), layers=1, head_dim=8, attention=(1,)),
        "diffusion": diffusion or DiffusionConfig(**PLAIN),
    } | settings
    config, facts = ImageConfig(**settings), facts_of(classes, side)
    torch.manual_seed(1)
    codec: Any = build_codec(config.codec, facts.levels, facts.shape)
    if autoencoder is not None:
        codec = LatentCodec(autoencoder, facts.levels, facts.shape, MEASURED, scale=0.8)
    net = build_net(config, codec.latent_shape, facts.conditions)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return Pipeline(DiffusionLearner(net, codec, config.diffusion, facts.data_std), facts, config)


def in_unit(latents: Tensor) -> np.ndarray:
    return (latents / 2 + 0.5).clamp(0, 1).movedim(1, -1).numpy()


@pytest.fixture(autouse=True)
def our_noise(monkeypatch: pytest.MonkeyPatch):
    for module in (pipeline_ddim, pipeline_classes, pipeline_ldm):
        monkeypatch.setattr(module, "randn_tensor", lambda shape, **_: start(shape))


def load(folder: Path) -> Any:
    pipeline: Any = DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


# -- the same pictures -------------------------------------------------------------------------

DIFFUSIONS: list[dict[str, Any]] = [
    {"prediction": "v"},
    {"prediction": "eps", "schedule": "linear"},
    {"prediction": "x0", "schedule": "sigmoid", "shift": -1.0},
]


@pytest.mark.parametrize("settings", DIFFUSIONS)
def test_exported_pipeline_draws_our_pictures(settings: dict[str, Any], tmp_path: Path):
    ours = build(DiffusionConfig(**PLAIN, **settings), side=(8, 12))
    assert ours.save_pretrained(tmp_path / "out") == "DDIMPipeline"
    theirs = load(tmp_path / "out")
    pictures = theirs(batch_size=2, num_inference_steps=10, output_type="np").images
    latents = ours(seeds=SEEDS, num_inference_steps=10, solver="ddim", output_type="latent").images
    assert pictures.shape == (2, 8, 12, 3)
    assert pictures.std() > 0.1
    np.testing.assert_allclose(in_unit(latents), pictures, atol=NEAR, rtol=0)
    again = image.Pipeline.from_pretrained(tmp_path / "out")
    back = again(seeds=SEEDS, num_inference_steps=10, solver="ddim", output_type="latent").images
    np.testing.assert_allclose(in_unit(latents), in_unit(back), atol=NEAR, rtol=0)


def test_the_recipe_of_a_unet_is_exported_as_it_is(tmp_path: Path):
    config = load_config(
        "image/fashion_mnist_unet", ["unet.channels=[8, 8, 16]", "unet.head_dim=8"]
    )[2]
    settings = {"unet": config.unet, "codec": config.codec, "data": config.data}
    ours = build(config.diffusion, classes=CLASSES, side=(8, 8), **settings)
    assert ours.save_pretrained(tmp_path / "out") == "ConsistencyModelPipeline"
    how: dict[str, Any] = {"num_inference_steps": 5}
    pictures = load(tmp_path / "out")(
        batch_size=2, class_labels=[1, 1], output_type="np", **how
    ).images
    latents = ours("bee", seeds=SEEDS, solver="ddim", output_type="latent", **how).images
    np.testing.assert_allclose(in_unit(latents), pictures, atol=NEAR, rtol=0)


def test_levels_of_the_chain_are_ours_at_its_times_whatever_its_length(tmp_path: Path):
    ours = build()
    for steps in (50, 400):
        scheduler: Any = to_diffusers(ours.learner, ours.facts, steps).scheduler  # type: ignore[arg-type]
        t = torch.arange(1, steps + 1, dtype=torch.float64) / steps
        alpha2 = scheduler.alphas_cumprod.double()
        torch.testing.assert_close(
            alpha2, ours.learner.schedule(t).alpha ** 2, atol=2e-6, rtol=2e-5
        )


def test_classes_keep_their_numbers_and_none_is_the_label_after_them(tmp_path: Path):
    ours = build(classes=CLASSES)
    assert ours.save_pretrained(tmp_path / "out", timesteps=100) == "ConsistencyModelPipeline"
    theirs = load(tmp_path / "out")
    settings: dict[str, Any] = {"num_inference_steps": 5}
    again = image.Pipeline.from_pretrained(tmp_path / "out")
    assert again.facts == ours.facts
    drawn: list[np.ndarray] = []
    for label, number in (("ape", 0), ("cow", 2), (None, 3)):
        pictures = theirs(
            batch_size=2, class_labels=[number] * 2, output_type="np", **settings
        ).images
        for pipeline in (ours, again):
            latents = pipeline(
                label, seeds=SEEDS, solver="ddim", output_type="latent", **settings
            ).images
            np.testing.assert_allclose(in_unit(latents), pictures, atol=NEAR, rtol=0)
        drawn.append(pictures)
    assert np.abs(drawn[0] - drawn[1]).max() > 1e-3
    assert np.abs(drawn[1] - drawn[2]).max() > 1e-3
    guided = {"seeds": SEEDS, "solver": "ddim", "guidance_scale": 3.0, "output_type": "latent"}
    one, two = (p("bee", **guided, **settings).images for p in (ours, again))
    torch.testing.assert_close(one, two, atol=1e-4, rtol=0)


@pytest.mark.parametrize("make", [tiny_vae, tiny_vq])
def test_latents_and_their_autoencoder_draw_our_pictures(make: Any, tmp_path: Path):
    autoencoder = make()
    for bias in (autoencoder.quant_conv.bias, autoencoder.post_quant_conv.bias):
        torch.nn.init.normal_(bias)
    ours = build(autoencoder=autoencoder, side=(16, 16))
    kept = {name: weight.clone() for name, weight in autoencoder.state_dict().items()}
    assert ours.save_pretrained(tmp_path / "out") == "LDMPipeline"
    assert all(torch.equal(weight, kept[name]) for name, weight in autoencoder.state_dict().items())
    settings: dict[str, Any] = {"seeds": SEEDS, "num_inference_steps": 10, "solver": "ddim"}
    latents = ours(**settings, output_type="latent").images
    codec: Any = ours.learner.codec
    pictures = load(tmp_path / "out")(batch_size=2, num_inference_steps=10, output_type="np").images
    with torch.no_grad():
        np.testing.assert_allclose(in_unit(codec.pictures(latents)), pictures, atol=NEAR, rtol=0)
    assert pictures.std() > 0.01
    again = image.Pipeline.from_pretrained(tmp_path / "out")
    back = again(**settings, output_type="latent").images
    torch.testing.assert_close(back, latents, atol=NEAR * float(latents.abs().max()), rtol=0)
    levels = torch.randint(256, (2, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    theirs: Any = again.learner.codec
    if make is tiny_vae:  # of a table theirs is what is not yet put in it
        torch.testing.assert_close(
            theirs.encode(levels), codec.encode(levels), atol=1e-5, rtol=1e-5
        )
    assert torch.equal(theirs.decode(latents), codec.decode(latents))


def test_a_run_of_latents_is_exported_from_the_command_line(make_run, tmp_path: Path):
    autoencoder = make_run(
        "model=autoencoder", "autoencoder.channels=[8, 16]", "autoencoder.latent_channels=2"
    )
    run = make_run(
        "codec.kind=autoencoder", f"codec.run={autoencoder}", "network=unet",
        "unet.channels=[8, 16]", "unet.layers=1", "unet.attention=[1]", "unet.head_dim=8",
        "data.label_column=null", "diffusion.self_condition=false", "diffusion.scale_input=false",
    )  # fmt: skip
    assert main(["export", str(run), str(tmp_path / "out")]) == 0
    drawn = load(tmp_path / "out")(batch_size=2, num_inference_steps=2, output_type="np").images
    assert drawn.shape == (2, 8, 8, 1)


def test_exported_network_runs_under_another_scheduler_of_theirs(tmp_path: Path):
    """DPM-Solver++ on the same chain: their solver around our network is our solver."""
    ours = build(DiffusionConfig(**PLAIN, schedule="linear", prediction="eps"))
    ours.save_pretrained(tmp_path / "out")
    theirs = load(tmp_path / "out")
    settings = theirs.scheduler.config
    solver: Any = DPMSolverMultistepScheduler.from_config(settings, final_sigmas_type="zero")
    theirs.scheduler = solver
    x = start((2, 3, 8, 8))
    solver.set_timesteps(8)
    with torch.no_grad():
        for t in solver.timesteps:
            x = solver.step(theirs.unet(x, t).sample, t, x).prev_sample
    theirs.save_pretrained(tmp_path / "dpm")
    again = image.Pipeline.from_pretrained(tmp_path / "dpm")
    latents = again(seeds=SEEDS, num_inference_steps=8, output_type="latent").images
    assert float((latents - x).abs().max()) < 1e-4 * float(x.abs().max())


def test_what_is_written_is_whole_and_safetensors_only(tmp_path: Path):
    build(classes=CLASSES).save_pretrained(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert not list(tmp_path.rglob("*.bin"))
    with pytest.raises(ConfigError, match="out exists: choose a folder"):
        build().save_pretrained(tmp_path / "out")


def test_a_failed_export_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(DiffusionPipeline, "save_pretrained", fail)
    with pytest.raises(OSError, match="disk full"):
        build().save_pretrained(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


# -- what is refused ---------------------------------------------------------------------------


def tiny() -> Any:
    blocks: dict[str, Any] = dict.fromkeys(("num_encoder_blocks", "num_decoder_blocks"), (1, 1))
    widths = dict.fromkeys(("encoder_block_out_channels", "decoder_block_out_channels"), (4, 4))
    return AutoencoderTiny(**blocks, **widths, latent_channels=2)


def spatial() -> Any:
    """Says that its decoder also reads the latent before the convolution."""
    network = tiny_vq()
    network.register_to_config(norm_type="spatial")
    return network


SMALL = NetConfig(dim=16, depth=1, heads=2)
REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"network": "transformer", "net": SMALL, "unet": UnetConfig()},
        "network = 'transformer': DiTTransformer2DModel .*train with network=unet",
    ),
    ({"codec": CodecConfig(scale=0.5)}, r"codec: .*pictures in \[-1, 1\]"),
    ({"codec": CodecConfig(kind="bits")}, r"codec: .*pictures in \[-1, 1\]"),
    (
        {"diffusion": DiffusionConfig(scale_input=False)},
        "self_condition = true: .*train with diffusion.self_condition=false",
    ),
    (
        {"diffusion": DiffusionConfig(self_condition=False)},
        "scale_input = true: .*train with diffusion.scale_input=false",
    ),
    ({"diffusion": DiffusionConfig(**PLAIN, prediction="score")}, "prediction = 'score'"),
    ({"diffusion": DiffusionConfig(**PLAIN, schedule="ve")}, "diffusion.schedule: a chain of"),
    ({"diffusion": DiffusionConfig(**PLAIN, schedule="flow")}, "diffusion.schedule: a chain of"),
    ({"classes": CLASSES, "side": (8, 12)}, "draws squares"),
    ({"classes": CLASSES, "autoencoder": tiny_vae()}, "without text knows no classes"),
    ({"autoencoder": tiny_vae(), "side": (16, 32)}, "pipeline of latents draws squares"),
    ({"autoencoder": tiny_vae(use_quant_conv=False)}, "codec: a AutoencoderKL: .*convolutions"),
    ({"autoencoder": tiny()}, "codec: a AutoencoderTiny: .*convolutions"),
    ({"autoencoder": spatial()}, "codec: a VQModel: .*convolutions"),
]


@pytest.mark.parametrize(("settings", "words"), REFUSED)
def test_what_diffusers_cannot_represent_is_refused_by_part(
    settings: dict[str, Any], words: str, tmp_path: Path
):
    with pytest.raises(ConfigError, match=f"not representable in diffusers: .*{words}"):
        build(**settings).save_pretrained(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_scenes_are_refused(tmp_path: Path):
    ours = build(classes=CLASSES)
    scene = DataFacts(9, (3, 8, 8), 256, (), 4, 0.7)
    with pytest.raises(ConfigError, match="one class, not a scene"):
        Pipeline(ours.learner, scene, ours.config).save_pretrained(tmp_path / "out")


def test_a_scheduler_for_a_run_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="scheduler: of a run it follows"):
        build().save_pretrained(tmp_path / "out", DPMSolverMultistepScheduler())
