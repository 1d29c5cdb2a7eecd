"""A batch that several processes share, as one: for losses that compare all of its samples."""

import torch
import torch.distributed.nn.functional
from torch import Tensor


def gather(x: Tensor) -> tuple[Tensor, int]:
    """x (B, ...), the same shape on every process -> those of all (processes B, ...), in the order
    of their ranks, and the row where this one's begin.

    Gradients go back to the process a row came from, summed over all: with parameters' gradients
    averaged over processes, as the engine does, that is the gradient of the mean loss of the batch.
    """
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    if not distributed or torch.distributed.get_world_size() == 1:
        return x, 0
    parts = torch.distributed.nn.functional.all_gather(x)
    return torch.cat(tuple(parts)), torch.distributed.get_rank() * len(x)
