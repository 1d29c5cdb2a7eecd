"""Rows of a condition: how every network reads what it is steered by.

A row is of ids (B, M), or of vectors (B, M, D), such as the patches of a picture. 0 is "none" in
both: it fills a row up and does not count, unless the row holds nothing else. A row is a set, each
member a fact of its own; or, read by `SourceReader`, a sequence: a text to write from or to draw, a
picture to describe.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.nets.attention import Attention


def that_count(row: Tensor) -> Tensor:
    """(B, M) ids or (B, M, D) vectors -> bool (B, M): those other than 0; the first one where all
    are 0."""
    counts = row != 0 if row.ndim == 2 else (row != 0).any(-1)
    counts[:, 0] |= ~counts.any(1)
    return counts


class IdEmbedding(nn.Embedding):
    """Ids (B, M) in [0, count) -> tokens (B, M, dim)."""

    def none(self, rows: int) -> Tensor:
        """Rows (B, 1) of no condition."""
        return torch.zeros(rows, 1, dtype=torch.long, device=self.weight.device)


class VectorEmbedding(nn.Module):
    """Rows of `length` vectors (B, length, size) -> tokens (B, length, dim): a linear map of each,
    and a learned position (Dosovitskiy et al. 2021, eq. 1). Of length None, rows of any length, by
    the linear map alone: vectors that know their places. ValueError for rows of another shape."""

    def __init__(self, length: int | None, size: int, dim: int) -> None:
        super().__init__()
        self.length, self.size = length, size
        self.embed = nn.Linear(size, dim)
        self.place = None if length is None else nn.Parameter(torch.randn(length, dim) * 0.02)

    def forward(self, rows: Tensor) -> Tensor:
        length = rows.shape[1] if self.length is None else self.length
        if rows.shape[1:] != (length, self.size):
            raise ValueError(
                f"net: a condition {tuple(rows.shape)}, expected (B, {length}, {self.size})"
            )
        tokens = self.embed(rows)
        return tokens if self.place is None else tokens + self.place

    def none(self, rows: int) -> Tensor:
        """Rows (B, length, size) of no condition."""
        return self.embed.weight.new_zeros(rows, self.length or 1, self.size)


def or_empty(row: Tensor | None, empty: Tensor, rows: int) -> Tensor:
    """Rows of vectors (B, M, D), or None -> the same with `empty` (1, M, D), what a reader makes of
    nothing, in place of those that are all 0, "none"."""
    if row is None:
        return empty.expand(rows, -1, -1)
    none = ~(row != 0).flatten(1).any(1)
    return torch.where(none[:, None, None], empty.to(row), row)


def mean_token(tokens: Tensor, counts: Tensor) -> Tensor:
    """tokens (B, M, D) and which of them count (B, M) -> the mean of those (B, D)."""
    return (tokens * counts.unsqueeze(-1)).sum(1) / counts.sum(1, keepdim=True)


class SourceReader(nn.Module):
    """Tokens (B, M, D) and which of them count (B, M) -> tokens that know their order and each
    other (B, M, D).

    The encoder of Vaswani et al. 2017 (sec. 3.1) with norms before the branches and rotary
    positions. Branches start at zero: at first the tokens are what was embedded.
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
        self.attention = Attention(dim, heads, rotary="row")
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
