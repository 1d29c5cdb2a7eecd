"""The corrected solver against predictor and corrector written out, and fitted grids against rates
known in closed form."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from shared.denoiser import Denoise
from shared.oracle import GaussianMixture
from shared.schedule import Cosine, Level, Schedule, Ve
from shared.solver import sample, time_grid
from shared.solver.corrected import Corrected
from shared.solver.fitted import Fitted, fit
from shared.solver.grid import points_of
from shared.solver.plan import grid_times

SCHEDULE = Cosine(-12, 12)


def gaussian(std: float) -> GaussianMixture:
    one = torch.ones(1, dtype=torch.float64)
    return GaussianMixture(
        one, torch.zeros(1, 3, dtype=torch.float64), std**2 * torch.ones(1, 3).double()
    )


def mixture() -> GaussianMixture:
    means = torch.tensor([[-0.9, 0.4], [0.7, -0.5], [0.2, 1.1]], dtype=torch.float64)
    variances = torch.tensor([[0.05, 0.2], [0.1, 0.03], [0.08, 0.15]], dtype=torch.float64)
    return GaussianMixture(torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64), means, variances)


def normals(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


def integral(nodes: list[tuple[float, Tensor]], begin: float, end: float) -> Tensor:
    """Of the polynomial through (angle, F), by Gauss's rule of 3 points: exact to degree 5."""
    total = torch.zeros_like(nodes[0][1])
    for place, weight in ((-math.sqrt(0.6), 5 / 9), (0.0, 8 / 9), (math.sqrt(0.6), 5 / 9)):
        u = (begin + end) / 2 + (end - begin) / 2 * place
        for i, (own, value) in enumerate(nodes):
            basis = math.prod((u - v) / (own - v) for j, (v, _) in enumerate(nodes) if j != i)
            total = total + weight * (end - begin) / 2 * basis * value
    return total


def written_out(
    denoise: Denoise, x: Tensor, grid: Tensor, s: float, degree: int, shares: list[float]
) -> Tensor:
    """The state in y = x / q, corrected by name before each prediction; shares[i] before step i."""
    points = points_of(SCHEDULE, grid.tolist())
    q = [math.hypot(p.alpha * s, p.sigma) for p in points]
    angles = [math.atan2(p.sigma, p.alpha * s) for p in points]
    y, before, known = x / q[0], x / q[0], []
    for i, point in enumerate(points[:-1]):
        level = Level(
            *(
                torch.tensor(v, dtype=torch.float64)
                for v in (point.logsnr, point.alpha, point.sigma)
            )
        )
        x0_hat = denoise(q[i] * y, level)
        skipped = point.alpha * s**2 / q[i] ** 2 * (q[i] * y)
        slope = -(x0_hat - skipped) * q[i] / (point.sigma * s)  # dy / dtheta = -F
        known = [(angles[i], slope), *known]
        if i:
            corrected = before + integral(known[: degree + 1], angles[i - 1], angles[i])
            y = y + shares[i] * (corrected - y)
        before = y
        y = y + integral(known[:degree], angles[i], angles[i + 1])
    return q[-1] * y


@pytest.mark.parametrize(
    ("steps", "degree", "shares"),
    [
        (1, 2, [1.0]),
        (2, 2, [1.0, 0.0]),
        (5, 2, [1.0, 0.825, 0.65, 0.475, 0.3]),  # to (5 - 2) / 10
        (7, 2, [1.0, 11 / 12, 5 / 6, 0.75, 2 / 3, 7 / 12, 0.5]),
        (13, 2, [1.0] * 13),
        (14, 2, [1.0] * 14),
        (15, 3, [1.0] * 15),
    ],
)
def test_one_weighted_sum_is_predictor_and_corrector(steps: int, degree: int, shares: list[float]):
    oracle, x, s = mixture(), normals(5, 2), 0.8
    grid = (0.93 - 0.1) * time_grid(steps) ** 1.3 + 0.1
    got = sample(oracle.denoise, x, SCHEDULE, Corrected(s), grid=grid, end_clean=False)
    first = points_of(SCHEDULE, grid[:1].tolist())[0]
    x = x * math.hypot(first.alpha, first.sigma)
    expected = written_out(oracle.denoise, x, grid, s, degree, shares)
    torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 11])
def test_gaussian_data_of_its_std_are_exact_in_any_number_of_steps(steps: int):
    x, std = normals(6, 3), 0.6
    got = sample(gaussian(std).denoise, x, SCHEDULE, Corrected(std), steps)
    start = points_of(SCHEDULE, [1.0])[0]
    exact = x * std / math.hypot(start.alpha * std, start.sigma)  # the ODE keeps the z-score
    torch.testing.assert_close(got, exact, rtol=1e-12, atol=1e-12)


def test_impossible_spread_is_refused():
    for std in (0.0, -1.0, math.inf):
        with pytest.raises(ValueError, match="data_std"):
            Corrected(std)


def angles_of(times: Tensor, data_std: float) -> list[float]:
    return [math.atan(p.scaled / data_std) for p in points_of(SCHEDULE, times[:-1].tolist())]


def test_fitted_grid_halves_its_steps_where_the_path_bends_twice_as_fast():
    bend = Fitted((0.2, 0.6999, 0.7, 1.4), (8.0, 8.0, 2.0, 2.0), power=0.5, floor=0.0, sigma=40.0)
    angles = angles_of(bend(SCHEDULE, 40, 1.0, True), 1.0)
    gaps = [a - b for a, b in pairwise(angles)]
    coarse = [gap for gap, a in zip(gaps, angles, strict=False) if a - gap > 0.71]
    fine = [gap for gap, a in zip(gaps, angles, strict=False) if a < 0.69]
    assert max(coarse) == pytest.approx(min(coarse), rel=0.02)
    assert max(fine) == pytest.approx(min(fine), rel=0.02)
    assert coarse[0] / fine[0] == pytest.approx(2.0, rel=0.02)  # (8 / 2) to the power 0.5


def test_without_rates_the_fitted_grid_is_a_power_of_the_angle():
    broad = Fitted((0.2, 1.4), (1.0, 3.0), floor=1.0, sigma=40.0, data_std=0.7)
    angles = torch.tensor(angles_of(broad(SCHEDULE, 9, 1.0, True), 0.7))
    expected = math.atan(40 / 0.7) * time_grid(9)[:-1].float() ** 1.5
    torch.testing.assert_close(angles[:-1], expected[:-1], rtol=1e-2, atol=0)


def test_fitted_grid_begins_at_its_noise_or_at_the_start_and_ends_clean():
    grid = Fitted((0.2, 1.4), (1.0, 3.0), sigma=30.0)
    whole = grid(SCHEDULE, 6, 1.0, True)
    assert points_of(SCHEDULE, whole[:1].tolist())[0].scaled == pytest.approx(30.0)
    assert float(grid(SCHEDULE, 6, 0.4, True)[0]) == 0.4
    assert len(whole) == 7
    assert float(whole[-1]) == 0.0
    assert bool((whole.diff() < 0).all())
    open_ended = grid(SCHEDULE, 6, 0.4, False)
    assert float(open_ended[-1]) == 0.0
    assert float(open_ended[-2]) > float(grid(SCHEDULE, 6, 0.4, True)[-2]) * 0.9


@pytest.mark.parametrize(
    ("schedule", "steps", "data_std"),
    [
        (Cosine(-12, 6), 50, 1.0),
        (Cosine(-12, 8), 200, 1.0),
        (Cosine(-12, 12), 1000, 1.0),
        (Ve(), 100, 0.5),
    ],
)
def test_many_steps_of_a_fitted_grid_stay_above_the_cleanest_level(
    schedule: Schedule, steps: int, data_std: float
):
    """Flat rates: the part of the way that is done at an angle u is, in closed form, 0.8 of that in
    u and 0.2 of that in u^(2/3), and the same in every step but the one to the clean end."""
    grid = Fitted((0.2, 1.4), (1.0, 1.0), data_std)
    times = grid_times(schedule, steps, grid)
    assert len(times) == steps + 1
    assert times[-2:].tolist() == [0.0, 0.0]  # the cleanest level, and the clean end
    points = points_of(schedule, times[:-1].tolist())
    angles = torch.tensor([math.atan(p.scaled / data_std) for p in points], dtype=torch.float64)
    done = [(x[0] - x) / (x[0] - x[-1]) for x in (angles, angles ** (2 / 3))]
    equal = torch.linspace(0, 1, steps, dtype=torch.float64)
    torch.testing.assert_close(0.8 * done[0] + 0.2 * done[1], equal, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("angles", "rates"),
    [((0.2,), (1.0,)), ((0.2, 0.1), (1.0, 1.0)), ((0.1, 0.2), (0.0, 0.0)), ((0.1, 0.2), (1.0,))],
)
def test_rates_that_are_none_are_refused(angles: tuple[float, ...], rates: tuple[float, ...]):
    with pytest.raises(ValueError, match="grid: "):
        Fitted(angles, rates)


def test_fit_finds_the_bend_of_gaussian_data_of_another_std():
    """Of data of std c, seen with std 1: x = z hypot(a c, s), so with t = tan(theta) the slope of y
    is z (1 - c^2) t / sqrt((c^2 + t^2) (1 + t^2)). Smoothing blurs where its own slope is small."""
    c = 0.4
    found = fit(gaussian(c).denoise, normals(400, 3), SCHEDULE)

    def slope(u: float) -> float:
        t = math.tan(u)
        return (1 - c**2) * t / math.sqrt((c**2 + t**2) * (1 + t**2))

    for angle, rate in list(zip(found.angles, found.rates, strict=True))[12:50:6]:
        exact = abs(slope(angle + 1e-4) - slope(angle - 1e-4)) / 2e-4
        assert rate == pytest.approx(exact, rel=0.08) or exact < 0.2


def test_few_steps_on_a_fitted_grid_beat_dpmpp_2m_on_its_own():
    """Median error against 400 steps of order 3: a half of dpmpp_2m's on its best grid, or less."""
    oracle, x = mixture(), normals(256, 2)
    exact = sample(oracle.denoise, x, SCHEDULE, "trig3", 400, grid="trig")
    grid = fit(oracle.denoise, normals(64, 2), SCHEDULE)
    for steps in (10, 20):
        errors = [
            float((out - exact).square().mean(1).sqrt().median())
            for out in (
                sample(oracle.denoise, x, SCHEDULE, "auto", steps, grid=grid),
                sample(oracle.denoise, x, SCHEDULE, "dpmpp_2m", steps, grid="logsnr"),
            )
        ]
        assert errors[0] < errors[1] / 2, errors
