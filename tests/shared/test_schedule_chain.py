"""Discrete chains as schedules: knots, betas back, the papers' chains."""

import math

import pytest
import torch

from shared.schedule import (
    Cosine,
    Edm,
    FromBetas,
    Linear,
    ScaledLinear,
    SubVp,
    betas_through,
    cosine_betas,
    from_betas,
    linear_betas,
    scaled_linear_betas,
    sqrt_betas,
    to_betas,
    variance_preserving,
)

BETAS = [0.1, 0.03, 0.4, 0.25, 0.7]


def f64(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_step_i_stands_at_i_plus_one_over_T_and_t_0_is_clean():
    level = from_betas(BETAS)(f64(0.0, 0.2, 0.4, 0.6, 0.8, 1.0))
    alpha2 = 1.0
    assert float(level.alpha[0]) == 1
    assert float(level.sigma[0]) == 0
    assert float(level.logsnr[0]) == math.inf
    for i, beta in enumerate(BETAS):
        alpha2 *= 1 - beta
        assert float(level.alpha[i + 1]) ** 2 == pytest.approx(alpha2)
        assert float(level.sigma[i + 1]) ** 2 == pytest.approx(1 - alpha2)


def test_log_alpha_is_linear_between_the_knots():
    chain = from_betas(BETAS)
    for i in range(5):
        ends = chain(f64(i / 5, (i + 1) / 5)).alpha.log()
        inside = chain(f64((i + 0.3) / 5)).alpha.log()
        torch.testing.assert_close(inside[0], 0.7 * ends[0] + 0.3 * ends[1])


def test_time_and_step_invert_the_knots():
    chain = from_betas(BETAS)
    t = f64(0.0, 0.07, 0.2, 0.5, 0.8, 0.93, 1.0)
    logsnr = chain.logsnr(t)
    torch.testing.assert_close(chain.time(logsnr), t)
    torch.testing.assert_close(chain.step(logsnr), 5 * t - 1)
    knots = chain.step(chain.logsnr(torch.arange(1, 6, dtype=torch.float64) / 5))
    torch.testing.assert_close(knots, torch.arange(5, dtype=torch.float64))


@pytest.mark.parametrize(
    "betas", [torch.tensor(BETAS, dtype=torch.float64), linear_betas(), sqrt_betas()], ids=len
)
def test_a_chain_gives_its_betas_back_exactly(betas: torch.Tensor):
    chain = from_betas(betas)
    assert torch.equal(chain.to_betas(len(betas)), betas)
    assert torch.equal(to_betas(chain, len(betas)), betas)
    assert from_betas(betas.tolist()) == chain


def test_a_chain_respaced_keeps_the_levels_it_passes():
    betas = from_betas(linear_betas()).to_betas(125)
    assert betas.shape == (125,)
    whole = (1 - linear_betas()).cumprod(0)[7::8]
    torch.testing.assert_close((1 - betas).cumprod(0), whole)
    finer = from_betas(BETAS).to_betas(10)
    torch.testing.assert_close((1 - finer).cumprod(0)[1::2], (1 - f64(*BETAS)).cumprod(0))
    torch.testing.assert_close(finer[0::2], finer[1::2])  # beta(t) is constant between knots


def test_betas_of_a_continuous_schedule_are_its_rate_times_the_step():
    """beta(t) / n to first order, at the middle of each step; the first one starts clean."""
    n = 4000
    middle = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    betas = to_betas(Linear(logsnr_max=25), n)
    torch.testing.assert_close(betas * n, 0.1 + 19.9 * middle, rtol=3e-3, atol=0)
    root = 0.85**0.5 + (12**0.5 - 0.85**0.5) * middle
    torch.testing.assert_close(
        to_betas(ScaledLinear(logsnr_max=25), n) * n, root**2, rtol=3e-3, atol=0
    )
    first = float(to_betas(Cosine(-9, 6), 7)[0])
    assert first == pytest.approx(float(Cosine(-9, 6)(f64(1 / 7)).sigma) ** 2)


@pytest.mark.parametrize("schedule", [Edm(), SubVp()], ids=lambda s: type(s).__name__)
def test_other_families_have_no_chain_of_betas(schedule: Edm | SubVp):
    with pytest.raises(ValueError, match="not variance preserving"):
        to_betas(schedule, 10)


def test_chain_of_no_steps_is_refused():
    with pytest.raises(ValueError, match="n = 0"):
        to_betas(Cosine(), 0)


@pytest.mark.parametrize(
    ("betas", "message"),
    [
        ([], "no betas"),
        ([0.1, 0.0], r"betas\[1\] = 0.0"),
        ([1.0], r"betas\[0\] = 1.0"),
        ([0.1, 0.2, -0.3], r"betas\[2\] = -0.3"),
        ([0.5, math.nan], r"betas\[1\] = nan"),
    ],
)
def test_betas_outside_of_0_to_1_are_refused_by_place(betas: list[float], message: str):
    with pytest.raises(ValueError, match=message):
        FromBetas(tuple(betas))


def test_linear_is_the_continuum_limit_of_ddpm_and_not_ddpm():
    last = f64(1.0)
    assert float(from_betas(linear_betas())(last).alpha) ** 2 == pytest.approx(4.0358e-5, rel=1e-4)
    assert float(Linear()(last).alpha) ** 2 == pytest.approx(4.3186e-5, rel=1e-4)
    assert linear_betas()[[0, -1]].tolist() == pytest.approx([1e-4, 0.02])


def test_scaled_linear_betas_are_latent_diffusions():
    betas = scaled_linear_betas()
    assert betas[[0, -1]].tolist() == pytest.approx([8.5e-4, 0.012])
    torch.testing.assert_close(betas.sqrt().diff().diff(), torch.zeros(998).double())
    assert float(from_betas(betas)(f64(1.0)).alpha) ** 2 == pytest.approx(0.00466, rel=2e-3)


def test_diffusion_lm_starts_at_0_121_and_its_last_beta_is_the_largest():
    betas = sqrt_betas()
    assert float(from_betas(betas)(f64(1 / 2000)).sigma) == pytest.approx(0.1210, abs=5e-5)
    assert float(betas[-1]) == 0.999
    alpha2 = float(from_betas(betas)(f64(0.25)).alpha) ** 2
    assert alpha2 == pytest.approx((1 - math.sqrt(0.2501)) / 0.99)


def test_improved_ddpms_betas_follow_its_formula_and_its_cap():
    betas, s = cosine_betas(), 0.008
    assert float(betas[-1]) == 0.999
    ratio = math.cos((0.3 + s) / (1 + s) * math.pi / 2) / math.cos(s / (1 + s) * math.pi / 2)
    level = from_betas(betas)(f64(0.3))
    assert float(level.alpha) == pytest.approx(ratio)
    same = Cosine(-30, 25, s=s)(f64(0.3))
    torch.testing.assert_close(level.alpha, same.alpha, atol=1e-7, rtol=0)


def test_betas_through_a_function_pass_it_up_to_the_cap():
    betas = betas_through(lambda u: 1 - u**2, 4, largest=0.6)
    expected = [1 / 16, 1 - (12 / 16) / (15 / 16), 1 - (7 / 16) / (12 / 16), 0.6]
    assert betas.tolist() == pytest.approx(expected)


def test_chain_is_variance_preserving():
    assert from_betas(BETAS).family is variance_preserving
