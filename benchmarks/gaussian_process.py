"""The diffusion process as a consequence of the algebra of Gaussians, in numbers.

Left the algebra: a prior, a linear map with noise, Bayes. Right what the literature and the solver
write down. The last column is the largest difference over all points and coordinates tried.
"""

from typing import Any

import torch
from torch import Tensor

from benchmarks.tables import Column, Table
from shared import noise
from shared.gaussian import Gaussian
from shared.oracle import GaussianMixture
from shared.schedule import Cosine, Level, Linear, Schedule, variance_preserving
from shared.solver import sample

PAIRS = ((0.9, 0.2), (0.7, 0.65), (0.3, 0.01))
STEPS = (2, 10, 100, 1000)
LEVELS = (-6.0, 0.0, 6.0)
EYE = torch.eye(3, dtype=torch.float64)
ZERO = torch.zeros(3, dtype=torch.float64)


def forward_posterior(x_t: Tensor, x0: Tensor, t: Level, s: Level) -> Gaussian:
    """q(x_s | x_t, x0) (..., 3) by Bayes, at scalar levels: x_s given x0 is the prior, x_t the
    observation (alpha_t / alpha_s) x_s + the noise that is still to come."""
    ratio = t.alpha / s.alpha
    fresh = Gaussian.isotropic(torch.zeros_like(x0), (t.sigma**2 - (ratio * s.sigma) ** 2).sqrt())
    eye = torch.eye(x0.shape[-1], dtype=x0.dtype)
    return Gaussian.isotropic(s.alpha * x0, s.sigma).posterior(ratio * eye, fresh, x_t)


def ancestral(x_t: Tensor, x0: Tensor, schedule: Schedule, grid: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (B, 3) and std of the solver's own step: at x_t = x0 = 0 it returns its noise alone."""

    def step(start: Tensor, estimate: Tensor) -> Tensor:
        return sample(
            lambda x_t, level, condition=None, previous=None: estimate.clone(),
            start,
            schedule,
            "ancestral",
            grid=grid,
            seeds=range(len(start)),
            end_clean=False,
        )

    random = step(torch.zeros_like(x_t), torch.zeros_like(x0))
    unit = noise.normal(range(len(x_t)), 1, tuple(x_t.shape[1:])).double()
    return step(x_t, x0) - random, random / unit


def posteriors(x_t: Tensor, x0: Tensor) -> Table:
    """q(x_s | x_t, x0) beside the solver's step; x_t, x0 (B, 3)."""
    rows: list[dict[str, Any]] = []
    schedules: dict[str, Schedule] = {"cosine": Cosine(), "linear": Linear()}
    for name, schedule in schedules.items():
        for pair in PAIRS:
            grid = torch.tensor(pair, dtype=torch.float64)
            law = forward_posterior(x_t, x0, schedule(grid[0]), schedule(grid[1]))
            mean, std = ancestral(x_t, x0, schedule, grid)
            spread = law.cholesky.diagonal(dim1=-2, dim2=-1)
            rows.append(
                {"schedule": name, "t": pair[0], "s": pair[1]}
                | {"mean": float(law.mean[0, 0]), "solver_mean": float(mean[0, 0])}
                | {"std": float(spread[0]), "solver_std": float(std[0, 0])}
                | {"apart": max(_apart(law.mean, mean), _apart(spread, std))}
            )
    columns = (
        Column("schedule", "schedule"),
        Column("t", "$t$"),
        Column("s", "$s$"),
        Column("mean", "mean, algebra", ".9f"),
        Column("solver_mean", "mean, solver", ".9f"),
        Column("std", "std, algebra", ".9f"),
        Column("solver_std", "std, solver", ".9f"),
        Column("apart", "max. difference", ".0e"),
    )
    return Table("q(x_s | x_t, x0)", "", columns, rows)


def ddpm(x_t: Tensor, x0: Tensor) -> Table:
    """The chain of 1000 betas walked from x0, then Bayes, beside mu-tilde and beta-tilde (Ho et
    al. 2020, eq. 7); x_t, x0 (B, 3)."""
    betas = torch.linspace(1e-4, 0.02, STEPS[-1], dtype=torch.float64)
    alpha_bar = (1 - betas).cumprod(0)
    law = Gaussian.isotropic((1 - betas[0]).sqrt() * x0, betas[0].sqrt())
    rows: list[dict[str, Any]] = []
    for t in range(2, STEPS[-1] + 1):
        beta, now, before = betas[t - 1], alpha_bar[t - 1], alpha_bar[t - 2]
        kernel = (1 - beta).sqrt() * EYE, Gaussian.isotropic(ZERO, beta.sqrt())
        if t in STEPS:
            got = law.posterior(*kernel, x_t)
            mean = before.sqrt() * beta / (1 - now) * x0
            mean = mean + (1 - beta).sqrt() * (1 - before) / (1 - now) * x_t
            tilde = (1 - before) / (1 - now) * beta
            apart = max(_apart(got.mean, mean), _apart(got.covariance, tilde * EYE))
            rows.append(
                {"t": t, "mean": float(got.mean[0, 0]), "ddpm_mean": float(mean[0, 0])}
                | {"beta": float(got.covariance[0, 0]), "ddpm_beta": float(tilde)}
                | {"apart": apart}
            )
        law = law.predictive(*kernel)
    columns = (
        Column("t", "$t$", ","),
        Column("mean", "mean, algebra", ".9f"),
        Column("ddpm_mean", r"$\tilde\mu_t$", ".9f"),
        Column("beta", "variance, algebra", ".9f"),
        Column("ddpm_beta", r"$\tilde\beta_t$", ".9f"),
        Column("apart", "max. difference", ".0e"),
    )
    return Table("DDPM's posterior", "", columns, rows)


def mixture() -> tuple[Tensor, Gaussian]:
    """Weights (2,) and the two correlated laws of the example, a batch of Gaussians (2, 3)."""
    factors = [
        [[0.7, 0.0, 0.0], [0.2, 0.5, 0.0], [-0.3, 0.1, 0.4]],
        [[0.4, 0.0, 0.0], [-0.2, 0.6, 0.0], [0.1, 0.3, 0.5]],
    ]
    means = torch.tensor([[-1.0, 0.5, 0.2], [0.7, -0.2, 0.1]], dtype=torch.float64)
    weights = torch.tensor([0.25, 0.75], dtype=torch.float64)
    return weights, Gaussian(means, torch.tensor(factors, dtype=torch.float64))


def tweedie(x_t: Tensor) -> Table:
    """(x_t + sigma^2 score) / alpha beside the posterior mean, for one Gaussian and for a mixture
    of two; x_t (B, 3)."""
    weights, prior = mixture()
    oracle = GaussianMixture(weights, prior.mean, prior.covariance)
    rows: list[dict[str, Any]] = []
    for logsnr in LEVELS:
        level = variance_preserving(torch.tensor(logsnr, dtype=torch.float64))
        channel = level.alpha * EYE, Gaussian.isotropic(ZERO, level.sigma)
        marginal, posterior = prior.predictive(*channel), prior.posterior(*channel, x_t[:, None])
        one = (x_t[:, None] + level.sigma**2 * marginal.score(x_t[:, None])) / level.alpha
        both = (x_t + level.sigma**2 * oracle.score(x_t, level)) / level.alpha
        for name, by_score, mean in (
            ("one Gaussian", one[:, 0], posterior.mean[:, 0]),
            ("mixture of two", both, oracle.denoise(x_t, level)),
        ):
            rows.append(
                {"data": name, "logsnr": logsnr, "score": float(by_score[0, 0])}
                | {"mean": float(mean[0, 0]), "apart": _apart(by_score, mean)}
            )
    columns = (
        Column("data", "data"),
        Column("logsnr", r"$\lambda_t$", "g"),
        Column("score", r"$(x_t + \sigma_t^2 \nabla\ln p_t)/\alpha_t$", ".9f"),
        Column("mean", r"$E[x_0 \mid x_t]$", ".9f"),
        Column("apart", "max. difference", ".0e"),
    )
    return Table("Tweedie's formula", "", columns, rows)


def _apart(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())
