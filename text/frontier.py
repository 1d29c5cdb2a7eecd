"""The frontier of a run: perplexity beside unigram entropy at several values of one setting.

Perplexity alone rewards repetition, and what lowers it (a lower temperature, more steps, a larger
td) also lowers the entropy: two models, or two settings of one, compare only at equal entropy. The
data's own point shows where a perfect model would be.
"""

import json
import sys
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from shared.errors import ConfigError
from shared.files import write_atomic, write_text
from shared.ranks import on_rank_zero
from shared.requests import EvaluateRequest
from shared.runs import Run
from shared.sweep import parse_sweep
from shared.task import Panel
from text.baseline import CausalLM
from text.evaluation import circumstances, draw_texts, find_sources
from text.pipeline import Pipeline
from text.yardstick import Yardstick, find_yardstick

# Across and up, each with how the same number of held-out data is called.
PAIR = {"unigram_entropy": "_data", "perplexity": "_held_out"}


def frontier(run: Run, request: EvaluateRequest, panel: Panel) -> dict[str, Any]:
    """Draw request.n sentences at each value of request.frontier, measure them as `evaluate` does,
    and write frontier.json and frontier.png in the run folder; returns what the first holds."""
    name, points = parse_sweep("frontier", request.frontier or "").name, request.points()
    # before a judge is looked for: what the model cannot do is said before one is trained
    drawn = _draw(run, name, points)
    yardstick = find_yardstick(run, panel, request.split)
    return on_rank_zero(lambda: _measured(run, request, drawn, yardstick))


def _measured(
    run: Run, request: EvaluateRequest, drawn: dict[float, list[str]], yardstick: Yardstick
) -> dict[str, Any]:
    """The measures of each point's sentences, written too."""
    name = parse_sweep("frontier", request.frontier or "").name
    rows: list[dict[str, Any]] = []
    for value, texts in drawn.items():
        rows.append({name: value, **yardstick.measure(texts)})
        _say(f"{name} = {value:g}: " + ", ".join(f"{key} {rows[-1][key]:.3f}" for key in PAIR))
    facts = circumstances(yardstick, request)
    del facts["settings"][name]
    data = {key: rows[0][key + beside] for key, beside in PAIR.items()}
    result = {"setting": name, "points": rows, "data": data, **facts}
    write_text(run.folder / "frontier.json", json.dumps(result, indent=2))
    plot_frontier(result, run.folder / "frontier.png")
    return result


def plot_frontier(found: dict[str, Any], path: Path) -> None:
    """The points of a frontier as a line with the setting's values at it, and the data's own, as
    PNG; perplexity on a logarithmic scale."""
    name, rows, data = found["setting"], found["points"], found["data"]
    x, y = PAIR
    figure = Figure(figsize=(7.2, 4.8), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([row[x] for row in rows], [row[y] for row in rows], marker="o", label=f"by {name}")
    for row in rows:
        axes.annotate(f"{row[name]:g}", (row[x], row[y]), (5, 5), textcoords="offset points")
    axes.plot(data[x], data[y], "*", color="black", markersize=12, label="held-out data")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=range(1, 10)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.set_xlabel("unigram entropy (nats)")
    axes.set_ylabel("perplexity under the judge")
    axes.grid(alpha=0.2)
    axes.legend()
    write_atomic(path, lambda temporary: figure.savefig(temporary, format="png", dpi=144))


def _draw(run: Run, name: str, points: dict[float, EvaluateRequest]) -> dict[float, list[str]]:
    """The sentences of each point, with the same seeds."""
    weights = next(iter(points.values())).weights
    pipeline = Pipeline.from_pretrained(run.folder, weights)
    if isinstance(pipeline.learner, CausalLM) and name != "temperature":
        raise ConfigError(
            f"frontier: {name} does nothing to the causal reference, which writes word by word; "
            "vary its temperature"
        )
    drawn: dict[float, list[str]] = {}
    references = find_sources(pipeline, next(iter(points.values())))
    for value, request in points.items():
        _say(f"{name} = {value:g}: {request.n} sentences ({len(drawn) + 1} of {len(points)})")
        drawn[value] = draw_texts(pipeline, request, references)
    return drawn


def _say(line: str) -> None:
    print(line, file=sys.stderr)
