"""A grid fitted to a model: steps are dense where its path bends.

Along one fine run of the sampler, F (the part of the path that is not Gaussian, see `adams`) is a
function of the angle theta. A multistep method's error comes from how fast F changes, so levels are
placed at equal parts of the integral of

    (1 - floor) |dF / dtheta|^power + floor theta^(1 / 1.5 - 1),      both normalised to 1,

with |.| the root mean square over samples and coordinates. The second part is the grid "trig": no
stretch of the path is left without steps. The fine run needs no data, and one serves every number
of steps. power = 0.85 and floor = 0.2 were chosen on the problems that `benchmarks/oracle.py` tunes
on; any power from 0.7 to 1 does nearly as well.
"""

import json
import math
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from shared.denoiser import Denoise
from shared.schedule import Schedule
from shared.solver.adams import Adams, frame
from shared.solver.grid import points_of, times_of, trig
from shared.solver.loop import sample
from shared.solver.step import Point

FINE = 64  # steps of the fine run
BROAD = 1.5  # power of the grid "trig"
CELLS = 2048  # of the numerical integral


@dataclass(frozen=True)
class Fitted:
    """A Grid. rates[i] is |dF / dtheta| at angles[i] (rising); levels noisier than `sigma` (in
    units of alpha), where the path is straight, are left out.

    A clean end has the angle 0. Where more steps than that of the clean end would go below the
    angle of t = 0, the cleanest level there is, all the others share the way to that level.
    """

    angles: tuple[float, ...]
    rates: tuple[float, ...]
    data_std: float = 1.0
    sigma: float = 80.0
    power: float = 0.85
    floor: float = 0.2

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in pairwise(self.angles))
        if len(self.angles) != len(self.rates) or len(self.angles) < 2 or not rising:
            raise ValueError("grid: expected two or more rising angles, and a rate for each")
        if not all(rate >= 0 for rate in self.rates) or not any(self.rates):
            raise ValueError("grid: rates must not be negative, and not all zero")

    def __call__(self, schedule: Schedule, steps: int, start: float, end_clean: bool) -> Tensor:
        begin, end = points_of(schedule, [start, 0.0])
        noisiest = min(begin.scaled, self.sigma)
        first, last = (math.atan(x / self.data_std) for x in (noisiest, end.scaled))
        angles = self._angles(first, 0.0 if end_clean else last, steps + 1)[:-1]
        below = bool(angles[-1] < last)  # as the clean end is, beyond t = 0
        if below:
            angles = self._angles(first, last, steps)
        scaled = self.data_std * torch.tan(angles)
        begins = start if begin.scaled == noisiest else None
        times = times_of(schedule, -2 * scaled.log(), begins, 0.0 if below else None)
        return torch.cat([times, times.new_zeros(1)])

    def _angles(self, first: float, last: float, count: int) -> Tensor:
        """count angles from first to last, at equal parts of the integral between them."""
        edges = torch.linspace(first, last, CELLS + 1, dtype=torch.float64)
        middles = (edges[1:] + edges[:-1]) / 2
        fitted, broad = self._rate(middles) ** self.power, middles ** (1 / BROAD - 1)
        density = (1 - self.floor) * fitted / fitted.sum() + self.floor * broad / broad.sum()
        share = torch.cat([density.new_zeros(1), density.cumsum(0)])
        wanted = torch.linspace(0, 1, count, dtype=torch.float64)
        return _interpolate(wanted, share / share[-1], edges)

    def to_json(self) -> str:
        """All that the grid is made of."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Fitted":
        """The grid that `to_json` wrote. ValueError for anything else."""
        try:
            values = json.loads(text)
            parts = {key: tuple(values.pop(key)) for key in ("angles", "rates")}
            return cls(**parts, **values)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"grid: not a fitted grid ({error!r})") from None

    def _rate(self, angles: Tensor) -> Tensor:
        known = torch.tensor(self.angles, dtype=torch.float64)
        return _interpolate(angles, known, torch.tensor(self.rates, dtype=torch.float64))


def fit(
    denoise: Denoise,
    noise: Tensor,
    schedule: Schedule,
    condition: Tensor | None = None,
    data_std: float = 1.0,
    sigma: float = 80.0,
) -> Fitted:
    """The grid of a model, from one run of 64 steps from unit noise (B, ...): 64 NFE.

    The paths of 64 samples are enough; `condition` as in `sample`.
    """
    angles: list[float] = []
    slopes: list[Tensor] = []
    points: list[Point] = []

    def watch(i: int, x_t: Tensor, x0_hat: Tensor) -> None:
        here = frame(points[i], data_std)
        angles.append(here.u)
        slopes.append(here.slope * (x0_hat - here.skip * x_t))

    grid = partial(trig, power=BROAD, sigma=sigma, data_std=data_std)
    points += points_of(schedule, grid(schedule, FINE, 1.0, True).tolist()[:-1])
    solver = Adams(2, data_std)
    sample(denoise, noise, schedule, solver, FINE, condition, grid=grid, callback=watch)
    rates = [
        float((b - a).double().square().mean().sqrt()) / (u - v)
        for (a, u), (b, v) in pairwise(zip(slopes, angles, strict=True))
    ]
    middles = [(u + v) / 2 for u, v in pairwise(angles)]
    padded = torch.tensor([rates[0]] * 2 + rates + [rates[-1]] * 2, dtype=torch.float64)
    smooth = padded.unfold(0, 5, 1).mean(-1)
    return Fitted(tuple(middles[::-1]), tuple(smooth.flip(0).tolist()), data_std, sigma)


def _interpolate(x: Tensor, known: Tensor, values: Tensor) -> Tensor:
    """Piecewise linear through (known, values), known rising, constant beyond its ends."""
    right = torch.searchsorted(known, x).clamp(1, len(known) - 1)
    share = (x - known[right - 1]) / (known[right] - known[right - 1])
    return torch.lerp(values[right - 1], values[right], share.clamp(0, 1))
