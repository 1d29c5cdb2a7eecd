"""Weightings: each the squared error in its own space, in every family; the papers' formulas."""

import math

import pytest
import torch

from shared.objective import WEIGHTINGS, Uncertainty, min_snr, p2, sigmoid, weight
from shared.prediction import from_x0
from shared.schedule import (
    Family,
    straight_flow,
    sub_variance_preserving,
    variance_exploding,
    variance_preserving,
)

FAMILIES = [variance_preserving, variance_exploding, sub_variance_preserving, straight_flow]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("prediction", ["x0", "eps", "v", "velocity", "edm"])
def test_weighting_is_the_squared_error_of_its_own_prediction(family: Family, prediction: str):
    level = family(torch.linspace(-7, 7, 9, dtype=torch.float64)).widen(2)
    generator = torch.Generator().manual_seed(3)
    x0, x0_hat, x_t = (
        torch.randn(9, 2, generator=generator, dtype=torch.float64) for _ in range(3)
    )
    error = from_x0(prediction, x0, x_t, level, 0.6) - from_x0(prediction, x0_hat, x_t, level, 0.6)
    got = weight(prediction, level, 0.6) * (x0 - x0_hat) ** 2
    torch.testing.assert_close(got, error**2)


@pytest.mark.parametrize("family", FAMILIES)
def test_weightings_are_their_papers_formulas_in_alpha_and_sigma(family: Family):
    level = family(torch.tensor([-6.0, -1.0, 0.5, 1.7, 8.0], dtype=torch.float64))
    a, s, sd = level.alpha, level.sigma, 0.6
    snr = (a / s) ** 2
    papers = {
        "x0": torch.ones_like(a),
        "eps": snr,
        "v": ((a**2 + s**2) / s) ** 2,
        "velocity": ((a + s) / s) ** 2,
        "edm": (a**2 * sd**2 + s**2) / (s * sd) ** 2,
        "min_snr": snr.clamp(max=5),
        "p2": snr / (1 + snr),
        "sigmoid": snr / (1 + (snr.log() - 2).exp()),
        "elbo": snr / 2,
    }
    assert papers.keys() == WEIGHTINGS.keys()
    for name, expected in papers.items():
        torch.testing.assert_close(weight(name, level, sd), expected)


def test_v_weighting_is_snr_plus_one_when_variance_is_preserved():
    level = variance_preserving(torch.linspace(-9, 9, 7, dtype=torch.float64))
    torch.testing.assert_close(weight("v", level), level.logsnr.exp() + 1)


def test_edm_weighting_is_its_papers_where_alpha_is_1():
    """(sigma^2 + sd^2) / (sigma sd)^2 (Karras et al. 2022, table 1)."""
    level = variance_exploding(torch.linspace(-8, 12, 7, dtype=torch.float64))
    s = level.sigma
    torch.testing.assert_close(weight("edm", level, 0.5), (s**2 + 0.25) / (s * 0.5) ** 2)


def test_parameters_of_weightings_are_the_papers_letters():
    level = variance_preserving(torch.tensor([-2.0, 3.0], dtype=torch.float64))
    snr = level.logsnr.exp()
    torch.testing.assert_close(min_snr(level, gamma=9.0), snr.clamp(max=9))
    torch.testing.assert_close(p2(level, k=2.0, gamma=0.5), snr / (2 + snr) ** 0.5)
    torch.testing.assert_close(sigmoid(level, bias=-1.0), snr * torch.sigmoid(-1 - level.logsnr))


def test_unknown_weighting_is_refused():
    with pytest.raises(ValueError, match="weighting = 'vlb': expected one of x0, eps"):
        weight("vlb", variance_preserving(torch.zeros(1)))


def test_uncertainty_starts_as_the_plain_loss():
    losses, logsnr = torch.tensor([2.0, 5.0]), torch.tensor([-3.0, 4.0])
    assert torch.equal(Uncertainty()(losses, logsnr), losses)


def test_uncertainty_is_loss_over_e_to_the_u_plus_u():
    module, logsnr = Uncertainty(7), torch.tensor([-3.0, 0.0, 4.0])
    with torch.no_grad():
        module.weights.copy_(torch.linspace(-1, 1, 7))
    for i, value in enumerate(logsnr.tolist()):
        place = math.log(math.exp(-value / 2)) / 4  # ln(sigma / alpha) / 4, EDM's c_noise
        u = sum(
            w * math.cos(place * f + p)
            for w, f, p in zip(
                module.weights.tolist(),
                module.frequencies.tolist(),
                module.phases.tolist(),
                strict=True,
            )
        )
        got = module(torch.tensor([3.0]), logsnr[i : i + 1])
        assert float(got.detach()) == pytest.approx(3 * math.exp(-u) + u, rel=1e-4)


def test_uncertainty_rests_where_it_is_the_log_of_the_expected_loss():
    """Losses e^u (1 +- 0.5) pull it nowhere, twice the losses pull it up."""
    module, logsnr = Uncertainty(7), torch.full((2,), 1.3)
    with torch.no_grad():
        module.weights.copy_(torch.linspace(-1, 1, 7))
    expected = module.u(logsnr).detach().exp() * torch.tensor([0.5, 1.5])
    for losses, pull in ((expected, 0.0), (2 * expected, -1.0)):
        module.zero_grad()
        module(losses, logsnr).mean().backward()
        (direction,) = torch.autograd.grad(module.u(logsnr[:1]).sum(), module.weights)
        torch.testing.assert_close(module.weights.grad, pull * direction, atol=1e-5, rtol=0)


def test_features_of_uncertainty_are_many_and_the_same_in_every_process():
    module, again = Uncertainty(500), Uncertainty(500)
    assert torch.equal(module.frequencies, again.frequencies)
    assert torch.equal(module.phases, again.phases)
    # N(0, (2 pi)^2) and uniform on a circle: five standard errors of 500 values
    assert float(module.frequencies.std()) == pytest.approx(2 * math.pi, rel=5 / 1000**0.5)
    assert float(module.phases.mean()) == pytest.approx(math.pi, abs=5 * 1.82 / 500**0.5)
    assert 0 < float(module.phases.min()) < float(module.phases.max()) < 2 * math.pi
