"""A run as a pipeline of diffusers whose numbers are ours.

The chain: step i of T stands at t = (i + 1) / T of our schedule, so that 1 - beta_i is alpha^2
there over alpha^2 a step before, with t = 0 taken as clean (`shared.schedule.to_betas`). DDIM in N
steps, N a divisor of T, then asks at the times of our solver "ddim" on equal times.

The network: UNet2DModel with a table of T rows in place of its sines, time_embedding_type =
"learned", since ours is told logsnr and theirs a step: row i is what ours makes of the level of
step i. Class k is label k, and "none" the label after the last class.

A network in latents that is told steps and captions by a frozen text encoder, padded (unet.told =
"step", data.pad_captions), is the UNet2DConditionModel of a StableDiffusionPipeline: its linear map
of the encoder's states goes into the keys and values of the layers that attend to them.

Latents of an autoencoder make an LDMPipeline, which draws squares without classes and knows a
scaling factor but no shift. The shift of z = x0 / scaling_factor + shift goes into the 1 x 1
convolutions on both sides of it, and of a table into its codes: exactly the same pictures.

What has no place there is refused: self-conditioning and an input scaled by level (the pipeline
calls unet(x_t, step) and nothing else), schedules that are not variance preserving, bits and pixels
that are not in [-1, 1], conditions of several ids, and the transformer.
"""

import copy
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.autoencoders.vq_model import VQModel
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.consistency_models.pipeline_consistency_models import (
    ConsistencyModelPipeline,
)
from diffusers.pipelines.ddim.pipeline_ddim import DDIMPipeline
from diffusers.pipelines.deprecated.latent_diffusion_uncond import (
    pipeline_latent_diffusion_uncond as pipeline_ldm,
)
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor
from transformers import CLIPTextModel

from image.autoencoder.codec import LatentCodec
from image.autoencoder.network import Network
from image.beside import BesideNet
from image.caption_unet import CaptionUnet
from image.codec import Pixels
from image.data import FACTS, DataFacts
from image.net import PatchNet
from image.text_encoder import TextEncoder
from image.unet import Unet, timestep
from shared.codec import Codec
from shared.errors import ConfigError
from shared.files import make_folder
from shared.interop.convention import PREDICTION_TYPES
from shared.learner import DiffusionLearner
from shared.schedule import from_betas, to_betas

NO_PARTS = ("safety_checker", "feature_extractor")  # of theirs, that ours have nothing of
NAMES = {ours: theirs for theirs, ours in PREDICTION_TYPES.items() if ours != "velocity"}


def to_diffusers(
    learner: DiffusionLearner,
    facts: DataFacts,
    timesteps: int = 1000,
    texts: TextEncoder | None = None,
) -> DiffusionPipeline:
    """A DDIMPipeline, of latents an LDMPipeline, with captions that `texts` reads a
    StableDiffusionPipeline; with classes a ConsistencyModelPipeline, the one
    of diffusers that hands a UNet2DModel its `class_labels`, around the same DDIMScheduler.
    ConfigError for a part that is not representable."""
    net = _exportable(learner, facts)
    betas = _betas(learner, timesteps)
    numbers: dict[str, Any] = {
        "num_train_timesteps": timesteps,
        "trained_betas": betas.tolist(),
        "prediction_type": NAMES[learner.denoiser.prediction],
        "clip_sample": False,
        "timestep_spacing": "trailing",
    }
    scheduler: Any = DDIMScheduler(**numbers)
    if isinstance(net, CaptionUnet):
        parts: dict[str, Any] = _reader(net, texts, timesteps) | dict.fromkeys(NO_PARTS)
        assert isinstance(learner.codec, LatentCodec)  # as `_exportable` has checked
        autoencoder: Any = _unshifted(learner.codec)
        return StableDiffusionPipeline(
            autoencoder, unet=_caption_network(net), scheduler=scheduler,
            requires_safety_checker=False, **parts,
        )  # fmt: skip
    network = _network(net, betas)
    if isinstance(learner.codec, LatentCodec):
        autoencoder = _unshifted(learner.codec)
        return pipeline_ldm.LDMPipeline(autoencoder, network, scheduler)
    made = DDIMPipeline if facts.conditions == 0 else ConsistencyModelPipeline
    return made(network, scheduler)


def export(
    learner: DiffusionLearner,
    facts: DataFacts,
    folder: Path,
    timesteps: int = 1000,
    texts: TextEncoder | None = None,
) -> str:
    """Write `to_diffusers` as a whole folder that is not there yet, safetensors only, and beside it
    data.json, in which `image.Pipeline` finds the names of the classes; returns the name of the
    pipeline's class."""
    pipeline = to_diffusers(learner, facts, timesteps, texts)
    if texts is not None:  # ids of captions are the judge's, no classes
        facts = replace(facts, conditions=0)

    def fill(temporary: Path) -> None:
        pipeline.save_pretrained(temporary)
        (temporary / FACTS).write_text(json.dumps(asdict(facts), indent=2), encoding="utf-8")

    make_folder(folder, fill)
    return type(pipeline).__name__


def _exportable(learner: DiffusionLearner, facts: DataFacts) -> Unet | CaptionUnet:
    """The network of a run that is representable. ConfigError for a part that is not."""
    denoiser = learner.denoiser
    if isinstance(denoiser.net, BesideNet):
        raise _refused(
            "upscale, sketch, masked",
            "their pipelines show the network no picture beside the noisy one",
        )
    if isinstance(denoiser.net, PatchNet | Unet) and denoiser.net.layout is not None:
        raise _refused(
            "data.name = figures, data.layout_column",
            "their pipelines show the network no layout beside the noisy picture",
        )
    if isinstance(denoiser.net, PatchNet):
        raise _refused(
            "network = 'transformer'",
            "DiTTransformer2DModel computes its positions and its embedding of the step, where "
            "ours learns a table of positions and is told logsnr",
            "network=unet",
        )
    net = denoiser.net
    assert isinstance(net, Unet | CaptionUnet)
    captions = isinstance(net, CaptionUnet)
    if captions and net.empty is None:
        raise _refused(
            "data.caption_column",
            "their networks hold no blocks that read captions",
            "data.text_encoder, data.pad_captions=true, unet.told=step",
        )
    _check_codec(learner.codec, facts, captions)
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
    if facts.conditions and not facts.classes and not captions:
        raise _refused("the condition", "their networks take one class, not a scene's ids")
    if facts.classes and facts.shape[1] != facts.shape[2]:
        raise _refused("data.size", "their pipeline with classes draws squares", "data.size=PIXELS")
    return net


def _check_codec(codec: Codec, facts: DataFacts, captions: bool) -> None:
    if isinstance(codec, LatentCodec):
        _check_latents(codec, facts, captions)
    elif captions:
        raise _refused(
            "codec", "their pipeline with captions draws in latents", "codec.kind=autoencoder"
        )
    elif not isinstance(codec, Pixels) or codec.scale != 1:
        raise _refused(
            "codec",
            "their pixel pipelines draw pictures in [-1, 1]",
            "codec.kind=pixels codec.scale=1, or codec.kind=autoencoder",
        )


def _check_latents(codec: LatentCodec, facts: DataFacts, captions: bool) -> None:
    network, name = codec.network, f"codec: a {type(codec.network).__name__}"
    whole = not isinstance(network, AutoencoderTiny) and network.quant_conv is not None
    if not whole or network.config.get("norm_type") == "spatial":
        raise _refused(
            name,
            "their pipeline of latents without text has no shift, which only convolutions beside "
            "the latent of an AutoencoderKL or a VQModel take",
        )
    if captions and not isinstance(network, AutoencoderKL):
        raise _refused(name, "their pipeline with captions has an AutoencoderKL")
    if facts.conditions and not captions:
        raise _refused(name, "their pipeline of latents without text knows no classes")
    if codec.latent_shape[1] != codec.latent_shape[2]:
        raise _refused("data.size", "their pipeline of latents draws squares", "data.size=PIXELS")


@torch.no_grad()
def _unshifted(codec: LatentCodec) -> Network:
    """The autoencoder whose latents are z - shift, with its scaling factor."""
    network: Any = copy.deepcopy(codec.network).cpu()
    shift, c = codec.measured.shift, codec.latent_shape[0]
    network.quant_conv.bias[:c] -= shift  # of a Gaussian the means, which come first
    network.post_quant_conv.bias += shift * network.post_quant_conv.weight.flatten(1).sum(1)
    if isinstance(network, VQModel):
        network.quantize.embedding.weight -= shift
    stated = {"scaling_factor": codec.factor, "shift_factor": None}
    network.register_to_config(**{k: v for k, v in stated.items() if k in network.config})
    return network


def _reader(net: CaptionUnet, texts: TextEncoder | None, timesteps: int) -> dict[str, Any]:
    """The text encoder and the tokenizer of a pipeline whose captions are read as ours."""
    assert texts is not None  # as the run keeps it
    if net.chain is None or not texts.padded:
        raise _refused(
            "unet.told, data.pad_captions",
            "their network is told steps of a chain and of captions no mean, and attends to their "
            "padding",
            "unet.told=step data.pad_captions=true",
        )
    if timesteps != len(net.chain.betas):
        raise ConfigError(
            f"export: timesteps = {timesteps}: this network is told those of a chain of "
            f"{len(net.chain.betas):,}; leave it out"
        )
    encoder, tokenizer = copy.deepcopy(texts.model).cpu(), copy.deepcopy(texts.tokenizer)
    if not isinstance(encoder, CLIPTextModel):
        raise _refused(
            "data.text_encoder",
            f"their pipeline reads by a CLIPTextModel, this is a {type(encoder).__name__}",
        )
    tokenizer.model_max_length = texts.length
    return {"text_encoder": encoder, "tokenizer": tokenizer}


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
    settings = _settings(net) | {
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


@torch.no_grad()
def _caption_network(net: CaptionUnet) -> UNet2DConditionModel:
    """The trunk for states of the encoder as they are, of which ours makes tokens W x + b. W goes
    into keys and values; what b adds to a key is the same for all, to which softmax is blind, and
    to a value a constant, which goes into the bias behind."""
    weights = {name: weight.cpu() for name, weight in net.trunk.state_dict().items()}
    embed: Any = net.condition.embed
    w, b = embed.weight.double().cpu(), embed.bias.double().cpu()
    for key in [name for name in weights if name.endswith("attn2.to_k.weight")]:
        layer = key.removesuffix("to_k.weight")
        value, out = f"{layer}to_v.weight", f"{layer}to_out.0"
        added = weights[f"{out}.weight"].double() @ (weights[value].double() @ b)
        weights[f"{out}.bias"] = (weights[f"{out}.bias"] + added).float()
        for name in (key, value):
            weights[name] = (weights[name].double() @ w).float()
    settings = _settings(net) | {"cross_attention_dim": embed.in_features}
    made = UNet2DConditionModel(**settings)
    made.load_state_dict(weights)
    return made.eval()


def _settings(net: Unet | CaptionUnet) -> dict[str, Any]:
    """Those of the trunk, with the size of a latent."""
    settings = {k: v for k, v in net.trunk.config.items() if not k.startswith("_")}
    height, width = net.latent_shape[1:3]
    return settings | {"sample_size": height if height == width else (height, width)}
