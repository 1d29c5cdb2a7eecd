"""Attention with rotary positions, in a row or in a grid, to oneself or to other tokens."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Rotary = Literal["row"] | int  # positions in a row, or in a grid of so many columns


def row_angles(length: int, dim: int, device: torch.device) -> Tensor:
    """Of places in a row (Su et al. 2021, eq. 15): (length, dim / 2), radians."""
    return _angles(torch.arange(length, device=device), dim, 10000.0)


def grid_angles(length: int, dim: int, columns: int, device: torch.device) -> Tensor:
    """Of places in rows of `columns`: half of the channels turn by the row, half by the column,
    at rates for a few dozen of them (Heo et al. 2024, sec. 3.2): (length, dim / 2), radians."""
    places = torch.arange(length, device=device)
    axes = (places // columns, places % columns)
    return torch.cat([_angles(axis, dim // 2, 100.0) for axis in axes], 1)


def _angles(places: Tensor, dim: int, base: float) -> Tensor:
    return places[:, None] * base ** (-torch.arange(0, dim, 2, device=places.device) / dim)


def rotate(x_BLHD: Tensor, rotary: Rotary = "row") -> Tensor:
    """Rotary positions (Su et al. 2021, eq. 34) on queries or keys (B, L, H, D): neighbouring
    channels are a complex number, turned by its position; one product, float32 or wider. Compiled,
    the same in real numbers: complex ones are not fused."""
    _, L, _, D = x_BLHD.shape
    device = x_BLHD.device
    angles = row_angles(L, D, device) if rotary == "row" else grid_angles(L, D, rotary, device)
    wide = x_BLHD.to(torch.promote_types(x_BLHD.dtype, torch.float32)).unflatten(-1, (-1, 2))
    if torch.compiler.is_compiling():
        (real, imaginary), (cos, sin) = (
            wide.unbind(-1),
            (angles.cos()[:, None], angles.sin()[:, None]),
        )
        turned = (real * cos - imaginary * sin, real * sin + imaginary * cos)
        return torch.stack(turned, -1).flatten(-2)
    turns = torch.polar(torch.ones_like(angles), angles).unsqueeze(1)
    turned = torch.view_as_complex(wide) * turns
    return torch.view_as_real(turned).flatten(-2)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(q k' / sqrt(D)) v, all of them (B, L, H, D); mask broadcasts to (B, H, L, M). In the
    dtype of v, but float32 for bfloat16 on a CPU: torch's backward pass is four times slower in
    bfloat16 there."""
    slow = v.device.type == "cpu" and v.dtype == torch.bfloat16
    dtype = torch.float32 if slow else v.dtype
    q, k, v = (x.to(dtype).transpose(1, 2) for x in (q, k, v))
    device = "cpu" if v.is_meta else v.device.type  # shapes alone have no autocast of their own
    with torch.autocast(device, enabled=False):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)


class Attention(nn.Module):
    """Attention from x (B, L, dim) to itself, or to tokens (B, M, dim) when they are given."""

    def __init__(self, dim: int, heads: int, rotary: Rotary | None) -> None:
        super().__init__()
        if dim % (2 * heads):
            raise ValueError(f"net: dim = {dim} must be a multiple of 2 x heads = {2 * heads}")
        if isinstance(rotary, int) and dim % (4 * heads):
            raise ValueError(
                f"net: dim = {dim} must be a multiple of 4 x heads = {4 * heads}, for two axes"
            )
        self.heads = heads
        self.rotary: Rotary | None = rotary
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(
        self, x: Tensor, tokens: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        q = self.query(x).unflatten(-1, (self.heads, -1))
        kv = self.key_value(x if tokens is None else tokens)
        k, v = kv.unflatten(-1, (2, self.heads, -1)).unbind(2)
        if self.rotary is not None:
            q, k = rotate(q, self.rotary), rotate(k, self.rotary)
        return self.out(attend(q, k, v, mask).flatten(-2))
