"""Solvers: from noise to data along a grid of levels. One file per family, one loop for all."""

from shared.solver.fitted import Fitted, fit
from shared.solver.grid import GRIDS, time_grid, time_travel
from shared.solver.loop import Trajectory, encode, first_state, run, sample
from shared.solver.plan import SOLVERS, Plan, for_data, prepare
from shared.solver.step import CLEAN, Point, StepHook, Taken

__all__ = [
    "CLEAN",
    "GRIDS",
    "SOLVERS",
    "Fitted",
    "Plan",
    "Point",
    "StepHook",
    "Taken",
    "Trajectory",
    "encode",
    "first_state",
    "fit",
    "for_data",
    "prepare",
    "run",
    "sample",
    "time_grid",
    "time_travel",
]
