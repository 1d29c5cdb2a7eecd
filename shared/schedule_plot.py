"""Schedules to look at: their levels over time, as numbers or as one figure."""

from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure

from shared.schedule import SCHEDULES

POINTS = 101

Table = dict[str, dict[str, list[float]]]


def schedule_table(names: Sequence[str]) -> Table:
    """{name: {t, logsnr, alpha, sigma}}, each at 101 uniform times, from float64."""
    t = torch.linspace(0, 1, POINTS, dtype=torch.float64)
    table: Table = {}
    for name in names:
        with torch.no_grad():
            level = SCHEDULES[name]()(t)
        columns = {"t": t, "logsnr": level.logsnr, "alpha": level.alpha, "sigma": level.sigma}
        table[name] = {key: column.tolist() for key, column in columns.items()}
    return table


def plot_schedules(table: Table, path: Path) -> None:
    """One figure: logsnr of each schedule, and below it its alpha (drawn) and sigma (dashed).

    ValueError when the end of the file's name is no format of pictures.
    """
    figure = Figure(figsize=(7.2, 7.2), layout="constrained")
    formats = figure.canvas.get_supported_filetypes()
    if path.suffix.removeprefix(".") not in formats:
        raise ValueError(
            f"out = {path}: expected a name that ends in .png (or {', '.join(formats)})"
        )
    above, below = figure.subplots(2, 1, sharex=True)
    for name, columns in table.items():
        (line,) = above.plot(columns["t"], columns["logsnr"], label=name)
        below.plot(columns["t"], columns["alpha"], color=line.get_color())
        below.plot(columns["t"], columns["sigma"], color=line.get_color(), linestyle="--")
    above.set_ylabel("logsnr (nats)")
    above.legend(ncols=2)
    below.set_yscale("log")
    below.set_ylabel("alpha (drawn), sigma (dashed)")
    below.set_xlabel("t (0 data, 1 noise)")
    figure.savefig(path)
