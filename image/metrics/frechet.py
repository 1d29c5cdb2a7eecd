"""The Frechet distance between the Gaussians of two sets of features.

    d^2 = |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2)        (Heusel et al. 2017, eq. 6)

The last trace is the sum of the singular values of R1 R2', for any roots S = R' R (the nuclear
norm; no root of a matrix that is not symmetric is ever taken). Three ways lead to them:

    n1, n2 <= D    R are rows of features: R1 R2' is n1 x n2, no covariance is formed
    n1 <= D < n2   the square roots of the eigenvalues of R1 S2 R1', n1 x n1
    D < n1, n2     those of L' S2 L, D x D, with S1 = L L' (Cholesky)

Eigenvalues cost a third of singular values, but a small one has lost half of its digits. Where that
would show in d^2, singular values are taken after all.
"""

import math
from typing import Any

import torch
from scipy.linalg import get_lapack_funcs
from torch import Tensor

from image.metrics.moments import Moments, at_least_two, moments

ROUNDING = 2.0**-52
TOLERANCE = 1e-10  # of d^2, that may be lost to eigenvalues


def compute(predictions: Tensor, references: Tensor) -> dict[str, float]:
    """{"frechet_distance": d^2} between features (N1, D) and (N2, D), in float64.

    It is called FID only when the features are those of the Inception network of the paper. Its
    value depends on N1 and N2: compare at equal counts.
    ValueError for fewer than two rows, or for different D.
    """
    for name, x in (("predictions", predictions), ("references", references)):
        if x.ndim != 2 or len(x) < 2:
            raise ValueError(f"frechet: {name} {tuple(x.shape)}: expected (N, D) with N >= 2")
    return {"frechet_distance": distance(moments(predictions), moments(references))}


def distance(a: Moments, b: Moments) -> float:
    """d^2 between moments of two sets. ValueError for fewer than two samples, or different D."""
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"frechet: {len(a.mean)} and {len(b.mean)} features: expected as many")
    for part in (a, b):
        at_least_two(part)
    a, b = sorted((a.to("cpu"), b.to("cpu")), key=lambda part: part.count)
    apart = float((a.mean - b.mean).square().sum()) + a.trace() + b.trace()
    a, b = _alive(a, b)
    if not len(a.mean):
        return apart
    scale = 2 / math.sqrt((a.count - 1) * (b.count - 1))
    squares = _squares(a, b)
    if squares is not None:
        found = apart - scale * float(squares.clamp(min=0).sqrt().sum())
        if scale * _lost(squares) <= TOLERANCE * found:
            return found
    overlap = torch.linalg.svdvals(_root(a) @ _root(b).T).sum()
    return max(0.0, apart - scale * float(overlap))


def _alive(a: Moments, b: Moments) -> tuple[Moments, Moments]:
    """Both without the features that never vary in one of them: these meet nothing in the other."""
    varies = torch.ones(len(a.mean), dtype=torch.bool)
    for part in (a, b):
        varies &= (part.body != 0).any(0) if part.has_rows else part.body.diagonal() > 0
    if varies.all():
        return a, b
    return _only(a, varies), _only(b, varies)


def _only(part: Moments, kept: Tensor) -> Moments:
    """Some features only. Rows may now be more than features; they are rows no longer then."""
    mean, body = part.mean[kept], part.body[:, kept]
    if not part.has_rows:
        return Moments(part.count, mean, body[kept])
    return Moments(part.count, mean, body if part.count <= len(mean) else (body.T @ body).triu())


def _squares(a: Moments, b: Moments) -> Tensor | None:
    """The squared singular values of R1 R2', as eigenvalues; None when a root is not to be had."""
    if a.has_rows and b.has_rows:
        product = a.body @ b.body.T
        return torch.linalg.eigvalsh(product @ product.T)
    if a.has_rows:
        return torch.linalg.eigvalsh(a.body @ (b.body + b.body.triu(1).T) @ a.body.T)
    for one, other in ((a, b), (b, a)):
        factor = _cholesky(one.body)
        if factor is not None:
            # L' S L in place, as LAPACK has it for generalised eigenvalue problems
            sygst: Any = get_lapack_funcs("sygst", dtype="float64")
            similar = other.body.clone().numpy().T
            similar, _ = sygst(similar, factor.numpy().T, itype=2, lower=1, overwrite_a=1)
            return torch.linalg.eigvalsh(torch.from_numpy(similar.T), UPLO="U")
    return None


def _lost(squares: Tensor) -> float:
    """About the error of sum sqrt(s), where each s has an error of its own, the rounding of the
    largest: ds / (2 sqrt(s)), or sqrt(ds) when s is no more than that."""
    error = ROUNDING * float(squares.max())
    slopes = error / (2 * squares.clamp(min=error / 4).sqrt())
    return float(slopes.square().sum().sqrt())


def _root(part: Moments) -> Tensor:
    """R (K, D) with R' R = S and K <= D, from the eigenvectors when S is singular to rounding."""
    if part.has_rows:
        return part.body
    factor, floor = _cholesky(part.body), len(part.mean) * ROUNDING
    if factor is not None:
        pivots = factor.diagonal().square() / part.body.diagonal()
        if pivots.min() > 100 * floor:
            return factor
    values, vectors = torch.linalg.eigh(part.body, UPLO="U")
    kept = values > floor * values.max()
    return values[kept].sqrt()[:, None] * vectors[:, kept].T


def _cholesky(upper: Tensor) -> Tensor | None:
    """U (D, D), upper, with S = U' U from the upper triangle of S; None for a singular S."""
    potrf: Any = get_lapack_funcs("potrf", dtype="float64")
    factor, failed = potrf(upper.numpy().T, lower=1, clean=1)
    return None if failed else torch.from_numpy(factor.T)
