"""Schedules in closed form against their papers' own expressions, at both ends and precisions."""

import math
from collections.abc import Callable

import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

from shared.schedule import (
    Cosine,
    Edm,
    Flow,
    Learned,
    Level,
    Linear,
    ScaledLinear,
    Schedule,
    Shifted,
    Sigmoid,
    Sqrt,
    SubVp,
    Ve,
    Warped,
    from_betas,
    linear_betas,
    resolution_shift,
    slope,
    straight_flow,
    sub_variance_preserving,
    variance_exploding,
    variance_preserving,
)

SCHEDULES: list[Schedule] = [
    Cosine(),
    Cosine(-9, 11, s=0.008),
    Linear(),
    Linear(0.2, 12.0, logsnr_max=9.0),
    ScaledLinear(),
    ScaledLinear(0.5, 20.0, logsnr_max=8.0),
    Sqrt(),
    Sqrt(-8, 12, offset=0.01),
    Sigmoid(),
    Sigmoid(-11, 8, start=-1.0, end=4.0, tau=0.7),
    Sigmoid(start=0.0, end=3.0, tau=0.1),
    Flow(),
    Flow(-7, 10),
    Ve(),
    SubVp(),
    SubVp(0.3, 9.0, logsnr_max=11.0),
    Edm(),
    Edm(0.01, 20.0, rho=3.0),
    Shifted(Flow(), -2 * math.log(3)),
    Warped((7.0, 3.0, 2.5, -1.0, -8.0), variance_exploding),
    Learned(-4.0, 9.0, hidden=11),
]
TIMES = [0.0, 1e-6, 1e-5, 1e-3, *(i / 50 for i in range(1, 50)), 1 - 1e-3, 1 - 1e-5, 1 - 1e-6, 1.0]


def times(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(TIMES, dtype=dtype)


def f64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_time_inverts_a_strictly_falling_logsnr_up_to_both_ends(
    schedule: Schedule, dtype: torch.dtype, error: float
):
    logsnr = schedule.logsnr(times(dtype)).detach()
    assert logsnr.dtype == dtype
    assert bool((logsnr.diff() < 0).all())
    torch.testing.assert_close(schedule.time(logsnr), times(dtype), atol=error, rtol=0)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_float32_logsnr_is_that_of_float64_at_the_same_time(schedule: Schedule):
    t = times(torch.float32)
    logsnr, exact = schedule.logsnr(t), schedule.logsnr(t.double())
    torch.testing.assert_close(logsnr.double(), exact, atol=5e-6, rtol=0)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_slope_is_the_derivative_and_negative(schedule: Schedule):
    t = torch.linspace(0.0131, 0.987, 41, dtype=torch.float64)  # no knot of a piecewise one
    logsnr, rate = slope(schedule, t)
    torch.testing.assert_close(logsnr, schedule.logsnr(t))
    step = 1e-6
    difference = (schedule.logsnr(t + step) - schedule.logsnr(t - step)) / (2 * step)
    torch.testing.assert_close(rate, difference, rtol=1e-6, atol=0)
    assert bool((slope(schedule, times())[1] < 0).all())


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_schedules_keep_the_shape_of_their_times(schedule: Schedule):
    t = torch.linspace(0.1, 0.9, 6, dtype=torch.float64)
    level, flat = schedule(t.reshape(2, 3)), schedule(t)
    for name in ("logsnr", "alpha", "sigma"):
        assert torch.equal(getattr(level, name), getattr(flat, name).reshape(2, 3))
    back = schedule.time(level.logsnr.detach())
    torch.testing.assert_close(back, t.reshape(2, 3))


FAMILIES: list[tuple[Callable[[Tensor], Level], Callable[[Level], Tensor]]] = [
    (variance_preserving, lambda level: level.alpha**2 + level.sigma**2),
    (variance_exploding, lambda level: level.alpha),
    (sub_variance_preserving, lambda level: level.sigma + level.alpha**2),
    (straight_flow, lambda level: level.alpha + level.sigma),
]


@pytest.mark.parametrize(("family", "constant"), FAMILIES, ids=lambda f: getattr(f, "__name__", ""))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_family_keeps_its_constant_and_its_logsnr_to_both_ends(
    family: Callable[[Tensor], Level], constant: Callable[[Level], Tensor], dtype: torch.dtype
):
    logsnr = torch.linspace(-40, 40, 33, dtype=dtype)
    level = family(logsnr)
    for part in (level.alpha, level.sigma):
        assert part.dtype == dtype
        assert bool((part > 0).all())
        assert bool(part.isfinite().all())
    torch.testing.assert_close(constant(level), torch.ones_like(logsnr))
    torch.testing.assert_close(2 * (level.alpha.log() - level.sigma.log()), logsnr)
    assert level.logsnr is logsnr


def test_level_is_widened_to_one_value_a_sample():
    level = straight_flow(f64(-1.0, 0.5, 2.0))
    wide = level.widen(4)
    for name in ("logsnr", "alpha", "sigma"):
        part = getattr(wide, name)
        assert part.shape == (3, 1, 1, 1)
        assert torch.equal(part.flatten(), getattr(level, name))
    scalar = straight_flow(torch.tensor(1.0))
    assert scalar.widen(4) is scalar


def test_level_moves_to_the_precision_of_a_tensor():
    level = straight_flow(f64(-1.0, 0.5)).to(torch.zeros(1))
    assert {part.dtype for part in (level.logsnr, level.alpha, level.sigma)} == {torch.float32}
    torch.testing.assert_close(level.alpha, torch.sigmoid(torch.tensor([-0.5, 0.25])))
    torch.testing.assert_close(level.sigma, torch.sigmoid(torch.tensor([0.5, -0.25])))
    assert level.logsnr.tolist() == [-1, 0.5]


def test_warped_times_of_logsnr_beyond_the_knots_are_the_ends():
    warped = Warped((7.0, 3.0, -1.0))
    assert warped.time(f64(9.0, 7.0, -1.0, -4.0)).tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("schedule", "family"),
    [
        (Ve(), variance_exploding),
        (Edm(), variance_exploding),
        (SubVp(), sub_variance_preserving),
        (Flow(), straight_flow),
        (Shifted(Flow(), 1.0), straight_flow),
        (Warped((2.0, 1.0), straight_flow), straight_flow),
        (Warped((2.0, 1.0)), variance_preserving),
        (Cosine(), variance_preserving),
        (Linear(), variance_preserving),
        (Sqrt(), variance_preserving),
        (Sigmoid(), variance_preserving),
        (ScaledLinear(), variance_preserving),
        (Learned(), variance_preserving),
        (Learned(family=straight_flow), straight_flow),
    ],
    ids=lambda s: type(s).__name__,
)
def test_schedule_gives_levels_of_its_family(schedule: Schedule, family: Callable[[Tensor], Level]):
    assert schedule.family is family
    level = schedule(f64(0.3))
    assert level == Level(
        level.logsnr, *(getattr(family(level.logsnr), x) for x in ("alpha", "sigma"))
    )
    torch.testing.assert_close(level.logsnr, schedule.logsnr(f64(0.3)))


INSIDE = torch.linspace(0.02, 0.98, 25, dtype=torch.float64)


@pytest.mark.parametrize("s", [0.0, 0.008, 0.2])
def test_cosine_is_nichol_and_dhariwals(s: float):
    def f(u: Tensor) -> Tensor:
        return torch.cos((u + s) / (1 + s) * math.pi / 2) ** 2

    level = Cosine(-36, 36 if s == 0 else 22, s=s)(INSIDE)
    torch.testing.assert_close(level.alpha**2, f(INSIDE) / f(f64(0.0)), atol=1e-7, rtol=0)


@pytest.mark.parametrize("offset", [1e-4, 0.05])
def test_sqrt_is_diffusion_lms_from_clean_to_no_signal(offset: float):
    u = (1 - offset) * INSIDE  # where the paper's alpha^2 is positive
    alpha2 = (1 - (u + offset).sqrt()) / (1 - math.sqrt(offset))
    level = Sqrt(-36, 22, offset=offset)(INSIDE)
    torch.testing.assert_close(level.alpha**2, alpha2, atol=1e-7, rtol=0)


@pytest.mark.parametrize(
    ("start", "end", "tau"), [(-3, 3, 1.0), (-3, 3, 0.9), (0, 3, 0.7), (1, 2.5, 0.3)]
)
def test_sigmoid_is_chens(start: float, end: float, tau: float):
    def g(u: Tensor) -> Tensor:
        return torch.sigmoid((start + u * (end - start)) / tau)

    low, high = g(f64(0.0)), g(f64(1.0))
    level = Sigmoid(-34, 34, start=start, end=end, tau=tau)(INSIDE)
    torch.testing.assert_close(level.alpha**2, (high - g(INSIDE)) / (high - low), atol=1e-9, rtol=0)


def test_flow_is_straight():
    level = Flow(-40, 40)(INSIDE)
    torch.testing.assert_close(level.sigma, INSIDE, atol=1e-8, rtol=0)
    torch.testing.assert_close(level.alpha, 1 - INSIDE, atol=1e-8, rtol=0)


def test_shift_of_flow_is_stable_diffusion_3s():
    """t' = m t / (1 + (m - 1) t) (Esser et al. 2024, eq. 23)."""
    level = Shifted(Flow(-40, 40), -2 * math.log(3))(INSIDE)
    torch.testing.assert_close(level.sigma, 3 * INSIDE / (1 + 2 * INSIDE), atol=1e-7, rtol=0)


def test_resolution_shift_scales_the_signal_to_noise_ratio_by_the_pixels():
    """(64 / d)^2 for d x d pictures (Hoogeboom et al. 2023)."""
    plain, moved = Cosine()(INSIDE), Shifted(Cosine(), resolution_shift(256))(INSIDE)
    ratio = (moved.alpha / moved.sigma) ** 2 / (plain.alpha / plain.sigma) ** 2
    torch.testing.assert_close(ratio, torch.full_like(ratio, 1 / 16))
    assert resolution_shift(32, reference=128) == pytest.approx(2 * math.log(4))


def test_exploding_schedules_are_their_papers_sigma():
    torch.testing.assert_close(Ve()(INSIDE).sigma, 0.01 * 5000**INSIDE)
    steps = torch.arange(18, dtype=torch.float64)  # Karras et al. 2022, eq. 5, N = 18
    first, last = 80 ** (1 / 7), 0.002 ** (1 / 7)
    sigma = (first + steps / 17 * (last - first)) ** 7
    torch.testing.assert_close(Edm()(1 - steps / 17).sigma, sigma)


BETAS: list[tuple[Schedule, Callable[[float], float]]] = [
    (Linear(0.1, 20.0, 30.0), lambda s: 0.1 + s * 19.9),
    (SubVp(0.1, 20.0, 40.0), lambda s: 0.1 + s * 19.9),
    (SubVp(0.4, 7.0, 40.0), lambda s: 0.4 + s * 6.6),
    (ScaledLinear(0.85, 12.0, 30.0), lambda s: (0.85**0.5 + s * (12**0.5 - 0.85**0.5)) ** 2),
    (ScaledLinear(0.2, 30.0, 30.0), lambda s: (0.2**0.5 + s * (30**0.5 - 0.2**0.5)) ** 2),
]


@pytest.mark.parametrize(("schedule", "beta"), BETAS)
@pytest.mark.parametrize("t", [0.03, 0.4, 1.0])
def test_alpha_squared_decays_by_the_integral_of_beta(
    schedule: Schedule, beta: Callable[[float], float], t: float
):
    alpha2 = math.exp(-quad(beta, 0, t)[0])
    level = schedule(f64(t))
    assert float(level.alpha) ** 2 == pytest.approx(alpha2, rel=1e-5)
    sigma2 = (1 - alpha2) ** 2 if isinstance(schedule, SubVp) else 1 - alpha2
    assert float(level.sigma) ** 2 == pytest.approx(sigma2, rel=1e-5)


@pytest.mark.parametrize(
    ("schedule", "first", "last"),
    [
        (Cosine(-9, 11), 11, -9),
        (Cosine(-9, 11, s=0.008), 11, -9),
        (Sqrt(-6, 8), 8, -6),
        (Sigmoid(-6, 8, -1, 2, 0.4), 8, -6),
        (Flow(-5, 12), 12, -5),
        (Linear(logsnr_max=9), 9, -10.049957),
        (SubVp(logsnr_max=9), 9, -10.049914),
        (ScaledLinear(logsnr_max=9), 9, -5.343145),
        (Ve(0.1, 10), 2 * math.log(10), -2 * math.log(10)),
        (Edm(0.1, 10), 2 * math.log(10), -2 * math.log(10)),
        (Learned(-3, 5, hidden=4), 5, -3),
        (Shifted(Flow(-5, 12), 1.5), 13.5, -3.5),
    ],
    ids=lambda s: type(s).__name__,
)
def test_schedule_ends_where_it_is_told(schedule: Schedule, first: float, last: float):
    ends = schedule.logsnr(f64(0.0, 1.0)).tolist()
    assert ends == pytest.approx([first, last], abs=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Cosine(3, 3), "logsnr_min = 3 must be below logsnr_max = 3"),
        (lambda: Cosine(s=-0.1), "s = -0.1"),
        (lambda: Cosine(s=math.inf), "s = inf"),
        (lambda: Sqrt(5, -5), "logsnr_min = 5 must be below"),
        (lambda: Sqrt(offset=0.0), "offset = 0.0"),
        (lambda: Sqrt(offset=1.0), "offset = 1.0"),
        (lambda: Sigmoid(5, -5), "logsnr_min = 5"),
        (lambda: Sigmoid(start=3, end=-3), "start = 3 must be below end = -3"),
        (lambda: Sigmoid(tau=0.0), "tau = 0.0"),
        (lambda: Sigmoid(tau=0.05), r"\(end - start\) / tau = 120"),
        (lambda: Flow(-10, math.inf), "both finite"),
        (lambda: Flow(2, 1), "logsnr_min = 2"),
        (lambda: Ve(0.0, 50.0), "sigma_min = 0.0"),
        (lambda: Ve(5.0, 5.0), "sigma_min = 5.0 must be below sigma_max = 5.0"),
        (lambda: Edm(-1.0), "sigma_min = -1.0"),
        (lambda: Edm(90.0), "sigma_min = 90.0 must be below"),
        (lambda: Edm(rho=0.0), "rho = 0.0"),
        (lambda: SubVp(0.0), "beta_min = 0.0"),
        (lambda: SubVp(3.0, 2.0), "beta_min = 3.0 must be below beta_max = 2.0"),
        (lambda: ScaledLinear(logsnr_max=-6), "logsnr at t = 1"),
        (lambda: Shifted(Flow(), math.inf), "shift = inf"),
        (lambda: resolution_shift(0), "size = 0"),
    ],
)
def test_numbers_that_leave_no_falling_path_are_refused_by_name(
    make: Callable[[], object], message: str
):
    with pytest.raises(ValueError, match=message):
        make()


def test_chain_is_a_schedule_too():
    """Its clean end apart, where logsnr is infinite."""
    chain = from_betas(linear_betas(50, 1e-3, 0.2))
    for dtype, error in ((torch.float32, 1e-6), (torch.float64, 1e-12)):
        t = times(dtype)
        logsnr = chain.logsnr(t)
        assert bool((logsnr.diff() < 0).all())
        torch.testing.assert_close(chain.time(logsnr), t, atol=error, rtol=0)
        exact = chain.logsnr(t.double())[1:]
        torch.testing.assert_close(logsnr[1:].double(), exact, atol=1e-5, rtol=0)
    inside = torch.linspace(0.0131, 0.987, 41, dtype=torch.float64)
    rate = slope(chain, inside)[1]
    difference = (chain.logsnr(inside + 1e-6) - chain.logsnr(inside - 1e-6)) / 2e-6
    torch.testing.assert_close(rate, difference, rtol=1e-6, atol=0)
