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


def _shift(x: Tensor, bits: int, out: Tensor) -> Tensor:
    """x >> bits without the sign, into `out`: the top 64 - bits bits of each word."""
    torch.bitwise_right_shift(x, bits, out=out)
    return out.bitwise_and_((1 << (64 - bits)) - 1)


def _mix_(x: Tensor, spare: Tensor | None = None) -> Tensor:
    """A bijection on 64-bit words, in place: every input bit moves every output bit."""
    if spare is None:
        spare = torch.empty_like(x)
    x.bitwise_xor_(_shift(x, 30, spare)).mul_(_MULTIPLIERS[0])
    x.bitwise_xor_(_shift(x, 27, spare)).mul_(_MULTIPLIERS[1])
    return x.bitwise_xor_(_shift(x, 31, spare))


def _wrap(value: int) -> int:
    """The int64 with the same bits as value modulo 2^64."""
    return (value + 2**63) % 2**64 - 2**63


def _keys(seeds: Tensor) -> Tensor:
    return _mix_(seeds.clone())


def _places(count: int, device: torch.device) -> Tensor:
    return torch.arange(1, count + 1, device=device) * _GOLDEN


def _words(keys: Tensor, step: int, places: Tensor, out: Tensor, spare: Tensor) -> Tensor:
    """keys (B,) of seeds, places (n,) -> 64-bit words (B, n) for this step as int64, into `out`."""
    key = _mix_(keys + _wrap(step * _GOLDEN))
    return _mix_(torch.add(key[:, None], places, out=out), spare)


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
    places = _places(math.prod(shape), keys.device)
    words, spare = (
        torch.empty(len(keys), len(places), dtype=torch.int64, device=keys.device) for _ in "ab"
    )
    _words(_keys(keys), step, places, words, spare)
    # 23 bits and a half: with 24 the largest would round to 1
    return _shift(words, 41, spare).float().add_(0.5).div_(2**23).reshape(len(keys), *shape)


def normal(
    seeds: Sequence[int] | Tensor,
    step: int,
    shape: tuple[int, ...],
    device: torch.device | str | None = None,
) -> Tensor:
    """Standard normals, float32, (B, *shape), one seed per sample."""
    return Normals(seeds, shape, device).draw(step)


class Normals:
    """`normal` of the same seeds and shape again and again, in the same memory.

    draw(step) -> (B, *shape), float32, good until the next draw.
    """

    def __init__(
        self,
        seeds: Sequence[int] | Tensor,
        shape: tuple[int, ...],
        device: torch.device | str | None = None,
    ) -> None:
        self.keys = _keys(_as_seeds(seeds, device))
        B, self.size = len(self.keys), math.prod(shape)
        self.shape = (B, *shape)
        half, on = (self.size + 1) // 2, self.keys.device
        self.words, self.spare = (torch.empty(B, half, dtype=torch.int64, device=on) for _ in "ab")
        self.radius, self.angle, self.wave = (torch.empty(B, half, device=on) for _ in "abc")
        self.pair = torch.empty(B, 2 * half, device=on)
        self.places = _places(half, on)

    def draw(self, step: int) -> Tensor:
        words, spare, radius, angle = self.words, self.spare, self.radius, self.angle
        _words(self.keys, step, self.places, words, spare)
        # the high halves make the radii: 32 bits reach 6.7 standard deviations
        radius.copy_(_shift(words, 32, spare)).add_(0.5).div_(2**32).log_().mul_(-2).sqrt_()
        angle.copy_(words.bitwise_and_(0xFFFFFFFF)).mul_(2 * math.pi / 2**32)
        cosines, sines = self.pair.chunk(2, dim=1)
        torch.mul(radius, torch.cos(angle, out=self.wave), out=cosines)
        torch.mul(radius, angle.sin_(), out=sines)
        return self.pair[:, : self.size].reshape(self.shape)
