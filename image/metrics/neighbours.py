"""Distances between rows of features, and how far a row's k-th nearest neighbour in its set is."""

import torch
from torch import Tensor

CHUNK = 1024  # rows of distances held at once


def radii(centres: Tensor, k: int) -> Tensor:
    """Of each of the centres (M, D), the distance to its k-th nearest neighbour, (M,)."""
    return torch.cat([_kth(part, centres, k) for part in centres.split(CHUNK)])


def distances(x: Tensor, y: Tensor) -> Tensor:
    """Between rows of x (N, D) and of y (M, D), (N, M)."""
    # differences, not x^2 + y^2 - 2 x y, which loses what is left of near points
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def _kth(part: Tensor, centres: Tensor, k: int) -> Tensor:
    """The nearest of all is the row itself."""
    return distances(part, centres).kthvalue(k + 1, dim=1).values
