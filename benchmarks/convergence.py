"""How many steps a solver needs on a trained run of pictures: `python -m benchmarks.convergence RUN
--judge JUDGE --json FILE`.

Each solver draws the same pictures, from the same noise, as a reference of many steps does. What is
left between the two is the error of its steps alone, whatever the model has learned or not. In the
features of a judge, the mean square of what is left bounds the Frechet distance between the two
from above: Wasserstein's distance is that of the best pairing, here pictures are paired by their
noise, and Gaussians of the same moments are no further apart (Gelbrich 1990).
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import tyro
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.command import command
from benchmarks.tables import Column, Table
from image.comparison import some_rows
from image.data import load_pictures
from image.evaluation import draw_rows
from image.judge import Judge, open_judge
from image.pipeline import Pipeline
from shared.errors import ConfigError
from shared.files import write_atomic
from shared.provenance import provenance
from shared.requests import EvaluateRequest
from shared.runs import open_run
from shared.solver import GRIDS, SOLVERS

REFERENCE = ("unipc3", "logsnr")  # solver and grid


def apart(images: Tensor, reference: Tensor, judge: Judge | None) -> dict[str, float]:
    """Of pictures (n, C, H, W) and the same ones of the reference, levels: their root mean square
    difference, in levels, and "frechet_bound", mean |f - f'|^2 in the features of a judge."""
    found = {"rmse": float((images - reference).double().square().mean().sqrt())}
    if judge is not None:
        features, others = (judge.features(some).double() for some in (images, reference))
        found["frechet_bound"] = float((features - others).square().sum(1).mean())
    return found


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """What is left over the number of steps, a line for each solver and grid."""
    key = "frechet_bound" if "frechet_bound" in rows[0] else "rmse"
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    for name in dict.fromkeys((row["solver"], row["grid"]) for row in rows):
        own = [row for row in rows if (row["solver"], row["grid"]) == name]
        axes.plot(
            [row["steps"] for row in own], [row[key] for row in own], "o-", label=" ".join(name)
        )
    axes.set(xscale="log", yscale="log", xlabel="steps", ylabel=key.replace("_", " "))
    steps = sorted({row["steps"] for row in rows})
    axes.set_xticks(steps, [f"{number}" for number in steps])
    axes.set_xticks([], minor=True)
    axes.grid(alpha=0.2)
    axes.legend()
    write_atomic(path, lambda temporary: figure.savefig(temporary, format="png", dpi=144))


def run(
    run: Annotated[Path, tyro.conf.Positional],
    judge: Path | None = None,
    n: int = 64,
    seed: int = 0,
    solvers: tuple[str, ...] = ("ddim", "dpmpp_2m", "dpmpp_3m", "unipc3"),
    grids: tuple[str, ...] = ("time", "logsnr", "karras"),
    steps: tuple[int, ...] = (10, 20, 40),
    reference: int = 160,
    guidance: float = 1.0,
    json_file: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
) -> None:
    """Measure solvers on a run.

    Args:
        run: A trained run of pictures.
        judge: The run of a classifier, in whose features pictures are compared too.
        n: Pictures.
        seed: Of the first.
        solvers: Those without noise of their own: others do not end at the same picture.
        grids: Of each solver.
        steps: Of each solver on each grid.
        reference: Steps of unipc3 on equal steps of logsnr that all are held against.
        guidance: Classifier-free, at all levels.
        json_file: Write everything here, and the plot beside it.
    """
    _check(solvers, grids, steps, reference)
    config = open_run(run).config
    pipeline, sees = Pipeline.from_pretrained(run), None if judge is None else open_judge(judge)
    training = load_pictures(config.data)
    chosen = some_rows(len(training), n, seed, training.labels)
    solver, grid = REFERENCE
    base = EvaluateRequest(
        n=n, seed=seed, solver=solver, grid=grid, steps=reference, guidance=guidance
    )
    exact = draw_rows(pipeline, base, training, chosen)
    rows: list[dict[str, Any]] = []
    for name in solvers:
        for where in grids:
            for number in steps:
                how = replace(base, solver=name, grid=where, steps=number)
                left = apart(draw_rows(pipeline, how, training, chosen), exact, sees)
                rows.append({"solver": name, "grid": where, "steps": number, **left})
    table = Table(
        "What the steps of a solver leave",
        f"{n} pictures, seeds from {seed}, against {reference} steps of {solver} on equal steps of "
        f"{grid} from the same noise; guidance {guidance:g}, fp32. The bound: no larger can the "
        "Frechet distance be that the steps alone account for.",
        (
            Column("solver", "solver"),
            Column("grid", "grid"),
            Column("steps", "steps"),
            Column("rmse", "rms, levels", ".3f"),
            Column("frechet_bound", "bound of the distance", ".4f"),
        ),
        rows,
    )
    about: dict[str, Any] = {"run": run.name, "judge": judge and judge.name, "samples": n}
    about |= {"seed": seed, "reference": {"solver": solver, "grid": grid, "steps": reference}}
    table.publish(json_file, about | {"guidance": guidance, "provenance": provenance()})
    if json_file is not None:
        plot(rows, json_file.with_suffix(".png"))


def _check(
    solvers: tuple[str, ...], grids: tuple[str, ...], steps: tuple[int, ...], reference: int
) -> None:
    """ConfigError before anything is drawn."""
    still = [name for name, one in SOLVERS.items() if not one.stochastic and name != "ode"]
    for name, asked, known in (("solvers", solvers, still), ("grids", grids, [*GRIDS])):
        wrong = [one for one in asked if one not in known]
        if wrong or not asked:
            raise ConfigError(f"{name} = {asked}: expected some of {', '.join(known)}")
    if not steps or not 0 < min(steps) <= max(steps) < reference:
        raise ConfigError(f"steps = {steps}: expected numbers in [1, reference = {reference})")


if __name__ == "__main__":
    sys.exit(command(run))
