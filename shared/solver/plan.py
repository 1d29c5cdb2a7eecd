"""From a schedule, a solver and a grid to a plan: every number of a sampling run but the tensors.

A plan is computed once, in float64, and may be run again and again.
"""

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby

import torch
from torch import Tensor

from shared.schedule import Level, Schedule
from shared.solver.adams import Adams
from shared.solver.ancestral import Ancestral, LearnedRange
from shared.solver.corrected import Corrected
from shared.solver.corrector import Langevin, PredictorCorrector
from shared.solver.ddim import Ddim
from shared.solver.dpmpp import Dpmpp2m, Dpmpp2s, Dpmpp3m, DpmppSde2m
from shared.solver.edm import Churn, Euler, Heun
from shared.solver.grid import GRIDS, Grid, SchedulePath, asymmetric, points_of
from shared.solver.ode import Ode
from shared.solver.sde import EulerMaruyama, ReverseDiffusion
from shared.solver.step import CLEAN, Move, Point, Renoise, Solver, Step
from shared.solver.unipc import UniPC

SOLVERS: dict[str, Solver] = {
    "auto": Corrected(),
    "ancestral": Ancestral(),
    "ancestral_large": Ancestral("large"),
    "ancestral_learned": Ancestral("learned"),
    "ddim": Ddim(),
    "ddim_eta": Ddim(eta=1.0),
    "euler": Euler(),
    "euler_churn": Euler(Churn()),
    "heun": Heun(),
    "heun_churn": Heun(Churn()),
    "lms2": Adams(2, math.inf),
    "lms3": Adams(3, math.inf),
    "lms4": Adams(4, math.inf),
    "trig2": Adams(2),
    "trig3": Adams(3),
    "dpmpp_2m": Dpmpp2m(),
    "dpmpp_3m": Dpmpp3m(),
    "dpmpp_2s": Dpmpp2s(),
    "dpmpp_sde_2m": DpmppSde2m(),
    "unipc2": UniPC(2),
    "unipc3": UniPC(3),
    "euler_maruyama": EulerMaruyama(),
    "reverse_diffusion": ReverseDiffusion(),
    "predictor_corrector": PredictorCorrector(),
    "langevin": PredictorCorrector(Ddim(), Langevin()),
    "ode": Ode(),
}


@dataclass(frozen=True)
class Plan:
    """The steps of a run, from the level `start` on."""

    solver: Solver
    start: Point
    steps: tuple[Step | Renoise, ...]
    _levels: dict[tuple[torch.dtype, torch.device], dict[Point, Level]] = field(
        default_factory=dict, repr=False, compare=False
    )

    @cached_property
    def evaluations(self) -> int:
        """How often the loop itself asks the network; `callback` is called as often."""
        return sum(not isinstance(step, Renoise) for step in self.steps)

    @cached_property
    def learns_range(self) -> bool:
        """Whether a step needs the variance of a `RangeDenoise`."""
        return any(isinstance(step, LearnedRange) for step in self.steps)

    @cached_property
    def draws_noise(self) -> bool:
        """Whether seeds are needed."""
        return self.solver.stochastic or any(isinstance(step, Renoise) for step in self.steps)

    def levels(self, like: Tensor) -> dict[Point, Level]:
        """All levels that the steps ask at, on the device and in the dtype of `like`: made at
        once, with one transfer, and kept for the next run."""
        key = (like.dtype, like.device)
        if key not in self._levels:
            steps = [step for step in self.steps if not isinstance(step, Renoise)]
            points = list(dict.fromkeys(p for step in steps for p in (step.at, *step.asks)))
            rows = [(point.logsnr, point.alpha, point.sigma) for point in points]
            table = torch.tensor(rows, dtype=torch.float64).to(like)
            levels = (Level(*row.unbind()) for row in table.unbind())
            self._levels[key] = dict(zip(points, levels, strict=True))
        return self._levels[key]


def solver_of(solver: str | Solver) -> Solver:
    """A name of SOLVERS, or a solver itself. ValueError for an unknown name."""
    if not isinstance(solver, str):
        return solver
    if solver not in SOLVERS:
        raise ValueError(f"solver = {solver!r}: expected one of {', '.join(SOLVERS)}")
    return SOLVERS[solver]


def for_data(solver: str, data_std: float) -> Solver:
    """A solver by name, told the standard deviation of the data if it asks for one."""
    chosen = solver_of(solver)
    asks = isinstance(chosen, Corrected | Ode)
    if asks or (isinstance(chosen, Adams) and chosen.data_std < math.inf):
        return replace(chosen, data_std=data_std)
    return chosen


def prepare(
    schedule: Schedule,
    solver: str | Solver = "dpmpp_2m",
    steps: int = 20,
    grid: str | Grid | Tensor | None = None,
    end_clean: bool = True,
    start: float | None = None,
    td: float = 0.0,
) -> Plan:
    """The plan of `sample`'s arguments of the same names. ValueError for a bad grid or solver."""
    chosen = solver_of(solver)
    times = grid_times(schedule, steps, grid, end_clean, start)
    pairs = asymmetric(times, td)
    points = points_of(schedule, [time for pair in pairs for time in pair])
    ats, tos = points[::2], points[1::2]
    if end_clean:
        tos[-1] = CLEAN
    moves = [Move(at, to) for at, to in zip(ats, tos, strict=True)]
    _check_moves(pairs, moves)
    path = SchedulePath(schedule)
    planned: list[Step | Renoise] = []
    for falls, run in _runs(moves):
        planned += chosen.plan(run, path) if falls else [Renoise(m.at, m.to) for m in run]
    return Plan(chosen, ats[0], tuple(planned))


def grid_times(
    schedule: Schedule,
    steps: int,
    grid: str | Grid | Tensor | None = None,
    end_clean: bool = True,
    start: float | None = None,
) -> Tensor:
    """The times of a run, checked: steps + 1 of a named grid, or the given ones. float64."""
    if isinstance(grid, Tensor):
        if start is not None:
            raise ValueError(f"start = {start}: a list of times has a start of its own")
        times = grid.detach().double().cpu()
    else:
        if steps < 1:
            raise ValueError(f"steps = {steps}: a solver needs one step or more")
        if isinstance(grid, str) and grid not in GRIDS:
            raise ValueError(f"grid = {grid!r}: expected one of {', '.join(GRIDS)}")
        first = 1.0 if start is None else start
        if not 0 < first <= 1:
            raise ValueError(f"start = {start}: expected a time in (0, 1]")
        make = GRIDS[grid or "time"] if grid is None or isinstance(grid, str) else grid
        times = make(schedule, steps, first, end_clean)
    inner = times[:-1] if end_clean else times  # the clean end may repeat the time before
    if times.ndim != 1 or len(times) < 2 or bool((inner.diff() == 0).any()):
        raise ValueError("grid: expected two or more times, none of them twice in a row")
    if not bool(((times >= 0) & (times <= 1)).all()):
        raise ValueError("grid: expected times in [0, 1]")
    if end_clean and bool((times[-1] > times).any()):
        raise ValueError(
            "grid: the last time stands for the clean end and must be the lowest; a list that "
            "rises at its end is for end_clean=False"
        )
    return times


def _check_moves(pairs: list[tuple[float, float]], moves: list[Move]) -> None:
    """Time and noise must rise and fall together, and neither be nan."""
    for (t, s), move in zip(pairs, moves, strict=True):
        falls = move.to.logsnr > move.at.logsnr
        if falls != (s < t or move.to == CLEAN) or math.isnan(move.at.logsnr + move.to.logsnr):
            raise ValueError(
                f"schedule: logsnr is {move.at.logsnr:.6g} at t = {t:.6g} and "
                f"{move.to.logsnr:.6g} at t = {s:.6g}: expected it to fall strictly with time"
            )


def _runs(moves: list[Move]) -> list[tuple[bool, list[Move]]]:
    """Stretches of moves that all fall in noise, or all rise."""
    return [
        (falls, list(run))
        for falls, run in groupby(moves, lambda move: move.to.logsnr > move.at.logsnr)
    ]
