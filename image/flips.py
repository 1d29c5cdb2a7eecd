"""Random horizontal flips of training pictures (Ho et al. 2020, app. B; ADM and EDM have them too).

Whether a sample is flipped is a function of its key, as its noise is: a run that goes on, and
processes that share a batch, flip the same ones.
"""

import torch
from torch import Tensor

from shared import noise
from shared.objective.streams import FLIP


def flipped(data: Tensor, keys: Tensor) -> Tensor:
    """data (B, C, H, W) and keys (B,) -> the same, half of them mirrored left to right. Of what
    stands for a picture and for its mirror image, (B, 2, C, H, W), one of the two."""
    mirror = (noise.uniform(keys, FLIP) < 0.5).view(-1, 1, 1, 1)
    if data.ndim == 5:
        return torch.where(mirror, data[:, 1], data[:, 0])
    return torch.where(mirror, data.flip(-1), data)
