"""The text network: the trunk with rotary positions over [x, previous]."""

import torch
from torch import Tensor, nn

from shared.config import NetConfig
from shared.nets.transformer import Transformer
from text.lengths import untell


class TextNet(nn.Module):
    """x (B, L, channels), logsnr (B,), condition: ids (B, M) in [0, conditions), or vectors where
    `conditions` is the shape of a row of them, or None; previous (B, L, channels) or None ->
    (B, L, out). With `explicit_length` the condition begins with the row's length
    (`text.lengths.tell`); without one all L places are the sentence's."""

    def __init__(
        self,
        channels: int,
        out: int,
        length: int,
        config: NetConfig,
        self_condition: bool,
        conditions: int | tuple[int, int] = 0,
        explicit_length: bool = False,
    ) -> None:
        super().__init__()
        self.explicit_length = explicit_length
        self.trunk = Transformer(
            channels * (2 if self_condition else 1),
            out,
            length,
            dim=config.dim,
            depth=config.depth,
            heads=config.heads,
            conditions=conditions,
            cross_attention=config.cross_attention,
            source_depth=config.source_depth,
            dropout=config.dropout,
            told_lengths=explicit_length,
        )

    def forward(
        self,
        x: Tensor,
        logsnr: Tensor,
        condition: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> Tensor:
        tokens = x if previous is None else torch.cat([x, previous], dim=-1)
        if not self.explicit_length:
            return self.trunk(tokens, logsnr, condition)
        lengths = torch.full_like(logsnr, x.shape[1], dtype=torch.long)
        if condition is not None:
            lengths, condition = untell(condition)
        return self.trunk(tokens, logsnr, condition, lengths)
