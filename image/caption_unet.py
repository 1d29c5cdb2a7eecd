"""A U-Net that reads captions: diffusers' `UNet2DConditionModel` under our networks' contract.

The levels that attend do so to themselves and to the tokens of a caption (Rombach et al. 2022,
sec. 3.3), which blocks trained with the network have read in their order, or a frozen encoder
(`image.text_encoder`). The mean of the tokens joins the noise level, as a class does in
`image.unet`; or, with unet.told = "step", the network is told of noise and caption what that of
Stable Diffusion is: the step of a chain, and the tokens alone.
"""

import math
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from image.config import SOURCE_HEADS, UnetConfig
from image.latent import channels_of, from_channels, to_channels
from image.layout_reader import CHANNELS, build_reader, with_layout
from image.unet import GROUPS, PLAIN, check_size, close, timestep
from shared.config import DiffusionConfig
from shared.errors import ConfigError
from shared.learner import build_schedule
from shared.nets.condition import (
    IdEmbedding,
    SourceReader,
    VectorEmbedding,
    mean_token,
    or_empty,
    that_count,
)
from shared.schedule import FromBetas, from_betas, to_betas

STEPS = 1000  # of the chain of unet.told = "step", as in Stable Diffusion
# Names of diffusers' blocks that attend to captions, down and up; they resample by convolutions.
ATTENDS = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D")


class CaptionUnet(nn.Module):
    """net(x, logsnr, condition, previous) -> an output of x's shape.

    x and previous (B, *latent_shape), logsnr (B,), condition (B, M) of ids in [0, conditions), in
    the order of a text, 0 behind it; None is no text; the first are a layout of `layout_size` where
    one is given (`image.layout_reader`); with `empty` (1, L, D), the states of the
    empty text, it is states (B, L, D) of texts, zeros for none; with `beside` further channels (B,
    beside, H, W) as a fifth argument; with `chain` told its steps. ConfigError when the levels do
    not divide the picture.
    """

    def __init__(
        self,
        latent_shape: tuple[int, ...],
        config: UnetConfig,
        self_condition: bool,
        conditions: int,
        layout_size: tuple[int, int] | None = None,
        beside: int = 0,
        empty: Tensor | None = None,
        chain: FromBetas | None = None,
    ) -> None:
        super().__init__()
        check_size(latent_shape, len(config.channels))
        self.latent_shape, self.self_condition = latent_shape, self_condition
        channels = channels_of(latent_shape)
        self.layout, self.chain = build_reader(conditions, layout_size, latent_shape), chain
        given = channels * (2 if self_condition else 1) + (CHANNELS if self.layout else 0) + beside
        self.trunk = _trunk(given, channels, config)
        dim = config.source_dim
        self.empty: Tensor | None
        self.register_buffer("empty", empty, persistent=False)
        self.condition: IdEmbedding | VectorEmbedding
        if empty is None:
            self.condition = IdEmbedding(conditions, dim)
            nn.init.normal_(self.condition.weight, std=0.02)
        else:
            self.condition = VectorEmbedding(None, empty.shape[-1], dim)
        self.source = SourceReader(dim, config.source_depth, SOURCE_HEADS)
        self.told = None
        if chain is None:
            self.told = nn.Linear(dim, self.trunk.time_embedding.linear_2.out_features)
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
        row = self.condition.none(len(x)) if condition is None else condition
        if self.empty is not None:
            row = or_empty(condition, self.empty, len(x))
        counts = that_count(row)
        tokens = self.source(self.condition(row), counts)
        out = self.trunk(
            h,
            timestep(logsnr) if self.chain is None else self.chain.step(logsnr.float()),
            tokens,
            class_labels=None if self.told is None else self.told(mean_token(tokens, counts)),
            encoder_attention_mask=counts,
            return_dict=False,
        )[0]
        return from_channels(out, self.latent_shape)


def chain_of(config: DiffusionConfig) -> FromBetas:
    """The chain of STEPS whose steps a network is told. ConfigError for a schedule without one."""
    try:
        with torch.device("cpu"):  # numbers, also where a network is made without memory
            return from_betas(to_betas(build_schedule(config), STEPS))
    except ValueError as error:
        raise ConfigError(
            f"unet.told = 'step': {error}; set diffusion.schedule=scaled_linear, or leave it out"
        ) from None


def _trunk(inputs: int, outputs: int, config: UnetConfig) -> UNet2DConditionModel:
    plain_down, plain_up = PLAIN[config.resample]
    attend_down, attend_up = ATTENDS
    levels = range(len(config.channels))
    attends = [level in config.attention for level in levels]
    heads: Any = tuple(max(1, width // config.head_dim) for width in config.channels)
    return UNet2DConditionModel(
        in_channels=inputs,
        out_channels=outputs,
        block_out_channels=config.channels,
        layers_per_block=config.layers,
        down_block_types=tuple(attend_down if it else plain_down for it in attends),
        up_block_types=tuple(attend_up if it else plain_up for it in reversed(attends)),
        cross_attention_dim=config.source_dim,
        attention_head_dim=heads,  # their number, for all its name; levels without do not read it
        use_linear_projection=True,
        resnet_time_scale_shift="scale_shift" if config.scale_shift else "default",
        norm_num_groups=math.gcd(GROUPS, *config.channels),
        dropout=config.dropout,
        class_embed_type="identity" if config.told == "level" else None,
    )
