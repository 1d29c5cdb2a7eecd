"""What two Gaussians make, how far apart they are, and the gradients of every operation."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.linalg
import torch
from scipy.integrate import quad
from torch import Tensor
from torch.autograd import gradcheck

from shared.gaussian import Gaussian, convolution, kl, product, wasserstein2_squared
from tests.laws import covariance, density_at, law, linear_model, normal, on_the_line, same_law


def test_product_is_a_law_times_its_integral():
    p, q, x = law(2, 3), law(3, seed=1), normal(7, 2, 3, seed=2)
    r, log_integral = product(p, q)
    assert log_integral.shape == (2,)
    torch.testing.assert_close(log_integral + r.log_prob(x), p.log_prob(x) + q.log_prob(x))


def test_convolution_is_the_integral_over_one_term_of_the_sum():
    p, q = on_the_line(0.4, 0.9), on_the_line(-1.1, 0.5)
    both = quad(lambda x: density_at(x, 0.4, 0.9) * density_at(0.2 - x, -1.1, 0.5), -9, 9)
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
        here = density_at(x, 0.4, 0.9)
        return here * math.log(here / density_at(x, -1.1, 0.5))

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
