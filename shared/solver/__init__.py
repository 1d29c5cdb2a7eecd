"""Solvers: from noise to data along a grid of levels. One file per family, one loop for all."""

from shared.solver.loop import SOLVERS, sample, time_grid

__all__ = ["SOLVERS", "sample", "time_grid"]
