"""The kernel distance between two sets of features (Binkowski et al. 2018, sec. 4).

    d^2 = mean k(x_i, x_j) + mean k(y_i, y_j) - 2 mean k(x_i, y_j),    i != j in the first two
    k(x, y) = (x . y / D + 1)^3

This estimate of the squared maximum mean discrepancy is unbiased (Gretton et al. 2012, eq. 3): its
expectation does not depend on the counts, and is 0 between equal laws, so that it may be negative.
"""

import torch
from torch import Tensor


def compute(
    predictions: Tensor,
    references: Tensor,
    size: int,
    generator: torch.Generator,
    subsets: int = 100,
) -> dict[str, float]:
    """{"kernel_distance", "kernel_std"}: mean and standard deviation of d^2 over random subsets,
    `size` rows of features (N1, D) against as many of (N2, D), in float64.

    It is called KID only when the features are those of the Inception network. The subsets overlap:
    their deviation is no standard error of the mean. ValueError for fewer rows than `size`, fewer
    than two, or fewer than two subsets.
    """
    if not 2 <= size <= min(len(predictions), len(references)) or subsets < 2:
        raise ValueError(
            f"kernel: {subsets} subsets of size {size} from {len(predictions)} predictions and "
            f"{len(references)} references: expected 2 or more subsets, of 2 or more rows that "
            "both have"
        )
    found: list[Tensor] = []
    for _ in range(subsets):
        x, y = (
            z[torch.randperm(len(z), generator=generator)[:size]].double()
            for z in (predictions, references)
        )
        found.append(squared_discrepancy(x, y))
    values = torch.stack(found)
    return {"kernel_distance": float(values.mean()), "kernel_std": float(values.std())}


def squared_discrepancy(x: Tensor, y: Tensor) -> Tensor:
    """The estimate d^2 from all rows of x (N1, D) and y (N2, D)."""
    return _mean_of_pairs(x) + _mean_of_pairs(y) - 2 * _kernel(x @ y.T, x.shape[1]).mean()


def _mean_of_pairs(x: Tensor) -> Tensor:
    """The mean of k(x_i, x_j) over i != j."""
    N, D = x.shape
    itself = _kernel(x.square().sum(1), D).sum()
    return (_kernel(x @ x.T, D).sum() - itself) / (N * (N - 1))


def _kernel(products: Tensor, dim: int) -> Tensor:
    """k from inner products of features with `dim` entries."""
    return (products / dim + 1) ** 3
