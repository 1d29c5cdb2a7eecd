"""A batch that several processes share, as one: for losses that compare all of its samples.

torch's own differentiable all_gather changes its name from version to version.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def gather(x: Tensor) -> tuple[Tensor, int]:
    """x (B, ...), the same shape on every process -> those of all (processes B, ...), in the order
    of their ranks, and the row where this one's begin.

    Gradients go back to the process a row came from, summed over all: with parameters' gradients
    averaged over processes, as the engine does, that is the gradient of the mean loss of the batch.
    """
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return x, 0
    found: Any = _Gather.apply(x)
    return found, dist.get_rank() * len(x)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows, x = len(x), x.contiguous()
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Tensor:
        summed = slopes[0].clone()
        dist.all_reduce(summed)
        return summed[dist.get_rank() * ctx.rows :][: ctx.rows]
