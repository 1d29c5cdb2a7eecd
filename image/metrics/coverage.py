"""Density and coverage (Naeem et al. 2020, sec. 3).

    density  = 1 / (k N) sum_j sum_i 1[y_j in B(x_i)],    y of N generated features
    coverage = 1 / M sum_i 1[some y_j in B(x_i)]          x of M real ones

B(x_i) reaches to the k-th nearest neighbour of x_i among the real features. Precision asks whether
any ball holds a sample, which one outlier among the real ones answers for a whole region; density
counts the balls, and may exceed 1. Coverage takes no balls around generated features, whose
outliers would inflate recall. When both sets are of one law, density is 1 in expectation and
coverage 1 - (M - 1) ... (M - k) / (M + N - 1) ... (M + N - k).
"""

import torch
from torch import Tensor

from image.metrics.neighbours import CHUNK, distances, radii


def compute(predictions: Tensor, references: Tensor, k: int = 5) -> dict[str, float]:
    """{"density", "coverage"} of features (N, D) against references (M, D), in float64; k = 5 as in
    the paper. ValueError for k or fewer references, or no predictions."""
    if len(references) <= k or not len(predictions):
        raise ValueError(
            f"coverage: {len(predictions)} predictions, {len(references)} references: expected 1 "
            f"or more, and more than k = {k}"
        )
    predictions, references = predictions.double(), references.double()
    reach = radii(references, k)
    held = references.new_zeros(())
    covered = torch.zeros(len(references), dtype=torch.bool, device=references.device)
    for part in predictions.split(CHUNK):
        inside = distances(part, references) <= reach
        held += inside.sum()
        covered |= inside.any(0)
    return {
        "density": float(held) / (k * len(predictions)),
        "coverage": float(covered.double().mean()),
    }
