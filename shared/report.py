"""One page about some runs: how each was trained, what it draws, what was measured.

The page is a single HTML file that fetches nothing: pictures are data URIs, curves inline SVG, and
a content security policy says so to the browser. It shows whatever the panels wrote, see
`shared.exhibits`; everything from a run is escaped.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import jinja2

from shared.curve import loss_curve
from shared.errors import CheckpointError, ConfigError
from shared.exhibits import Gallery, galleries, number, read_json, spaced
from shared.files import write_text
from shared.provenance import provenance
from shared.runs import Run, open_run
from shared.train import checkpoint
from shared.train.progress import read_log

# How a measure names the same measure of real data, which stands beside it: the first of these.
BESIDE = ("_held_out", "_data", "_floor")

TREND = "Mean of each logged interval, and the trend."
MOVES = (
    "This run fits its training times to the loss (fit_density): it spends ever more of them "
    "at the noise levels that are hard, so the mean may rise while the model gets better."
)


@dataclass(frozen=True)
class Check:
    """A number beside its goal. `met` is None when there is no goal, or none is claimed."""

    subject: str
    what: str
    value: str
    goal: str
    met: bool | None


@dataclass(frozen=True)
class Measures:
    """evaluation.json: (measure, value, the same of real data), then groups of facts."""

    rows: list[tuple[str, str, str]]
    groups: dict[str, list[tuple[str, str]]]


@dataclass(frozen=True)
class Section:
    """What the page says of one run. `curve` is SVG of our own, all else is escaped."""

    name: str
    folder: str
    facts: list[tuple[str, str]]
    curve: str | None
    curve_note: str
    galleries: list[Gallery]
    measures: Measures | None
    config: str


def write_report(
    folders: Sequence[Path],
    out: Path,
    title: str = "Diptych report",
    intro: Sequence[str] = (),
    checks: Sequence[Check] = (),
) -> dict[str, Any]:
    """Write one page about the runs in `folders` to `out`, atomically; returns {"report", "runs"}.

    `intro` are paragraphs above the runs, `checks` a table of goals below them. ConfigError when
    there are no folders; CheckpointError for one that is not a run or holds a damaged file.
    """
    if not folders:
        raise ConfigError("a report needs one run folder or more")
    sections = [_section(open_run(folder)) for folder in folders]
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = files("shared").joinpath("report.html.jinja").read_text(encoding="utf-8")
    template = environment.from_string(source)
    by_subject = itertools.groupby(checks, lambda check: check.subject)
    page = template.render(
        title=title,
        intro=intro,
        checks=[(subject, list(group)) for subject, group in by_subject],
        summary=summary(checks),
        sections=sections,
        provenance=provenance(),
    )
    write_text(out, page)
    return {"report": str(out), "runs": [str(folder) for folder in folders]}


def summary(checks: Sequence[Check]) -> str:
    """How many of the claimed goals are met."""
    claimed = [check.met for check in checks if check.met is not None]
    return f"{sum(claimed)} of {len(claimed)} met"


def measures(values: dict[str, Any]) -> Measures:
    """Numbers first, each with the same number of real data in its row; sections as groups."""
    single = {k: v for k, v in values.items() if not isinstance(v, dict)}
    beside: dict[str, str] = {}
    for suffix in BESIDE:
        for key in single:
            if key.endswith(suffix):
                partner = _partner(key.removesuffix(suffix), list(single))
                if partner is not None:
                    beside.setdefault(partner, key)
    rows = [
        (spaced(k), number(v, k), number(single[beside[k]]) if k in beside else "")
        for k, v in single.items()
        if k not in beside.values()
    ]
    groups = {
        spaced(k): [(spaced(a), number(b, a)) for a, b in cast(dict[str, Any], v).items()]
        for k, v in values.items()
        if isinstance(v, dict)
    }
    return Measures(rows, groups)


def _partner(base: str, names: list[str]) -> str | None:
    """frechet_floor stands beside frechet_distance, recall_data beside recall."""
    own = [name for name in names if not name.endswith(BESIDE)]
    if base in own:
        return base
    return next((name for name in own if name.startswith(base + "_")), None)


def _section(run: Run) -> Section:
    rows = _log(run.folder / "log.jsonl")
    evaluation = run.folder / "evaluation.json"
    measured = read_json(evaluation) if evaluation.is_file() else None
    if measured is not None and not isinstance(measured, dict):
        raise CheckpointError(f"{evaluation}: expected an object of measures")
    return Section(
        name=run.folder.resolve().name,
        folder=str(run.folder),
        facts=_facts(run, rows),
        curve=loss_curve(rows, str(run.folder.resolve())) if rows else None,
        curve_note=f"{TREND} {MOVES}" if run.config.diffusion.fit_density else TREND,
        galleries=galleries(run.folder / "samples"),
        measures=None if measured is None else measures(cast(dict[str, Any], measured)),
        config=(run.folder / "config.yaml").read_text(encoding="utf-8"),
    )


def _log(path: Path) -> list[dict[str, Any]]:
    rows = read_log(path)
    needed = {"step", "loss", "seconds", "samples_per_s"}
    if not all(needed <= row.keys() for row in rows):
        raise CheckpointError(f"{path}: a row lacks one of {', '.join(sorted(needed))}")
    return [row for row in rows if math.isfinite(row["loss"])]


def _facts(run: Run, rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    train = run.config.train
    found = checkpoint.newest(run.folder)
    facts = [("panel", run.panel.name), ("folder", str(run.folder))]
    if found is None:
        facts.append(("trained", f"not yet saved, of {train.steps:,} steps"))
    else:
        facts.append(("trained", f"{found[1]:,} of {train.steps:,} steps"))
        learner = run.panel.learner(run.config, run.folder)
        count = sum(p.numel() for p in learner.parameters() if p.requires_grad)
        facts.append(("parameters", f"{count:,}"))
    if rows:
        speed = sorted(row["samples_per_s"] for row in rows)[len(rows) // 2]
        facts += [
            ("loss", number(float(rows[-1]["loss"]))),
            ("time", f"{training_seconds(rows):,.0f} s at {speed:,.0f} samples/s"),
        ]
    facts += [("batch", str(train.batch)), ("seed", str(train.seed))]
    return [*facts, ("precision", train.precision)]


def training_seconds(rows: Sequence[dict[str, Any]]) -> float:
    """Seconds in the loop over all sessions of a run: a resumed one counts from zero again."""
    seconds = [float(row["seconds"]) for row in rows]
    ends = [a for a, b in itertools.pairwise(seconds) if b < a]
    return sum(ends) + sum(seconds[-1:])
