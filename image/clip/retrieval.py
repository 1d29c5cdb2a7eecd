"""How often the right one is found among N: the retrieval accuracy of a dual encoder.

Beside N - 1 wrong candidates, drawn without replacement from m of which b score higher, the right
one is among the first k when fewer than k of the b are drawn, which the hypergeometric law tells.
So the mean over all choices of candidates is exact, and depends on no seed. Of candidates that
score the same, each order is as likely as another.
"""

import numpy as np
import torch
from torch import Tensor

AMONG = 100
TOP = (1, 5)


def retrieval(
    scores: Tensor, own: Tensor, right: Tensor, among: int = AMONG, top: tuple[int, ...] = TOP
) -> dict[str, float | int]:
    """scores (n, m), the column of each row's own candidate (n,) and which candidates are right for
    it, that one included, (n, m) bool -> shares of rows whose own one is among the best 1 and 5 of
    `among` (or of as many as there are), with what chance finds.

    Candidates that are right beside the own one do not take part. ValueError when a row's own one
    is not right.
    """
    rows = torch.arange(len(scores))
    if not bool(right[rows, own].all()):
        raise ValueError("retrieval: the own candidate of every row must be one of the right ones")
    wrong, mine = ~right, scores[rows, own][:, None]
    others = wrong.sum(1)
    better = ((scores > mine) & wrong).sum(1)
    alike = ((scores == mine) & wrong).sum(1)
    among = min(among, int(others.min()) + 1)
    found: dict[str, float | int] = {"among": among}
    for k in top:
        first = _among_first(better.numpy(), alike.numpy(), others.numpy(), among, k)
        found |= {f"top{k}": float(first.mean()), f"top{k}_chance": min(1.0, k / among)}
    return found


def _among_first(
    better: np.ndarray, alike: np.ndarray, others: np.ndarray, among: int, k: int
) -> np.ndarray:
    """Probabilities (n,): the mean over how many of those alike come before the own one."""
    from scipy.stats import hypergeom  # half a second, which others need not wait

    before = [
        float(np.mean(hypergeom.cdf(k - 1, m, b + np.arange(ties + 1), among - 1))) if m else 1.0
        for b, ties, m in zip(better, alike, others, strict=True)
    ]
    return np.array(before)
