"""The loss curve of a run as inline SVG that takes the page's colours.

matplotlib writes fixed colours; two that no curve has stand for the text's and the accent, and are
replaced by CSS, so that one drawing suits a light page and a dark one. Text stays text.
"""

import io
import re
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

INK, ACCENT = "#010203", "#040506"
COLOURS = {INK: "currentColor", ACCENT: "var(--accent)"}
SIZE = (7.2, 2.6)  # inches, of 72 points


def loss_curve(rows: list[dict[str, Any]], name: str) -> str:
    """Rows of log.jsonl with `step` and `loss` -> an <svg> element; `name` makes its ids unique.

    The loss axis is logarithmic when the losses are positive and span a factor of three.
    """
    steps = [int(row["step"]) for row in rows]
    losses = [float(row["loss"]) for row in rows]
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 10}):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.add_subplot()
        axes.plot(steps, losses, color=ACCENT, alpha=0.35, linewidth=1)
        dots = "o" if len(rows) < 5 else ""
        axes.plot(steps, smoothed(losses), color=ACCENT, linewidth=2, marker=dots, clip_on=False)
        if min(losses) > 0 and max(losses) > 3 * min(losses):
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.set_xlim(0, max(steps))
        axes.set_xlabel("step", color=INK)
        axes.set_ylabel("loss", color=INK)
        axes.tick_params(color=INK, labelcolor=INK, length=3)
        axes.grid(axis="y", color=INK, alpha=0.12, linewidth=0.8)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(INK)
        written = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(written, format="svg", transparent=True, metadata=nothing)
    return _for_a_page(written.getvalue(), f"Loss of {len(rows)} logged steps")


def smoothed(losses: list[float]) -> list[float]:
    """Means over centred windows of about a fifteenth of the run, narrower towards both ends: a
    running mean would lag behind a falling loss."""
    reach = len(losses) // 30
    means: list[float] = []
    for i in range(len(losses)):
        half = min(reach, i, len(losses) - 1 - i)
        window = losses[i - half : i + half + 1]
        means.append(sum(window) / len(window))
    return means


def _for_a_page(svg: str, label: str) -> str:
    """From a document to an element: no prologue, no fixed size or fonts, the page's colours, and
    of the ids only those that are referred to, which are hashes."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'width="\S+" height="\S+"', f'role="img" aria-label="{label}"', svg, count=1)
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r"font-family: [^;\"]*; ?", "", svg)
    svg = re.sub(r' id="(?!\w[0-9a-f]{10}")[^"]*"', "", svg)
    for fixed, css in COLOURS.items():
        svg = svg.replace(fixed, css)
    return svg
