"""Latents under energies: drawn, moved and joined.

exact  noised energies guide the model's own solver: from noise, or from a datum that is noised up
       to a time
flow   LatentOps: the model's unguided draws, or a datum, move along the gradient flow of the
       energies of clean latents (`shared.guidance.flow`)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from shared.drawing import draw
from shared.errors import ConfigError, NonFinite
from shared.guidance import Energy, Quadratic, energy, gradient_flow, unit_gaussian
from shared.guidance.flow import LENGTH, clean_level
from shared.interpolation import slerp
from shared.learner import DiffusionLearner
from shared.sampling import Sampling, Start
from shared.schedule import Linear
from shared.solver import SOLVERS, Taken, prepare, run
from shared.solver.ode import Ode


@dataclass(frozen=True)
class Pull:
    """Energies with their weights."""

    energies: Sequence[Energy]
    weights: Sequence[float]

    def with_stay(self, x0: Tensor, weight: float) -> "Pull":
        """And weight |z - x0|^2 / 2, x0 (B, ...): what is moved stays near what it was."""
        if weight == 0:
            return self
        y = x0.flatten(1)
        identity = torch.eye(y.shape[1], dtype=y.dtype, device=y.device)
        stay = Quadratic(identity, y, torch.ones_like(y[0]))
        return Pull([*self.energies, stay], [*self.weights, weight])


def guided_draw(
    learner: DiffusionLearner,
    seeds: Sequence[int],
    how: Sampling,
    pull: Pull,
    start: Start | None = None,
) -> Tensor:
    """x0 (n, ...) by the exact mode; with a start, of what was noised up to its time (Meng et al.
    2022, sec. 3.1). Without energies the model's own draws."""
    return draw(
        learner,
        seeds,
        how,
        start=start,
        wrap=(lambda denoise, rows: energy(denoise, pull.energies, pull.weights))
        if pull.energies
        else None,
        label="sentences",
    )


def flow(x0: Tensor, how: Sampling, pull: Pull, stay: float = 0.0, stops: int = 1) -> Tensor:
    """x0 (n, ...) -> (n * stops, ...), where the gradient flow takes each by equal parts of its
    way, its end last: by adaptive steps (solver ode) or by a solver of ours, whose stops are steps.
    ConfigError for a solver that draws noise, and for more stops than steps; NonFinite where
    weights are so large that it cannot be followed."""
    if SOLVERS[how.solver].stochastic:
        raise ConfigError(
            f"solver = {how.solver!r}: a gradient flow is an ODE, and this one draws noise; give "
            "--solver ode, dpmpp_2m or ddim"
        )
    follow = _adaptive if how.solver == "ode" else _stepped
    try:
        parts = [
            follow(part, how, pull.with_stay(part, stay), stops) for part in x0.split(how.batch)
        ]
    except FloatingPointError as error:
        raise NonFinite(f"gradient flow: {error}; give smaller weights or stay") from None
    return torch.cat(parts)


def _adaptive(x0: Tensor, how: Sampling, pull: Pull, stops: int) -> Tensor:
    own, z, left = Ode(), x0, how.budget
    found: list[Tensor] = []
    while len(found) < stops:
        gone = gradient_flow(
            z, pull.energies, pull.weights, LENGTH / stops, own.rtol, own.atol, left
        )
        z, left = gone.y, None if left is None else left - gone.evaluations
        found += [z] if gone.done else [z] * (stops - len(found))
    return torch.stack(found, 1).flatten(0, 1)


def _stepped(x0: Tensor, how: Sampling, pull: Pull, stops: int) -> Tensor:
    plan = prepare(Linear(), how.solver, how.steps)
    last = len(plan.steps)
    if stops > last:
        raise ConfigError(
            f"candidates = {stops}: an edit in --mode flow has no more than its {last} steps"
        )
    guided = energy(unit_gaussian, [_timeless(one) for one in pull.energies], pull.weights)
    found: list[Tensor] = []

    def keep(x: Tensor, _: Taken) -> Tensor:
        found.append(x.clone())
        return x

    with torch.no_grad():
        run(plan, guided, x0, hooks=[keep])
    kept = [found[(k + 1) * last // stops - 1] for k in range(stops)]
    return torch.stack(kept, 1).flatten(0, 1)


def _timeless(noised: Energy) -> Energy:
    """What it is of clean latents, whatever the level: the paper's energies know no time."""
    return lambda z, _: noised(z, clean_level(z))


def between(first: Tensor, last: Tensor, n: int) -> Tensor:
    """n latents (n, ...) from `first` to `last` (...), both included: a spherical path, along which
    norms stay typical of Gaussian latents (White 2016). ConfigError for fewer than two, and for
    opposite ends, which have no one path between them."""
    if n < 2:
        raise ConfigError(f"n = {n}: a path has two ends, expected 2 or more")
    try:
        return slerp(first[None], last[None], torch.linspace(0, 1, n, device=first.device))
    except ValueError as error:
        raise ConfigError(str(error)) from None
