"""Schedules against their papers' formulas, inverses, and limits."""

import math
from collections.abc import Callable

import pytest
import torch
from scipy.integrate import quad

from shared.density import LossDensity, quantile_knots
from shared.schedule import (
    Cosine,
    Linear,
    Schedule,
    Shifted,
    Warped,
    resolution_shift,
    variance_preserving,
)

SCHEDULES: list[Schedule] = [
    Cosine(-9, 11),
    Shifted(Cosine(-12, 12), resolution_shift(32)),
    Linear(),
    Linear(0.2, 12.0, logsnr_max=9.0),
    Warped((7.0, 3.0, 2.5, -1.0, -8.0)),
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_time_inverts_logsnr_and_logsnr_falls(schedule: Schedule):
    t = torch.linspace(0, 1, 1001, dtype=torch.float64)
    logsnr = schedule.logsnr(t)
    assert bool((logsnr.diff() < 0).all())
    torch.testing.assert_close(schedule.time(logsnr), t, atol=1e-9, rtol=0)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_level_is_variance_preserving_and_keeps_logsnr(schedule: Schedule):
    level = schedule(torch.linspace(0.001, 0.999, 77, dtype=torch.float64))
    torch.testing.assert_close(level.alpha**2 + level.sigma**2, torch.ones_like(level.alpha))
    torch.testing.assert_close(2 * (level.alpha / level.sigma).log(), level.logsnr)


def test_cosine_ends_where_it_is_told():
    ends = Cosine(-9, 11).logsnr(torch.tensor([0.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(ends, torch.tensor([11.0, -9.0], dtype=torch.float64))


def test_cosine_is_cos_squared_of_t_between_wide_ends():
    t = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    alpha = Cosine(-30, 30)(t).alpha
    torch.testing.assert_close(alpha, torch.cos(math.pi * t / 2), atol=1e-6, rtol=0)


@pytest.mark.parametrize("u", [0.01, 0.3, 1.0])
def test_linear_is_the_integral_of_its_beta(u: float):
    """alpha^2 = exp(-integral of beta) with beta linear in u (Song et al. 2021, eq. 32)."""
    schedule = Linear(0.1, 20.0)
    integral = quad(lambda s: 0.1 + s * 19.9, 0, u)[0]
    alpha2 = math.exp(-integral)
    logsnr = torch.tensor(math.log(alpha2 / (1 - alpha2)), dtype=torch.float64)
    top = 1 / (1 + math.exp(schedule.logsnr_max))  # sigma^2 at t = 0
    slope, b0 = 19.9, 0.1
    start = 2 * -math.log1p(-top) / (b0 + math.sqrt(b0**2 - 2 * slope * math.log1p(-top)))
    t = (u - start) / (1 - start)
    torch.testing.assert_close(schedule.logsnr(torch.tensor(t, dtype=torch.float64)), logsnr)


def test_linear_is_the_limit_of_ddpm_s_chain():
    """abar_T of DDPM's 1000 betas is 4.04e-5; the continuum limit's is 4.32e-5 (methods)."""
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    chain = float((1 - betas).prod())
    limit = float(Linear()(torch.tensor(1.0, dtype=torch.float64)).alpha ** 2)
    assert chain == pytest.approx(4.04e-5, rel=5e-3)
    assert limit == pytest.approx(4.32e-5, rel=5e-3)


def test_levels_stay_finite_and_positive_at_both_ends_in_float32():
    level = variance_preserving(torch.tensor([-20.0, 20.0]))
    for part in (level.alpha, level.sigma):
        assert bool((part > 0).all())
        assert bool(part.isfinite().all())


@pytest.mark.parametrize("knots", [(1.0,), (1.0, 2.0), (3.0, 3.0, 1.0)])
def test_knots_that_do_not_fall_are_refused(knots: tuple[float, ...]):
    with pytest.raises(ValueError, match="strictly falling"):
        Warped(knots)


def test_reversed_ends_are_refused():
    with pytest.raises(ValueError, match="logsnr_min"):
        Cosine(5, -5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Cosine(-math.inf, 10),
        lambda: Cosine(-10, math.inf),
        lambda: Shifted(Cosine(-10, 10), math.nan),
        lambda: Linear(0.0, 20.0),
        lambda: Linear(20.0, 0.1),
        lambda: Linear(logsnr_max=-11.0),  # the linear path ends at -10.05
        lambda: Linear(logsnr_max=math.inf),
        lambda: Warped((math.inf, 0.0)),
    ],
)
def test_ends_that_leave_no_finite_falling_path_are_refused(make: Callable[[], Schedule]):
    with pytest.raises(ValueError, match=r"^schedule: "):
        make()


def test_shift_moves_the_logsnr_and_nothing_else():
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    moved = Shifted(Cosine(-8, 9), 1.25)
    torch.testing.assert_close(moved.logsnr(t), Cosine(-8, 9).logsnr(t) + 1.25)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_float32_levels_are_those_of_float64(schedule: Schedule):
    """Training draws t in float32: near t = 1 its spacing alone moves logsnr by 1e-3."""
    t = torch.linspace(0, 1, 1001)
    logsnr = schedule.logsnr(t)
    assert logsnr.dtype == torch.float32
    torch.testing.assert_close(logsnr.double(), schedule.logsnr(t.double()), atol=3e-3, rtol=0)
    torch.testing.assert_close(schedule.time(logsnr), t, atol=1e-5, rtol=0)


def test_warped_time_is_the_share_of_its_knots_above_a_logsnr():
    schedule = Warped((6.0, 4.0, 3.5, -2.0))
    for logsnr, share in ((6.0, 0), (5.0, 1 / 6), (3.75, 0.5), (0.75, 2.5 / 3), (-2.0, 1)):
        time = schedule.time(torch.tensor(logsnr, dtype=torch.float64))
        assert float(time) == pytest.approx(share)


def test_knots_are_the_quantiles_of_a_known_density():
    """The loss sigmoid(-logsnr) over 1,024 fine bins (the smoothing over five is then small) has
    the slope sigmoid' : the share of the density above a logsnr is known in closed form."""
    bins, low, high, floor = 1024, -9.0, 7.0, 0.2
    centres = low + (torch.arange(bins, dtype=torch.float64) + 0.5) * (high - low) / bins
    knots = quantile_knots(torch.sigmoid(-centres), low, high, floor)
    ends = torch.sigmoid(torch.tensor([low, high], dtype=torch.float64))
    steep = (ends[1] - torch.sigmoid(knots)) / (ends[1] - ends[0])
    above = (1 - floor) * steep + floor * (high - knots) / (high - low)
    torch.testing.assert_close(
        above, torch.linspace(0, 1, 129, dtype=torch.float64), atol=2e-3, rtol=0
    )


def test_knots_by_the_root_of_the_slope_are_the_quantiles_of_a_known_density():
    """The root of the slope of sigmoid(-logsnr) is sech(logsnr / 2) / 2, whose integral is
    2 atan(tanh(logsnr / 4))."""
    bins, low, high, floor = 1024, -9.0, 7.0, 0.2
    centres = low + (torch.arange(bins, dtype=torch.float64) + 0.5) * (high - low) / bins
    knots = quantile_knots(torch.sigmoid(-centres), low, high, floor, power=0.5)

    def below(logsnr: torch.Tensor) -> torch.Tensor:
        return torch.atan(torch.tanh(logsnr / 4))

    ends = below(torch.tensor([low, high], dtype=torch.float64))
    steep = (ends[1] - below(knots)) / (ends[1] - ends[0])
    above = (1 - floor) * steep + floor * (high - knots) / (high - low)
    torch.testing.assert_close(
        above, torch.linspace(0, 1, 129, dtype=torch.float64), atol=2e-3, rtol=0
    )


def test_density_of_a_loss_that_tells_nothing_is_uniform():
    for loss in (torch.full((16,), 2.0), torch.arange(16.0)):  # flat, and rising with logsnr
        knots = quantile_knots(loss, -4.0, 4.0, floor=0.1)
        torch.testing.assert_close(knots, torch.linspace(4, -4, 129, dtype=torch.float64))


def test_density_comes_back_from_a_checkpoint():
    density, again = (LossDensity(Cosine(-6, 6), bins=9, start=3) for _ in range(2))
    logsnr = torch.linspace(-6, 6, 50)
    for _ in range(4):
        density.update(density.statistics(torch.sigmoid(-2 * logsnr), logsnr))
    again.load_state_dict(density.state_dict())
    assert isinstance(again.schedule(), Warped)
    assert again.schedule() == density.schedule()


def test_loss_of_a_bin_never_seen_is_its_nearest_neighbours():
    density = LossDensity(Cosine(-6, 6), bins=6, start=1)
    density.update(density.statistics(torch.tensor([3.0, 1.0]), torch.tensor([-5.0, 3.0])))
    assert density.loss().tolist() == [3, 3, 3, 1, 1, 1]


def test_fitted_schedule_spends_time_where_the_loss_changes():
    """A loss with a linear ramp between logsnr 0 and 2, flat elsewhere, floor 0.1: 90 % of t lie
    in the ramp (up to the smoothing over five of 64 bins), 10 % are uniform."""
    bins, low, high = 64, -8.0, 8.0
    centres = low + (torch.arange(bins) + 0.5) * (high - low) / bins
    loss = (1 - centres / 2).clamp(0, 1)
    knots = quantile_knots(loss, low, high, floor=0.1)
    assert float(knots[0]) == pytest.approx(high)
    assert float(knots[-1]) == pytest.approx(low)
    inside = float(((knots > -0.75) & (knots < 2.75)).float().mean())
    assert inside == pytest.approx(0.9 + 0.1 * 3.5 / 16, abs=0.03)
    time = Warped(tuple(knots.tolist())).time
    middle = time(torch.tensor(1.0, dtype=torch.float64))
    assert float(middle) == pytest.approx(0.5, abs=0.04)


def test_density_statistics_add_over_any_split_of_a_batch():
    density = LossDensity(Cosine(-6, 6), bins=7)
    losses, logsnr = torch.rand(11), torch.linspace(-7, 7, 11)
    whole = density.statistics(losses, logsnr)
    parts = density.statistics(losses[:4], logsnr[:4]) + density.statistics(losses[4:], logsnr[4:])
    torch.testing.assert_close(whole, parts)
    torch.testing.assert_close(whole.sum(1), torch.stack([losses.sum(), torch.tensor(11.0)]))


def test_density_starts_as_the_base_and_forgets_old_losses():
    base = Cosine(-6, 6)
    density = LossDensity(base, bins=4, memory=0.5, start=2)
    logsnr = torch.tensor([-5.0, -2.0, 2.0, 5.0])
    for value in (3.0, 1.0):
        assert density.schedule() is base
        density.update(density.statistics(torch.full((4,), value), logsnr))
    assert isinstance(density.schedule(), Warped)
    torch.testing.assert_close(density.loss(), torch.full((4,), (0.5 * 3 + 1) / 1.5))


def test_one_loss_of_thousands_does_not_move_the_density():
    """As many nats as a sound level has, times 1,000, at a level where nothing is to be learned."""
    base = Cosine(-6, 6)
    density = LossDensity(base, bins=32, start=1)
    generator = torch.Generator().manual_seed(0)
    for _ in range(400):
        logsnr = torch.rand(16, generator=generator) * 12 - 6
        losses = 2.4 * torch.sigmoid(-3 * logsnr)
        density.update(density.statistics(losses, logsnr))
    t = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    before = density.schedule().logsnr(t)
    density.update(density.statistics(torch.tensor([2400.0]), torch.tensor([-5.5])))
    torch.testing.assert_close(density.schedule().logsnr(t), before, atol=0.3, rtol=0)
