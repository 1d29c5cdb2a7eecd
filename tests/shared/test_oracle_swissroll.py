"""The swiss roll's density against the integral along its curve, by Simpson's rule."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import simpson
from torch import Tensor

from shared.oracle import swiss_roll
from shared.oracle.swissroll import curve
from shared.schedule import Level
from tests.levels import FAMILIES, level_at, noised

PHI = torch.linspace(1.5 * math.pi, 4.5 * math.pi, 100_001, dtype=torch.float64)


def along(values: Tensor) -> float:
    """The mean over phi of values at PHI."""
    return float(simpson(values.numpy(), x=PHI.numpy())) / (3 * math.pi)


def integral(x: Tensor, std: float, level: Level) -> Tensor:
    """log p_t(x), point by point, scaled by the integrand's largest value."""
    v = float((level.alpha * std) ** 2 + level.sigma**2)
    log_p = []
    for point in x:
        exponent = -(point - level.alpha * curve(PHI)).square().sum(-1) / (2 * v)
        top = float(exponent.max())
        log_p.append(top + math.log(along((exponent - top).exp()) / (2 * math.pi * v)))
    return torch.tensor(log_p, dtype=torch.float64)


def test_the_curve_is_centred_and_has_unit_power_per_coordinate():
    c = curve(PHI)
    assert along(c[:, 0]) == pytest.approx(0, abs=1e-12)
    assert along(c[:, 1]) == pytest.approx(0, abs=1e-12)
    assert along(c.square().sum(-1)) == pytest.approx(2, abs=1e-12)


def test_the_curve_is_an_archimedean_spiral_from_inside_out():
    """Shifted and scaled so that its ends are (0, -1.5 pi) and (0, 4.5 pi), it is r = phi."""
    c = curve(PHI)
    raw = (c - c[0]) * 6 * math.pi / (c[-1] - c[0]).norm() + c.new_tensor([0, -1.5 * math.pi])
    torch.testing.assert_close(raw, torch.stack([PHI * PHI.cos(), PHI * PHI.sin()], -1))
    assert torch.equal(curve(PHI[:6].reshape(3, 2)), c[:6].reshape(3, 2, 2))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("logsnr", [-8.0, 0.0, 4.0, 20.0])
def test_the_density_is_the_integral_along_the_curve(family: str, logsnr: float):
    oracle, level = swiss_roll(), level_at(family, logsnr)
    x0 = oracle.sample(6, torch.Generator().manual_seed(0))
    x = noised(x0, level)
    got = oracle.log_prob(x, level)
    torch.testing.assert_close(got, integral(x, 0.05, level), rtol=0, atol=1e-9)


@pytest.mark.parametrize("std", [0.01, 0.2, 1.0])
def test_the_density_holds_for_every_noise_also_off_the_curve(std: float):
    oracle, level = swiss_roll(std), level_at("ve", 20.0)
    x = oracle.sample(5, torch.Generator().manual_seed(0))
    x = torch.cat([x, x + 3 * std, 1.5 * torch.randn(5, 2, generator=torch.Generator()).double()])
    x = x[integral(x, std, level) > -300]
    assert len(x) >= 10
    expected = integral(x, std, level)
    torch.testing.assert_close(oracle.log_prob(x, level), expected, rtol=1e-10, atol=1e-9)


def test_the_number_of_nodes_is_what_the_noise_asks_for():
    assert [len(swiss_roll(std).points) for std in (1.0, 0.05, 0.005)] == [272, 1504, 13_280]


def test_samples_lie_about_the_curve_and_uniformly_along_it():
    """2,000 draws. None 6.5 std off the curve: a false alarm below 2e-6. The radius, uniform but
    for the noise: Kolmogorov-Smirnov at 3 / sqrt(n), false alarms below 1e-7."""
    n, std = 2000, 0.01
    x = swiss_roll(std).sample(n, torch.Generator().manual_seed(0))
    distance = torch.cdist(x, curve(PHI[::20])).amin(-1)
    assert float(distance.max()) < 6.5 * std
    # two coordinates of noise, one of them along the curve
    assert float(distance.square().mean()) == pytest.approx(std**2, rel=5 * math.sqrt(2 / n))
    nearest = PHI[::20][torch.cdist(x, curve(PHI[::20])).argmin(-1)]
    share = np.sort(((nearest - PHI[0]) / (PHI[-1] - PHI[0])).numpy())
    steps = np.arange(n) / n
    assert max(np.abs(share - steps).max(), np.abs(share - steps - 1 / n).max()) < 3 / math.sqrt(n)


@pytest.mark.parametrize("std", [0.0, 0.004, 1.1, math.nan])
def test_noise_beyond_what_the_quadrature_serves_is_refused(std: float):
    with pytest.raises(ValueError, match=r"std = .*: expected 0.005 to 1"):
        swiss_roll(std)
