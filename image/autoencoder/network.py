"""The networks of autoencoders, all of diffusers: built from a configuration or read from a folder.

`AutoencoderKL` gives a diagonal Gaussian of latents (Kingma & Welling 2014; Rombach et al. 2022),
`VQModel` vectors out of a table (van den Oord et al. 2017; Esser et al. 2021), `AutoencoderTiny`
latents alone. Pictures are in [-1, 1]; one latent place stands for `factor` x `factor` pixels.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.models.autoencoders.vq_model import VQModel
from torch import Tensor

from image.autoencoder.config import AutoencoderConfig
from shared.errors import UNREADABLE, CheckpointError, ConfigError

Network = AutoencoderKL | VQModel | AutoencoderTiny
CLASSES: dict[str, type[Network]] = {
    "AutoencoderKL": AutoencoderKL,
    "VQModel": VQModel,
    "AutoencoderTiny": AutoencoderTiny,
}
GROUPS = 32  # of a group norm, or as many as divide the channels of all levels


def build_network(config: AutoencoderConfig, channels: int) -> AutoencoderKL | VQModel:
    """A fresh network for pictures of so many channels."""
    levels = len(config.channels)
    common = {
        "in_channels": channels,
        "out_channels": channels,
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "block_out_channels": config.channels,
        "layers_per_block": config.layers,
        "latent_channels": config.latent_channels,
        "norm_num_groups": math.gcd(GROUPS, *config.channels),
        "mid_block_add_attention": config.attention,
    }
    if config.kind == "kl":
        return AutoencoderKL(**common)
    return VQModel(**common, num_vq_embeddings=config.codes)


def load_network(folder: Path) -> Network:
    """The network in a folder that diffusers wrote, or in the `vae` or `vqvae` of a pipeline's.

    CheckpointError when it is not there, not readable, or of a class that is not in CLASSES.
    """
    parts = [folder, folder / "vae", folder / "vqvae"]
    found = next((part for part in parts if (part / "config.json").is_file()), None)
    if found is None:
        raise CheckpointError(
            f"{folder}: no config.json in it; give a folder that save_pretrained of a diffusers "
            "autoencoder wrote"
        )
    try:
        name = str(json.loads((found / "config.json").read_text(encoding="utf-8"))["_class_name"])
        if name not in CLASSES:
            raise CheckpointError(f"{found}: a {name}; expected one of {', '.join(CLASSES)}")
        return CLASSES[name].from_pretrained(
            found, local_files_only=True, low_cpu_mem_usage=False, torch_dtype=torch.float32
        )
    except UNREADABLE as error:
        raise CheckpointError(f"{found}: not readable as an autoencoder: {error}") from None


def factor(network: Network) -> int:
    """Pixels along a side of one latent place."""
    if isinstance(network, AutoencoderTiny):
        return 2 ** (len(network.config["encoder_block_out_channels"]) - 1)
    return 2 ** (len(network.config["block_out_channels"]) - 1)


def latent_channels(network: Network) -> int:
    """Numbers at a latent place."""
    if isinstance(network, VQModel) and network.config["vq_embed_dim"]:
        return int(network.config["vq_embed_dim"])
    return int(network.config["latent_channels"])


def latent_shape(network: Network, shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """The shape (c, h, w) of the latents of pictures (C, H, W). ConfigError when the network does
    not take such pictures."""
    C, H, W = shape
    takes, side = int(network.config["in_channels"]), factor(network)
    if takes != C:
        raise ConfigError(
            f"autoencoder: made for pictures of {takes} channels, these have {C}; set "
            f"data.channels={takes}, or choose another"
        )
    if H % side or W % side:
        raise ConfigError(
            f"autoencoder: halves pictures to 1/{side} of their sides, and {H} x {W} pixels are "
            f"no multiple of {side}; set data.size to one, or give it fewer levels"
        )
    return latent_channels(network), H // side, W // side


def posterior(network: AutoencoderKL, x: Tensor) -> DiagonalGaussianDistribution:
    """q(z | x) of pictures x (B, C, H, W), in float32."""
    found: Any = network.encode(x, return_dict=False)[0]
    return DiagonalGaussianDistribution(found.parameters.float())


def encoded(network: VQModel | AutoencoderTiny, x: Tensor) -> Tensor:
    """Latents (B, c, h, w) of pictures x (B, C, H, W), before any table, in float32."""
    found: Any = network.encode(x, return_dict=False)[0]
    return found.float()


def decoded(network: Network, z: Tensor, quantised: bool = False) -> Tensor:
    """z (B, c, h, w) -> pictures (B, C, H, W), about [-1, 1], float32. A VQModel takes the nearest
    codes of its table, unless z is `quantised`."""
    keeps = {"force_not_quantize": True} if quantised and isinstance(network, VQModel) else {}
    call: Any = network.decode
    return call(z, return_dict=False, **keeps)[0].float()


def table(network: VQModel) -> Tensor:
    """The codes (K, c). Through the layer, so that gradients reach a table which is cut up over
    processes."""
    layer = network.quantize.embedding
    return layer(torch.arange(layer.num_embeddings, device=layer.weight.device)).float()


def nearest(z: Tensor, codes: Tensor) -> Tensor:
    """z (B, c, h, w), codes (K, c) -> the index of the nearest code at each place (B, h, w)."""
    places = z.movedim(1, -1)
    apart = torch.cdist(places.flatten(0, 2), codes, compute_mode="donot_use_mm_for_euclid_dist")
    return apart.argmin(1).view(places.shape[:-1])


def chosen(codes: Tensor, indices: Tensor) -> Tensor:
    """The codes (B, c, h, w) of indices (B, h, w)."""
    return codes[indices].movedim(-1, 1)
