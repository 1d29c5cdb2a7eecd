"""What every oracle must keep, in every schedule family: score, estimate and density agree."""

import math

import pytest
import torch

from shared.oracle import GaussianMixture, LowRankGaussian, Oracle, PointMixture, swiss_roll
from tests.drawn import NamedDevices
from tests.levels import FAMILIES, level_at, noised


def random(*shape: int, seed: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


ORACLES: dict[str, Oracle] = {
    "mixture": GaussianMixture(torch.tensor([1.0, 3.0]), random(2, 3), 0.2 + random(2, 3) ** 2),
    "low rank": LowRankGaussian(random(7), random(7, 2), 0.4),
    "points": PointMixture(random(5, 2, 3), torch.tensor([1.0, 2.0, 3.0, 1.0, 0.5])),
    "round": PointMixture(random(5, 2, 3), std=0.3, chunk=2),
    "tokens": PointMixture(random(6, 2), places=(3,)),
    "swiss roll": swiss_roll(0.3),
}


@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.parametrize("family", FAMILIES)
def test_score_is_the_gradient_of_the_log_density_at_each_samples_level(family: str, name: str):
    oracle, level = ORACLES[name], level_at(family, -9.0, -2.0, 0.5, 4.0)
    x = noised(oracle.sample(4, torch.Generator().manual_seed(1)).double(), level).requires_grad_()
    (gradient,) = torch.autograd.grad(oracle.log_prob(x, level).sum(), x)
    torch.testing.assert_close(oracle.score(x.detach(), level), gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.parametrize("family", FAMILIES)
def test_score_and_estimate_are_tied_by_tweedies_formula(family: str, name: str):
    oracle, level = ORACLES[name], level_at(family, -9.0, -2.0, 0.5, 4.0)
    x = noised(oracle.sample(4, torch.Generator().manual_seed(2)).double(), level)
    wide = level.widen(x.ndim)
    tweedie = (wide.alpha * oracle.denoise(x, level) - x) / wide.sigma**2
    torch.testing.assert_close(oracle.score(x, level), tweedie, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", ORACLES)
def test_one_level_for_all_is_that_level_for_each(name: str):
    oracle, one, each = ORACLES[name], level_at("flow", 0.7), level_at("flow", 0.7, 0.7, 0.7)
    x = noised(oracle.sample(3, torch.Generator().manual_seed(3)).double(), each)
    for answer in (oracle.log_prob, oracle.score, oracle.denoise):
        torch.testing.assert_close(answer(x, one), answer(x, each), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", ORACLES)
def test_the_estimate_takes_what_a_denoiser_takes_and_a_previous_estimate_adds_nothing(name: str):
    oracle, level = ORACLES[name], level_at("vp", 0.7)
    x = noised(oracle.sample(3, torch.Generator().manual_seed(3)).double(), level)
    assert torch.equal(oracle.denoise(x, level, None, x), oracle.denoise(x, level))


@pytest.mark.parametrize("name", ["low rank", "points", "swiss roll"])
def test_an_oracle_without_components_refuses_a_condition(name: str):
    oracle = ORACLES[name]
    x = oracle.sample(3, torch.Generator().manual_seed(3))
    with pytest.raises(ValueError, match=r"condition of shape \(3,\).*GaussianMixture"):
        oracle.denoise(x, level_at("vp", 0.7), torch.zeros(3))


@pytest.mark.parametrize("name", ["mixture", "low rank", "round"])
def test_draws_are_made_where_the_oracle_is(name: str):
    with NamedDevices() as draws:
        ORACLES[name].sample(3, torch.Generator().manual_seed(3))
    assert draws.count > 0


def plane(level_std: float, n: int = 101) -> tuple[torch.Tensor, float]:
    """A square grid in the plane, +-8 of these standard deviations, and the area of its cells."""
    axis = torch.linspace(-8, 8, n, dtype=torch.float64) * level_std
    return torch.cartesian_prod(axis, axis), float(axis[1] - axis[0]) ** 2


@pytest.mark.parametrize("logsnr", [-9.0, -1.0, 2.0])
@pytest.mark.parametrize("family", FAMILIES)
def test_densities_in_the_plane_integrate_to_one_and_have_the_stated_mean(
    family: str, logsnr: float
):
    """By the trapezoid rule, which is exact to all digits on what is smooth and falls to zero."""
    level = level_at(family, logsnr)
    x, cell = plane(math.sqrt(float(level.alpha**2 + level.sigma**2)))
    means, covariances = torch.tensor([[-0.8, 0.3], [0.6, -0.2]]), torch.full((2, 2), 0.3)
    oracles: list[Oracle] = [
        GaussianMixture(torch.tensor([0.3, 0.7]), means.double(), covariances),
        LowRankGaussian(random(2) / 3, random(2, 1) / 2, 0.4),
        PointMixture(random(5, 2) / 2, std=0.2),
        swiss_roll(0.4),
    ]
    for oracle in oracles:
        p = oracle.log_prob(x, level).exp() * cell
        assert float(p.sum()) == pytest.approx(1, abs=1e-6)
        # E[x_t] = alpha E[x0], and E[E[x0 | x_t]] = E[x0]
        x0_mean = (p[:, None] * oracle.denoise(x, level)).sum(0)
        torch.testing.assert_close(
            (p[:, None] * x).sum(0), level.alpha * x0_mean, rtol=0, atol=1e-5
        )
