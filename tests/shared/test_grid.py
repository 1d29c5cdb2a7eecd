"""Grids: where they stand, by their formulas and against diffusers and k-diffusion."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from shared.schedule import Cosine, Level, Schedule
from shared.solver import GRIDS, prepare, run, time_grid, time_travel
from shared.solver.grid import SchedulePath, asymmetric, karras, listed, trig, uniform_logsnr
from shared.solver.plan import grid_times
from tests.solvers import FAMILIES, Straight

SCHEDULE = Cosine(-9, 7)


def scaled(schedule: Schedule, times: Tensor) -> Tensor:
    """sigma / alpha."""
    return torch.exp(-schedule.logsnr(times) / 2)


@pytest.mark.parametrize("end_clean", [True, False])
@pytest.mark.parametrize("name", GRIDS)
def test_grids_fall_from_their_start_to_zero(name: str, end_clean: bool):
    for start in (1.0, 0.35):
        for steps in (1, 2, 9):
            times = grid_times(SCHEDULE, steps, name, end_clean, start)
            assert times.dtype == torch.float64
            assert len(times) == steps + 1
            assert float(times[-1]) == 0
            assert float(times[0]) == start or (name == "trig" and float(times[0]) < start)
            inner = times[:-1] if end_clean else times
            assert bool((inner.diff() < 0).all())
            assert prepare(SCHEDULE, "ddim", steps, name, end_clean, start).evaluations == steps


def test_logsnr_steps_are_equal_and_reach_t_0_before_the_clean_end():
    times = grid_times(SCHEDULE, 5, "logsnr")
    torch.testing.assert_close(
        SCHEDULE.logsnr(times[:-1]), torch.tensor([-9.0, -5, -1, 3, 7], dtype=torch.float64)
    )
    times = grid_times(SCHEDULE, 4, "logsnr", end_clean=False)
    torch.testing.assert_close(
        SCHEDULE.logsnr(times), torch.tensor([-9.0, -5, -1, 3, 7], dtype=torch.float64)
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_karras_is_its_formula(family: str):
    """sigma_i = (max^(1/rho) + i / (n - 1) (min^(1/rho) - max^(1/rho)))^rho, n of n steps."""
    schedule = Straight(family)
    got = scaled(schedule, karras(schedule, 6, 1.0, True, rho=5.0))[:-1]
    low, high = math.exp(-3.0), math.exp(3.0)
    ramp = [(high ** (1 / 5) + i / 5 * (low ** (1 / 5) - high ** (1 / 5))) ** 5 for i in range(6)]
    torch.testing.assert_close(got, torch.tensor(ramp, dtype=torch.float64))


def test_quadratic_steps_are_equal_in_the_root_of_time():
    times = grid_times(SCHEDULE, 4, "quadratic", start=0.64)
    torch.testing.assert_close(
        times.sqrt(), torch.tensor([0.8, 0.6, 0.4, 0.2, 0.0], dtype=torch.float64)
    )


def test_trig_steps_are_a_power_in_angle():
    """From sigma = 20 at most, or from where the schedule begins."""
    times = trig(SCHEDULE, 4, 1.0, True, power=2.0, sigma=20.0, data_std=0.5)
    first, last = math.atan(20 / 0.5), math.atan(math.exp(-3.5) / 0.5)
    angles = torch.atan(scaled(SCHEDULE, times) / 0.5)
    expected = [last + (first - last) * (1 - i / 4) ** 2 for i in range(5)]
    torch.testing.assert_close(angles, torch.tensor(expected, dtype=torch.float64))
    assert float(trig(SCHEDULE, 4, 0.3, True)[0]) == 0.3  # cleaner than sigma = 20
    assert float(scaled(SCHEDULE, torch.tensor(0.3))) < 20
    with pytest.raises(ValueError, match="is not above"):
        trig(SCHEDULE, 4, 1.0, True, sigma=0.01)


def test_given_levels_are_kept_and_others_interpolated():
    sigmas = [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.035]
    logsnrs = [-2 * math.log(sigma) for sigma in sigmas]
    same = grid_times(SCHEDULE, 10, partial(listed, logsnrs=logsnrs), end_clean=False)
    torch.testing.assert_close(
        scaled(SCHEDULE, same), torch.tensor(sigmas, dtype=torch.float64), rtol=1e-9, atol=0
    )
    other = grid_times(SCHEDULE, 20, partial(listed, logsnrs=logsnrs), end_clean=False)
    torch.testing.assert_close(other[::2], same)
    middle = math.sqrt(sigmas[0] * sigmas[1])
    assert float(scaled(SCHEDULE, other[1])) == pytest.approx(middle)
    with pytest.raises(ValueError, match="two or more that rise"):
        listed(SCHEDULE, 3, 1.0, True, logsnrs=[1.0, 0.0])


def test_levels_beyond_the_schedule_are_refused():
    with pytest.raises(ValueError, match="covers -9 to 7"):
        listed(SCHEDULE, 3, 1.0, True, logsnrs=[-12.0, 0.0])
    with pytest.raises(ValueError, match="covers -9 to 7"):
        SchedulePath(SCHEDULE).point(7.5)


def test_a_path_finds_levels_and_its_ends():
    path = SchedulePath(Straight("sub_vp"))
    point = path.point(1.5)
    assert point.logsnr == pytest.approx(1.5)
    assert point.sigma == pytest.approx(1 - point.alpha**2)
    assert path.cleanest.logsnr == pytest.approx(6)
    assert path.noisiest.logsnr == pytest.approx(-6)


def test_grids_in_noise_need_a_finite_begin():
    class Endless(Straight):
        def logsnr(self, t: Tensor) -> Tensor:
            return torch.where(t == 1, -math.inf, super().logsnr(t))

    with pytest.raises(ValueError, match="finite ends"):
        uniform_logsnr(Endless(), 4, 1.0, True)


def test_time_travel_repeats_each_stretch():
    times = time_grid(5)
    got = time_travel(times, 2, 3)
    places = [0, 1, 2, 0, 1, 2, 0, 1, 2, 3, 4, 2, 3, 4, 2, 3, 4, 5, 4, 5, 4, 5]
    torch.testing.assert_close(got, 1 - torch.tensor(places, dtype=torch.float64) / 5)
    assert prepare(SCHEDULE, "ddim", grid=got).evaluations == 5 * 3
    assert torch.equal(time_travel(times, 2, 1), times)
    with pytest.raises(ValueError, match="jump = 0"):
        time_travel(times, 0, 1)


def test_asymmetric_intervals_are_their_formula_on_uniform_times():
    for td in (0.0, 0.5, 1.0, 2.5):
        for i, (at, to) in enumerate(asymmetric(time_grid(5), td)):
            assert at == pytest.approx(1 - i / 5)
            assert to == pytest.approx(max(1 - (i + 1 + td) / 5, 0))
    uneven = torch.tensor([1.0, 0.6, 0.1, 0.0], dtype=torch.float64)
    assert [to for _, to in asymmetric(uneven, 0.5)] == pytest.approx([0.35, 0.05, 0.0])
    with pytest.raises(ValueError, match="goes back to more noise"):
        asymmetric(torch.tensor([0.9, 0.4, 0.7]), 0.5)


def _half(
    x_t: Tensor, level: Level, condition: Tensor | None = None, previous: Tensor | None = None
) -> Tensor:
    return x_t / 2


@pytest.mark.parametrize("grid", ["logsnr", "karras"])
def test_asymmetric_intervals_end_where_the_grid_does(grid: str):
    times = grid_times(SCHEDULE, 6, grid)
    assert times[-2:].tolist() == [0, 0]  # the cleanest level, from which the last move is clean
    pairs = asymmetric(times, 1.5)
    assert [at for at, _ in pairs] == times[:-1].tolist()
    assert [to for _, to in pairs[-3:]] == pytest.approx([0, 0, 0])
    assert pairs[0][1] == pytest.approx(float(times[2] + times[3]) / 2)
    plan = prepare(SCHEDULE, "ancestral", 6, grid, td=1.5)
    assert plan.evaluations == 6
    found = run(plan, _half, torch.ones(2, 3), seeds=[0, 1])
    assert torch.isfinite(found.x).all()
