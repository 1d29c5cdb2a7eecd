"""Each operation on Gaussians against scipy, quadrature, Bayes' rule or brute-force matrices."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.linalg
import torch
from scipy import stats
from scipy.integrate import quad
from torch import Tensor
from torch.autograd import gradcheck

from shared.gaussian import (
    Gaussian,
    box_mass,
    convolution,
    kl,
    product,
    wasserstein2_squared,
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def covariance(*shape: int, seed: int = 0) -> Tensor:
    """(..., D, D): correlated, with variances from about 0.3 to 2."""
    factor = normal(*shape, shape[-1], seed=seed + 100) / math.sqrt(shape[-1])
    return factor @ factor.mT + 0.3 * torch.eye(shape[-1], dtype=torch.float64)


def law(*shape: int, seed: int = 0) -> Gaussian:
    return Gaussian.of(normal(*shape, seed=seed), covariance(*shape, seed=seed))


def on_the_line(mean: float, std: float) -> Gaussian:
    return Gaussian.isotropic(torch.tensor([mean], dtype=torch.float64), std)


def scipy_log_prob(x: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    """Batched, one scipy call a law and point."""
    batch = torch.broadcast_shapes(x.shape[:-1], mean.shape[:-1], covariance.shape[:-2])
    D = x.shape[-1]
    flat = zip(
        x.expand(*batch, D).reshape(-1, D).numpy(),
        mean.expand(*batch, D).reshape(-1, D).numpy(),
        covariance.expand(*batch, D, D).reshape(-1, D, D).numpy(),
        strict=True,
    )
    out = [stats.multivariate_normal.logpdf(point, m, c) for point, m, c in flat]
    return torch.tensor(out, dtype=torch.float64).reshape(batch)


def same_law(got: Gaussian, mean: Tensor, covariance: Tensor) -> None:
    """Mean, covariance, and a factor that is a Cholesky factor."""
    torch.testing.assert_close(got.mean, mean.expand(got.mean.shape))
    torch.testing.assert_close(got.covariance, covariance.expand(got.covariance.shape))
    torch.testing.assert_close(got.cholesky, got.cholesky.tril(), atol=0, rtol=0)
    assert bool((got.cholesky.diagonal(dim1=-2, dim2=-1) > 0).all())


@pytest.mark.parametrize(
    ("points", "means", "covariances"),
    [
        ((), (), ()),
        ((5,), (), ()),
        ((2, 3), (2, 3), (2, 3)),
        ((5, 2, 3), (2, 3), (2, 3)),
        ((5, 2, 3), (3,), (2, 1)),
        ((), (7, 1), (3,)),
        ((3,), (), (7, 1)),
    ],
)
def test_density_and_whitening_are_scipys_however_the_batches_broadcast(
    points: tuple[int, ...], means: tuple[int, ...], covariances: tuple[int, ...]
):
    x, mean = normal(*points, 4, seed=1), normal(*means, 4, seed=2)
    C = covariance(*covariances, 4)
    p = Gaussian.of(mean, C)
    torch.testing.assert_close(p.log_prob(x), scipy_log_prob(x, mean, C))
    z = p.whiten(x)
    back = mean + (torch.linalg.cholesky(C) @ z[..., None])[..., 0]
    torch.testing.assert_close(back, x.expand(back.shape))
    assert p.batch_shape == torch.broadcast_shapes(means, covariances)


def test_score_is_the_gradient_of_the_log_density():
    p, x = law(2, 3), normal(5, 2, 3, seed=1).requires_grad_()
    (gradient,) = torch.autograd.grad(p.log_prob(x).sum(), x)
    torch.testing.assert_close(p.score(x.detach()), gradient)


def test_entropy_and_half_log_determinant_are_those_of_the_covariance():
    p = Gaussian.of(normal(2, 1, 4), covariance(3, 4))
    expected = [stats.multivariate_normal(np.zeros(4), c).entropy() for c in covariance(3, 4)]
    torch.testing.assert_close(p.entropy(), torch.tensor(expected).expand(2, 3))
    torch.testing.assert_close(p.half_log_det, torch.logdet(covariance(3, 4)) / 2)


def test_determinant_of_a_thousand_small_scales_does_not_underflow():
    p = Gaussian.isotropic(torch.zeros(1000, dtype=torch.float64), 1e-3)
    assert float(p.half_log_det) == pytest.approx(1000 * math.log(1e-3))


def test_samples_have_the_laws_moments():
    """40,000 draws of 2 laws in 3 dimensions; 5 standard errors on 6 means and 12 covariances:
    false alarms below 2e-5."""
    n, p = 40_000, Gaussian.of(normal(2, 3), covariance(3))
    x = p.sample(n, torch.Generator().manual_seed(0))
    assert x.shape == (n, 2, 3)
    variance = covariance(3).diagonal()
    assert bool(((x.mean(0) - normal(2, 3)).abs() < 5 * (variance / n).sqrt()).all())
    apart = x - normal(2, 3)
    found = torch.einsum("nbi,nbj->bij", apart, apart) / n
    error = ((variance[:, None] * variance + covariance(3) ** 2) / n).sqrt()
    assert bool(((found - covariance(3)).abs() < 5 * error).all())
    assert float((apart[:, 0] * apart[:, 1]).mean()) == pytest.approx(0, abs=5 * 2 / math.sqrt(n))


def test_characteristic_function_is_the_fourier_integral_of_the_density_along_u():
    """u.x is normal with mean u.m and variance u^T C u, whatever the dimension."""
    p, u = Gaussian.of(normal(2, 3), covariance(3)), normal(4, 1, 3, seed=1) * 0.7
    got = p.characteristic(u)
    assert got.shape == (4, 2)
    for i in range(4):
        for j in range(2):
            along = stats.norm(u[i, 0] @ p.mean[j], math.sqrt(u[i, 0] @ covariance(3) @ u[i, 0]))
            ends = along.mean() - 12 * along.std(), along.mean() + 12 * along.std()
            real = quad(lambda y, q=along: math.cos(y) * q.pdf(y), *ends)[0]
            imaginary = quad(lambda y, q=along: math.sin(y) * q.pdf(y), *ends)[0]
            assert complex(got[i, j]) == pytest.approx(complex(real, imaginary), abs=1e-9)


def test_marginal_is_the_density_integrated_over_the_other_coordinates():
    p, point = law(3), normal(2, seed=1)
    m = p.marginal([2, 0])

    def density(x_1: float) -> float:
        return float(p.log_prob(torch.stack([point[1], point.new_tensor(x_1), point[0]])).exp())

    assert float(m.log_prob(point).exp()) == pytest.approx(quad(density, -15, 15)[0], rel=1e-8)


def test_marginal_takes_the_entries_of_its_coordinates_in_their_order():
    p = law(2, 5)
    chosen = [4, 0, 3]
    expected = covariance(2, 5)[:, chosen][:, :, chosen]
    same_law(p.marginal(chosen), normal(2, 5)[:, chosen], expected)


def test_conditional_is_read_off_the_precision_matrix():
    """Lambda_aa^-1, and m_a - Lambda_aa^-1 Lambda_ab (x_b - m_b) (Bishop 2006, eq. 2.73, 2.75)."""
    p, values = law(2, 5), normal(7, 2, 3, seed=1)
    known, rest = [3, 0, 4], [1, 2]
    precision = torch.linalg.inv(covariance(2, 5))
    own = torch.linalg.inv(precision[:, rest][:, :, rest])
    shift = precision[:, rest][:, :, known] @ (values - normal(2, 5)[:, known])[..., None]
    mean = normal(2, 5)[:, rest] - (own @ shift)[..., 0]
    same_law(p.conditional(known, values), mean, own)


def test_marginal_times_conditional_is_the_joint_density():
    p, x = law(2, 5), normal(7, 2, 5, seed=1)
    known, rest = [3, 0], [1, 2, 4]
    conditional = p.conditional(known, x[..., known]).log_prob(x[..., rest])
    torch.testing.assert_close(
        p.marginal(known).log_prob(x[..., known]) + conditional, p.log_prob(x)
    )


def test_conditionals_that_differ_in_their_values_share_one_factor():
    assert law(5).conditional([1, 2], normal(1000, 2)).cholesky.shape == (3, 3)


def test_affine_map_changes_variables():
    p, x = law(2, 3), normal(7, 2, 3, seed=1)
    matrix, shift = normal(2, 3, 3, seed=2), normal(3, seed=3)
    y = (matrix @ x[..., None])[..., 0] + shift
    expected = p.log_prob(x) - torch.linalg.det(matrix).abs().log()
    torch.testing.assert_close(p.affine(matrix, shift).log_prob(y), expected)


def test_affine_map_to_fewer_dimensions_has_the_mapped_moments():
    p, matrix = law(2, 4), normal(3, 4, seed=2)
    mean = (matrix @ normal(2, 4)[..., None])[..., 0]
    same_law(p.affine(matrix), mean, matrix @ covariance(2, 4) @ matrix.mT)


def linear_model() -> tuple[Gaussian, Tensor, Gaussian]:
    """x (2, 3), a matrix to 4 dimensions, one noise with a mean for both."""
    return law(2, 3), normal(2, 4, 3, seed=2), law(4, seed=3)


def test_joint_density_is_that_of_x_times_that_of_the_noise():
    p, matrix, noise = linear_model()
    x, y = normal(7, 2, 3, seed=4), normal(7, 2, 4, seed=5)
    got = p.joint(matrix, noise)
    residual = y - (matrix @ x[..., None])[..., 0]
    expected = p.log_prob(x) + noise.log_prob(residual)
    torch.testing.assert_close(got.log_prob(torch.cat([x, y], -1)), expected)
    torch.testing.assert_close(got.cholesky, got.cholesky.tril(), atol=0, rtol=0)


def test_predictive_law_has_the_moments_of_the_map_and_of_the_noise():
    p, matrix, noise = linear_model()
    mean = (matrix @ normal(2, 3)[..., None])[..., 0] + normal(4, seed=3)
    expected = matrix @ covariance(2, 3) @ matrix.mT + covariance(4, seed=3)
    same_law(p.predictive(matrix, noise), mean, expected)


def test_posterior_is_prior_times_likelihood_over_evidence():
    p, matrix, noise = linear_model()
    x, y = normal(7, 2, 3, seed=4), normal(2, 4, seed=5)
    likelihood = noise.log_prob(y - (matrix @ x[..., None])[..., 0])
    expected = p.log_prob(x) + likelihood - p.predictive(matrix, noise).log_prob(y)
    torch.testing.assert_close(p.posterior(matrix, noise, y).log_prob(x), expected)


def test_posterior_of_one_number_is_bayes_by_quadrature():
    p, noise = on_the_line(0.4, math.sqrt(0.9)), on_the_line(-0.3, math.sqrt(0.2))
    y = 1.1

    def joint(x: float) -> float:
        return stats.norm.pdf(x, 0.4, math.sqrt(0.9)) * stats.norm.pdf(
            y, 1.7 * x - 0.3, math.sqrt(0.2)
        )

    evidence = quad(joint, -9, 9)[0]
    mean = quad(lambda x: x * joint(x), -9, 9)[0] / evidence
    variance = quad(lambda x: (x - mean) ** 2 * joint(x), -9, 9)[0] / evidence
    matrix, observed = p.mean.new_tensor([[1.7]]), p.mean.new_tensor([y])
    got = p.posterior(matrix, noise, observed)
    assert float(got.mean) == pytest.approx(mean, rel=1e-9)
    assert float(got.covariance) == pytest.approx(variance, rel=1e-9)
    assert float(p.predictive(matrix, noise).log_prob(observed).exp()) == pytest.approx(
        evidence, rel=1e-9
    )


def test_product_is_a_law_times_its_integral():
    p, q, x = law(2, 3), law(3, seed=1), normal(7, 2, 3, seed=2)
    r, log_integral = product(p, q)
    assert log_integral.shape == (2,)
    torch.testing.assert_close(log_integral + r.log_prob(x), p.log_prob(x) + q.log_prob(x))


@pytest.mark.parametrize("exponent", [0.3, 1.0, 2.5])
def test_power_is_a_law_times_its_integral(exponent: float):
    p, x = Gaussian.of(normal(5, 1, 3), covariance(2, 3)), normal(5, 2, 3, seed=2)
    tempered, log_integral = p.power(exponent)
    assert log_integral.shape == (5, 2)
    torch.testing.assert_close(log_integral + tempered.log_prob(x), exponent * p.log_prob(x))


def test_convolution_is_the_integral_over_one_term_of_the_sum():
    p, q = on_the_line(0.4, 0.9), on_the_line(-1.1, 0.5)
    both = quad(lambda x: stats.norm.pdf(x, 0.4, 0.9) * stats.norm.pdf(0.2 - x, -1.1, 0.5), -9, 9)
    got = convolution(p, q).log_prob(p.mean.new_tensor([0.2])).exp()
    assert float(got) == pytest.approx(both[0], rel=1e-9)


def test_characteristic_functions_of_independent_variables_multiply():
    p, q, u = law(2, 3), law(3, seed=1), normal(7, 2, 3, seed=2)
    r = convolution(p, q)
    torch.testing.assert_close(r.characteristic(u), p.characteristic(u) * q.characteristic(u))
    same_law(r, normal(2, 3) + normal(3, seed=1), covariance(2, 3) + covariance(3, seed=1))


def test_kl_is_pytorchs_on_every_pair_of_a_batch():
    p, q = law(5, 1, 3), law(2, 3, seed=1)
    theirs = torch.distributions.kl_divergence(
        torch.distributions.MultivariateNormal(normal(5, 1, 3), covariance(5, 1, 3)),
        torch.distributions.MultivariateNormal(normal(2, 3, seed=1), covariance(2, 3, seed=1)),
    )
    torch.testing.assert_close(kl(p, q), theirs)


def test_kl_in_one_dimension_is_the_integral_of_the_log_ratio():
    p, q = on_the_line(0.4, 0.9), on_the_line(-1.1, 0.5)

    def integrand(x: float) -> float:
        ratio = stats.norm.logpdf(x, 0.4, 0.9) - stats.norm.logpdf(x, -1.1, 0.5)
        return stats.norm.pdf(x, 0.4, 0.9) * ratio

    assert float(kl(p, q)) == pytest.approx(quad(integrand, -9, 9)[0], rel=1e-9)


def test_kl_of_laws_a_billionth_apart_keeps_its_digits_and_is_zero_at_none():
    """KL of N(0, (1 + d)^2 I) from N(0, I) is D d^2 to first order: d = 1e-9 gives 3e-18."""
    zero = torch.zeros(3, dtype=torch.float64)
    close = kl(Gaussian.isotropic(zero, 1 + 1e-9), Gaussian.isotropic(zero, 1.0))
    assert float(close) == pytest.approx(3e-18, rel=1e-5)
    p = law(2, 5)
    torch.testing.assert_close(kl(p, p), torch.zeros(2, dtype=torch.float64), atol=1e-30, rtol=0)


def bures(p: Gaussian, q: Gaussian) -> float:
    """The formula with matrix roots, by scipy."""
    P, Q = p.covariance.numpy(), q.covariance.numpy()
    root = scipy.linalg.sqrtm(P)
    cross = scipy.linalg.sqrtm(root @ Q @ root)
    apart = float((p.mean - q.mean).square().sum())
    return apart + float(np.trace(P + Q - 2 * np.real(cross)))


def test_w2_is_the_formula_with_matrix_roots_and_symmetric():
    p, q = law(5, 1, 3), law(2, 3, seed=1)
    got = wasserstein2_squared(p, q)
    assert not torch.allclose(p.covariance @ q.covariance, q.covariance @ p.covariance, atol=0.01)
    for i in range(5):
        for j in range(2):
            pair = (
                Gaussian(p.mean[i, 0], p.cholesky[i, 0]),
                Gaussian(q.mean[j], q.cholesky[j]),
            )
            assert float(got[i, j]) == pytest.approx(bures(*pair), rel=1e-9)
    torch.testing.assert_close(wasserstein2_squared(q, p), got)


def test_w2_of_laws_a_billionth_apart_keeps_its_digits():
    zero = torch.zeros(3, dtype=torch.float64)
    p, q = Gaussian.isotropic(zero, 1 + 1e-9), Gaussian.isotropic(zero + 2e-9, 1.0)
    assert float(wasserstein2_squared(p, q)) == pytest.approx(15e-18, rel=1e-5)


def test_gradient_of_w2_is_finite_and_zero_between_equal_laws():
    """Where the distance itself has no gradient, and singular values coincide."""
    mean = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    factor = torch.eye(3, dtype=torch.float64, requires_grad=True)
    p, q = Gaussian(mean, factor), Gaussian.isotropic(torch.zeros_like(mean), 1.0)
    gradients = torch.autograd.grad(wasserstein2_squared(p, q).sum(), (mean, factor))
    for gradient in gradients:
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-12, rtol=0)


def observed(m: Tensor, F: Tensor) -> Tensor:
    _, matrix, noise = linear_model()
    prior = Gaussian.of(m, F @ F.mT)
    return prior.posterior(matrix, noise, normal(4, seed=5)).log_prob(normal(2, 3, seed=4))


OTHER = law(3, seed=1)
POINT = normal(3, seed=4)
DIFFERENTIABLE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "log_prob": lambda m, F: Gaussian.of(m, F @ F.mT).log_prob(POINT),
    "score": lambda m, F: Gaussian.of(m, F @ F.mT).score(POINT),
    "entropy": lambda m, F: Gaussian.of(m, F @ F.mT).entropy(),
    "sample": lambda m, F: Gaussian.of(m, F @ F.mT).sample(2, torch.Generator().manual_seed(0)),
    "characteristic": lambda m, F: Gaussian.of(m, F @ F.mT).characteristic(POINT),
    "marginal": lambda m, F: Gaussian.of(m, F @ F.mT).marginal([2, 0]).cholesky,
    "conditional": lambda m, F: (
        Gaussian.of(m, F @ F.mT).conditional([2], POINT[:1]).log_prob(POINT[1:])
    ),
    "affine": lambda m, F: Gaussian.of(m, F @ F.mT).affine(normal(2, 3), POINT[:2]).cholesky,
    "posterior": observed,
    "product": lambda m, F: product(Gaussian.of(m, F @ F.mT), OTHER)[1],
    "convolution": lambda m, F: convolution(Gaussian.of(m, F @ F.mT), OTHER).log_prob(POINT),
    "power": lambda m, F: Gaussian.of(m, F @ F.mT).power(0.4)[1],
    "kl": lambda m, F: kl(Gaussian.of(m, F @ F.mT), OTHER),
    "kl_reversed": lambda m, F: kl(OTHER, Gaussian.of(m, F @ F.mT)),
    "w2": lambda m, F: wasserstein2_squared(Gaussian.of(m, F @ F.mT), OTHER),
}


@pytest.mark.parametrize("operation", DIFFERENTIABLE)
def test_gradients_are_those_of_finite_differences(operation: str):
    mean = normal(2, 3, seed=7).requires_grad_()
    factor = torch.linalg.cholesky(covariance(3)).requires_grad_()
    assert gradcheck(DIFFERENTIABLE[operation], (mean, factor))


@pytest.mark.parametrize("std", [1e-6, 1e-12])
def test_posterior_of_a_precise_observation_keeps_its_digits(std: float):
    """Of 1 - 1 / (1 + std^2), formed as written, no digit is right at std = 1e-12."""
    prior = Gaussian.isotropic(torch.zeros(1, dtype=torch.float64), 1.0)
    noise = Gaussian.isotropic(torch.zeros(1, dtype=torch.float64), std)
    eye = torch.eye(1, dtype=torch.float64)
    got = prior.posterior(eye, noise, torch.ones(1, dtype=torch.float64))
    assert float(got.cholesky) == pytest.approx(std / math.sqrt(1 + std**2), rel=1e-3)
    assert float(got.mean) == pytest.approx(1 / (1 + std**2), rel=1e-14)


def test_isotropic_law_takes_a_scale_per_law():
    std = torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64)
    got = Gaussian.isotropic(normal(7, 1, 2), std)
    same_law(got, normal(7, 1, 2), std[:, None, None] ** 2 * torch.eye(2, dtype=torch.float64))
    assert got.batch_shape == (7, 3)


def test_every_operation_stays_in_single_precision():
    p = Gaussian.of(torch.zeros(3), torch.eye(3))
    eye, q = torch.eye(3), Gaussian.isotropic(torch.zeros(3), 0.5)
    laws = [
        p.marginal([1]),
        p.conditional([0], torch.ones(1)),
        p.affine(eye, torch.ones(3)),
        p.posterior(eye, q, torch.ones(3)),
        product(p, q)[0],
        p.power(2)[0],
        q,
    ]
    assert {g.mean.dtype for g in laws} | {g.cholesky.dtype for g in laws} == {torch.float32}
    assert kl(p, q).dtype == p.sample(1, torch.Generator()).dtype == torch.float32


@pytest.mark.parametrize(("dimension", "width"), [(1, 3.0), (10, 3.0), (1000, 3.0), (7, 1.2)])
def test_box_mass_is_that_of_independent_coordinates(dimension: int, width: float):
    inside = stats.norm.cdf(width) - stats.norm.cdf(-width)
    assert box_mass(dimension, width) == pytest.approx(inside**dimension, rel=1e-10)


def test_box_of_nine_deviations_keeps_the_mass_outside():
    """Per coordinate 2.26e-19 lie outside, less than float64 can take from 1."""
    outside = -math.log(box_mass(10**18, 9.0))
    assert outside == pytest.approx(2 * stats.norm.sf(9.0) * 1e18, rel=1e-9)
    assert box_mass(1) == box_mass(1, 3.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("D", [2, 5, 30])
def test_covariance_of_dependent_coordinates_is_refused_in_any_units(D: int, dtype: torch.dtype):
    for seed in range(20):
        factor = (
            normal(D, D - 1, seed=seed).to(dtype) * torch.logspace(-3, 3, D, dtype=dtype)[:, None]
        )
        with pytest.raises(ValueError, match="singular"):
            Gaussian.of(torch.zeros(D, dtype=dtype), factor @ factor.mT)


@pytest.mark.parametrize("units", [1e-12, 1.0, 1e12])
def test_covariance_of_nearly_dependent_coordinates_is_taken_in_any_units(units: float):
    """Correlation 1 - 5e-14 leaves each coordinate 1e-13 of its variance."""
    near = torch.tensor([[1.0, 1 - 5e-14], [1 - 5e-14, 1.0]], dtype=torch.float64)
    scale = torch.tensor([1.0, units], dtype=torch.float64)
    p = Gaussian.of(torch.zeros(2, dtype=torch.float64), scale[:, None] * near * scale)
    assert float(p.cholesky[1, 1]) == pytest.approx(units * math.sqrt(1e-13), rel=1e-2)


def test_rounding_is_symmetrised_and_more_than_rounding_refused():
    C = covariance(3)
    skew = torch.zeros(3, 3, dtype=torch.float64)
    skew[0, 2] = 1e-9
    same_law(Gaussian.of(normal(3), C + skew), normal(3), C + (skew + skew.mT) / 2)
    with pytest.raises(ValueError, match="not symmetric"):
        Gaussian.of(normal(3), C + 1e3 * skew)
    small = 1e-10 * torch.eye(3, dtype=torch.float64)
    with pytest.raises(ValueError, match="not symmetric"):  # the bound has the covariance's units
        Gaussian.of(normal(3), small + 1e-3 * skew)


@pytest.mark.parametrize("matrix_shape", [(4, 3), (2, 3)])
def test_singular_image_is_refused(matrix_shape: tuple[int, int]):
    matrix = normal(*matrix_shape)
    matrix[-1] = 2 * matrix[0] - (matrix[1] if matrix_shape[0] > 2 else 0)
    with pytest.raises(ValueError, match="singular"):
        law(3).affine(matrix)


@pytest.mark.parametrize(
    ("mean", "square", "message"),
    [
        (torch.zeros(3), torch.eye(2), r"mean \(3,\), covariance \(2, 2\): expected"),
        (torch.zeros(3), torch.ones(3), "expected"),
        (torch.tensor(0.0), torch.eye(1), "expected"),
        (torch.zeros(2, 3), torch.eye(3).expand(5, 3, 3), "do not broadcast"),
        (torch.zeros(2), torch.eye(2).double(), "float32 or float64, both"),
        (torch.zeros(2).long(), torch.eye(2).long(), "float32 or float64, both"),
        (torch.zeros(2).half(), torch.eye(2).half(), "float32 or float64, both"),
        (torch.tensor([0.0, math.nan]), torch.eye(2), "not finite"),
        (torch.zeros(2), torch.diag(torch.tensor([1.0, math.inf])), "not finite"),
        (torch.zeros(2), torch.tensor([[1.0, 2.0], [2.0, 1.0]]), "not positive definite"),
        (torch.zeros(2), -torch.eye(2), "not positive definite"),
        (torch.zeros(2), torch.stack([torch.eye(2), torch.ones(2, 2)]), "singular"),
    ],
)
def test_what_is_no_law_is_refused(mean: Tensor, square: Tensor, message: str):
    with pytest.raises(ValueError, match=message):
        Gaussian.of(mean, square)


def test_constructor_refuses_a_factor_of_another_size():
    with pytest.raises(ValueError, match="cholesky"):
        Gaussian(torch.zeros(3), torch.eye(2))


P = Gaussian.isotropic(torch.zeros(3), 1.0)
NOISE = Gaussian.isotropic(torch.zeros(2), 1.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: P.log_prob(torch.zeros(5, 1)), r"x \(5, 1\): expected \(\.\.\., 3\)"),
        (lambda: P.characteristic(torch.zeros(1)), r"u \(1,\)"),
        (lambda: P.conditional([0, 1], torch.zeros(1)), r"\(\.\.\., 2\)"),
        (lambda: P.conditional([0, 1, 2], torch.zeros(3)), "all 3"),
        (lambda: P.marginal([]), "indices"),
        (lambda: P.marginal([0, 3]), "from 0 to 2"),
        (lambda: P.marginal([-1]), "from 0 to 2"),
        (lambda: P.marginal([1, 1]), "distinct"),
        (lambda: P.affine(torch.ones(2, 4)), r"matrix \(2, 4\): expected \(\.\.\., M, 3\)"),
        (lambda: P.affine(torch.ones(3)), "matrix"),
        (lambda: P.affine(torch.eye(3), torch.ones(1)), "shift"),
        (lambda: P.joint(torch.ones(4, 3), NOISE), r"expected \(\.\.\., 2, 3\)"),
        (lambda: P.predictive(torch.ones(1, 3), NOISE), r"expected \(\.\.\., 2, 3\)"),
        (lambda: P.posterior(torch.ones(2, 3), NOISE, torch.zeros(3)), r"\(\.\.\., 2\)"),
        (lambda: P.power(0.0), "exponent = 0.0"),
        (lambda: P.power(math.inf), "exponent = inf"),
        (lambda: Gaussian.isotropic(torch.zeros(3), 0.0), "std = 0.0"),
        (lambda: Gaussian.isotropic(torch.zeros(3), math.inf), "std = inf"),
        (lambda: product(P, NOISE), "product of laws in 3 and 2"),
        (lambda: convolution(P, NOISE), "convolution of laws in 3 and 2"),
        (lambda: kl(P, NOISE), "kl of laws in 3 and 2"),
        (lambda: wasserstein2_squared(P, NOISE), "wasserstein2_squared of laws in 3 and 2"),
        (lambda: box_mass(0), "dimension = 0"),
        (lambda: box_mass(1, 0.0), "width = 0.0"),
    ],
)
def test_wrong_arguments_are_named(call: Callable[[], object], message: str):
    with pytest.raises(ValueError, match=message):
        call()
