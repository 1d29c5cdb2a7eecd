"""MAUVE: how much two sets of sentences overlap, in the features of a model (Pillutla et al. 2021).

Features of both sets are put into k cells by k-means, together; of the two histograms p and q and
their mixtures r = l p + (1 - l) q it is the area under the divergence frontier

    (exp(-c KL(q | r)), exp(-c KL(p | r))),   0 < l < 1,   c = 5,

1 where p = q, and c!^2 / (2 c)! = 0.004 where they share no cell. As in the paper's code features
have unit length, k-means sees the principal components that hold 90 % of their variance, and there
are n / 10 cells; the area is exact here, and the mean over several seeds of k-means.

It depends on the features and falls with the number of cells a sample has: a value means something
beside that of the data itself, as many held-out sentences against others, which is the most that
one can hope for.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

SCALE = 5.0  # c
VARIANCE, PER_CELL = 0.9, 10
SEEDS = range(5)
POINTS = 4001  # of the frontier


def compute(predictions: Tensor, references: Tensor, others: Tensor) -> dict[str, float]:
    """Features (n, D) of model's and of two sets of held-out sentences -> "mauve", and
    "mauve_held_out", the same of held-out sentences."""
    return {
        "mauve": mauve(predictions, references),
        "mauve_held_out": mauve(others, references),
        "mauve_samples": len(references),
    }


def mauve(ours: Tensor, theirs: Tensor, seeds: Sequence[int] = SEEDS) -> float:
    """Two sets of features (N, D) and (M, D) -> the area, in (0, 1]."""
    areas = [frontier_area(*histograms(ours, theirs, seed)) for seed in seeds]
    return sum(areas) / len(areas)


def histograms(ours: Tensor, theirs: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """How both sets fall into the cells of one k-means: shares (k,) and (k,), float64."""
    from sklearn.cluster import KMeans  # seconds, which others need not wait
    from sklearn.decomposition import PCA

    both = torch.cat([ours, theirs]).double()
    both = (both / both.norm(dim=1, keepdim=True).clamp(min=1e-12)).numpy()
    distinct = len(np.unique(both, axis=0))
    cells = min(max(2, round(min(len(ours), len(theirs)) / PER_CELL)), distinct)
    if distinct > 1:
        both = PCA(VARIANCE, svd_solver="full").fit_transform(both)
    k_means: Any = KMeans(cells, n_init="auto", random_state=seed)
    found = torch.from_numpy(k_means.fit_predict(both)).long()
    parts = found.split([len(ours), len(theirs)])
    first, second = (torch.bincount(part, minlength=cells).double() / len(part) for part in parts)
    return first, second


def frontier_area(p: Tensor, q: Tensor, scale: float = SCALE) -> float:
    """The area under the divergence frontier of two histograms (k,), each of sum 1."""
    angle = torch.linspace(0, math.pi / 2, POINTS, dtype=torch.float64)
    share = angle.sin().square()[:, None]  # l: the ends are where the frontier is steep
    p, q = p.double(), q.double()
    mixed = share * p + (1 - share) * q
    x, y = (torch.exp(-scale * _divergence(one, mixed)) for one in (q, p))
    # x falls as l grows; up to its end the frontier is level
    return float(x[-1] + torch.trapezoid(y.flip(0), x.flip(0)))


def _divergence(p: Tensor, mixed: Tensor) -> Tensor:
    """KL(p | r) in nats (L,) of p (k,) and each r of (L, k)."""
    return (torch.xlogy(p, p) - torch.xlogy(p, mixed)).sum(1)
