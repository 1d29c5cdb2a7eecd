"""The text network: the trunk with rotary positions over [x, previous]."""

import torch
from torch import Tensor, nn

from shared.config import NetConfig
from shared.nets.transformer import Transformer


class TextNet(nn.Module):
    """x (B, L, channels), logsnr (B,), condition: ids (B, M) in [0, conditions), or vectors where
    `conditions` is the shape of a row of them, or None; previous (B, L, channels) or None ->
    (B, L, out)."""

    def __init__(
        self,
        channels: int,
        out: int,
        length: int,
        config: NetConfig,
        self_condition: bool,
        conditions: int | tuple[int, int] = 0,
    ) -> None:
        super().__init__()
        self.trunk = Transformer(
            channels * (2 if self_condition else 1),
            out,
            length,
            dim=config.dim,
            depth=config.depth,
            heads=config.heads,
            rotary=True,
            conditions=conditions,
            cross_attention=config.cross_attention,
            source_depth=config.source_depth,
            dropout=config.dropout,
        )

    def forward(
        self,
        x: Tensor,
        logsnr: Tensor,
        condition: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> Tensor:
        tokens = x if previous is None else torch.cat([x, previous], dim=-1)
        return self.trunk(tokens, logsnr, condition)
