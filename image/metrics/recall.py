"""Improved precision and recall (Kynkaanniemi et al. 2019, eq. 1 to 3).

A set of features covers the balls around its members that reach to their k-th nearest neighbours
in the set. Precision is the share of generated features that the real ones cover, recall the share
of real ones that the generated cover: fidelity and variety, apart. Both depend on the counts; the
paper takes as many of one kind as of the other.
"""

import torch
from torch import Tensor

from image.metrics.neighbours import CHUNK, distances, radii


def compute(predictions: Tensor, references: Tensor, k: int = 3) -> dict[str, float]:
    """{"precision", "recall"} of features (N1, D) against references (N2, D), in float64.

    ValueError for k or fewer rows.
    """
    if min(len(predictions), len(references)) <= k:
        raise ValueError(
            f"recall: {len(predictions)} predictions, {len(references)} references: "
            f"expected more than k = {k} of both"
        )
    predictions, references = predictions.double(), references.double()
    return {
        "precision": covered(predictions, references, k),
        "recall": covered(references, predictions, k),
    }


def covered(points: Tensor, centres: Tensor, k: int) -> float:
    """The share of points (N, D) within the k-nearest-neighbour ball of any centre (M, D)."""
    reach = radii(centres, k)
    inside = [(distances(part, centres) <= reach).any(1) for part in points.split(CHUNK)]
    return float(torch.cat(inside).double().mean())
