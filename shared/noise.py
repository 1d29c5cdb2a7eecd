"""Stateless noise: every number is a function of (seed, step, place), never of a generator's past.

A counter goes through the 32-bit mixing function of Wellons' triple32, twice keyed, and pairs of
uniforms become normals by Box & Muller (1958). Sample i has the same bits alone, in a batch, on
any rank and on any device.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF


def _mix(x: Tensor) -> Tensor:
    """A bijection on 32-bit words held in int64: every input bit moves every output bit."""
    x = ((x ^ (x >> 17)) * 0xED5AD4BB) & _MASK
    x = ((x ^ (x >> 11)) * 0xAC4C1B51) & _MASK
    x = ((x ^ (x >> 15)) * 0x31848BAB) & _MASK
    return x ^ (x >> 14)


def _words(seeds: Tensor, step: int, count: int) -> Tensor:
    """seeds (B,) int64 -> (B, count) 32-bit words for this step, as int64."""
    low, high = seeds & _MASK, (seeds >> 32) & _MASK
    key = _mix(_mix(_mix(low) ^ high) ^ (step & _MASK))
    second = _mix(key ^ 0x9E3779B9)
    counter = torch.arange(count, device=seeds.device)
    return _mix(_mix(counter ^ key[:, None]) ^ second[:, None])


def _as_seeds(seeds: Sequence[int] | Tensor, device: torch.device | str | None) -> Tensor:
    return torch.as_tensor(seeds, dtype=torch.int64, device=device)


def uniform(
    seeds: Sequence[int] | Tensor,
    step: int,
    shape: tuple[int, ...] = (),
    device: torch.device | str | None = None,
) -> Tensor:
    """Uniforms in (0, 1), float32, (B, *shape), one seed per sample."""
    keys = _as_seeds(seeds, device)
    words = _words(keys, step, math.prod(shape))
    return (((words >> 8).float() + 0.5) / 2**24).reshape(len(keys), *shape)


def normal(
    seeds: Sequence[int] | Tensor,
    step: int,
    shape: tuple[int, ...],
    device: torch.device | str | None = None,
) -> Tensor:
    """Standard normals, float32, (B, *shape), one seed per sample."""
    keys = _as_seeds(seeds, device)
    size = math.prod(shape)
    half = (size + 1) // 2
    u = uniform(keys, step, (2 * half,))
    radius = torch.sqrt(-2 * torch.log(u[:, :half]))
    angle = 2 * math.pi * u[:, half:]
    pair = torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], dim=1)
    return pair[:, :size].reshape(len(keys), *shape)


def integers(seed: int, step: int, count: int, high: int) -> Tensor:
    """`count` integers in [0, high), int64, (count,): a function of (seed, step)."""
    return _words(torch.tensor([seed]), step, count)[0] % high
