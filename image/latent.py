"""Latents as channels over the pixels, as the networks of this panel take them.

A latent is (B, C, H, W), or (B, C, H, W, n) when a codec gives n numbers for a pixel; these become
n C channels.
"""

import math

import torch
from torch import Tensor


def channels_of(latent_shape: tuple[int, ...]) -> int:
    """The channels of latents of a shape (C, H, W) or (C, H, W, n)."""
    return latent_shape[0] * math.prod(latent_shape[3:])


def to_channels(
    x: Tensor, previous: Tensor | None, self_condition: bool, beside: Tensor | None = None
) -> Tensor:
    """x (B, *latent_shape) -> (B, n C, H, W); with `self_condition`, `previous` or zeros behind it,
    (B, 2 n C, H, W), and then the channels `beside` (B, K, H, W)."""
    parts = [_folded(x)]
    if self_condition:
        parts.append(torch.zeros_like(parts[0]) if previous is None else _folded(previous))
    if beside is not None:
        parts.append(beside.to(x))
    return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]


def from_channels(h: Tensor, latent_shape: tuple[int, ...]) -> Tensor:
    """(B, n C, H, W) -> (B, *latent_shape), back where `to_channels` took each number from."""
    if len(latent_shape) == 3:
        return h
    return h.unflatten(1, (-1, latent_shape[0])).movedim(1, -1)


def _folded(x: Tensor) -> Tensor:
    return x if x.ndim == 4 else x.movedim(-1, 1).flatten(1, 2)
