"""The clamping trick: from some level on, the estimate is a point that stands for data.

The solver then heads for a codeword instead of a mean of several (Li et al. 2022, sec. 4.2).
"""

import math

import torch
from torch import Tensor

from shared.codec import Codec
from shared.denoiser import Denoise
from shared.schedule import Level


def clamp(denoise: Denoise, codec: Codec, logsnr_min: float = -math.inf) -> Denoise:
    """x0_hat -> encode(decode(x0_hat)), its nearest point, where logsnr >= logsnr_min.

    Order: around all guidance, which would move the estimate off the points again (clamping does
    not commute with it), and inside `infill`. Cost per call: denoise's, and one decode and encode.
    """

    def guided(
        x_t: Tensor,
        level: Level,
        condition: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> Tensor:
        x0_hat = denoise(x_t, level, condition, previous)
        nearest = codec.encode(codec.decode(x0_hat)).to(x0_hat)
        # `where` and no `if`: the host need not wait for the level
        return torch.where(level.widen(x_t.ndim).logsnr >= logsnr_min, nearest, x0_hat)

    return guided
