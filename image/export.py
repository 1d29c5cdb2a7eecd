"""A run as a pipeline of diffusers whose numbers are ours.

The chain: step i of T stands at t = (i + 1) / T of our schedule, so that 1 - beta_i is alpha^2
there over alpha^2 a step before, with t = 0 taken as clean (`shared.schedule.to_betas`). DDIM in N
steps, N a divisor of T, then asks at the times of our solver "ddim" on equal times.

The network: UNet2DModel with a table of T rows in place of its sines, time_embedding_type =
"learned", since ours is told logsnr and theirs a step: row i is what ours makes of the level of
step i. Class k is label k, and "none" the label after the last class.

What has no place there is refused: self-conditioning and an input scaled by level (the pipeline
calls unet(x_t, step) and nothing else), schedules that are not variance preserving, latents that
are not pictures in [-1, 1], conditions of several ids, and the transformer.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.pipelines.consistency_models.pipeline_consistency_models import (
    ConsistencyModelPipeline,
)
from diffusers.pipelines.ddim.pipeline_ddim import DDIMPipeline
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor

from image.codec import Pixels
from image.data import FACTS, Facts
from image.unet import Unet, timestep
from shared.errors import ConfigError
from shared.files import make_folder
from shared.interop.convention import PREDICTION_TYPES
from shared.learner import DiffusionLearner
from shared.schedule import from_betas, to_betas

NAMES = {ours: theirs for theirs, ours in PREDICTION_TYPES.items() if ours != "velocity"}


def to_diffusers(
    learner: DiffusionLearner, facts: Facts, timesteps: int = 1000
) -> DiffusionPipeline:
    """A DDIMPipeline; with classes a ConsistencyModelPipeline, the one of diffusers that hands a
    UNet2DModel its `class_labels`, around the same DDIMScheduler. ConfigError for a part that is
    not representable."""
    _check(learner, facts)
    betas = _betas(learner, timesteps)
    numbers: dict[str, Any] = {
        "num_train_timesteps": timesteps,
        "trained_betas": betas.tolist(),
        "prediction_type": NAMES[learner.denoiser.prediction],
        "clip_sample": False,
        "timestep_spacing": "trailing",
    }
    scheduler = DDIMScheduler(**numbers)
    made = DDIMPipeline if facts.conditions == 0 else ConsistencyModelPipeline
    return made(_network(learner.denoiser.net, betas), scheduler)  # type: ignore[arg-type]


def export(learner: DiffusionLearner, facts: Facts, folder: Path, timesteps: int = 1000) -> str:
    """Write `to_diffusers` as a whole folder that is not there yet, safetensors only, and beside it
    data.json, in which `image.Pipeline` finds the names of the classes; returns the name of the
    pipeline's class."""
    pipeline = to_diffusers(learner, facts, timesteps)

    def fill(temporary: Path) -> None:
        pipeline.save_pretrained(temporary)
        (temporary / FACTS).write_text(json.dumps(asdict(facts), indent=2), encoding="utf-8")

    make_folder(folder, fill)
    return type(pipeline).__name__


def _check(learner: DiffusionLearner, facts: Facts) -> None:
    denoiser = learner.denoiser
    if not isinstance(denoiser.net, Unet):
        raise _refused(
            "network = 'transformer'",
            "DiTTransformer2DModel computes its positions and its embedding of the step, where "
            "ours learns a table of positions and is told logsnr",
            "network=unet",
        )
    if not isinstance(learner.codec, Pixels) or learner.codec.scale != 1:
        raise _refused(
            "codec",
            "their pixel pipelines draw pictures in [-1, 1]",
            "codec.kind=pixels codec.scale=1",
        )
    if denoiser.self_condition:
        raise _refused(
            "diffusion.self_condition = true",
            "their pipelines do not hand back the last estimate",
            "diffusion.self_condition=false",
        )
    if denoiser.scale_input and abs(denoiser.data_std - 1) > 1e-6:
        raise _refused(
            "diffusion.scale_input = true",
            "their pipelines show the network x_t as it is",
            "diffusion.scale_input=false",
        )
    if denoiser.prediction not in NAMES:
        raise _refused(
            f"diffusion.prediction = {denoiser.prediction!r}",
            f"their schedulers know {', '.join(NAMES)}",
            "diffusion.prediction=v",
        )
    if facts.conditions and not facts.classes:
        raise _refused("the condition", "their networks take one class, not a scene's ids")
    if facts.classes and facts.shape[1] != facts.shape[2]:
        raise _refused("data.size", "their pipeline with classes draws squares", "data.size=PIXELS")


def _refused(part: str, reason: str, instead: str | None = None) -> ConfigError:
    hint = f"; train with {instead}" if instead else "; image.Pipeline reads this run as it is"
    return ConfigError(f"export: not representable in diffusers: {part}: {reason}{hint}")


def _betas(learner: DiffusionLearner, timesteps: int) -> Tensor:
    try:
        return to_betas(learner.schedule, timesteps)
    except ValueError:
        raise _refused(
            "diffusion.schedule",
            "a chain of betas is variance preserving, and this schedule is not",
            "diffusion.schedule=cosine",
        ) from None


@torch.no_grad()
def _network(net: Unet, betas: Tensor) -> UNet2DModel:
    """The trunk with tables for the levels of a chain and for the classes."""
    trunk, T = net.trunk, len(betas)
    weights = {name: weight.cpu() for name, weight in trunk.state_dict().items()}
    logsnr = from_betas(betas)(torch.arange(1, T + 1, dtype=torch.float64) / T).logsnr.float()
    weights["time_proj.weight"] = trunk.time_proj(timestep(logsnr)).float()
    settings = {k: v for k, v in trunk.config.items() if not k.startswith("_")}
    settings |= {
        "sample_size": net.latent_shape[1]
        if net.latent_shape[1] == net.latent_shape[2]
        else net.latent_shape[1:3],
        "time_embedding_type": "learned",
        "num_train_timesteps": T,
        "class_embed_type": None,
    }
    if net.condition is not None:
        table = net.condition.weight.cpu()
        weights["class_embedding.weight"] = torch.cat([table[1:], table[:1]])
        settings["num_class_embeds"] = len(table)
    made = UNet2DModel(**settings)
    made.load_state_dict(weights)
    return made.eval()
