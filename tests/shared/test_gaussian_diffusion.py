"""The process derived with the algebra of Gaussians: what the solvers and the oracle use is its
consequence, in closed form."""

import math

import pytest
import torch
from torch import Tensor

from shared import noise
from shared.gaussian import Gaussian
from shared.oracle import GaussianMixture
from shared.schedule import Cosine, Flow, Level, Linear, Schedule
from shared.solver import prepare, run

EYE = torch.eye(3, dtype=torch.float64)
ZERO = torch.zeros(3, dtype=torch.float64)


def forward_posterior(x_t: Tensor, x0: Tensor, t: Level, s: Level) -> Gaussian:
    """q(x_s | x_t, x0) by Bayes: x_s ~ q(x_s | x0), x_t = (alpha_t / alpha_s) x_s + fresh noise."""
    ratio = t.alpha / s.alpha
    fresh = Gaussian.isotropic(ZERO, (t.sigma**2 - (ratio * s.sigma) ** 2).sqrt())
    return Gaussian.isotropic(s.alpha * x0, s.sigma).posterior(ratio * EYE, fresh, x_t)


@pytest.mark.parametrize("schedule", [Cosine(-8, 8), Linear(), Flow()])
@pytest.mark.parametrize(("t", "s"), [(0.9, 0.2), (0.7, 0.65), (0.3, 0.01)])
def test_ancestral_step_draws_from_the_forward_posterior(schedule: Schedule, t: float, s: float):
    """One seed, so one noise: with x_t = x0 = 0 the step returns its std times that noise, and
    what any other (x_t, x0) adds to it is the mean."""
    grid = torch.tensor([t, s], dtype=torch.float64)
    plan = prepare(schedule, "ancestral", grid=grid, end_clean=False)

    def step(x_t: Tensor, x0: Tensor) -> Tensor:
        def denoise(
            x_t: Tensor, level: Level, condition: object = None, previous: object = None
        ) -> Tensor:
            return x0.clone()

        return run(plan, denoise, x_t, seeds=[5]).x

    x_t = torch.tensor([[0.8, -1.3, 0.1]], dtype=torch.float64)
    x0 = torch.tensor([[-0.4, 0.9, 2.0]], dtype=torch.float64)
    drawn = step(torch.zeros_like(x_t), torch.zeros_like(x0))
    std = drawn / noise.normal([5], 1, (3,)).double()
    expected = forward_posterior(x_t, x0, schedule(grid[0]), schedule(grid[1]))
    torch.testing.assert_close(step(x_t, x0) - drawn, expected.mean, atol=1e-11, rtol=0)
    torch.testing.assert_close(torch.diag_embed(std[0]), expected.cholesky, atol=1e-11, rtol=1e-8)


def test_levels_of_a_chain_of_steps_are_those_of_one_step():
    """From s to r to t by fresh noise twice is from s to t once, for any three levels."""
    r, s, t = (Flow()(torch.tensor(v, dtype=torch.float64)) for v in (0.2, 0.5, 0.8))

    def fresh(a: Level, b: Level) -> tuple[Tensor, Gaussian]:
        ratio = b.alpha / a.alpha
        return ratio * EYE, Gaussian.isotropic(ZERO, (b.sigma**2 - (ratio * a.sigma) ** 2).sqrt())

    at_r = Gaussian.isotropic(r.alpha * (ZERO + 0.7), r.sigma)
    twice = at_r.predictive(*fresh(r, s)).predictive(*fresh(s, t))
    torch.testing.assert_close(twice.mean, t.alpha * (ZERO + 0.7))
    torch.testing.assert_close(twice.cholesky, t.sigma * EYE)


@pytest.mark.parametrize("t", [2, 10, 300, 1000])
def test_ddpm_chain_walked_step_by_step_has_ddpms_posterior(t: int):
    """Ho et al. 2020, eq. 4 (q(x_t | x0)) and eq. 7 (mu-tilde and beta-tilde); t from 1 to T."""
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    alpha_bar = (1 - betas).cumprod(0)
    x0 = torch.tensor([-0.4, 0.9, 2.0], dtype=torch.float64)
    x_t = torch.tensor([0.8, -1.3, 0.1], dtype=torch.float64)
    law = Gaussian.isotropic((1 - betas[0]).sqrt() * x0, betas[0].sqrt())
    for beta in betas[1 : t - 1]:
        law = law.predictive((1 - beta).sqrt() * EYE, Gaussian.isotropic(ZERO, beta.sqrt()))
    beta, now, before = betas[t - 1], alpha_bar[t - 1], alpha_bar[t - 2]
    torch.testing.assert_close(law.mean, before.sqrt() * x0)
    torch.testing.assert_close(law.covariance, (1 - before) * EYE)

    got = law.posterior((1 - beta).sqrt() * EYE, Gaussian.isotropic(ZERO, beta.sqrt()), x_t)
    mean = before.sqrt() * beta / (1 - now) * x0
    mean = mean + (1 - beta).sqrt() * (1 - before) / (1 - now) * x_t
    torch.testing.assert_close(got.mean, mean)
    torch.testing.assert_close(got.covariance, (1 - before) / (1 - now) * beta * EYE)


def components() -> tuple[Tensor, Gaussian]:
    """Weights (2,), and two correlated laws in space."""
    factors = torch.tensor(
        [
            [[0.7, 0.0, 0.0], [0.2, 0.5, 0.0], [-0.3, 0.1, 0.4]],
            [[0.4, 0.0, 0.0], [-0.2, 0.6, 0.0], [0.1, 0.3, 0.5]],
        ],
        dtype=torch.float64,
    )
    means = torch.tensor([[-1.0, 0.5, 0.2], [0.7, -0.2, 0.1]], dtype=torch.float64)
    return torch.tensor([0.25, 0.75], dtype=torch.float64), Gaussian(means, factors)


def channel(logsnr: float) -> tuple[Tensor, Tensor, Gaussian]:
    """alpha, sigma and the noise of x_t = alpha x0 + sigma eps, not variance preserving."""
    sigma = torch.tensor(1.3, dtype=torch.float64)
    return math.exp(logsnr / 2) * sigma, sigma, Gaussian.isotropic(ZERO, sigma)


@pytest.mark.parametrize("logsnr", [-3.0, 0.0, 4.0])
def test_tweedies_formula_gives_mean_and_covariance_of_a_gaussians_posterior(logsnr: float):
    """alpha E[x0 | x_t] = x_t + sigma^2 s, alpha^2 Cov[x0 | x_t] = sigma^2 (I + sigma^2 ds/dx)."""
    _, prior = components()
    alpha, sigma, eps = channel(logsnr)
    x_t = torch.tensor([0.8, -1.3, 0.1], dtype=torch.float64)
    marginal = prior.predictive(alpha * EYE, eps)
    posterior = prior.posterior(alpha * EYE, eps, x_t)
    tweedie = (x_t + sigma**2 * marginal.score(x_t)) / alpha
    torch.testing.assert_close(tweedie, posterior.mean)
    slope = torch.stack(
        [
            torch.autograd.functional.jacobian(lambda x, k=k: marginal.score(x)[k], x_t)
            for k in (0, 1)
        ]
    )
    second = sigma**2 * (EYE + sigma**2 * slope) / alpha**2
    torch.testing.assert_close(second, posterior.covariance)


@pytest.mark.parametrize("logsnr", [-3.0, 0.0, 4.0])
def test_mixtures_score_and_estimate_are_those_of_its_gaussians(logsnr: float):
    """Component by component with the algebra, weighted by p(k | x_t); Tweedie's formula ties the
    two (Efron 2011)."""
    weights, prior = components()
    oracle = GaussianMixture(weights, prior.mean, prior.covariance)
    alpha, sigma, eps = channel(logsnr)
    level = Level(torch.tensor(logsnr, dtype=torch.float64), alpha, sigma)
    x_t = torch.randn(7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    marginal = prior.predictive(alpha * EYE, eps)
    log_joint = weights.log() + marginal.log_prob(x_t[:, None])
    share = log_joint.softmax(-1)[..., None]
    mean = (share * prior.posterior(alpha * EYE, eps, x_t[:, None]).mean).sum(1)
    score = (share * marginal.score(x_t[:, None])).sum(1)
    torch.testing.assert_close(oracle.log_prob(x_t, level), log_joint.logsumexp(-1))
    torch.testing.assert_close(oracle.denoise(x_t, level), mean)
    torch.testing.assert_close(oracle.score(x_t, level), score)
    torch.testing.assert_close((x_t + sigma**2 * score) / alpha, mean)
