"""What the demo leaves for a README: one picture of the samples, and its numbers in Markdown."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread

from shared.exhibits import read_json
from shared.files import write_atomic, write_text
from shared.report import Check, summary

SIZE, DPI = (11.6, 4.6), 100  # inches, and pixels of each
SENTENCES, ROWS = 10, 6  # lines shown of the samples, and of a trajectory
MARKS = {True: "met", False: "not met", None: ""}
INK, GREY = "#1a1a1a", "#767676"


def write_picture(pixels: Path, sentences: Path, out: Path) -> None:
    """Draw `samples` folders of an image run and a text run, each with its trajectory, as a PNG."""
    with rc_context({"font.size": 10, "font.family": "DejaVu Sans"}):
        figure = Figure(figsize=SIZE, layout="constrained", facecolor="white")
        left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(1, 1.35))[0]
        grid, path = left.subplots(2, 1, height_ratios=(2.6, 1))
        _image(grid, pixels / "grid.png", "Digits of every class")
        _image(path, pixels / "trajectory.png", "One of them: the noisy state, and its estimate")
        told, steps = right.subplots(2, 1, height_ratios=(SENTENCES, ROWS + 1.5))
        lines = (sentences / "samples.txt").read_text(encoding="utf-8").splitlines()
        _lines(told, lines[:SENTENCES], "Sentences about scenes")
        rows = read_json(sentences / "trajectory.json")
        chosen = [rows[round(i * (len(rows) - 1) / (ROWS - 1))] for i in range(ROWS)]
        told_rows = [f"{row['logsnr']:>6.1f}  {row['text']}" for row in chosen]
        _lines(steps, told_rows, "One of them: log-SNR, and the estimate")
        write_atomic(out, lambda file: figure.savefig(file, format="png", dpi=DPI))


def write_numbers(
    checks: Sequence[Check], about: Mapping[str, str], command: str, out: Path
) -> None:
    """The table of goals as Markdown, with the command and the facts that the numbers hold for."""
    lines = ["# The demo", "", f"Written by `{command}`.", ""]
    lines += [f"* {name}: {value}" for name, value in about.items()]
    for subject, group in groupby(checks, lambda check: check.subject):
        lines += ["", f"## {subject.capitalize()}", "", "| | value | goal | |", "|---|---|---|---|"]
        lines += [f"| {c.what} | {c.value} | {c.goal} | {MARKS[c.met]} |" for c in group]
    write_text(out, "\n".join([*lines, "", f"Goals: {summary(checks)}.", ""]))


def _image(axes: Axes, file: Path, title: str) -> None:
    axes.imshow(imread(file), cmap="gray", interpolation="nearest")
    axes.set_axis_off()
    axes.set_anchor("NW")
    axes.set_title(title, loc="left", color=GREY)


def _lines(axes: Axes, lines: Sequence[str], title: str) -> None:
    axes.set_axis_off()
    axes.set_title(title, loc="left", color=GREY)
    text = "\n".join(lines)
    axes.text(0, 1, text, va="top", family="DejaVu Sans Mono", color=INK, linespacing=1.5)
