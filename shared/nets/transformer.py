"""The transformer of both panels: a bidirectional trunk that is told the noise level.

Pre-norm blocks of attention, optional cross-attention to condition tokens, and a GELU MLP, with
adaLN modulation (Peebles & Xie 2023). One MLP makes the six modulations for all blocks and each
block adds its own table (adaLN-single; Chen et al. 2024, sec. 2.3): a quarter fewer parameters.
Cross-attention and the output start at zero and the gates near it: the first output is zero.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.nets.attention import Attention, Rotary
from shared.nets.condition import (
    IdEmbedding,
    SourceReader,
    VectorEmbedding,
    layer_norm,
    mean_token,
    that_count,
)


def level_features(logsnr: Tensor, dim: int) -> Tensor:
    """logsnr (B,) in nats -> sines and cosines (B, dim), periods from 0.4 to 400 nats."""
    periods = torch.logspace(math.log10(0.4), math.log10(400), dim // 2, device=logsnr.device)
    angles = logsnr[:, None].float() * (2 * math.pi / periods)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class Block(nn.Module):
    """One residual block. Modulations m (B, 6, dim): shift, scale, gate of attention and MLP; or
    (B, 6, S, dim), for S stretches of places with these `lengths`. Places attend to those that are
    `seen`, a mask that broadcasts to (B, heads, L, L)."""

    def __init__(
        self,
        dim: int,
        heads: int,
        rotary: Rotary | None,
        cross: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.attention = Attention(dim, heads, rotary)
        self.cross = Attention(dim, heads, rotary=None) if cross else None
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.table = nn.Parameter(torch.randn(6, dim) / dim**0.5)
        self.dropout = nn.Dropout(dropout)
        if self.cross is not None:
            nn.init.zeros_(self.cross.out.weight)
            nn.init.zeros_(self.cross.out.bias)

    def forward(
        self,
        x: Tensor,
        m: Tensor,
        tokens: Tensor | None = None,
        mask: Tensor | None = None,
        lengths: Sequence[int] = (),
        seen: Tensor | None = None,
    ) -> Tensor:
        each = m if m.ndim == 4 else m.unsqueeze(2)
        modulation = (each + self.table.unsqueeze(1)).to(x.dtype)
        if lengths:  # spread when the table is in: in the narrow dtype, once
            parts = zip(modulation.split(1, 2), lengths, strict=True)
            modulation = torch.cat([part.expand(-1, -1, n, -1) for part, n in parts], 2)
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = modulation.unbind(1)
        branch = self.attention(modulated(x, shift_a, scale_a), mask=seen)
        x = torch.addcmul(x, gate_a, self.dropout(branch))
        if self.cross is not None and tokens is not None:
            x = x + self.cross(layer_norm(x), tokens, mask)
        branch = self.mlp(modulated(x, shift_m, scale_m))
        return torch.addcmul(x, gate_m, self.dropout(branch))


class Transformer(nn.Module):
    """tokens in (B, L, in_dim), logsnr (B,), condition -> tokens out (B, L, out_dim).

    A condition is a row of ids (B, M) in [0, conditions), or, where `conditions` is the shape of
    such a row, of vectors (B, M, D), M None for rows of any length. 0 is "none": it fills a row up
    and does not count, unless the row holds nothing else. The mean of a row enters the modulation;
    with `cross_attention` the blocks also attend to its members one by one, and with `source_depth`
    what they attend to is the row read as a sequence, by so many blocks. Unconditional when
    conditions = 0.

    With `told_lengths` rows have lengths (B,) in [1, L] of their own: what a place gives then does
    not depend on those beyond its row's length, and each place is told how many follow it in the
    row. ValueError for tokens of another size, or for a condition or lengths that the network
    cannot take.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        length: int,
        dim: int = 256,
        depth: int = 4,
        heads: int = 4,
        rotary: Rotary | None = "row",
        conditions: int | tuple[int | None, int] = 0,
        cross_attention: bool = False,
        source_depth: int = 0,
        dropout: float = 0.0,
        told_lengths: bool = False,
    ) -> None:
        super().__init__()
        self.dim, self.token_shape = dim, (length, in_dim)
        self.embed = nn.Linear(in_dim, dim)
        self.place = nn.Parameter(torch.randn(length, dim) * 0.02)
        self.to_go = nn.Parameter(torch.randn(length, dim) * 0.02) if told_lengths else None
        self.level = nn.Sequential(nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.condition = _embedding(conditions, dim)
        reads = source_depth > 0 and self.condition is not None
        self.source = SourceReader(dim, source_depth, heads) if reads else None
        self.modulate = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.cross_attention = cross = cross_attention and self.condition is not None
        self.blocks = nn.ModuleList(Block(dim, heads, rotary, cross, dropout) for _ in range(depth))
        self.finish = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, out_dim)
        for layer in (self.modulate[1], self.finish, self.out):
            assert isinstance(layer, nn.Linear)
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        if isinstance(self.condition, IdEmbedding):
            nn.init.normal_(self.condition.weight, std=0.02)

    def forward(
        self,
        x: Tensor,
        logsnr: Tensor,
        condition: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor:
        if x.ndim != 3 or x.shape[1:] != self.token_shape:  # one token would broadcast over places
            length, in_dim = self.token_shape
            raise ValueError(f"net: tokens {tuple(x.shape)}, expected (B, {length}, {in_dim})")
        if condition is not None and self.condition is None:
            raise ValueError("net: a condition was given, and the network has conditions = 0")
        if (lengths is None) != (self.to_go is None):
            raise ValueError("net: lengths are for a network with told_lengths, which needs them")
        h, seen = self.embed(x) + self.place, None
        if lengths is not None and self.to_go is not None:
            follow = lengths[:, None] - 1 - torch.arange(x.shape[1], device=x.device)
            seen = (follow >= 0)[:, None, None, :]
            h = h + self.to_go[follow.clamp(min=0)]
        told = self.level(level_features(logsnr, self.dim).to(h.dtype))
        tokens = mask = None
        if self.condition is not None:
            row = self.condition.none(len(x)) if condition is None else condition
            tokens, counts = self.condition(row), that_count(row)
            if self.source is not None:
                tokens = self.source(tokens, counts)
            told = told + mean_token(tokens, counts)
            mask = counts[:, None, None, :] if self.cross_attention else None
        m = self.modulate(told).unflatten(-1, (6, self.dim))
        for block in self.blocks:
            h = block(h, m, tokens, mask, seen=seen)
        shift, scale = self.finish(F.silu(told)).unsqueeze(1).chunk(2, dim=-1)
        return self.out(modulated(h, shift, scale))


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """The normalised x (B, L, dim), scaled and shifted by (B, 1 or L, dim); one pass by addcmul."""
    return torch.addcmul(shift, layer_norm(x), 1 + scale)


def _embedding(
    conditions: int | tuple[int | None, int], dim: int
) -> IdEmbedding | VectorEmbedding | None:
    if isinstance(conditions, tuple):
        return VectorEmbedding(*conditions, dim)
    return IdEmbedding(conditions, dim) if conditions else None
