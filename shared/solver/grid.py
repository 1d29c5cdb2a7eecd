"""Grids: which levels a solver steps through, as times of a schedule.

A grid is a function (schedule, steps, start, end_clean) -> steps + 1 times in float64, from `start`
to 0; its further arguments are bound with functools.partial. Times: 1 = noise, 0 = data. With
`end_clean` the last entry stands for the clean end itself, beyond t = 0: grids in time or angle
count it as their t = 0, grids in noise levels reach t = 0 one move before. `time_travel` and
`asymmetric` work on any list of times.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from shared.schedule import Schedule
from shared.solver.step import Point

Grid: TypeAlias = Callable[[Schedule, int, float, bool], Tensor]


def time_grid(steps: int, start: float = 1.0, end: float = 0.0) -> Tensor:
    """steps + 1 times falling uniformly from start to end, float64."""
    if steps < 1:
        raise ValueError(f"steps = {steps}: a solver needs one step or more")
    return torch.linspace(start, end, steps + 1, dtype=torch.float64)


def uniform_time(schedule: Schedule, steps: int, start: float, end_clean: bool) -> Tensor:
    """Times in equal steps."""
    return time_grid(steps, start)


def quadratic(schedule: Schedule, steps: int, start: float, end_clean: bool) -> Tensor:
    """Square roots of times in equal steps (Song, Meng & Ermon 2021, app. D.2)."""
    return time_grid(steps, math.sqrt(start)) ** 2


def uniform_logsnr(schedule: Schedule, steps: int, start: float, end_clean: bool) -> Tensor:
    """Log-SNRs in equal steps (Lu et al. 2022). The schedule's ends must be finite."""
    return _between(schedule, steps, start, end_clean, lambda x: x, lambda x: x)


def karras(
    schedule: Schedule, steps: int, start: float, end_clean: bool, rho: float = 7.0
) -> Tensor:
    """(sigma / alpha)^(1 / rho) in equal steps (Karras et al. 2022, eq. 5)."""
    return _between(
        schedule,
        steps,
        start,
        end_clean,
        lambda logsnr: math.exp(-logsnr / (2 * rho)),
        lambda root: -2 * rho * root.log(),
    )


def _between(
    schedule: Schedule,
    steps: int,
    start: float,
    end_clean: bool,
    into: Callable[[float], float],
    back: Callable[[Tensor], Tensor],
) -> Tensor:
    """Equal steps of a function `into` of logsnr, whose inverse is `back`."""
    ends = [_point(schedule, t).logsnr for t in (start, 0.0)]
    if math.isinf(ends[0]) or math.isinf(ends[1]):
        raise ValueError(
            f"grid: logsnr runs from {ends[0]} to {ends[1]}: this grid needs finite ends; begin at "
            "start < 1, or use the grid 'trig' or 'time'"
        )
    count = steps if end_clean else steps + 1
    first, last = into(ends[0]), into(ends[1])
    values = torch.linspace(first, last, count, dtype=torch.float64)
    times = times_of(schedule, back(values), start, 0.0)
    return torch.cat([times, times.new_zeros(1)]) if end_clean else times


def trig(
    schedule: Schedule,
    steps: int,
    start: float,
    end_clean: bool,
    power: float = 1.5,
    sigma: float = 20.0,
    data_std: float = 1.0,
) -> Tensor:
    """theta = atan(sigma / (alpha data_std)) from that of `sigma`, or of start where that is
    cleaner, to that of t = 0, as (1 - i / steps)^power."""
    begin = _point(schedule, start).scaled
    first, last = (
        math.atan(scaled / data_std) for scaled in (min(begin, sigma), _point(schedule, 0.0).scaled)
    )
    if first <= last:
        raise ValueError(f"grid: sigma = {sigma} is not above that of t = 0")
    part = time_grid(steps) ** power
    scaled = data_std * torch.tan(last + (first - last) * part)
    return times_of(schedule, -2 * scaled.log(), start if begin <= sigma else None, 0.0)


def listed(
    schedule: Schedule, steps: int, start: float, end_clean: bool, logsnrs: Sequence[float]
) -> Tensor:
    """Given log-SNRs, rising, such as those of Align Your Steps (Sabour et al. 2024: -2 ln sigma);
    for another number of steps interpolated by place in the list. The start is the list's own."""
    given = torch.tensor(logsnrs, dtype=torch.float64)
    if len(given) < 2 or not bool((given.diff() > 0).all()):
        raise ValueError(f"grid: logsnrs = {list(logsnrs)}: expected two or more that rise")
    place = torch.linspace(0, len(given) - 1, steps + 1, dtype=torch.float64)
    left = place.long().clamp(max=len(given) - 2)
    return times_of(schedule, torch.lerp(given[left], given[left + 1], place - left))


GRIDS: dict[str, Grid] = {
    "time": uniform_time,
    "logsnr": uniform_logsnr,
    "karras": karras,
    "quadratic": quadratic,
    "trig": trig,
}


def times_of(
    schedule: Schedule, logsnr: Tensor, start: float | None = None, end: float | None = None
) -> Tensor:
    """logsnr (n,) -> times (n,); the ends are replaced by start and end, if given, which rounding
    would miss. ValueError where the schedule does not reach."""
    times = schedule.time(logsnr.double())
    if start is not None:
        times[0] = start
    if end is not None and len(times) > 1:
        times[-1] = end
    slack = 1e-9  # rounding of the inverse at the schedule's own ends
    if not bool(((times >= -slack) & (times <= 1 + slack)).all()):
        ends = schedule.logsnr(torch.tensor([1.0, 0.0], dtype=torch.float64)).tolist()
        raise ValueError(
            f"grid: logsnr {logsnr.min():.4g} to {logsnr.max():.4g} is not on the schedule, which "
            f"covers {ends[0]:.4g} to {ends[1]:.4g}"
        )
    return times.clamp(0, 1)


def time_travel(times: Tensor, jump: int, resamplings: int) -> Tensor:
    """RePaint's grid (Lugmayr et al. 2022, sec. 4.2): each stretch of `jump` moves is made
    `resamplings` times, with a re-noising move back to its beginning in between.

    times (n + 1,) falling -> a longer list that rises once a repetition; NFE n x resamplings.
    """
    if jump < 1 or resamplings < 1:
        raise ValueError(
            f"jump = {jump}, resamplings = {resamplings}: expected whole numbers from 1"
        )
    whole = [float(times[0])]
    for start in range(0, len(times) - 1, jump):
        stretch = times[start + 1 : start + jump + 1].tolist()
        whole += stretch
        for _ in range(resamplings - 1):
            whole += [float(times[start]), *stretch]
    return torch.tensor(whole, dtype=torch.float64)


def asymmetric(times: Tensor, td: float) -> list[tuple[float, float]]:
    """The moves of Analog Bits' asymmetric time intervals (Chen et al. 2022, Alg. 2): move i asks
    at times[i] and goes to place i + 1 + td of the grid, at most to its end.

    On a uniform grid that is max(1 - (i + 1 + td) / S, 0); on others, linear between places. Grids
    that go back to more noise (`time_travel`) have no such moves: ValueError.
    """
    steps = len(times) - 1
    if td < 0 or not math.isfinite(td):
        raise ValueError(f"td = {td}: expected a number of steps from 0 on")
    if td and steps == 1:
        raise ValueError(
            f"td = {td} with one step: it ends clean whatever td is; use 2 steps or more"
        )
    if td and bool((times.diff() > 0).any()):
        raise ValueError(f"td = {td}: this grid goes back to more noise; leave td out")
    given = times.tolist()
    moves: list[tuple[float, float]] = []
    for i in range(steps):
        place = min(i + 1 + td, float(steps))
        left = min(int(place), steps - 1)
        part = place - left
        moves.append((given[i], given[left] * (1 - part) + given[left + 1] * part))
    return moves


@dataclass(frozen=True)
class SchedulePath:
    """A schedule as the `Path` of levels that solvers may ask for."""

    schedule: Schedule

    def point(self, logsnr: float) -> Point:
        """The level at a logsnr. ValueError beyond the schedule's own range."""
        times = times_of(self.schedule, torch.tensor([logsnr], dtype=torch.float64))
        return _point(self.schedule, float(times[0]))

    @property
    def cleanest(self) -> Point:
        return _point(self.schedule, 0.0)

    @property
    def noisiest(self) -> Point:
        return _point(self.schedule, 1.0)


def points_of(schedule: Schedule, times: Sequence[float]) -> list[Point]:
    """The levels at times in [0, 1], as floats computed in float64."""
    levels = schedule(torch.tensor(times, dtype=torch.float64))
    parts = (part.detach().tolist() for part in (levels.logsnr, levels.alpha, levels.sigma))
    return [Point(*row) for row in zip(*parts, strict=True)]


def _point(schedule: Schedule, t: float) -> Point:
    return points_of(schedule, [t])[0]
