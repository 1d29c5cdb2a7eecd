"""A U-Net over the pixels of a latent: diffusers' `UNet2DModel` under the contract of our networks.

Residual blocks on levels of falling size, skips from the way down to the way up, self-attention on
the levels asked for (Ho et al. 2020, app. B), and what ADM changed: heads of 64 channels, scale and
shift by noise level and class after each norm, residual blocks that resample (Dhariwal & Nichol
2021, sec. 3). As there, every residual branch and the output start at zero.
"""

import math

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from image.config import UnetConfig
from image.latent import channels_of, from_channels, to_channels
from image.layout_reader import CHANNELS, build_reader, with_layout
from shared.errors import ConfigError
from shared.nets.condition import mean_token, that_count

GROUPS = 32  # of a group norm (Wu & He 2018), or as many as divide the channels of all levels
# Names of diffusers' blocks without attention, down and up, by `unet.resample`.
PLAIN = {
    "residual": ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D"),
    "conv": ("DownBlock2D", "UpBlock2D"),
}
RESAMPLERS = {"residual": "resnet", "conv": "conv"}  # of blocks with attention


def timestep(logsnr: Tensor) -> Tensor:
    """logsnr in nats -> the timestep told to diffusers' embedding, 25 (20 - logsnr), any shape.

    0 to 1000, the range that the embedding is made for, is logsnr 20 to -20; it goes on beyond. The
    periods of its sines are then 0.25 to 2,500 nats.
    """
    return 25 * (20 - logsnr.float())


class Unet(nn.Module):
    """net(x, logsnr, condition, previous) -> an output of x's shape.

    x and previous (B, *latent_shape), logsnr (B,), condition (B, M) of ids in [0, conditions), read
    as in the transformer: 0 is "none", the mean of the others joins the noise level; the first are
    a layout of `layout_size` where one is given (`image.layout_reader`); with `beside` further
    channels (B, beside, H, W) as a fifth argument. ConfigError when the levels do not divide the
    picture; ValueError for a condition without conditions.
    """

    def __init__(
        self,
        latent_shape: tuple[int, ...],
        config: UnetConfig,
        self_condition: bool,
        conditions: int = 0,
        layout_size: tuple[int, int] | None = None,
        beside: int = 0,
    ) -> None:
        super().__init__()
        check_size(latent_shape, len(config.channels))
        self.latent_shape, self.self_condition = latent_shape, self_condition
        self.layout = build_reader(conditions, layout_size, latent_shape)
        channels = channels_of(latent_shape)
        given = channels * (2 if self_condition else 1) + (CHANNELS if self.layout else 0) + beside
        self.trunk = _trunk(given, channels, config, conditions)
        told = self.trunk.time_embedding.linear_2.out_features
        self.condition = nn.Embedding(conditions, told) if conditions else None
        if self.condition is not None:
            nn.init.normal_(self.condition.weight, std=0.02)
        close(self.trunk)

    def forward(
        self,
        x: Tensor,
        logsnr: Tensor,
        condition: Tensor | None,
        previous: Tensor | None,
        beside: Tensor | None = None,
    ) -> Tensor:
        h = to_channels(x, previous, self.self_condition, beside)
        h, condition = with_layout(self.layout, h, condition)
        told = self._told(condition, len(x))
        out = self.trunk(h, timestep(logsnr), told, return_dict=False)[0]
        return from_channels(out, self.latent_shape)

    def _told(self, condition: Tensor | None, rows: int) -> Tensor | None:
        """What joins the embedding of the noise level, (B, D)."""
        if self.condition is None:
            if condition is not None:
                raise ValueError("net: a condition was given, and the network has conditions = 0")
            return None
        device = self.condition.weight.device
        none = torch.zeros(rows, 1, dtype=torch.long, device=device)
        ids = none if condition is None else condition
        return mean_token(self.condition(ids), that_count(ids))


def check_size(latent_shape: tuple[int, ...], levels: int) -> None:
    _, height, width = latent_shape[:3]
    multiple = 2 ** (levels - 1)
    if height % multiple or width % multiple:
        most = int(math.log2(math.gcd(height, width, multiple))) + 1
        raise ConfigError(
            f"unet.channels: {levels} levels halve the picture's {height} x {width} pixels "
            f"{levels - 1} times: expected multiples of {multiple}, or at most {most} levels; set "
            "unet.channels or data.size"
        )


def _trunk(inputs: int, outputs: int, config: UnetConfig, conditions: int) -> UNet2DModel:
    plain_down, plain_up = PLAIN[config.resample]
    levels = range(len(config.channels))
    attends = [level in config.attention for level in levels]
    groups = math.gcd(GROUPS, *config.channels)
    return UNet2DModel(
        in_channels=inputs,
        out_channels=outputs,
        block_out_channels=config.channels,
        layers_per_block=config.layers,
        down_block_types=tuple("AttnDownBlock2D" if it else plain_down for it in attends),
        up_block_types=tuple("AttnUpBlock2D" if it else plain_up for it in reversed(attends)),
        add_attention=any(attends),
        attention_head_dim=config.head_dim,
        downsample_type=RESAMPLERS[config.resample],
        upsample_type=RESAMPLERS[config.resample],
        resnet_time_scale_shift="scale_shift" if config.scale_shift else "default",
        norm_num_groups=groups,
        attn_norm_num_groups=groups,
        dropout=config.dropout,
        # the embedding of ids is ours: diffusers' takes one id a row
        class_embed_type="identity" if conditions else None,
    )


def close(trunk: UNet2DModel | UNet2DConditionModel) -> None:
    """Zero the last layer of every residual branch, and the output. A transformer among them is one
    branch, with branches of its own left open."""
    closed: list[nn.Module] = [trunk.conv_out]
    inside = {
        part
        for module in trunk.modules()
        if isinstance(module, Transformer2DModel)
        for part in module.modules()
    }
    for module in trunk.modules():
        if isinstance(module, ResnetBlock2D):
            closed.append(module.conv2)
        elif isinstance(module, Transformer2DModel):
            assert isinstance(module.proj_out, nn.Module)
            closed.append(module.proj_out)
        elif isinstance(module, Attention) and module not in inside:
            assert module.to_out is not None
            closed.append(module.to_out[0])
    for layer in closed:
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)
