"""Solvers: from noise to data along a grid of levels. One file per family, one loop for all."""

from shared.solver.grid import GRIDS, time_grid, time_travel
from shared.solver.loop import Trajectory, encode, first_state, run, sample
from shared.solver.plan import SOLVERS, Plan, prepare
from shared.solver.step import CLEAN, Point, StepHook, Taken

__all__ = [
    "CLEAN",
    "GRIDS",
    "SOLVERS",
    "Plan",
    "Point",
    "StepHook",
    "Taken",
    "Trajectory",
    "encode",
    "first_state",
    "prepare",
    "run",
    "sample",
    "time_grid",
    "time_travel",
]
