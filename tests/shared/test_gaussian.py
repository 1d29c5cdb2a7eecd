"""Operations on one Gaussian against scipy, quadrature, Bayes' rule or brute-force matrices."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import quad
from torch import Tensor

from shared.gaussian import Gaussian, box_mass, kl, product
from tests.laws import covariance, density_at, law, linear_model, normal, on_the_line, same_law


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
    expected = [
        float(stats.multivariate_normal(np.zeros(4), c).entropy()) for c in covariance(3, 4).numpy()
    ]
    torch.testing.assert_close(p.entropy(), p.mean.new_tensor(expected).expand(2, 3))
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


def test_whitened_samples_are_the_generators_normals():
    p = Gaussian.of(normal(2, 3), covariance(3))
    z = p.whiten(p.sample(5, torch.Generator().manual_seed(4)))
    torch.testing.assert_close(z, normal(5, 2, 3, seed=4))


def test_characteristic_function_is_the_fourier_integral_of_the_density_along_u():
    """u.x is normal with mean u.m and variance u^T C u, whatever the dimension."""
    p, u = Gaussian.of(normal(2, 3), covariance(3)), normal(4, 1, 3, seed=1) * 0.7
    got = p.characteristic(u)
    assert got.shape == (4, 2)
    for i in range(4):
        for j in range(2):
            mean = float(u[i, 0] @ p.mean[j])
            std = math.sqrt(float(u[i, 0] @ covariance(3) @ u[i, 0]))
            ends = mean - 12 * std, mean + 12 * std
            real, imaginary = (
                quad(lambda y, f=f, m=mean, s=std: f(y) * density_at(y, m, s), *ends)[0]
                for f in (math.cos, math.sin)
            )
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


def test_joint_density_is_that_of_x_times_that_of_the_noise():
    p, matrix, noise = linear_model()
    x, y = normal(7, 2, 3, seed=4), normal(7, 2, 4, seed=5)
    got = p.joint(matrix, noise)
    residual = y - (matrix @ x[..., None])[..., 0]
    expected = p.log_prob(x) + noise.log_prob(residual)
    torch.testing.assert_close(got.log_prob(torch.cat([x, y], -1)), expected)
    torch.testing.assert_close(got.cholesky, got.cholesky.tril(), atol=0, rtol=0)


def test_joint_law_has_the_batch_of_its_parts():
    p, noise = law(3), law(5, 4, seed=3)
    got = p.joint(normal(4, 3, seed=2), noise)
    assert got.batch_shape == (5,)
    for i in range(5):
        alone = p.joint(normal(4, 3, seed=2), Gaussian(noise.mean[i], noise.cholesky[i]))
        same_law(Gaussian(got.mean[i], got.cholesky[i]), alone.mean, alone.covariance)


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
        likelihood = density_at(y, 1.7 * x - 0.3, math.sqrt(0.2))
        return density_at(x, 0.4, math.sqrt(0.9)) * likelihood

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


@pytest.mark.parametrize("exponent", [0.3, 1.0, 2.5])
def test_power_is_a_law_times_its_integral(exponent: float):
    p, x = Gaussian.of(normal(5, 1, 3), covariance(2, 3)), normal(5, 2, 3, seed=2)
    tempered, log_integral = p.power(exponent)
    assert log_integral.shape == (5, 2)
    torch.testing.assert_close(log_integral + tempered.log_prob(x), exponent * p.log_prob(x))


@pytest.mark.parametrize("std", [1e-6, 1e-12])
def test_posterior_of_a_precise_observation_keeps_its_digits(std: float):
    """Of 1 - 1 / (1 + std^2), formed as written, no digit is right at std = 1e-12."""
    prior = Gaussian.isotropic(torch.zeros(1, dtype=torch.float64), 1.0)
    noise = Gaussian.isotropic(torch.zeros(1, dtype=torch.float64), std)
    eye = torch.eye(1, dtype=torch.float64)
    got = prior.posterior(eye, noise, torch.ones(1, dtype=torch.float64))
    assert float(got.cholesky) == pytest.approx(std / math.sqrt(1 + std**2), rel=1e-3)
    assert float(got.mean) == pytest.approx(1 / (1 + std**2), rel=1e-14)


def test_law_cannot_be_changed_and_is_equal_to_itself_alone():
    p = law(3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        p.mean = normal(3)  # pyright: ignore[reportAttributeAccessIssue]
    assert {p: 1}[p] == 1
    assert p != law(3)


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


@pytest.mark.parametrize(("dimension", "width"), [(1, 3.0), (10, 3.0), (1000, 3.0), (7, 0.6)])
def test_box_mass_is_that_of_independent_coordinates(dimension: int, width: float):
    inside = stats.norm.cdf(width) - stats.norm.cdf(-width)
    assert box_mass(dimension, width) == pytest.approx(inside**dimension, rel=1e-10)


def test_box_of_nine_deviations_keeps_the_mass_outside():
    """Per coordinate 2.26e-19 lie outside, less than float64 can take from 1."""
    outside = -math.log(box_mass(10**18, 9.0))
    assert outside == pytest.approx(2 * stats.norm.sf(9.0) * 1e18, rel=1e-9)
    assert box_mass(1) == box_mass(1, 3.0)
