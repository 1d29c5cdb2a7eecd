"""Tiny pipelines of diffusers with random weights, saved to folders, and what they are made of."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.vq_model import VQModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import nn
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

LENGTH = 9  # tokens of a prompt
SIDE = 16  # of the pictures that a tiny CLIPModel takes
STABLE: dict[str, Any] = {  # the numbers of Stable Diffusion 1
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "clip_sample": False,
    "steps_offset": 1,
    "set_alpha_to_one": False,
}


def tiny_vae(kind: type[Any] = AutoencoderKL, **config: Any) -> Any:
    """Halves the sides; three numbers at a place."""
    torch.manual_seed(3)
    return kind(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(4, 8),
        layers_per_block=1,
        latent_channels=3,
        norm_num_groups=2,
        **config,
    ).eval()


def tiny_tokenizer(folder: Path) -> CLIPTokenizer:
    """Letters, and each at the end of a word."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = [chr(ord("a") + i) for i in range(26)]
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{x}</w>" for x in letters)]
    vocabulary = {word: i for i, word in enumerate(words)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=LENGTH
    )


def tiny_text_encoder(width: int = 12, length: int = LENGTH) -> CLIPTextModel:
    """States of `width` numbers, for texts of at most `length` tokens."""
    torch.manual_seed(5)
    config = CLIPTextConfig(
        vocab_size=54, hidden_size=width, intermediate_size=20, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=length, bos_token_id=0, eos_token_id=1,
        pad_token_id=1,
    )  # fmt: skip
    return CLIPTextModel(config).eval()


def save_text_encoder(kind: str, folder: Path) -> Path:
    """A tiny "clip" or "t5", far from zero, with its tokenizer, in one folder."""
    if kind == "clip":
        model: Any = tiny_text_encoder()
        tiny_tokenizer(folder.with_name(f"{folder.name}-words")).save_pretrained(folder)
    else:
        torch.manual_seed(7)
        config = T5Config(vocab_size=40, d_model=14, d_kv=4, d_ff=20, num_layers=2, num_heads=2)
        model = T5EncoderModel(config).eval()
        special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0)]
        letters = [(chr(ord("a") + i), -3.0) for i in range(26)]
        T5Tokenizer(special + letters, extra_ids=0).save_pretrained(folder)
    for weight in model.parameters():
        if weight.ndim > 1:
            nn.init.normal_(weight, std=0.5)
    model.save_pretrained(folder)
    return folder


def tiny_clip() -> CLIPModel:
    """Of pictures of SIDE x SIDE pixels and the tiny tokenizer's texts."""
    torch.manual_seed(6)
    text = tiny_text_encoder().config.to_dict()
    vision = {
        "image_size": SIDE, "patch_size": 4, "hidden_size": 12, "intermediate_size": 20,
        "num_hidden_layers": 2, "num_attention_heads": 2,
    }  # fmt: skip
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=7)
    model = CLIPModel(config).eval()
    for weight in model.parameters():  # as they are, all points are nearly one
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.3)
    return model


def tiny_text_unet() -> UNet2DConditionModel:
    torch.manual_seed(4)
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=3,
        out_channels=3,
        block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=12,
        attention_head_dim=2,
    )
    nn.init.normal_(unet.conv_out.weight, std=0.05)
    for name, weight in unet.named_parameters():
        if "attn2" in name and name.endswith("weight"):
            nn.init.normal_(weight, std=0.5)  # so that words are heard
    return unet.eval()


def stable_diffusion(folder: Path, scheduler: Any = None, **parts: Any) -> Any:
    """A StableDiffusionPipeline of 8 x 8 latents, 16 x 16 pixels, saved to `folder`."""
    made: Any = StableDiffusionPipeline
    pipeline = made(
        vae=tiny_vae(AutoencoderKL, scaling_factor=0.7),
        text_encoder=tiny_text_encoder(),
        tokenizer=tiny_tokenizer(folder.with_name(f"{folder.name}-words")),
        unet=tiny_text_unet(),
        scheduler=scheduler or DDIMScheduler(**STABLE),
        safety_checker=parts.pop("safety_checker", None),
        feature_extractor=parts.pop("feature_extractor", None),
        requires_safety_checker=False,
        **parts,
    )
    pipeline.save_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def tiny_vq() -> Any:
    return tiny_vae(VQModel, num_vq_embeddings=11, scaling_factor=0.4)
