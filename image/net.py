"""The networks of the image panel. This one takes patches of a picture as the tokens of the shared
transformer; `image.unet` has the other, and `build_net` the choice.

Positions are the trunk's learned table, one entry a patch (Dosovitskiy et al. 2021,
sec. 3.1), and with `rotary` also its angles by row and column.
"""

from torch import Tensor, nn

from image.config import ImageConfig
from image.latent import channels_of, from_channels, to_channels
from image.layout_reader import CHANNELS, build_reader, with_layout
from shared.config import NetConfig
from shared.nets.condition import or_empty
from shared.nets.patches import check_patch, patchify, unpatchify
from shared.nets.transformer import Transformer


class PatchNet(nn.Module):
    """net(x, logsnr, condition, previous) -> an output of x's shape.

    x and previous (B, *latent_shape), logsnr (B,), condition (B, M) of ids in [0, conditions), of
    which the first are a layout of `layout_size` where one is given (`image.layout_reader`); with
    `empty` (1, L, D), the states of the empty text, it is states (B, L, D) of texts, zeros or None
    for none; with `beside` further channels (B, beside, H, W) as a fifth argument. ConfigError when
    `patch` does not divide the picture.
    """

    def __init__(
        self,
        latent_shape: tuple[int, ...],
        patch: int,
        config: NetConfig,
        self_condition: bool,
        conditions: int = 0,
        layout_size: tuple[int, int] | None = None,
        beside: int = 0,
        empty: Tensor | None = None,
        rotary: bool = False,
    ) -> None:
        super().__init__()
        _, height, width = latent_shape[:3]
        check_patch(patch, height, width)
        self.latent_shape, self.patch, self.self_condition = latent_shape, patch, self_condition
        self.layout = build_reader(conditions, layout_size, latent_shape)
        self.empty: Tensor | None
        self.register_buffer("empty", empty, persistent=False)
        channels = channels_of(latent_shape)
        given = channels * (2 if self_condition else 1) + (CHANNELS if self.layout else 0) + beside
        self.trunk = Transformer(
            given * patch**2,
            channels * patch**2,
            height * width // patch**2,
            dim=config.dim,
            depth=config.depth,
            heads=config.heads,
            rotary=width // patch if rotary else None,
            conditions=conditions if empty is None else (None, empty.shape[-1]),
            cross_attention=config.cross_attention,
            source_depth=config.source_depth,
            dropout=config.dropout,
        )

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
        if self.empty is not None:
            condition = or_empty(condition, self.empty, len(x))
        tokens = self.trunk(patchify(h, self.patch), logsnr, condition)
        out = unpatchify(tokens, self.patch, *self.latent_shape[1:3])
        return from_channels(out, self.latent_shape)


def build_net(
    config: ImageConfig,
    latent_shape: tuple[int, ...],
    conditions: int,
    beside: int = 0,
    empty: Tensor | None = None,
) -> nn.Module:
    """The network that a configuration names, for latents of a shape, so many condition ids, and so
    many channels beside the latent's own; or for states of texts, with those of the `empty` one."""
    self_condition = config.diffusion.self_condition
    layout_size = config.data.layout_size()
    if config.network == "unet" and (config.unet.source_depth or empty is not None):
        from image.caption_unet import (
            CaptionUnet,
            chain_of,
        )  # seconds of diffusers, which no other run needs

        chain = chain_of(config.diffusion) if config.unet.told == "step" else None
        return CaptionUnet(
            latent_shape, config.unet, self_condition, conditions, layout_size, beside, empty, chain
        )
    if config.network == "unet":
        from image.unet import Unet  # as above

        return Unet(latent_shape, config.unet, self_condition, conditions, layout_size, beside)
    return PatchNet(
        latent_shape, config.patch, config.net, self_condition, conditions, layout_size, beside,
        empty, config.rotary,
    )  # fmt: skip
