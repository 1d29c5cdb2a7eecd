"""Rows of condition ids as one vector each: how every network reads a condition (B, M).

0 is "none": it fills a row up and does not count, unless the row holds nothing else.
"""

from torch import Tensor


def that_count(ids: Tensor) -> Tensor:
    """(B, M) ids -> bool (B, M): ids other than 0; the first one where all are 0."""
    counts = ids != 0
    counts[:, 0] |= ~counts.any(1)
    return counts


def mean_token(tokens: Tensor, counts: Tensor) -> Tensor:
    """tokens (B, M, D) and which of them count (B, M) -> the mean of those (B, D)."""
    return (tokens * counts.unsqueeze(-1)).sum(1) / counts.sum(1, keepdim=True)
