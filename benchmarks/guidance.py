"""Guidance where everything is known: `python -m benchmarks.guidance`.

On a mixture of Gaussians the class-conditional is one component, and the exact noisy classifier is
the responsibility; on one Gaussian what is given fixes the rest. So of every method can be told how
far its samples are from what they claim, and what they cost. Likewise of words, where a sentence's
law is written out row by row (`benchmarks.words`).
"""

import functools
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from rich.console import Console
from torch import Tensor

from benchmarks.command import command
from benchmarks.flows import distance, modes
from benchmarks.tables import Column, Table
from benchmarks.words import signs, slopes, words
from shared import noise
from shared.denoiser import Denoise
from shared.files import write_text
from shared.gaussian import Gaussian
from shared.guidance import (
    classifier,
    classifier_free,
    classifier_hook,
    count_evaluations,
    infill,
    linear_inverse,
    repaint,
)
from shared.oracle import GaussianMixture
from shared.provenance import provenance
from shared.schedule import Cosine, Level, variance_preserving
from shared.solver import sample, time_grid
from shared.solver.grid import time_travel
from shared.solver.step import StepHook

SCHEDULE = Cosine(-10, 10)
CLASS = 1
CLEAN_LEVEL = variance_preserving(torch.tensor(30.0, dtype=torch.float64))
RHO, GIVEN = 0.9, 1.5  # correlation of the Gaussian, and what is given of it


def plane() -> GaussianMixture:
    """Three correlated classes that overlap."""
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    means = torch.tensor([[-1.0, 0.4], [0.9, 0.7], [0.1, -1.1]], dtype=torch.float64)
    covariances = torch.tensor(
        [[[0.30, 0.12], [0.12, 0.20]], [[0.15, -0.08], [-0.08, 0.40]], [[0.25, 0.0], [0.0, 0.10]]],
        dtype=torch.float64,
    )
    return GaussianMixture(weights, means, covariances)


@dataclass
class Classifier:
    """The exact log p_t(CLASS | x_t) of the mixture, counting rows that are differentiated."""

    oracle: GaussianMixture
    rows: int = 0

    def __call__(self, x_t: Tensor, level: Level, condition: Tensor | None) -> Tensor:
        self.rows += len(x_t)
        return self.oracle.log_posterior(x_t, level)[:, CLASS]


@dataclass(frozen=True)
class Method:
    """How the unconditional or conditional estimate is guided, under a solver."""

    name: str
    wrap: Callable[[Denoise, Classifier, float], Denoise]
    hook: Callable[[Classifier, float], StepHook] | None = None
    scales: tuple[float, ...] = (1.0, 2.0, 5.0)


def _free(denoise: Denoise, judge: Classifier, scale: float) -> Denoise:
    return classifier_free(denoise, scale, null=-1)


def _free_inside(denoise: Denoise, judge: Classifier, scale: float) -> Denoise:
    return classifier_free(denoise, scale, null=-1, interval=(-2.0, 2.0))


def _wrapped(denoise: Denoise, judge: Classifier, scale: float) -> Denoise:
    return classifier(_plain(denoise, judge, scale), judge, scale)


def _plain(denoise: Denoise, judge: Classifier, scale: float) -> Denoise:
    return classifier_free(denoise, 0, null=-1)


METHODS = (
    Method("unguided", _plain, scales=(0.0,)),
    Method("classifier-free", _free),
    Method("classifier-free, logsnr in [-2, 2]", _free_inside, scales=(2.0, 5.0)),
    Method("classifier (Alg. 2)", _wrapped),
    Method("classifier (Alg. 1)", _plain, classifier_hook),
    Method("gradient control, signs", _plain, lambda judge, _: signs(judge), scales=(1.0,)),
    Method("gradient control, gradient", _plain, lambda judge, _: slopes(judge), scales=(1.0,)),
)


def guided(n: int, solver_steps: Sequence[tuple[str, int]]) -> Table:
    """Every method, scale and solver on the mixture."""
    oracle = plane()
    exact = oracle.sample(n, torch.Generator().manual_seed(0), torch.full((n, 1), CLASS))
    rows = [
        _guided_row(oracle, n, method, solver, steps, scale)
        for method in METHODS
        for solver, steps in solver_steps
        if method.hook is None or solver == "ancestral"  # hooks of the mean need a variance
        for scale in method.scales
    ]
    return Table(
        "Guidance towards a class of a mixture, exact estimates and classifier",
        f"{n} samples. Distances: Wasserstein-2 between Gaussians of the samples' mean and "
        "covariance and those of the class, p(x | y), and of the tilted p(x) p(y | x)^scale by "
        f"quadrature; exact samples have {distance(exact, tilted(1.0)):.3f}. Agreement: "
        f"mean p(y | x), for exact samples {agreement(oracle, exact):.3f}. NFE and "
        "gradients of the classifier per sample.",
        (
            Column("method", "method"),
            Column("solver", "solver"),
            Column("steps", "steps"),
            Column("scale", "scale", ".0f"),
            Column("nfe", "NFE", ".0f"),
            Column("gradients", "gradients", ".0f"),
            Column("to_class", "to the class", ".3f"),
            Column("to_tilted", "to the tilted", ".3f"),
            Column("agreement", "agreement", ".3f"),
        ),
        rows,
    )


def _guided_row(
    oracle: GaussianMixture, n: int, method: Method, solver: str, steps: int, scale: float
) -> dict[str, Any]:
    judge, counted = Classifier(oracle), count_evaluations(oracle.denoise)
    out = sample(
        method.wrap(counted, judge, scale),
        noise.normal(range(n), 0, (2,)).double(),
        SCHEDULE,
        solver,
        steps,
        torch.full((n, 1), CLASS),
        range(n),
        hooks=[] if method.hook is None else [method.hook(judge, scale)],
    )
    return {
        "method": method.name,
        "solver": solver,
        "steps": steps,
        "scale": scale,
        "nfe": counted.rows / n,
        "gradients": judge.rows / n,
        "to_class": distance(out, tilted(1.0)),
        "to_tilted": distance(out, tilted(scale)),
        "agreement": agreement(oracle, out),
    }


def given(n: int, steps: int) -> Table:
    """A half of a correlated Gaussian is given; the other half is N(rho y, 1 - rho^2)."""
    known, mask = torch.tensor([GIVEN, 0.0], dtype=torch.float64), torch.tensor([True, False])
    measured = torch.full((n, 1), GIVEN, dtype=torch.float64)
    rows = [_given_row("infill", n, steps, lambda denoise: infill(denoise, known, mask))]
    for repeats in (1, 2, 5, 10):
        hooks, name = [repaint(known, mask)], f"RePaint, r = {repeats}"
        rows.append(_given_row(name, n, steps, lambda denoise: denoise, hooks, repeats))

    def inverse(denoise: Denoise) -> Denoise:
        return linear_inverse(denoise, lambda x0: x0[:, :1], measured, iterations=1)

    rows.append(_given_row("linear_inverse, 1 iteration", n, steps, inverse))
    errors = [math.sqrt((1 - RHO**2) / n), math.sqrt((1 - RHO**2) / (2 * n))]
    return Table(
        "A half of a Gaussian given",
        f"Correlation {RHO}, {GIVEN} given, {steps} ancestral steps, {n} samples: errors of mean "
        f"and standard deviation of the other half, standard errors {errors[0]:.3f} and "
        f"{errors[1]:.3f}. linear_inverse also takes two backward passes a step.",
        (
            Column("method", "method"),
            Column("nfe", "NFE", ".0f"),
            Column("mean", "mean", "+.3f"),
            Column("std", "std", "+.3f"),
        ),
        rows,
    )


def _given_row(
    name: str,
    n: int,
    steps: int,
    wrap: Callable[[Denoise], Denoise],
    hooks: Sequence[StepHook] = (),
    repeats: int = 1,
) -> dict[str, Any]:
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, 2, dtype=torch.float64)
    correlation = torch.tensor([[[1.0, RHO], [RHO, 1.0]]], dtype=torch.float64)
    counted = count_evaluations(GaussianMixture(one, zero, correlation).denoise)
    out = sample(
        wrap(counted),
        noise.normal(range(n), 0, (2,)).double(),
        SCHEDULE,
        "ancestral",
        seeds=range(n),
        grid=time_travel(time_grid(steps), 1, repeats),
        hooks=hooks,
    )[:, 1]
    return {
        "method": name,
        "nfe": counted.rows / n,
        "mean": float(out.mean()) - RHO * GIVEN,
        "std": float(out.std()) - math.sqrt(1 - RHO**2),
    }


@functools.cache
def tilted(scale: float) -> Gaussian:
    """The Gaussian with the moments of p(x) p(CLASS | x)^scale on the plane, by quadrature."""
    oracle, axis = plane(), torch.linspace(-6, 6, 301, dtype=torch.float64)
    x = torch.cartesian_prod(axis, axis)
    log_p = oracle.log_prob(x, CLEAN_LEVEL) + scale * oracle.log_posterior(x, CLEAN_LEVEL)[:, CLASS]
    weight = log_p.softmax(0)[:, None]
    mean = (weight * x).sum(0)
    return Gaussian.of(mean, (weight * (x - mean)).T @ (x - mean))


def agreement(oracle: GaussianMixture, x: Tensor) -> float:
    """Mean p(CLASS | x) of samples x (n, 2)."""
    return float(oracle.log_posterior(x, CLEAN_LEVEL)[:, CLASS].exp().mean())


def run(
    n: int = 4000,
    deterministic: int = 20,
    stochastic: int = 100,
    json_file: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
    markdown: Path | None = None,
) -> None:
    """Compare methods of guidance with exact answers.

    Args:
        n: Samples of every method.
        deterministic: Steps of dpmpp_2m.
        stochastic: Steps of ancestral sampling; half of them where a half is given.
        json_file: Write all numbers here.
        markdown: Write the tables here.
    """
    console = Console()
    tables = {
        "guided": guided(n, (("dpmpp_2m", deterministic), ("ancestral", stochastic))),
        "given": given(n, stochastic // 2),
        "modes": modes(n),
        "words": words(n, stochastic),
    }
    for table in tables.values():
        table.show(console)
    if json_file is not None:
        page = {name: table.rows for name, table in tables.items()}
        write_text(json_file, json.dumps({"about": provenance()} | page, indent=1))
    if markdown is not None:
        head = "# Guidance\n\nWritten by `python -m benchmarks.guidance --markdown FILE`.\n\n"
        write_text(markdown, head + "\n".join(table.markdown() for table in tables.values()))


if __name__ == "__main__":
    sys.exit(command(run))
