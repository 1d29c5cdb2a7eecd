"""The Frechet distance beside torch-fidelity's and torchmetrics': `python -m benchmarks.frechet`.

Features are given: 2,048 of them, float32, positive and correlated, as a network's last layer has
them. All implementations run in turn in one process. `root` is what is left to do at the end when
moments are gathered while features are made: of ours the distance of two moments, of the peers' the
distance of two pairs of means and covariances. The error is relative to
|m1 - m2|^2 + tr S1 + tr S2 - 2 sum sqrt eigvalsh(S1^1/2 S2 S1^1/2) in float64, from numpy's
covariances.
"""

import json
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from rich.console import Console
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from benchmarks.fidelity import fidelity, torchmetrics
from benchmarks.measure import Task, Times, facts, interleave, ratio
from benchmarks.tables import Column, Table
from image.metrics import frechet
from image.metrics.moments import moments
from shared.files import write_text

DIM = 2048
COUNTS = (10_000, 500)
GOALS = {  # times as fast as a peer
    ("torch-fidelity", 10_000): 2.2,
    ("torchmetrics", 10_000): 3.0,
    ("torch-fidelity", 500): 50.0,
    ("torchmetrics", 500): 50.0,
}
OURS = "diptych"
ROOT = ", root"

Compute = Callable[[], float]


class Given(nn.Module):
    """A feature network of torchmetrics that has nothing left to do."""

    num_features = DIM

    def forward(self, x: Tensor) -> Tensor:
        return x


def features(count: int, seed: int) -> Tensor:
    """(count, DIM) float32: rectified mixtures of normals whose spread falls over two orders. Sets
    of other seeds are moved and wider, so that the distance is a tenth or so of the traces."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(DIM, DIM, generator=generator) * torch.logspace(0, -2, DIM) / DIM**0.5
    generator.manual_seed(1 + seed)
    normals = torch.randn(count, DIM, generator=generator)
    return torch.relu(normals @ mix * (1 + 0.1 * seed) + 0.05 * seed)


def reference(x: Tensor, y: Tensor) -> float:
    """The distance by two symmetric eigenproblems, float64."""
    a, b = (np.cov(z.double().numpy(), rowvar=False) for z in (x, y))
    values, vectors = np.linalg.eigh(a)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    overlap = np.sqrt(np.linalg.eigvalsh(root @ b @ root).clip(min=0)).sum()
    apart = x.double().mean(0) - y.double().mean(0)
    return float(apart.square().sum()) + float(np.trace(a) + np.trace(b) - 2 * overlap)


def computations(x: Tensor, y: Tensor) -> dict[str, Compute]:
    """What is timed, by name; peers that are not installed are left out."""
    a, b = moments(x), moments(y)
    found: dict[str, Compute] = {
        OURS: lambda: frechet.compute(x, y)["frechet_distance"],
        OURS + ROOT: lambda: frechet.distance(a, b),
    }
    fid, metrics = fidelity("metric_fid"), torchmetrics("image.fid")
    if fid is not None:
        key = fid.KEY_METRIC_FID
        to_statistics = fid.fid_features_to_statistics
        kept = to_statistics(x), to_statistics(y)
        found["torch-fidelity" + ROOT] = lambda: fid.fid_statistics_to_metric(*kept, False)[key]
        found["torch-fidelity"] = lambda: fid.fid_statistics_to_metric(
            to_statistics(x), to_statistics(y), False
        )[key]
    if metrics is not None:

        def filled() -> Any:
            metric = metrics.FrechetInceptionDistance(Given()).set_dtype(torch.float64)
            metric.update(x, real=False)
            metric.update(y, real=True)
            return metric

        def again() -> float:
            full._computed = None  # the metric keeps its last answer
            return float(full.compute())

        full = filled()
        found["torchmetrics" + ROOT] = again
        found["torchmetrics"] = lambda: float(filled().compute())
    return found


def measure(count: int, seconds: float) -> Table:
    """One table: a row an implementation."""
    x, y = features(count, 0), features(count, 1)
    tasks, exact = computations(x, y), reference(x, y)
    values: dict[str, float] = {}

    def keeping(name: str, task: Compute) -> Task:
        def run() -> None:
            values[name] = task()

        return run

    times = interleave({name: keeping(name, task) for name, task in tasks.items()}, seconds)
    names = [name for name in times if not name.endswith(ROOT)]
    rows = [_row(name, count, times, values[name] / exact - 1) for name in names]
    return Table(
        f"{count:,} against {count:,} features of {DIM:,} dimensions",
        f"Seconds, best and median of {len(times[OURS])} rounds; times: how many times as long as "
        "ours, median over the rounds; root: the end alone, from moments.",
        (
            Column("name", ""),
            Column("seconds", "best", ".3f"),
            Column("seconds_median", "median", ".3f"),
            Column("times", "times", ".2f"),
            Column("goal", "goal", ".1f"),
            Column("root_seconds", "root, best", ".3f"),
            Column("root_times", "times", ".2f"),
            Column("error", "relative error", ".1e"),
        ),
        rows,
    )


def _row(name: str, count: int, times: Times, error: float) -> dict[str, Any]:
    return {
        "name": name,
        "count": count,
        "rounds": len(times[name]),
        "seconds": min(times[name]),
        "seconds_median": median(times[name]),
        "times": ratio(times[name], times[OURS])[1],
        "goal": GOALS.get((name, count)),
        "root_seconds": min(times[name + ROOT]),
        "root_times": ratio(times[name + ROOT], times[OURS + ROOT])[1],
        "error": abs(error),
    }


def main(
    seconds: float = 60.0,
    threads: int = 1,
    json_file: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
    markdown: Path | None = None,
) -> None:
    """Measure the Frechet distance beside its peers.

    Args:
        seconds: Time of the interleaved measurements at each count.
        threads: Of torch and BLAS; with one, CPU time is what counts.
        json_file: Write all numbers here.
        markdown: Write the tables here.
    """
    torch.set_num_threads(threads)
    threadpool_limits(threads)
    console, about = Console(width=120), facts(seconds)
    tables = [measure(count, seconds) for count in COUNTS]
    for table in tables:
        table.show(console)
    if json_file is not None:
        rows = [row for table in tables for row in table.rows]
        write_text(json_file, json.dumps({"about": about, "rows": rows}, indent=1))
    if markdown is not None:
        head = "# The Frechet distance beside its peers\n\nWritten by `python -m benchmarks.frechet "
        head += f"--markdown FILE`. {about['machine']}; {about['threads']} thread(s), "
        head += f"{about['clock']}; torch {about['torch']}; commit {about['commit']}.\n\n"
        write_text(markdown, head + "\n".join(table.markdown() for table in tables))


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
