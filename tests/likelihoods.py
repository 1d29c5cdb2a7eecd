"""What the tests of likelihoods share: schedules of every family between two levels, a codec of
float64 data, and two-point quadrature of Gaussians."""

import itertools
import math

import torch
from torch import Tensor

from shared.oracle import GaussianMixture
from shared.schedule import (
    Family,
    Level,
    Warped,
    straight_flow,
    sub_variance_preserving,
    variance_exploding,
    variance_preserving,
)

FAMILIES: dict[str, Family] = {
    "vp": variance_preserving,
    "ve": variance_exploding,
    "sub_vp": sub_variance_preserving,
    "flow": straight_flow,
}


def between(high: float, low: float, family: str = "vp") -> Warped:
    """logsnr falls linearly from high (t = 0) to low."""
    return Warped((high, low), FAMILIES[family])


def f64(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


class Plain:
    """x0 = data as it is (B, ..., D), in its own precision; p(data | z_0) is the Gaussian that z_0
    implies."""

    def __init__(self, width: int = 1) -> None:
        self.latent_shape = (width,)

    def encode(self, data: Tensor) -> Tensor:
        return data

    def decode(self, x0: Tensor) -> Tensor:
        return x0

    def log_prob(self, data: Tensor, z_0: Tensor, level_0: Level) -> Tensor:
        apart = (data - z_0 / level_0.alpha) * level_0.alpha / level_0.sigma
        log_std = torch.log(level_0.sigma / level_0.alpha)
        return -(apart**2 / 2 + log_std + math.log(2 * math.pi) / 2).flatten(1).sum(1)


def corners(width: int) -> Tensor:
    """All vectors of +-1 (2^width, width): their mean of any quadratic is a unit Gaussian's."""
    return f64(list(itertools.product((-1.0, 1.0), repeat=width)))


# by width: mean, covariance
GAUSSIANS = {
    1: (f64([0.3]), f64([[0.6]])),
    2: (f64([0.5, -0.2]), f64([[0.9, 0.35], [0.35, 0.4]])),
}


def gaussian(width: int) -> tuple[GaussianMixture, Tensor, Tensor]:
    """The oracle, data whose mean of any quadratic is exact (2^width, width), and the variances
    along the axes (width,)."""
    mean, covariance = GAUSSIANS[width]
    data = mean + corners(width) @ torch.linalg.cholesky(covariance).mT
    oracle = GaussianMixture(f64([1.0]), mean[None], covariance[None])
    return oracle, data, torch.linalg.eigvalsh(covariance)


def mixture() -> GaussianMixture:
    """Two correlated components in the plane, unequal, with mean zero."""
    covariances = f64([[[0.30, 0.12], [0.12, 0.20]], [[0.15, -0.08], [-0.08, 0.40]]])
    return GaussianMixture(f64([0.25, 0.75]), f64([[-0.9, 0.6], [0.3, -0.2]]), covariances)
