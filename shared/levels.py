"""Pictures of whole levels, 0 to levels - 1, as numbers in [-1, 1] and back.

x = 2 level / (levels - 1) - 1
"""

import torch
from torch import Tensor

BYTES = 256


def signed(data: Tensor, levels: int = BYTES) -> Tensor:
    """Levels (...) -> numbers in [-1, 1], float32."""
    return 2 * data.to(torch.float32) / (levels - 1) - 1


def nearest(x: Tensor, levels: int = BYTES) -> Tensor:
    """Numbers (...) -> the nearest levels, of x's dtype."""
    return ((x + 1) / 2 * (levels - 1)).round().clamp(0, levels - 1)
