"""The algebra of Gaussians in closed form: each operation on normal laws gives a normal law.

A law is its mean m and the Cholesky factor L of its covariance: x = m + L z, z ~ N(0, I). Sums,
marginals, linear maps and conditionals only stack and select rows of such factors; a factor F
(D, K) of the covariance F F^T becomes triangular again through F^T = Q R, L = R^T. No covariance is
formed, subtracted or inverted on the way: a standard deviation of 1e-10 beside one of 1 keeps its
digits, where a difference of variances would have lost it (Bishop 2006, sec. 2.3, for the laws).

Leading axes are a batch and broadcast; mean and factor may have different ones, so a thousand
posteriors that differ in their mean share one factorisation. All of it is differentiable.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

LOG_2PI = math.log(2 * math.pi)


@dataclass(frozen=True, eq=False)
class Gaussian:
    """N(mean, cholesky cholesky^T): mean (..., D), cholesky (..., D, D) lower triangular with a
    positive diagonal, which is trusted; `of` and `isotropic` build one from what is at hand.

    Raises ValueError when shapes or dtypes disagree, or the dtype is neither float32 nor float64.
    """

    mean: Tensor
    cholesky: Tensor

    def __post_init__(self) -> None:
        _check_shapes(self.mean, self.cholesky, "cholesky")

    @classmethod
    def of(cls, mean: Tensor, covariance: Tensor) -> "Gaussian":
        """mean (..., D) and covariance (..., D, D), symmetric positive definite.

        Raises ValueError for wrong shapes, and for a covariance that is not finite, not symmetric,
        or singular to the precision of its dtype.
        """
        _check_shapes(mean, covariance, "covariance")
        if not bool(mean.isfinite().all() and covariance.isfinite().all()):
            raise ValueError("gaussian: mean or covariance has a value that is not finite")
        fixed = covariance.detach()
        scale = fixed.diagonal(dim1=-2, dim2=-1).abs().sqrt()
        apart = (fixed - fixed.mT).abs()
        # half of the digits: sums in two orders differ by less, a wrong entry by more
        allowed = math.sqrt(torch.finfo(mean.dtype).eps) * scale[..., None] * scale[..., None, :]
        if bool((apart > allowed).any()):
            raise ValueError(
                f"gaussian: the covariance is not symmetric, entries differ by "
                f"{float(apart.max()):.3g}; give (C + C.mT) / 2 if that is rounding"
            )
        symmetric = (covariance + covariance.mT) / 2
        cholesky, info = torch.linalg.cholesky_ex(symmetric)
        if bool((info > 0).any()):
            raise ValueError(_singular("covariance", symmetric.shape))
        _check_regular(cholesky, 10 * math.sqrt(mean.shape[-1]) * torch.finfo(mean.dtype).eps)
        return cls(mean, cholesky)

    @classmethod
    def isotropic(cls, mean: Tensor, std: float | Tensor) -> "Gaussian":
        """N(mean, std^2 I): mean (..., D), std (...,) finite and positive, or ValueError."""
        scale = torch.as_tensor(std, dtype=mean.dtype, device=mean.device)
        if not bool((scale.isfinite() & (scale > 0)).all()):
            raise ValueError(f"gaussian: std = {std}: expected finite positive numbers")
        return cls(mean, scale[..., None, None] * _identity(mean))

    @property
    def dimension(self) -> int:
        return self.mean.shape[-1]

    @property
    def batch_shape(self) -> torch.Size:
        return torch.broadcast_shapes(self.mean.shape[:-1], self.cholesky.shape[:-2])

    @property
    def covariance(self) -> Tensor:
        """(..., D, D)."""
        return self.cholesky @ self.cholesky.mT

    @property
    def half_log_det(self) -> Tensor:
        """ln det(covariance) / 2, (...,): no determinant that could under- or overflow."""
        return self.cholesky.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """n draws (n, ..., D), differentiable in mean and factor."""
        shape, like = (n, *self.batch_shape, self.dimension), self.mean
        z = torch.randn(shape, generator=generator, dtype=like.dtype, device=like.device)
        return self.mean + _apply(self.cholesky, z)

    def whiten(self, x: Tensor) -> Tensor:
        """x (..., D) -> z = L^-1 (x - mean), standard normal when x has this law."""
        _check_vectors(x, self.dimension, "x")
        return _solve(self.cholesky, x - self.mean, upper=False)

    def log_prob(self, x: Tensor) -> Tensor:
        """x (..., D) -> ln N(x), nats, (...,)."""
        square = self.whiten(x).square().sum(-1)
        return -(square + self.dimension * LOG_2PI) / 2 - self.half_log_det

    def score(self, x: Tensor) -> Tensor:
        """grad_x ln N(x) = -C^-1 (x - mean), (..., D)."""
        return -_solve(self.cholesky.mT, self.whiten(x), upper=True)

    def entropy(self) -> Tensor:
        """-E ln N(x), nats, (...,)."""
        nats = self.dimension * (1 + LOG_2PI) / 2 + self.half_log_det
        return nats.expand(self.batch_shape)

    def characteristic(self, u: Tensor) -> Tensor:
        """u (..., D) -> E exp(i u.x) = exp(i u.mean - u^T C u / 2), complex (...,)."""
        _check_vectors(u, self.dimension, "u")
        size = torch.exp(-_apply(self.cholesky.mT, u).square().sum(-1) / 2)
        return torch.polar(*torch.broadcast_tensors(size, (u * self.mean).sum(-1)))

    def marginal(self, indices: Sequence[int]) -> "Gaussian":
        """The law of the coordinates `indices`, in that order (Bishop 2006, eq. 2.98)."""
        chosen = _check_indices(indices, self.dimension)
        return Gaussian(self.mean[..., chosen], _triangular(self.cholesky[..., chosen, :]))

    def conditional(self, indices: Sequence[int], values: Tensor) -> "Gaussian":
        """The law of the other coordinates, in their order, given that coordinates `indices` have
        these values (..., len(indices)) (Bishop 2006, eq. 2.81 and 2.82).

        With the known coordinates first, the factor is [[A, 0], [B, C]]: the mean moves by
        B A^-1 (values - their mean), and C is the factor of what remains.
        """
        known = _check_indices(indices, self.dimension)
        rest = [i for i in range(self.dimension) if i not in known]
        if not rest:
            raise ValueError(f"gaussian: conditioning on all {self.dimension} coordinates")
        factor = _triangular(self.cholesky[..., known + rest, :])
        K = len(known)
        whitened = Gaussian(self.mean[..., known], factor[..., :K, :K]).whiten(values)
        mean = self.mean[..., rest] + _apply(factor[..., K:, :K], whitened)
        return Gaussian(mean, factor[..., K:, K:])

    def affine(self, matrix: Tensor, shift: Tensor | None = None) -> "Gaussian":
        """The law of matrix x + shift: matrix (..., M, D) of rank M, shift (..., M).

        Raises ValueError when the image is singular (M > D, or dependent rows): such a law has no
        density; `predictive` adds the noise that gives it one.
        """
        _check_matrix(matrix, self.dimension)
        if matrix.shape[-2] > self.dimension:
            raise ValueError(_singular("image by matrix", matrix.shape))
        cholesky = _triangular(matrix @ self.cholesky)
        _check_regular(cholesky, (10 * torch.finfo(cholesky.dtype).eps) ** 2)
        mean = _apply(matrix, self.mean)
        if shift is None:
            return Gaussian(mean, cholesky)
        return Gaussian(mean + _check_vectors(shift, matrix.shape[-2], "shift"), cholesky)

    def joint(self, matrix: Tensor, noise: "Gaussian") -> "Gaussian":
        """The law (..., D + M) of (x, y), y = matrix x + noise: matrix (..., M, D), noise (..., M)
        independent of x, its mean the shift. The factor [[L, 0], [matrix L, N]] is triangular."""
        _check_matrix(matrix, self.dimension, noise.dimension)
        zeros = self.cholesky.new_zeros(self.dimension, noise.dimension)
        mean = _join(self.mean, _apply(matrix, self.mean) + noise.mean, dim=-1, core=1)
        above = _join(self.cholesky, zeros, dim=-1)
        below = _join(matrix @ self.cholesky, noise.cholesky, dim=-1)
        return Gaussian(mean, _join(above, below, dim=-2))

    def predictive(self, matrix: Tensor, noise: "Gaussian") -> "Gaussian":
        """The law (..., M) of y = matrix x + noise (Bishop 2006, eq. 2.115)."""
        _check_matrix(matrix, self.dimension, noise.dimension)
        factor = _join(matrix @ self.cholesky, noise.cholesky, dim=-1)
        return Gaussian(_apply(matrix, self.mean) + noise.mean, _triangular(factor))

    def posterior(self, matrix: Tensor, noise: "Gaussian", y: Tensor) -> "Gaussian":
        """Bayes: the law (..., D) of x given y = matrix x + noise, y (..., M) (Bishop 2006,
        eq. 2.116 and 2.117)."""
        D, M = self.dimension, noise.dimension
        return self.joint(matrix, noise).conditional(range(D, D + M), y)

    def power(self, exponent: float) -> tuple["Gaussian", Tensor]:
        """N(x)^exponent = e^c N'(x): the tempered law N' and c = ln of the integral, (...,).

        Raises ValueError unless exponent is positive and finite.
        """
        if not 0 < exponent < math.inf:
            raise ValueError(f"gaussian: exponent = {exponent}: expected a finite positive number")
        D = self.dimension
        log_integral = (1 - exponent) * (D * LOG_2PI / 2 + self.half_log_det)
        log_integral = log_integral - D * math.log(exponent) / 2
        tempered = Gaussian(self.mean, self.cholesky / math.sqrt(exponent))
        return tempered, log_integral.expand(self.batch_shape)


def product(p: Gaussian, q: Gaussian) -> tuple[Gaussian, Tensor]:
    """p(x) q(x) = e^c r(x): the law r and c = ln of the integral of p q, (...,).

    q as the likelihood of an observation of x at q's mean: r is the posterior, and c the evidence,
    ln N(q.mean; p.mean, P + Q).
    """
    _check_pair(p, q, "product")
    noise = Gaussian(torch.zeros_like(q.mean), q.cholesky)
    evidence = convolution(p, noise).log_prob(q.mean)
    return p.posterior(_identity(p.mean), noise, q.mean), evidence


def convolution(p: Gaussian, q: Gaussian) -> Gaussian:
    """The law of x + y, x ~ p and y ~ q independent: its density is p's convolved with q's."""
    _check_pair(p, q, "convolution")
    return Gaussian(p.mean + q.mean, _triangular(_join(p.cholesky, q.cholesky, dim=-1)))


def kl(p: Gaussian, q: Gaussian) -> Tensor:
    """KL(p || q) = E_p ln(p / q), nats, (...,).

    With T = Q^-1 P of the factors it is (|T|^2 - D - 2 ln det T + |Q^-1 (m_p - m_q)|^2) / 2. The
    diagonal of T goes in as d = T_ii - 1, d^2 + 2 (d - log1p d): equal laws give 0, not rounding.
    """
    _check_pair(p, q, "kl")
    ratio = torch.linalg.solve_triangular(q.cholesky, p.cholesky, upper=False)
    scale_p, scale_q = (g.cholesky.diagonal(dim1=-2, dim2=-1) for g in (p, q))
    d = (scale_p - scale_q) / scale_q
    spread = (d.square() + 2 * (d - d.log1p())).sum(-1) + ratio.tril(-1).square().sum((-1, -2))
    return (spread + q.whiten(p.mean).square().sum(-1)) / 2


def wasserstein2_squared(p: Gaussian, q: Gaussian) -> Tensor:
    """The squared 2-Wasserstein distance, (...,): |m_p - m_q|^2 + tr(P + Q - 2 (P^1/2 Q P^1/2)^1/2)
    (Dowson & Landau 1982), for covariances that need not commute.

    The trace is the minimum over rotations R of |L_p R - L_q|^2, at R = U V^T from the singular
    vectors of L_p^T L_q: a sum of squares, which is not lost in the traces when the laws are close.
    First derivatives are exact with R held fixed, as R is a minimiser (and finite where singular
    values coincide, or p = q); second derivatives are not.
    """
    _check_pair(p, q, "wasserstein2_squared")
    with torch.no_grad():
        U, _, Vh = torch.linalg.svd(p.cholesky.mT @ q.cholesky)
        rotation = U @ Vh
    apart = (p.cholesky @ rotation - q.cholesky).square().sum((-1, -2))
    return (p.mean - q.mean).square().sum(-1) + apart


def box_mass(dimension: int, width: float = 3.0) -> float:
    """P(|z_i| <= width for all i) of N(0, I) in so many dimensions: erf(width / sqrt 2)^dimension.

    Through log1p(-erfc): at width 9, erf is 1 in float64 and would lose the mass outside.
    """
    if dimension < 1 or not width > 0:
        raise ValueError(
            f"gaussian: dimension = {dimension}, width = {width}: expected 1 or more, positive"
        )
    return math.exp(dimension * math.log1p(-math.erfc(width / math.sqrt(2))))


def _identity(like: Tensor) -> Tensor:
    return torch.eye(like.shape[-1], dtype=like.dtype, device=like.device)


def _apply(matrix: Tensor, x: Tensor) -> Tensor:
    """matrix (..., M, D) times vectors x (..., D) -> (..., M)."""
    return torch.einsum("...ij,...j->...i", matrix, x)


def _solve(triangle: Tensor, x: Tensor, upper: bool) -> Tensor:
    """triangle^-1 x for vectors x (..., D). Axes that only x has become columns of one right-hand
    side: a million points do not repeat the triangle a million times."""
    x = x.expand(torch.broadcast_shapes(x.shape, triangle.shape[:-1]))
    own = x.ndim - triangle.ndim + 1
    columns = x.reshape(-1, *x.shape[own:]).movedim(0, -1)
    solved = torch.linalg.solve_triangular(triangle, columns, upper=upper)
    return solved.movedim(-1, 0).reshape(x.shape)


def _join(a: Tensor, b: Tensor, dim: int, core: int = 2) -> Tensor:
    """Concatenate along one of the last `core` axes, the axes before them broadcast."""
    batch = torch.broadcast_shapes(a.shape[:-core], b.shape[:-core])
    return torch.cat([x.expand(*batch, *x.shape[-core:]) for x in (a, b)], dim=dim)


def _triangular(factor: Tensor) -> Tensor:
    """factor (..., D, K), K >= D -> the Cholesky factor (..., D, D) of factor factor^T."""
    upper = torch.linalg.qr(factor.mT)[1]
    sign = torch.where(upper.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(factor.dtype)
    return upper.mT * sign[..., None, :]


def _check_regular(cholesky: Tensor, least: float) -> None:
    """Refuse a law in which a coordinate is a function of the others, to working precision.

    Of the variance of coordinate i, the share 1 / (correlation^-1)_ii is its own: a measure that,
    unlike a pivot or a determinant, knows neither the order of the coordinates nor their units.
    Rounding leaves a singular law some eps sqrt(D) of it by `of`, some eps^2 by a factor.
    """
    scaled = cholesky.detach()
    scaled = scaled / scaled.norm(dim=-1, keepdim=True)
    inverse = torch.linalg.solve_triangular(scaled, _identity(scaled), upper=False)
    share = 1 / inverse.square().sum(-2)
    if not bool((share > least).all()):  # NaN is refused as well
        raise ValueError(_singular("covariance", cholesky.shape))


def _singular(what: str, shape: torch.Size) -> str:
    return (
        f"gaussian: {what} {tuple(shape)} is singular or not positive definite: expected a law "
        "with a density; add noise, or leave out coordinates that the others determine"
    )


def _check_shapes(mean: Tensor, square: Tensor, name: str) -> None:
    shapes = f"mean {tuple(mean.shape)}, {name} {tuple(square.shape)}"
    if mean.ndim < 1 or square.ndim < 2 or square.shape[-2:] != 2 * mean.shape[-1:]:
        raise ValueError(f"gaussian: {shapes}: expected (..., D) and (..., D, D)")
    try:
        torch.broadcast_shapes(mean.shape[:-1], square.shape[:-2])
    except RuntimeError:
        raise ValueError(f"gaussian: {shapes}: the batch axes do not broadcast") from None
    if mean.dtype != square.dtype or mean.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"gaussian: mean {mean.dtype}, {name} {square.dtype}: expected float32 or float64, both"
        )


def _check_indices(indices: Sequence[int], dimension: int) -> list[int]:
    chosen = list(indices)
    inside = all(0 <= i < dimension for i in chosen)
    if not chosen or not inside or len(set(chosen)) < len(chosen):
        raise ValueError(
            f"gaussian: indices = {chosen}: expected distinct coordinates from 0 to {dimension - 1}"
        )
    return chosen


def _check_vectors(x: Tensor, dimension: int, name: str) -> Tensor:
    if x.shape[-1:] != (dimension,):
        raise ValueError(f"gaussian: {name} {tuple(x.shape)}: expected (..., {dimension})")
    return x


def _check_matrix(matrix: Tensor, dimension: int, rows: int | None = None) -> None:
    if matrix.ndim < 2 or matrix.shape[-1] != dimension or rows not in (None, matrix.shape[-2]):
        expected = f"(..., {'M' if rows is None else rows}, {dimension})"
        raise ValueError(f"gaussian: matrix {tuple(matrix.shape)}: expected {expected}")


def _check_pair(p: Gaussian, q: Gaussian, name: str) -> None:
    if p.dimension != q.dimension:
        raise ValueError(
            f"gaussian: {name} of laws in {p.dimension} and {q.dimension} dimensions: expected one"
        )
