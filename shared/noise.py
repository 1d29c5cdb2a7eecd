"""Stateless noise: every number is a function of (seed, step, place), never of a generator's past.

Seed and step make a 64-bit key, from which SplitMix64 (Steele, Lea & Flood 2014) counts through its
words; pairs of uniforms become normals by Box & Muller (1958). Sample i has the same words alone,
in a batch, on any rank and on any device.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

# Words are int64, the only integers that torch multiplies modulo 2^64 on every device.
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_MULTIPLIERS = (0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)


def _shift(x: Tensor, bits: int) -> Tensor:
    """x >> bits without the sign: the top 64 - bits bits of each word."""
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _mix_(x: Tensor) -> Tensor:
    """A bijection on 64-bit words, in place: every input bit moves every output bit."""
    x.bitwise_xor_(_shift(x, 30)).mul_(_MULTIPLIERS[0])
    x.bitwise_xor_(_shift(x, 27)).mul_(_MULTIPLIERS[1])
    return x.bitwise_xor_(_shift(x, 31))


def _words(seeds: Tensor, step: int, count: int) -> Tensor:
    """seeds (B,) int64 -> (B, count) 64-bit words for this step, as int64."""
    steps = torch.tensor(step, device=seeds.device) * _GOLDEN
    key = _mix_(_mix_(seeds.clone()) + steps)
    places = torch.arange(1, count + 1, device=seeds.device) * _GOLDEN
    return _mix_(key[:, None] + places)


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
    # 23 bits and a half: with 24 the largest would round to 1
    return _shift(words, 41).float().add_(0.5).div_(2**23).reshape(len(keys), *shape)


def normal(
    seeds: Sequence[int] | Tensor,
    step: int,
    shape: tuple[int, ...],
    device: torch.device | str | None = None,
) -> Tensor:
    """Standard normals, float32, (B, *shape), one seed per sample."""
    keys = _as_seeds(seeds, device)
    size = math.prod(shape)
    words = _words(keys, step, (size + 1) // 2)
    # the high halves make the radii: 32 bits reach 6.7 standard deviations
    radius = _shift(words, 32).float().add_(0.5).div_(2**32).log_().mul_(-2).sqrt_()
    angle = words.bitwise_and_(0xFFFFFFFF).float().mul_(2 * math.pi / 2**32)
    pair = torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], dim=1)
    return pair[:, :size].reshape(len(keys), *shape)
