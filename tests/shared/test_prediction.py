"""The prediction table beyond variance preserving levels, and EDM's row against its paper."""

import pytest
import torch
from torch import Tensor

from shared.prediction import PREDICTIONS, coefficients, from_x0, to_x0
from shared.schedule import (
    Family,
    Level,
    straight_flow,
    sub_variance_preserving,
    variance_exploding,
    variance_preserving,
)

FAMILIES = [variance_preserving, variance_exploding, sub_variance_preserving, straight_flow]


def draws(n: int, sd: float) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x0, eps = (torch.randn(5, n, generator=generator, dtype=torch.float64) for _ in range(2))
    return sd * x0, eps


def levels(family: Family = variance_preserving) -> Level:
    return family(torch.tensor([-7.0, -2.0, 0.3, 2.0, 6.0], dtype=torch.float64)).widen(2)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("sd", [0.5, 1.7])
def test_each_prediction_is_what_its_name_says_in_every_family(family: Family, sd: float):
    level = levels(family)
    alpha, sigma = level.alpha, level.sigma
    x0, eps = draws(3, sd)
    x_t = alpha * x0 + sigma * eps
    meaning = {
        "x0": x0,
        "eps": eps,
        "score": -eps / sigma,
        "v": alpha * eps - sigma * x0,
        "velocity": eps - x0,
        "edm": (sigma * x0 / sd - alpha * sd * eps) / (sigma**2 + (alpha * sd) ** 2).sqrt(),
    }
    assert meaning.keys() == PREDICTIONS.keys()
    for name, target in meaning.items():
        torch.testing.assert_close(from_x0(name, x0, x_t, level, sd), target)
        torch.testing.assert_close(to_x0(name, target, x_t, level, sd), x0)


def test_edm_is_table_1_of_its_paper_where_alpha_is_1():
    sigma, sd = torch.tensor([0.002, 0.4, 80.0], dtype=torch.float64), 0.5
    level = Level(-2 * sigma.log(), torch.ones_like(sigma), sigma)
    c_skip, c_out = coefficients("edm", level, sd)
    torch.testing.assert_close(c_skip, sd**2 / (sigma**2 + sd**2))
    torch.testing.assert_close(c_out, sigma * sd / (sigma**2 + sd**2).sqrt())


@pytest.mark.parametrize("family", FAMILIES)
def test_edms_target_has_unit_variance_and_no_part_of_x_t(family: Family):
    """40,000 values a level: five standard errors of a variance are 0.036, of a correlation
    0.025; false alarms below 1e-5 for the ten numbers."""
    level = levels(family)
    x0, eps = draws(40_000, 0.6)
    x_t = level.alpha * x0 + level.sigma * eps
    target = from_x0("edm", x0, x_t, level, 0.6)
    torch.testing.assert_close(target.var(1), torch.ones(5).double(), atol=0.036, rtol=0)
    correlation = (target * x_t).mean(1) / x_t.std(1)
    torch.testing.assert_close(correlation, torch.zeros(5).double(), atol=0.025, rtol=0)


def test_only_edm_asks_for_the_standard_deviation_of_data():
    level = levels()
    for name in PREDICTIONS:
        same = torch.equal(coefficients(name, level, 0.5)[1], coefficients(name, level)[1])
        assert same == (name != "edm")


def test_unknown_prediction_is_refused():
    with pytest.raises(ValueError, match="prediction = 'epsilon': expected one of x0, eps"):
        coefficients("epsilon", levels())
