"""LatentOps' gradient flow beside exact guidance, where both have closed forms: a table of
`python -m benchmarks.guidance`.

A unit Gaussian latent of three coordinates and one energy (a.z - y)^2 / 2 std^2, or two of
orthogonal directions. The flow's law along a has mean y and e^(-5.025 w |a|^2 / std^2) of the
prior's spread around it; exact is the product Gaussian of `shared.gaussian`.
"""

from typing import Any

import torch
from torch import Tensor

from benchmarks.tables import Column, Table
from shared import noise
from shared.gaussian import Gaussian, wasserstein2_squared
from shared.guidance import Quadratic, count_evaluations, energy, gradient_flow, unit_gaussian
from shared.schedule import Cosine
from shared.solver import sample

SCHEDULE = Cosine(-20, 20)
TARGETS = ((1.0, 0.0, 1.0), 1.1), ((1.0, 2.0, -1.0), -0.6)  # a, y
STEPS = 60


def modes(n: int, stds: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)) -> Table:
    """Both modes for one energy and for two, from sharp to weak."""
    rows = [
        _row(mode, n, [_quadratic(a, y, std) for a, y in TARGETS[:many]], std)
        for many in (1, 2)
        for std in stds
        for mode in ("exact", "flow")
    ]
    return Table(
        "LatentOps' flow and the exact mode on a Gaussian latent",
        f"{n} latents; {STEPS} steps of dpmpp_2m under noised energies, adaptive steps at 1e-5 for "
        "the flow. Distance: Wasserstein-2 between the Gaussian of the samples' mean and "
        "covariance and the product Gaussian; spread: standard deviation along the first energy's "
        "direction, and what the product has there.",
        (
            Column("energies", "energies"),
            Column("std", "std", ".1f"),
            Column("mode", "mode"),
            Column("evaluations", "evaluations", ".0f"),
            Column("distance", "distance", ".3f"),
            Column("spread", "spread", ".3f"),
            Column("exact_spread", "of the product", ".3f"),
        ),
        rows,
    )


def _quadratic(a: tuple[float, ...], y: float, std: float) -> Quadratic:
    row, one = torch.tensor([a], dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    return Quadratic(row / row.norm(), y * one, std * one)


def _row(mode: str, n: int, energies: list[Quadratic], std: float) -> dict[str, Any]:
    z, weights = noise.normal(range(n), 0, (3,)).double(), [1.0] * len(energies)
    if mode == "flow":
        found = gradient_flow(z, energies, weights)
        out, evaluations = found.y, found.evaluations
    else:
        counted = count_evaluations(unit_gaussian)
        guided = energy(counted, [one.noised for one in energies], weights)
        out, evaluations = sample(guided, z, SCHEDULE, "dpmpp_2m", STEPS), counted.rows / n
    law = product_of(energies)
    return {
        "energies": len(energies),
        "std": std,
        "mode": mode,
        "evaluations": evaluations,
        "distance": distance(out, law),
        "spread": float((out @ energies[0].a[0]).std()),
        "exact_spread": float((energies[0].a @ law.cholesky).norm()),
    }


def product_of(energies: list[Quadratic]) -> Gaussian:
    """N(0, I) times every exp(-E) of one row a each."""
    law = Gaussian.isotropic(torch.zeros(3, dtype=torch.float64), 1.0)
    for one in energies:
        observed = Gaussian.isotropic(torch.zeros(1, dtype=torch.float64), one.std)
        law = law.posterior(one.a, observed, one.y)
    return law


def distance(x: Tensor, law: Gaussian) -> float:
    """Wasserstein-2 from the Gaussian with the moments of x (n, D) to a law."""
    tiny = 1e-12 * torch.eye(x.shape[1], dtype=x.dtype)  # a flow may leave no spread at all
    return float(wasserstein2_squared(Gaussian.of(x.mean(0), x.T.cov() + tiny), law).sqrt())
