"""What may be known of a picture: linear measurements y = A x of x (B, C, H, W) in [-1, 1]."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # of ITU-R 601, as Pillow's mode L
Measurement = Callable[[Tensor], Tensor]


def luma(x: Tensor) -> Tensor:
    """(B, 3, H, W) -> its grey picture (B, 1, H, W)."""
    return (x * x.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)


def block_means(factor: int) -> Measurement:
    """(B, C, H, W) -> the means of blocks of factor x factor pixels, (B, C, h, w)."""
    return lambda x: F.avg_pool2d(x, factor)
