"""The mixture's score, posterior mean and density against derivatives and quadrature."""

import math

import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

from shared.oracle import GaussianMixture
from shared.schedule import Level, variance_preserving


def mixture() -> GaussianMixture:
    """Two correlated components in space, whose axes are no reflections: transposing them shows."""
    factors = torch.tensor(
        [
            [[0.7, 0.0, 0.0], [0.2, 0.5, 0.0], [-0.3, 0.1, 0.4]],
            [[0.4, 0.0, 0.0], [-0.2, 0.6, 0.0], [0.1, 0.3, 0.5]],
        ],
        dtype=torch.float64,
    )
    weights = torch.tensor([1.0, 3.0], dtype=torch.float64)
    means = torch.tensor([[-1.0, 0.5, 0.2], [0.7, -0.2, 0.1]], dtype=torch.float64)
    return GaussianMixture(weights, means, factors @ factors.mT)


def level_at(*logsnr: float, dtype: torch.dtype = torch.float64) -> Level:
    return variance_preserving(torch.tensor(logsnr, dtype=dtype))


def points(n: int) -> Tensor:
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("logsnr", [-5.0, 0.0, 3.0])
def test_score_is_the_gradient_of_the_log_density(logsnr: float):
    oracle, x = mixture(), points(7).requires_grad_()
    level = level_at(*[logsnr] * 7)
    (gradient,) = torch.autograd.grad(oracle.log_prob(x, level).sum(), x)
    torch.testing.assert_close(oracle.score(x.detach(), level), gradient)


def test_log_density_is_that_of_the_noised_mixture_at_each_samples_level():
    oracle, x, level = mixture(), points(3), level_at(-3.0, 0.5, 2.0)
    covariances = oracle.axes @ torch.diag_embed(oracle.variances) @ oracle.axes.mT
    got = oracle.log_prob(x, level)
    for i in range(3):
        alpha, sigma = level.alpha[i], level.sigma[i]
        noised = alpha**2 * covariances + sigma**2 * torch.eye(3, dtype=torch.float64)
        components = torch.distributions.MultivariateNormal(alpha * oracle.means, noised)
        weights = torch.distributions.Categorical(torch.tensor([1.0, 3.0], dtype=torch.float64))
        expected = torch.distributions.MixtureSameFamily(weights, components).log_prob(x[i])
        torch.testing.assert_close(got[i], expected)


def test_posterior_mean_in_one_dimension_is_bayes_by_quadrature():
    weights = torch.tensor([0.2, 0.8], dtype=torch.float64)
    means = torch.tensor([[-1.0], [1.5]], dtype=torch.float64)
    variances = torch.tensor([[0.3], [0.6]], dtype=torch.float64)
    oracle, level, x_t = GaussianMixture(weights, means, variances), level_at(0.4), 0.35
    alpha, sigma = float(level.alpha), float(level.sigma)

    def joint(x0: float) -> float:
        prior = sum(
            float(w) * math.exp(-((x0 - float(m)) ** 2) / (2 * float(v))) / math.sqrt(float(v))
            for w, m, v in zip(weights, means, variances, strict=True)
        )
        return prior * math.exp(-((x_t - alpha * x0) ** 2) / (2 * sigma**2))

    expected = quad(lambda x0: x0 * joint(x0), -12, 12)[0] / quad(joint, -12, 12)[0]
    got = oracle.denoise(torch.tensor([[x_t]], dtype=torch.float64), level)
    assert float(got) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("logsnr", [-20.0, 20.0])
def test_estimate_is_right_at_both_ends_in_float32(logsnr: float):
    exact = mixture()
    single = GaussianMixture(
        exact.log_weights.exp().float(),
        exact.means.float(),
        (exact.axes @ torch.diag_embed(exact.variances) @ exact.axes.mT).float(),
    )
    x = points(5)
    expected = exact.denoise(x, level_at(logsnr))
    got = single.denoise(x.float(), level_at(logsnr, dtype=torch.float32))
    torch.testing.assert_close(got.double(), expected, atol=2e-5, rtol=1e-4)
    limit = x if logsnr > 0 else (exact.log_weights.exp()[:, None] * exact.means).sum(0)
    torch.testing.assert_close(expected, limit.expand(5, 3), atol=1e-3, rtol=0)
    score = single.score(x.float(), level_at(logsnr, dtype=torch.float32))
    torch.testing.assert_close(
        score.double(), exact.score(x, level_at(logsnr)), atol=2e-4, rtol=1e-4
    )
    log_p = single.log_prob(x.float(), level_at(logsnr, dtype=torch.float32))
    torch.testing.assert_close(
        log_p.double(), exact.log_prob(x, level_at(logsnr)), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("logsnr", [-5.0, 0.0, 6.0])
def test_score_and_estimate_are_tied_by_tweedies_formula(logsnr: float):
    oracle, x, level = mixture(), points(7), level_at(logsnr)
    tweedie = (level.alpha * oracle.denoise(x, level) - x) / level.sigma**2
    torch.testing.assert_close(oracle.score(x, level), tweedie)


def test_condition_chooses_a_component_and_minus_one_none():
    oracle, x, level = mixture(), points(3), level_at(0.0)
    second = GaussianMixture(
        torch.ones(1, dtype=torch.float64),
        oracle.means[1:],
        (oracle.axes @ torch.diag_embed(oracle.variances) @ oracle.axes.mT)[1:],
    )
    chosen = oracle.denoise(x, level, torch.ones(3, 1, dtype=torch.long))
    torch.testing.assert_close(chosen, second.denoise(x, level))
    anything = oracle.denoise(x, level, -torch.ones(3, 1, dtype=torch.long))
    torch.testing.assert_close(anything, oracle.denoise(x, level))


def test_samples_have_the_mixtures_mean_and_covariance():
    """50,000 draws, five standard errors: false alarms below 1e-5 (of three and six numbers)."""
    oracle = mixture()
    drawn = oracle.sample(50_000, torch.Generator().manual_seed(1))
    mean = (oracle.log_weights.exp()[:, None] * oracle.means).sum(0)
    assert bool(((drawn.mean(0) - mean).abs() < 5 * drawn.std(0) / math.sqrt(50_000)).all())
    covariances = oracle.axes @ torch.diag_embed(oracle.variances) @ oracle.axes.mT
    second = covariances + oracle.means[:, :, None] * oracle.means[:, None, :]
    second = (oracle.log_weights.exp()[:, None, None] * second).sum(0)
    products = drawn[:, :, None] * drawn[:, None, :]
    error = products.std(0) / math.sqrt(50_000)
    assert bool(((products.mean(0) - second).abs() < 5 * error).all())


@pytest.mark.parametrize("weights", [[0.5, 0.0], [2.0, -1.0], [1.0, math.nan]])
def test_weights_that_are_not_positive_are_refused(weights: list[float]):
    with pytest.raises(ValueError, match="weights"):
        GaussianMixture(torch.tensor(weights), torch.zeros(2, 3), torch.ones(2, 3))


@pytest.mark.parametrize(
    ("covariance", "message"),
    [
        ([[1.0, 0.5], [0.2, 1.0]], "not symmetric"),
        ([[1.0, 2.0], [2.0, 1.0]], "not positive definite"),
    ],
)
def test_matrix_that_is_no_covariance_is_refused(covariance: list[list[float]], message: str):
    with pytest.raises(ValueError, match=message):
        GaussianMixture(torch.ones(1), torch.zeros(1, 2), torch.tensor([covariance]))
