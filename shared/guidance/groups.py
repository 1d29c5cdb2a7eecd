"""A scale for each group of a condition's columns.

By the chain rule p(c_1, ..., c_K | x) = p(c_1 | x) p(c_2 | c_1, x) ... p(c_K | c_1 ... c_K-1, x).
With x0_k the estimate under the first k groups, the others "none",

    x0_0 + sum_k scale_k (x0_k - x0_k-1)

(for two groups: Brooks et al. 2023). At scales 1 it is the conditional estimate, whatever the
groups have to do with each other; the sum over conditions one by one (`conditions`) is so only when
they are independent given x. The order counts elsewhere: name first what the others depend on.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def chain(
    condition: Tensor, columns: Sequence[Sequence[int]], scales: Sequence[float]
) -> tuple[Tensor, Tensor, list[float]]:
    """condition (B, M) of ids, the columns of K groups and their scales -> negative (B, M),
    condition (B, K, M) and K scales, as `classifier_free` takes them.

    sum_k scale_k (x0_k - x0_k-1) = sum_k (scale_k - scale_k+1) (x0_k - x0_0). What is in no group
    is given throughout. NFE: those of `classifier_free`, so 1 when all scales are 1.
    """
    given = condition.clone()
    for group in columns:
        given[:, list(group)] = 0
    negative, prefixes = given.clone(), list[Tensor]()
    for group in columns:
        given[:, list(group)] = condition[:, list(group)]
        prefixes.append(given.clone())
    after = [*scales[1:], 0.0]
    weights = [here - then for here, then in zip(scales, after, strict=True)]
    return negative, torch.stack(prefixes, 1), weights
