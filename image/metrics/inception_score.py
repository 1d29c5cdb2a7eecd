"""The inception score (Salimans et al. 2016, sec. 4): how sure a classifier is of each picture, and
how many classes it sees over all of them.

    exp( mean_x KL( p(y | x) || p(y) ) ),    p(y) = mean_x p(y | x)

from 1 (all alike, or never sure) to the number of classes. It sees no reference: pictures that are
wrong in the same way score no less.
"""

import torch
from torch import Tensor


def compute(logits: Tensor, splits: int = 10) -> dict[str, float]:
    """{"inception_score", "inception_score_std"}: mean and standard deviation over `splits` parts
    of logits (N, K), in the order given (sorted pictures must be shuffled first), in float64.

    It is that of the paper when the logits are those of its Inception network and N = 50,000.
    ValueError for fewer rows than splits.
    """
    if logits.ndim != 2 or not 1 <= splits <= len(logits):
        raise ValueError(
            f"inception score: logits {tuple(logits.shape)} in {splits} splits: expected (N, K), "
            "with N rows for one split each or more"
        )
    N = len(logits)
    log_p = logits.double().log_softmax(1)
    scores = torch.stack(
        [_score(log_p[i * N // splits : (i + 1) * N // splits]) for i in range(splits)]
    )
    return {
        "inception_score": float(scores.mean()),
        "inception_score_std": float(scores.std(correction=0)),
    }


def _score(log_p: Tensor) -> Tensor:
    p = log_p.exp()
    marginal = p.mean(0)
    return (torch.special.entr(marginal).sum() - torch.special.entr(p).sum(1).mean()).exp()
