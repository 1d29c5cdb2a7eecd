"""Which seeds samples are drawn with: those that are given, or drawn ones."""

from collections.abc import Sequence

import torch

from shared.errors import ConfigError

STRIDE = 1 << 41  # beyond the seeds that samples are asked for, and shared.drawing.FIT_SEED


def chosen_seeds(
    n: int, seeds: Sequence[int] | None = None, generator: torch.Generator | None = None
) -> list[int]:
    """The `seeds`, or n of them from the generator. ConfigError when both are given, or none of
    either."""
    if seeds is None:
        if n < 1:
            raise ConfigError(f"n = {n}: expected 1 or more")
        device = None if generator is None else generator.device
        return torch.randint(2**31, (n,), generator=generator, device=device).tolist()
    if generator is not None:
        raise ConfigError("give seeds or a generator, not both")
    if len(seeds) == 0:
        raise ConfigError("seeds: expected one integer or more")
    return [int(seed) for seed in seeds]


def candidate_seeds(seed: int, count: int) -> list[int]:
    """Seeds of the candidates for the sample of this seed: seed + k 2^41, the first its own. Those
    of one sample are never those of another whose seed lies less than 2^41 away."""
    return [seed + k * STRIDE for k in range(count)]


def all_candidates(seeds: Sequence[int], count: int) -> list[int]:
    """Seeds of n samples -> those of all their candidates, the ones of a sample in turn."""
    return [own for seed in seeds for own in candidate_seeds(seed, count)]
