"""Count, mean and scatter of features, gathered batch by batch in float64.

Two parts a and b make the whole (Chan, Golub & LeVeque 1983):

    n = n_a + n_b,    m = m_a + n_b / n d,    d = m_b - m_a
    S = S_a + S_b + n_a n_b / n d d'            with S the sum of (x - m)(x - m)'

The last term is one more row of the product S = R' R, so that a batch costs one product, and raw
sums of squares, which lose what is small beside the mean, never occur. Until there are more samples
than dimensions R itself is kept: n - 1 rows, of which the Frechet distance makes use.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from scipy.linalg import get_blas_funcs
from torch import Tensor

BLOCK = 512  # rows that are made float64 at once: they stay in a cache until their product


@dataclass(frozen=True)
class Moments:
    """Moments of `count` samples of D features, float64.

    Attributes:
        count: n, 0 or more.
        mean: (D,).
        body: R (max(n - 1, 0), D) with R' R = S while n <= D; from there on S itself (D, D), its
            upper triangle alone, zeros below.
    """

    count: int
    mean: Tensor
    body: Tensor

    @property
    def has_rows(self) -> bool:
        """Whether `body` is R, not S."""
        return self.count <= len(self.mean)

    def covariance(self) -> Tensor:
        """S / (n - 1), (D, D). ValueError for fewer than two samples."""
        at_least_two(self)
        upper = _products(self.body) if self.has_rows else self.body
        return (upper + upper.triu(1).T) / (self.count - 1)

    def trace(self) -> float:
        """That of the covariance. ValueError for fewer than two samples."""
        at_least_two(self)
        total = self.body.square().sum() if self.has_rows else self.body.diagonal().sum()
        return float(total) / (self.count - 1)

    def to(self, device: torch.device | str) -> "Moments":
        """The same on another device."""
        return Moments(self.count, self.mean.to(device), self.body.to(device))


class Stream:
    """Moments of what passes by: holds a block of rows and at most D x D numbers."""

    def __init__(self) -> None:
        self._blocks: Tensor | None = None  # the rows in work, with room for one more
        self._waiting: list[Tensor] = []
        self._sum: Moments | None = None

    def add(self, features: Tensor) -> None:
        """features (B, D) of any B and float dtype. ValueError for another D, or a NaN."""
        if features.ndim != 2 or features.shape[1] < 1:
            raise ValueError(f"features {tuple(features.shape)}: expected (B, D)")
        before = (
            self._waiting[0] if self._waiting else None if self._sum is None else self._sum.body
        )
        if before is not None and before.shape[1] != features.shape[1]:
            raise ValueError(
                f"features (B, {features.shape[1]}) after (B, {before.shape[1]}): expected as many"
            )
        self._waiting.append(features)
        if sum(len(part) for part in self._waiting) >= BLOCK:
            self._flush()

    def moments(self) -> Moments:
        """Of all that was added. ValueError when that is nothing."""
        self._flush()
        if self._sum is None:
            raise ValueError("no features: expected one batch or more")
        if not self._sum.mean.isfinite().all():
            raise ValueError("features: some are NaN or infinite")
        if self._sum.has_rows:
            return self._sum
        return Moments(self._sum.count, self._sum.mean.clone(), self._sum.body.clone())

    def _flush(self) -> None:
        if not self._waiting:
            return
        rows = self._waiting[0] if len(self._waiting) == 1 else torch.cat(self._waiting)
        self._waiting = []
        for part in rows.split(BLOCK):
            self._take(part)

    def _take(self, part: Tensor) -> None:
        """One block of rows (B, D), B <= BLOCK."""
        B, D = part.shape
        if self._blocks is None:
            self._blocks = part.new_empty(BLOCK + 1, D, dtype=torch.float64)
        if self._sum is None:
            self._sum = empty(D, part.device)
        centred = self._blocks[:B].copy_(part)
        mean = centred.mean(0)
        centred -= mean
        count, centre, apart = _joint(self._sum.count, self._sum.mean, B, mean)
        if count > D:
            body = _products(self._sum.body) if self._sum.has_rows else self._sum.body
            self._blocks[B] = apart
            _add_products(body, self._blocks[: B + 1])
        else:
            between = apart[None] if self._sum.count else apart.new_empty(0, D)
            body = torch.cat([self._sum.body, _without_one(centred), between])
        self._sum = Moments(count, centre, body)


def moments(features: Tensor | Iterable[Tensor]) -> Moments:
    """Of features (N, D), or of batches (B, D) one after another."""
    stream = Stream()
    for part in [features] if isinstance(features, Tensor) else features:
        stream.add(part)
    return stream.moments()


def empty(dim: int, device: torch.device | str = "cpu") -> Moments:
    """Of no sample: the neutral element of `merge`."""
    zeros = torch.zeros(dim, dtype=torch.float64, device=device)
    return Moments(0, zeros, zeros.new_empty(0, dim))


def merge(a: Moments, b: Moments) -> Moments:
    """Of the samples of both. ValueError for another number of features."""
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"{len(a.mean)} and {len(b.mean)} features: expected as many")
    count, mean, apart = _joint(a.count, a.mean, b.count, b.mean)
    if 0 in (a.count, b.count):
        return a if b.count == 0 else b
    if count <= len(mean):
        return Moments(count, mean, torch.cat([a.body, b.body, apart[None]]))
    body = torch.zeros(len(mean), len(mean), dtype=torch.float64, device=mean.device)
    for part in (a, b):
        if part.has_rows:
            _add_products(body, part.body)
        else:
            body += part.body
    _add_products(body, apart[None])
    return Moments(count, mean, body)


def at_least_two(part: Moments) -> None:
    """ValueError for fewer than two samples: they have no covariance."""
    if part.count < 2:
        raise ValueError(f"moments of {part.count} sample(s): a covariance needs 2 or more")


def _joint(n_a: int, mean_a: Tensor, n_b: int, mean_b: Tensor) -> tuple[int, Tensor, Tensor]:
    """Count and mean of both, and the row that the distance of their means adds to R."""
    count, difference = n_a + n_b, mean_b - mean_a
    share = n_b / max(count, 1)
    return count, mean_a + share * difference, math.sqrt(n_a * share) * difference


def _without_one(centred: Tensor) -> Tensor:
    """Rows (B, D) that sum to 0 -> B - 1 rows with the same products: a reflection that takes the
    vector of ones to the first axis makes the first row 0 (Householder 1958)."""
    return centred[1:] - centred[:1] / (1 + math.sqrt(len(centred)))


def _products(rows: Tensor) -> Tensor:
    """The upper triangle of R' R, (D, D)."""
    D = rows.shape[1]
    total = torch.zeros(D, D, dtype=torch.float64, device=rows.device)
    _add_products(total, rows)
    return total


def _add_products(total: Tensor, rows: Tensor) -> None:
    """Add the upper triangle of R' R to `total` (D, D), in place. On a CPU by BLAS's syrk, which
    computes that triangle alone: torch has no such call, and its product takes twice as long."""
    if not len(rows):
        return
    if rows.device.type != "cpu":
        total += (rows.T @ rows).triu()
        return
    syrk: Any = get_blas_funcs("syrk", dtype="float64")
    # in the order of Fortran rows are columns, and the upper triangle is the lower one
    syrk(1.0, rows.numpy().T, beta=1.0, c=total.numpy().T, lower=1, overwrite_c=1)
