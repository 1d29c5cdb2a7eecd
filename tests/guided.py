"""What the tests of guidance share: a mixture with its exact classifier, levels of the flow family,
one step with hooks, and the matrix of an affine map."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from shared.denoiser import Denoise
from shared.oracle import GaussianMixture
from shared.schedule import Level
from shared.solver.step import Point, StepHook, Taken


def f64(*values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def parts() -> tuple[Tensor, Tensor, Tensor]:
    """Weights (3,), means (3, 2), covariances (3, 2, 2): correlated, no two alike."""
    covariances = f64(
        [[0.30, 0.12], [0.12, 0.20]], [[0.15, -0.08], [-0.08, 0.40]], [[0.25, 0.0], [0.0, 0.10]]
    )
    return f64(0.2, 0.5, 0.3), f64([-1.0, 0.4], [0.9, 0.7], [0.1, -1.1]), covariances


def mixture() -> GaussianMixture:
    return GaussianMixture(*parts())


def class_log_prob(x: Tensor, level: Level, condition: Tensor | None) -> Tensor:
    """log p_t(class | x), (B,), of the mixture, from its densities written out: a LogProb."""
    assert condition is not None
    weights, means, covariances = parts()
    alpha, sigma = (level.widen(4).alpha, level.widen(4).sigma)
    noised = alpha**2 * covariances + sigma**2 * torch.eye(2, dtype=torch.float64)
    residual = x[:, None] - level.widen(3).alpha * means
    fit = (residual * torch.linalg.solve(noised, residual[..., None])[..., 0]).sum(-1)
    joint = weights.log() - 0.5 * (fit + torch.logdet(noised))
    return joint.log_softmax(-1).gather(1, condition.reshape(-1, 1))[:, 0]


def flow_level(*t: float) -> Level:
    """alpha = 1 - t, sigma = t: alpha^2 + sigma^2 is not 1, which would hide a swap of the two."""
    time = f64(*t)
    return Level(2 * torch.log((1 - time) / time), 1 - time, time)


def scalar_level(point: Point) -> Level:
    return Level(*f64(point.logsnr, point.alpha, point.sigma))


def taken_at(
    at: Point,
    to: Point,
    mean: Tensor,
    std: float | Tensor,
    condition: Tensor | None = None,
    draws: Callable[[int], Tensor] | None = None,
) -> Taken:
    return Taken(0, at, to, mean, std, mean, condition, draws or (lambda k: torch.zeros_like(mean)))


def move(
    denoise: Denoise,
    x: Tensor,
    at: Point,
    to: Point,
    noise: Tensor,
    hooks: Sequence[StepHook],
    draws: Callable[[int], Tensor],
) -> Tensor:
    """One ancestral step (Ho et al. 2020, eq. 7) with its hooks; where `to` is noisier, RePaint's
    way back, which has none."""
    if to.logsnr < at.logsnr:
        ratio = to.alpha / at.alpha
        return ratio * x + math.sqrt(to.sigma**2 - (ratio * at.sigma) ** 2) * noise
    x0_hat = denoise(x, scalar_level(at))
    keep = math.exp(at.logsnr - to.logsnr)
    mean = to.alpha / at.alpha * keep * x + to.alpha * (1 - keep) * x0_hat
    std = to.sigma * math.sqrt(1 - keep)
    x_s = mean + std * noise
    for hook in hooks:
        x_s = hook(x_s, Taken(0, at, to, mean, std, x0_hat, None, draws))
    return x_s


def affine(f: Callable[[Tensor], Tensor], dim: int) -> tuple[Tensor, Tensor]:
    """(M, b) of f(x) = x M^T + b, from its values at the axes: x (B, dim)."""
    rows = f(torch.cat([torch.zeros(1, dim), torch.eye(dim)]).double())
    return (rows[1:] - rows[0]).T, rows[0]
