"""Gaussians to test with: correlated, of any batch and dimension, reproducible."""

import math

import torch
from torch import Tensor

from shared.gaussian import Gaussian


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


def density_at(x: float, mean: float, std: float) -> float:
    return math.exp(-(((x - mean) / std) ** 2) / 2) / (std * math.sqrt(2 * math.pi))


def same_law(got: Gaussian, mean: Tensor, covariance: Tensor) -> None:
    """Mean, covariance, and a factor that is a Cholesky factor."""
    torch.testing.assert_close(got.mean, mean.expand(got.mean.shape))
    torch.testing.assert_close(got.covariance, covariance.expand(got.covariance.shape))
    torch.testing.assert_close(got.cholesky, got.cholesky.tril(), atol=0, rtol=0)
    assert bool((got.cholesky.diagonal(dim1=-2, dim2=-1) > 0).all())


def linear_model() -> tuple[Gaussian, Tensor, Gaussian]:
    """x (2, 3), a matrix to 4 dimensions, one noise with a mean for both."""
    return law(2, 3), normal(2, 4, 3, seed=2), law(4, seed=3)
