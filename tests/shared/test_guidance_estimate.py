"""Guidance through the estimate, where its law is known."""

import pytest
import torch
from torch import Tensor

from shared.guidance import through_estimate
from shared.oracle import GaussianMixture
from tests.guided import f64, flow_level, normals

D = 4
MEAN = f64(0.3, -0.5, 0.1, 0.8)
FACTOR = 0.4 * torch.eye(D, dtype=torch.float64) + 0.3 * normals(D, D, seed=5)
COVARIANCE = FACTOR @ FACTOR.T
LEVELS = flow_level(0.05, 0.4, 0.95)
TOWARDS = f64(0.7, -0.2, 0.5, 1.1)


def gaussian(mean: Tensor) -> GaussianMixture:
    return GaussianMixture(f64(1.0), mean[None], COVARIANCE[None])


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
@torch.no_grad()
def test_a_linear_log_probability_tilts_a_gaussian_exactly(scale: float):
    """p(x0) exp(s a' x0) for p = N(m, C) is N(m + s C a, C), at every level."""
    x = normals(3, D)
    guided = through_estimate(gaussian(MEAN).denoise, lambda x0: x0 @ TOWARDS, scale)
    expected = gaussian(MEAN + scale * COVARIANCE @ TOWARDS).denoise(x, LEVELS)
    torch.testing.assert_close(guided(x, LEVELS), expected, atol=1e-9, rtol=0)


def test_the_gradient_is_that_of_the_whole_way_by_finite_differences():
    x, step = normals(3, D), 1e-6
    denoise = GaussianMixture(
        f64(0.4, 0.6), torch.stack([MEAN, -MEAN]), COVARIANCE.expand(2, -1, -1)
    ).denoise

    def log_prob(x0: Tensor) -> Tensor:
        return (x0 * TOWARDS).sin().sum(1)

    def along(i: int) -> Tensor:
        ahead, back = (log_prob(denoise(x + d * step * torch.eye(D)[i], LEVELS)) for d in (1, -1))
        return (ahead - back) / (2 * step)

    slope = torch.stack([along(i) for i in range(D)], dim=1)
    wide = LEVELS.widen(2)
    expected = denoise(x, LEVELS) + 2 * wide.sigma**2 / wide.alpha * slope
    found = through_estimate(denoise, log_prob, 2.0)(x, LEVELS)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def test_condition_and_previous_go_through_and_scale_0_asks_nothing():
    told: list[object] = []

    def denoise(x_t, level, condition=None, previous=None):
        told.append((condition, previous))
        return 2 * x_t

    def unasked(x0: Tensor) -> Tensor:
        raise AssertionError

    x, condition, previous = normals(3, D), torch.tensor([[1]]), normals(3, D, seed=2)
    same = through_estimate(denoise, unasked, 0.0)(x, LEVELS, condition, previous)
    assert torch.equal(same, 2 * x)
    through_estimate(denoise, lambda x0: x0.sum(1))(x, LEVELS, condition, previous)
    assert all(c is condition and p is previous for c, p in told)  # type: ignore[misc]


def test_a_sum_over_the_batch_is_refused():
    with pytest.raises(ValueError, match="expected one value per sample"):
        through_estimate(gaussian(MEAN).denoise, lambda x0: x0.sum())(normals(3, D), LEVELS)
