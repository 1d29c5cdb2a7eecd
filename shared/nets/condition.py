"""Rows of condition ids (B, M): how every network reads a condition.

0 is "none": it fills a row up and does not count, unless the row holds nothing else. A row is a set
of ids, each of them a fact of its own; or, read by `SourceReader`, a sequence: a text to write from
or to draw.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from shared.nets.attention import Attention


def that_count(ids: Tensor) -> Tensor:
    """(B, M) ids -> bool (B, M): ids other than 0; the first one where all are 0."""
    counts = ids != 0
    counts[:, 0] |= ~counts.any(1)
    return counts


def mean_token(tokens: Tensor, counts: Tensor) -> Tensor:
    """tokens (B, M, D) and which of them count (B, M) -> the mean of those (B, D)."""
    return (tokens * counts.unsqueeze(-1)).sum(1) / counts.sum(1, keepdim=True)


class SourceReader(nn.Module):
    """Embedded ids (B, M, D) and which of them count (B, M) -> tokens that know their order and
    each other (B, M, D).

    The encoder of Vaswani et al. 2017 (sec. 3.1) with norms before the branches and rotary
    positions. Branches start at zero: at first the tokens are the embedded ids.
    """

    def __init__(self, dim: int, depth: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_Block(dim, heads, dropout) for _ in range(depth))

    def forward(self, tokens: Tensor, counts: Tensor) -> Tensor:
        for block in self.blocks:
            tokens = block(tokens, counts[:, None, None, :])
        return tokens


class _Block(nn.Module):
    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(dim, heads, rotary=True)
        self.dropout = nn.Dropout(dropout)
        self.wide, self.narrow = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        for last in (self.attention.out, self.narrow):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        tokens = tokens + self.dropout(self.attention(layer_norm(tokens), mask=mask))
        return tokens + self.dropout(self.narrow(F.gelu(self.wide(layer_norm(tokens)))))


def layer_norm(x: Tensor) -> Tensor:
    """x (..., D) to mean 0 and variance 1, without learned numbers."""
    return F.layer_norm(x, x.shape[-1:])
