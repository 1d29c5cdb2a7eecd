"""The Frechet distance between the Gaussians of two sets of features.

    d^2 = |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2)        (Heusel et al. 2017, eq. 6)

With centred rows X1 (N1, D) and X2 (N2, D), S = X' X / (N - 1) and

    tr (S1 S2)^(1/2) = |X1 X2'|_* / sqrt((N1 - 1) (N2 - 1)),

the sum of singular values (the nuclear norm), so no root of a matrix that is not symmetric is ever
taken, and a singular covariance (a dead feature, few samples) needs no regularisation. When N > D,
the triangle R of X = Q R stands for X: it has the same S and is D x D.
"""

import math

import torch
from torch import Tensor


def compute(predictions: Tensor, references: Tensor) -> dict[str, float]:
    """{"frechet_distance": d^2} between features (N1, D) and (N2, D), in float64.

    It is called FID only when the features are those of the Inception network of the paper. Its
    value depends on N1 and N2: compare at equal counts.
    ValueError for fewer than two rows, or for different D.
    """
    for name, x in (("predictions", predictions), ("references", references)):
        if x.ndim != 2 or len(x) < 2:
            raise ValueError(f"frechet: {name} {tuple(x.shape)}: expected (N, D) with N >= 2")
    if predictions.shape[1] != references.shape[1]:
        raise ValueError(
            f"frechet: {predictions.shape[1]} and {references.shape[1]} features: expected as many"
        )
    (mean_1, root_1), (mean_2, root_2) = (_moments(x.double()) for x in (predictions, references))
    squared = (mean_1 - mean_2).square().sum() + root_1.square().sum() + root_2.square().sum()
    overlap = torch.linalg.svdvals(root_1 @ root_2.T).sum()
    return {"frechet_distance": max(0.0, float(squared - 2 * overlap))}


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """The mean (D,) and a root R of the covariance, S = R' R."""
    N, D = x.shape
    mean = x.mean(0)
    centred = x - mean
    root = centred if N <= D else torch.linalg.qr(centred, mode="r").R
    return mean, root / math.sqrt(N - 1)
