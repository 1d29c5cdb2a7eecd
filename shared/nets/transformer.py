"""The transformer of both panels: a bidirectional trunk that is told the noise level.

Pre-norm blocks of attention, optional cross-attention to condition tokens, and a GELU MLP, with
adaLN modulation (Peebles & Xie 2023). One MLP makes the six modulations for all blocks and each
block adds its own table (adaLN-single; Chen et al. 2024, sec. 2.3): a quarter fewer parameters.
Cross-attention and the output start at zero and the gates near it: the first output is zero.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.nets.condition import mean_token, that_count


def level_features(logsnr: Tensor, dim: int) -> Tensor:
    """logsnr (B,) in nats -> sines and cosines (B, dim), periods from 0.4 to 400 nats."""
    periods = torch.logspace(math.log10(0.4), math.log10(400), dim // 2, device=logsnr.device)
    angles = logsnr[:, None].float() * (2 * math.pi / periods)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def rotate(x_BLHD: Tensor) -> Tensor:
    """Rotary positions (Su et al. 2021, eq. 34) on queries or keys (B, L, H, D): neighbouring
    channels are a complex number, turned by its position; one product, float32 or wider."""
    _, L, _, D = x_BLHD.shape
    rates = 10000.0 ** (-torch.arange(0, D, 2, device=x_BLHD.device) / D)
    angles = torch.arange(L, device=x_BLHD.device)[:, None] * rates
    turns = torch.polar(torch.ones_like(angles), angles).unsqueeze(1)
    wide = x_BLHD.to(torch.promote_types(x_BLHD.dtype, torch.float32))
    turned = torch.view_as_complex(wide.unflatten(-1, (-1, 2))) * turns
    return torch.view_as_real(turned).flatten(-2)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(q k' / sqrt(D)) v, all of them (B, L, H, D); mask broadcasts to (B, H, L, M). In the
    dtype of v, but float32 for bfloat16 on a CPU: torch's backward pass is four times slower in
    bfloat16 there."""
    slow = v.device.type == "cpu" and v.dtype == torch.bfloat16
    dtype = torch.float32 if slow else v.dtype
    q, k, v = (x.to(dtype).transpose(1, 2) for x in (q, k, v))
    with torch.autocast(q.device.type, enabled=False):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)


class Attention(nn.Module):
    """Attention from x (B, L, dim) to itself, or to tokens (B, M, dim) when they are given."""

    def __init__(self, dim: int, heads: int, rotary: bool) -> None:
        super().__init__()
        if dim % (2 * heads):
            raise ValueError(f"net: dim = {dim} must be a multiple of 2 x heads = {2 * heads}")
        self.heads, self.rotary = heads, rotary
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(
        self, x: Tensor, tokens: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        q = self.query(x).unflatten(-1, (self.heads, -1))
        kv = self.key_value(x if tokens is None else tokens)
        k, v = kv.unflatten(-1, (2, self.heads, -1)).unbind(2)
        if self.rotary:
            q, k = rotate(q), rotate(k)
        return self.out(attend(q, k, v, mask).flatten(-2))


class Block(nn.Module):
    """One residual block. Modulations m (B, 6, dim): shift, scale, gate of attention and MLP."""

    def __init__(self, dim: int, heads: int, rotary: bool, cross: bool, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(dim, heads, rotary)
        self.cross = Attention(dim, heads, rotary=False) if cross else None
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.table = nn.Parameter(torch.randn(6, dim) / dim**0.5)
        self.dropout = nn.Dropout(dropout)
        if self.cross is not None:
            nn.init.zeros_(self.cross.out.weight)
            nn.init.zeros_(self.cross.out.bias)

    def forward(self, x: Tensor, m: Tensor, tokens: Tensor | None, mask: Tensor | None) -> Tensor:
        modulation = (m + self.table).to(x.dtype).unsqueeze(2).unbind(1)
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = modulation
        branch = self.attention(_modulated(x, shift_a, scale_a))
        x = torch.addcmul(x, gate_a, self.dropout(branch))
        if self.cross is not None and tokens is not None:
            x = x + self.cross(_norm(x), tokens, mask)
        branch = self.mlp(_modulated(x, shift_m, scale_m))
        return torch.addcmul(x, gate_m, self.dropout(branch))


class Transformer(nn.Module):
    """tokens in (B, L, in_dim), logsnr (B,), condition (B, M) of ids -> tokens out (B, L, out_dim).

    Condition ids lie in [0, conditions). 0 is "none": it fills a row up and does not count, unless
    the row holds nothing else. The mean of a row's ids enters the modulation; with
    `cross_attention` the blocks also attend to them one by one. Unconditional when conditions = 0.
    ValueError for tokens of another size, or for a condition that the network cannot take.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        length: int,
        dim: int = 256,
        depth: int = 4,
        heads: int = 4,
        rotary: bool = True,
        conditions: int = 0,
        cross_attention: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.dim, self.token_shape = dim, (length, in_dim)
        self.embed = nn.Linear(in_dim, dim)
        self.place = nn.Parameter(torch.randn(length, dim) * 0.02)
        self.level = nn.Sequential(nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.condition = nn.Embedding(conditions, dim) if conditions else None
        self.modulate = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.cross_attention = cross = cross_attention and conditions > 0
        self.blocks = nn.ModuleList(Block(dim, heads, rotary, cross, dropout) for _ in range(depth))
        self.finish = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, out_dim)
        for layer in (self.modulate[1], self.finish, self.out):
            assert isinstance(layer, nn.Linear)
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        if self.condition is not None:
            nn.init.normal_(self.condition.weight, std=0.02)

    def forward(self, x: Tensor, logsnr: Tensor, condition: Tensor | None = None) -> Tensor:
        if x.ndim != 3 or x.shape[1:] != self.token_shape:  # one token would broadcast over places
            length, in_dim = self.token_shape
            raise ValueError(f"net: tokens {tuple(x.shape)}, expected (B, {length}, {in_dim})")
        if condition is not None and self.condition is None:
            raise ValueError("net: a condition was given, and the network has conditions = 0")
        h = self.embed(x) + self.place
        told = self.level(level_features(logsnr, self.dim).to(h.dtype))
        tokens = mask = None
        if self.condition is not None:
            ids = condition if condition is not None else x.new_zeros(len(x), 1, dtype=torch.long)
            tokens, counts = self.condition(ids), that_count(ids)
            told = told + mean_token(tokens, counts)
            mask = counts[:, None, None, :] if self.cross_attention else None
        m = self.modulate(told).unflatten(-1, (6, self.dim))
        for block in self.blocks:
            h = block(h, m, tokens, mask)
        shift, scale = self.finish(F.silu(told)).unsqueeze(1).chunk(2, dim=-1)
        return self.out(_modulated(h, shift, scale))


def _norm(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:])


def _modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """The normalised x (B, L, dim), scaled and shifted per sample; addcmul: one pass less."""
    return torch.addcmul(shift, _norm(x), 1 + scale)
