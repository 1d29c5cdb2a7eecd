"""The Frechet distance beside torch-fidelity's and torchmetrics': `python -m benchmarks.frechet`.

Features are given: 2,048 of them, float32, positive and correlated, as a network's last layer has
them. All implementations run in turn in one process, each in two stages: features to moments, which
may be done while features are made, and moments to the distance. The error is relative to
|m1 - m2|^2 + tr S1 + tr S2 - 2 sum sqrt eigvalsh(S1^1/2 S2 S1^1/2) in float64, from numpy's
covariances. That reference has about 1e-7 of rounding itself where there are fewer samples than
dimensions: the roots of eigenvalues that should be 0.
"""

import json
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from rich.console import Console
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from benchmarks.command import command
from benchmarks.fidelity import fidelity, torchmetrics
from benchmarks.measure import facts, now, ratio
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
OURS, PEERS = "diptych", ("torch-fidelity", "torchmetrics")

Gather = Callable[[Tensor, Tensor], Any]  # features of both sets -> their moments
Finish = Callable[[Any], float]  # moments -> the distance
Stages = dict[str, tuple[list[float], list[float]]]  # seconds of each round in each stage


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


def implementations() -> dict[str, tuple[Gather, Finish]]:
    """What is timed, by name; peers that are not installed are left out."""
    found: dict[str, tuple[Gather, Finish]] = {
        OURS: (lambda x, y: (moments(x), moments(y)), lambda both: frechet.distance(*both))
    }
    fid, metrics = fidelity("metric_fid"), torchmetrics("image.fid")
    if fid is not None:
        to_statistics = fid.fid_features_to_statistics
        found["torch-fidelity"] = (
            lambda x, y: (to_statistics(x), to_statistics(y)),
            lambda both: fid.fid_statistics_to_metric(*both, False)[fid.KEY_METRIC_FID],
        )
    if metrics is not None:

        def filled(x: Tensor, y: Tensor) -> Any:
            metric = metrics.FrechetInceptionDistance(Given()).set_dtype(torch.float64)
            metric.update(x, real=False)
            metric.update(y, real=True)
            return metric

        found["torchmetrics"] = filled, lambda metric: float(metric.compute())
    return found


def measure(count: int, rounds: int) -> Table:
    """One table: a row an implementation."""
    x, y = features(count, 0), features(count, 1)
    exact, errors, times = reference(x, y), dict[str, float](), Stages()
    for i in range(rounds + 1):
        for name, (gather, finish) in implementations().items():
            began = now()
            gathered = gather(x, y)
            between = now()
            errors[name] = abs(finish(gathered) / exact - 1)
            stages = between - began, now() - between
            if i > 0:  # the first round warms up
                for kept, seconds in zip(times.setdefault(name, ([], [])), stages, strict=True):
                    kept.append(seconds)
    rows = [_row(name, count, times, error) for name, error in errors.items()]
    return Table(
        f"{count:,} against {count:,} features of {DIM:,} dimensions",
        f"Seconds, best and median of {rounds} rounds; times: how many times as long as ours, "
        "median over the rounds; end: the distance alone, once moments are there.",
        (
            Column("name", ""),
            Column("seconds", "best", ".3f"),
            Column("seconds_median", "median", ".3f"),
            Column("times", "times", ".2f"),
            Column("goal", "goal", ".1f"),
            Column("end_seconds", "end, best", ".3f"),
            Column("end_times", "end, times", ".2f"),
            Column("error", "relative error", ".1e"),
        ),
        rows,
    )


def _row(name: str, count: int, times: Stages, error: float) -> dict[str, Any]:
    own, ours = ([a + b for a, b in zip(*times[key], strict=True)] for key in (name, OURS))
    return {
        "name": name,
        "count": count,
        "rounds": len(own),
        "seconds": min(own),
        "seconds_median": median(own),
        "times": ratio(own, ours)[1],
        "goal": GOALS.get((name, count)),
        "end_seconds": min(times[name][1]),
        "end_times": ratio(times[name][1], times[OURS][1])[1],
        "error": error,
    }


def main(
    rounds: int = 5,
    threads: int = 1,
    json_file: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
    markdown: Path | None = None,
) -> None:
    """Measure the Frechet distance beside its peers.

    Args:
        rounds: How often each implementation runs at each count.
        threads: Of torch and BLAS; with one, CPU time is what counts.
        json_file: Write all numbers here.
        markdown: Write the tables here.
    """
    torch.set_num_threads(threads)
    threadpool_limits(threads)
    console = Console(width=120)
    about = facts() | {name: _version(name) for name in PEERS}
    tables = [measure(count, rounds) for count in COUNTS]
    for table in tables:
        table.show(console)
    if json_file is not None:
        rows = [row for table in tables for row in table.rows]
        write_text(json_file, json.dumps({"about": about, "rows": rows}, indent=1))
    if markdown is not None:
        head = (
            "# The Frechet distance beside its peers\n\nWritten by `python -m benchmarks.frechet "
        )
        head += f"--markdown FILE`. {about['machine']}; {about['threads']} thread(s), "
        head += (
            f"{about['clock']}; load average {about['load_average_at_start']} at the start; torch "
        )
        head += f"{about['torch']}, torch-fidelity {about['torch-fidelity']}, torchmetrics "
        head += f"{about['torchmetrics']}; commit {about['commit']}.\n\n"
        write_text(markdown, head + "\n".join(table.markdown() for table in tables))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(command(main))
