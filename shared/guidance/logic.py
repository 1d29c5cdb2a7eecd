"""Not, and, or of what classifiers say, as log-probabilities.

    log p(not a) = log(1 - p(a))    log p(a and b) = log p(a) + log p(b)
    log p(a or b) = log(1 - (1 - p(a)) (1 - p(b)))

for a and b that are independent given z. Minus any of them is an energy (LatentOps, sec. 3.3; in
place of the sum of densities that Du et al. 2020 take for "or", which may exceed 1).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

_SURE = -1e-7  # the largest log p(a) whose complement has a logarithm in float32


def log_not(log_p: Tensor) -> Tensor:
    """log(1 - p), stable at both ends; p is taken to be below 1 by 1e-7 at least."""
    log_p = log_p.clamp(max=_SURE)
    near_one = log_p > -0.6931
    # each branch gets values at which its gradient is finite
    small = torch.where(near_one, torch.full_like(log_p, -1.0), log_p)
    large = torch.where(near_one, log_p, torch.full_like(log_p, -0.5))
    return torch.where(near_one, torch.log(-torch.expm1(large)), torch.log1p(-small.exp()))


def log_any(log_ps: Sequence[Tensor]) -> Tensor:
    """log p(one or more of them), for independent ones, all of one shape."""
    if len(log_ps) == 1:
        return log_ps[0]
    return log_not(torch.stack([log_not(log_p) for log_p in log_ps]).sum(0))


def log_one_of(log_probs: Tensor, classes: Sequence[int]) -> Tensor:
    """log-probabilities of exclusive classes (..., K) -> that of these classes together (...)."""
    return log_probs[..., list(classes)].logsumexp(-1)
