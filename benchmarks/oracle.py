"""Samplers where the answer is known: `python -m benchmarks.oracle`.

On a distribution whose denoiser is exact, so is the answer: our solvers and grids, and diffusers'
and k-diffusion's samplers beside them on the same denoisers and noise in the same process. Writes
`docs/results/oracle.md` with its numbers and its picture. The verdict holds `solver="auto"` on its
fitted grid against the best peers.
"""

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from matplotlib.figure import Figure
from rich.console import Console

from benchmarks import oracle_peers
from benchmarks.command import command
from benchmarks.gaussian_plots import BLUE, GREEN, GREY, ORANGE, VIOLET, svg
from benchmarks.oracle_measures import (
    COMBINED_NFE,
    Rows,
    clouds,
    combinations,
    errors,
    geometric_mean,
    noisy,
    ours,
)
from benchmarks.oracle_problems import HELD_OUT, TUNE, Problem, draw
from benchmarks.tables import Column, Table
from shared.files import write_text
from shared.provenance import provenance

NFES = (5, 10, 20, 50, 100)
NOISY_NFES = (10, 20, 50)
GOALS = {5: 0.5, 10: 0.5, 20: 0.8, 50: 0.8}  # of the chosen sampler's error over the best peer's
MEASURES = ("rms", "median")
CHOSEN = "auto, fitted"
DRAWN = (CHOSEN, "dpmpp_2m, logsnr", "diffusers DPM++ 2M karras", "k-diffusion heun")
PLACE = Path("docs/results")


def means(rows: Rows, measure: str) -> dict[int, dict[str, float]]:
    """Geometric means over problems: NFE -> sampler -> mean."""
    found: dict[int, dict[str, list[float]]] = {}
    for row in rows:
        found.setdefault(row["nfe"], {}).setdefault(row["sampler"], []).append(row[measure])
    return {
        nfe: {name: geometric_mean(values) for name, values in by_name.items()}
        for nfe, by_name in found.items()
    }


def cells(rows: Rows, nfe: int, measure: str, chosen: str = CHOSEN) -> dict[str, tuple[str, float]]:
    """Problem -> the best peer there, and the chosen sampler's error over that peer's."""
    found: dict[str, tuple[str, float]] = {}
    for problem in dict.fromkeys(row["problem"] for row in rows):
        here = [row for row in rows if row["problem"] == problem and row["nfe"] == nfe]
        mine = next(row[measure] for row in here if row["sampler"] == chosen)
        best = min((row for row in here if not row["ours"]), key=lambda row: row[measure])
        found[problem] = best["sampler"], geometric_mean([mine]) / geometric_mean([best[measure]])
    return found


def verdict(rows: Rows, chosen: str = CHOSEN) -> Rows:
    """A row an NFE and measure: the chosen sampler against the single peer that is best there over
    all problems, and the problems on which it is worse than the best peer of that problem."""
    found: Rows = []
    for nfe in dict.fromkeys(row["nfe"] for row in rows):
        for measure in MEASURES:
            mine = means([row for row in rows if row["sampler"] == chosen], measure)[nfe][chosen]
            theirs = means([row for row in rows if not row["ours"]], measure)[nfe]
            best = min(theirs, key=theirs.__getitem__)
            ratio, goal = mine / theirs[best], GOALS.get(nfe)
            worse = {k: v for k, v in cells(rows, nfe, measure, chosen).items() if v[1] > 1}
            missed = None if goal is None else "reached" if ratio <= goal else f"{ratio / goal:.2f}"
            found.append(
                {
                    "nfe": nfe,
                    "measure": measure,
                    "chosen": mine,
                    "peer": best,
                    "theirs": theirs[best],
                    "ratio": ratio,
                    "goal": goal,
                    "missed": missed,
                    "worse": {name: {"peer": p, "ratio": r} for name, (p, r) in worse.items()},
                    "cells": ", ".join(f"{name} {r:.2f}" for name, (_, r) in worse.items())
                    or "none",
                }
            )
    return found


def lost(rows: Rows, problems: int) -> str:
    """The verdict in a sentence."""
    missed = [
        f"{row['measure']} at NFE {row['nfe']}"
        for row in rows
        if row["ratio"] > (row["goal"] or math.inf)
    ]
    count = sum(len(row["worse"]) for row in rows)
    return (
        f"Goals missed: {', '.join(missed) or 'none'}. A peer is better in {count} of "
        f"{problems * len(rows)} cells (problem, NFE, error)."
    )


def verdict_table(rows: Rows, problems: int) -> Table:
    return Table(
        f"Verdict: {CHOSEN}",
        f"{lost(rows, problems)} "
        "Geometric mean over the problems of the error of `auto` on a grid fitted with 64 "
        "evaluations of the denoiser alone, against the single peer that is best at that NFE. "
        "Missed: 'reached', or by what factor not. Worse: the problems where a peer, any, has a "
        "smaller error, and the ratio to the best peer there.",
        (
            Column("nfe", "NFE"),
            Column("measure", "error"),
            Column("chosen", "auto", ".3g"),
            Column("peer", "best peer"),
            Column("theirs", "its error", ".3g"),
            Column("ratio", "ratio", ".2f"),
            Column("goal", "goal", ".1f"),
            Column("missed", "missed by"),
            Column("cells", "worse on"),
        ),
        rows,
    )


def problem_table(problems: Sequence[Problem], rows: Rows) -> Table:
    """What they are, and the chosen sampler's errors over those of the best peer of each cell."""
    shown: Rows = []
    for problem in problems:
        row: dict[str, Any] = {"name": problem.name, "about": problem.about}
        row["shape"] = " x ".join(map(str, problem.shape))
        for nfe in dict.fromkeys(row["nfe"] for row in rows):
            ratios = (cells(rows, nfe, measure)[problem.name][1] for measure in MEASURES)
            row[f"nfe{nfe}"] = " / ".join(f"{ratio:.2f}" for ratio in ratios)
        shown.append(row)
    nfes = dict.fromkeys(row["nfe"] for row in rows)
    return Table(
        "Problems",
        f"Last columns: error of {CHOSEN} over that of the best of all peers on that problem, root "
        "mean square / median.",
        (
            Column("name", "problem"),
            Column("about", "what it is"),
            Column("shape", "x0"),
            *(Column(f"nfe{nfe}", f"NFE {nfe}") for nfe in nfes),
        ),
        shown,
    )


def error_table(rows: Rows, n: int) -> Table:
    """A line a sampler, the best first."""
    by_measure = {measure: means(rows, measure) for measure in MEASURES}
    nfes = list(by_measure["rms"])
    shown: Rows = []
    for name in dict.fromkeys(row["sampler"] for row in rows):
        parts = {nfe: [by_measure[measure][nfe][name] for measure in MEASURES] for nfe in nfes}
        texts = {f"nfe{nfe}": f"{rms:.3g} / {median:.3g}" for nfe, (rms, median) in parts.items()}
        total = geometric_mean(value for pair in parts.values() for value in pair)
        shown.append({"name": name, "all": total} | texts)
    return Table(
        "Samplers that follow the ODE",
        f"Distance from the exact solution, in standard deviations of the data: root mean square / "
        f"median of {n} samples, geometric mean over the problems. Heun and others with two "
        "evaluations a step take as many steps as the NFE pay for. Names without a library are "
        "ours: solver, grid.",
        (
            Column("name", "sampler"),
            *(Column(f"nfe{nfe}", f"NFE {nfe}") for nfe in nfes),
            Column("all", "all", ".3g"),
        ),
        sorted(shown, key=lambda row: row["all"]),
    )


def cloud_table(rows: Rows, n: int) -> Table:
    """A line a stochastic sampler, and the floor."""
    by_nfe = means(rows, "w2")
    floors = {row["problem"]: row["floor"] for row in rows}
    floor = geometric_mean(floors.values())
    shown: Rows = [
        {"name": name} | {f"nfe{nfe}": by_name[name] for nfe, by_name in by_nfe.items()}
        for name in by_nfe[next(iter(by_nfe))]
    ]
    shown.sort(key=lambda row: geometric_mean(row[f"nfe{nfe}"] for nfe in by_nfe))
    shown.append({"name": "fresh draws (the floor)"} | {f"nfe{nfe}": floor for nfe in by_nfe})
    return Table(
        "Samplers that draw noise",
        f"Sliced Wasserstein-2 between {n} samples and {n} fresh draws, in standard deviations of "
        "the data, geometric mean over the problems. No sampler can be told from another below the "
        "floor: two sets of fresh draws.",
        (Column("name", "sampler"), *(Column(f"nfe{nfe}", f"NFE {nfe}", ".3f") for nfe in by_nfe)),
        shown,
    )


def combination_table(rows: Rows, names: str) -> Table:
    return Table(
        "Schedule x prediction x solver",
        f"{COMBINED_NFE} NFE, root mean square error, geometric mean over {names}. Own: on the "
        "schedule's own times. Same levels: on those of the grid `trig`; there a schedule is left "
        "with its family (how alpha and sigma share the power), which our solvers, exact in it, "
        "do not see. Predictions: the largest difference of a sample between networks that "
        "predict x0, eps, score, v, velocity and edm's F. A solver is given a denoiser, so exact "
        "networks differ by rounding alone: a full table would be this one, over and over.",
        (
            Column("schedule", "schedule"),
            Column("solver", "solver"),
            Column("own", "own", ".3g"),
            Column("same", "same levels", ".3g"),
            Column("predictions", "predictions", ".0e"),
        ),
        rows,
    )


def picture(figure: Figure, rows: Rows) -> None:
    """Error against NFE: ours, two everyday peers, and the best peer at each NFE."""
    colours = (BLUE, GREEN, ORANGE, VIOLET)
    for axes, measure in zip(figure.subplots(1, 2), MEASURES, strict=True):
        by_nfe = means(rows, measure)
        best = means([row for row in rows if not row["ours"]], measure)
        least = [min(best[nfe].values()) for nfe in by_nfe]
        axes.plot(list(by_nfe), least, color=GREY, linestyle=":", label="best peer at each NFE")
        for name, colour in zip(DRAWN, colours, strict=True):
            line = [by_name.get(name, math.nan) for by_name in by_nfe.values()]
            axes.plot(list(by_nfe), line, ".-", color=colour, linewidth=1.5, label=name)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(list(by_nfe), [str(nfe) for nfe in by_nfe])
        axes.minorticks_off()
        axes.set_xlabel("NFE")
        axes.set_title("root mean square error" if measure == "rms" else "median error", loc="left")
        if measure == "median":
            axes.legend()


def run(
    problems: Literal["tune", "held_out"] = "held_out",
    seed: int = 0,
    n: int = 512,
    quick: bool = False,
    json_file: Annotated[Path, tyro.conf.arg(name="json")] = PLACE / "oracle.json",
    markdown: Path = PLACE / "oracle.md",
    plot: Path = PLACE / "oracle.svg",
) -> None:
    """Compare samplers on distributions whose answer is known.

    Args:
        problems: Those that `auto` was tuned on, or other families.
        seed: Of the problems and of the noise; a free choice.
        n: Samples of every sampler; four times as many of those that draw noise.
        quick: Two problems, 5 and 10 NFE, few samples: to see that it runs.
        json_file: All numbers go here.
        markdown: The tables go here.
        plot: The picture goes here.
    """
    torch.set_num_threads(1)  # small tensors: more threads cost time
    drawn = draw(TUNE if problems == "tune" else HELD_OUT, seed)
    nfes, noisy_nfes = NFES, NOISY_NFES
    if quick:
        drawn, nfes, noisy_nfes, n = drawn[:2], NFES[:2], NOISY_NFES[:1], min(n, 32)
    console = Console()
    rows: Rows = []
    apart: Rows = []
    for place, problem in enumerate(drawn):
        console.print(f"{problem.name}: {problem.about}", highlight=False)
        noise = problem.noise(n, 1000 * seed + 10 + place)
        samplers = ours(problem, seed) + oracle_peers.deterministic()
        rows += errors(problem, samplers, noise, nfes)
        apart += clouds(problem, noisy() + oracle_peers.stochastic(), 4 * n, noisy_nfes)
    few = drawn[:3]
    combined = combinations(few, min(n, 256), 1000 * seed)
    tables = {
        "verdict": verdict_table(verdict(rows), len(drawn)),
        "problems": problem_table(drawn, rows),
        "errors": error_table(rows, n),
        "clouds": cloud_table(apart, 4 * n),
        "combinations": combination_table(combined, ", ".join(problem.name for problem in few)),
    }
    for table in tables.values():
        table.show(console)
    about = {"problems": problems, "seed": seed, "n": n} | provenance()
    page = {"about": about} | {name: table.rows for name, table in tables.items()}
    page["errors_by_problem"], page["clouds_by_problem"] = rows, apart
    write_text(json_file, json.dumps(page, indent=1))
    write_text(plot, svg(lambda figure: picture(figure, rows)))
    command = f"python -m benchmarks.oracle --problems {problems} --seed {seed} --n {n}"
    head = f"# Samplers where the answer is known\n\nWritten by `{command}`.\n\n"
    head += f"![Error against NFE]({plot.name})\n\n"
    write_text(markdown, head + "\n".join(table.markdown() for table in tables.values()))


if __name__ == "__main__":
    sys.exit(command(run))
