"""From a trained model and held-out data to its bound on -log p: what both evaluations call.

The bound is the model's own: of the data's conditions, without guidance, at temperature 1; solvers
have no part in it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from shared.errors import NonFinite
from shared.learner import DiffusionLearner
from shared.likelihood import Estimate, Likelihood, elbo, ode
from shared.requests import EvaluateRequest
from shared.schedule import Schedule

LEVELS = (9.0, 7.5, 6.0, 4.5, 3.0)  # logsnr of cleanest levels to choose from
TRIED, TRIED_DRAWS = 64, 4  # training data that choose it, and draws of each
BOUND = "upper bound on -log p(data | condition), in continuous time"
EXACT = "-log p(data), exact"
FLOW = (
    "upper bound on -log p(data | condition) by the density of the probability-flow ODE; data are "
    "dequantised by the noise of the cleanest level: log p(z_0) - log q(z_0 | data) + log p(data | "
    "z_0), z_0 drawn from q"
)
UNDEFINED = (
    "undefined: the codec has no log_prob, the probability of data given their latents; one that "
    "is trained for looks (adversarial or perceptual losses) has none to compare"
)


@dataclass(frozen=True)
class Split:
    """Data (n, *data_shape) and their condition (n, ...), or None."""

    data: Tensor
    condition: Tensor | None = None

    def first(self, n: int) -> "Split":
        """The first n, or all there are."""
        return Split(self.data[:n], None if self.condition is None else self.condition[:n])

    def beside(self, learner: DiffusionLearner) -> "Split":
        """The same on the learner's device."""
        device = next(learner.parameters()).device
        there = None if self.condition is None else self.condition.to(device)
        return Split(self.data.to(device), there)


@dataclass(frozen=True)
class Score:
    """A bound, and the time and the logsnr of the cleanest level, from which on the codec takes
    over."""

    likelihood: Likelihood
    cleanest: float
    cleanest_logsnr: float


def score(
    learner: DiffusionLearner,
    held_out: Split,
    training: Split,
    draws: int,
    seed: int = 0,
    progress: bool = True,
) -> Score | None:
    """The bound on held-out data; None when the codec has no log_prob.

    It holds wherever the reverse process stops and the codec rounds, and where the network was
    hardly trained, rounding is the better of the two: the cleanest level is the one of LEVELS, or
    the schedule's own, at which the bound on some *training* data is least. Two passes, and twice
    the NFE, when self-conditioned.
    """
    if getattr(learner.codec, "log_prob", None) is None:
        return None
    few = training.first(TRIED)
    with Progress(console=Console(stderr=True), disable=not progress) as bar:
        task = bar.add_task("likelihood", total=1.0)
        tried = {t: _bound(learner, few, TRIED_DRAWS, seed, t) for t in _stops(learner.schedule)}
        cleanest = min(tried, key=lambda t: tried[t].nats_per_datum.value)
        found = _bound(
            learner,
            held_out,
            draws,
            seed,
            cleanest,
            lambda share: bar.update(task, completed=share),
        )
    at = torch.tensor(cleanest, dtype=torch.float64)
    return Score(found, cleanest, float(learner.schedule.logsnr(at).detach()))


def flow_score(
    learner: DiffusionLearner, held_out: Split, scored: Score, seed: int = 0, progress: bool = True
) -> Likelihood:
    """The bound of the flow on held-out data, from the cleanest level of `scored`, a draw each. The
    solver takes a hundred evaluations or more, each with a gradient."""
    held_out = held_out.beside(learner)
    with Progress(console=Console(stderr=True), disable=not progress) as bar:
        task = bar.add_task("likelihood by the ODE", total=1.0)
        return ode(
            learner.denoiser,
            learner.codec,
            held_out.data,
            learner.schedule,
            held_out.condition,
            seed=seed,
            cleanest=scored.cleanest,
            passes=2 if learner.denoiser.self_condition else 1,
            data_std=learner.denoiser.data_std,
            callback=lambda share: bar.update(task, completed=share),
        )


def _stops(schedule: Schedule) -> list[float]:
    """Times at which the reverse process may stop: its own end, if noise is left there, and LEVELS
    that are noisier."""
    ends = schedule.logsnr(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()
    inside = [level for level in LEVELS if ends[1] < level < ends[0]]
    times = schedule.time(torch.tensor(inside, dtype=torch.float64)).tolist()
    return times if math.isinf(ends[0]) else [0.0, *times]


def _bound(
    learner: DiffusionLearner,
    split: Split,
    draws: int,
    seed: int,
    cleanest: float,
    callback: Callable[[float], None] | None = None,
) -> Likelihood:
    split = split.beside(learner)
    return elbo(
        learner.denoiser,
        learner.codec,
        split.data,
        learner.schedule,
        split.condition,
        draws=draws,
        seed=seed,
        cleanest=cleanest,
        passes=2 if learner.denoiser.self_condition else 1,
        callback=callback,
    )


def bounds(
    learner: DiffusionLearner,
    held_out: Split,
    training: Split,
    request: EvaluateRequest,
    unit: str,
    shares: Callable[[Likelihood], dict[str, Any]],
) -> dict[str, Any] | None:
    """What is told of `score`, and under "ode" of `flow_score` where the request asks for it, for
    evaluation.json: nats per `unit`, and the `shares` of each; None when there is no bound.
    NonFinite when a term is not a number, or the flow not finite."""
    try:
        scored = score(learner, held_out, training, request.draws, request.seed)
        if scored is None:
            return None
        facts = likelihood_facts(scored.likelihood, BOUND, unit) | shares(scored.likelihood)
        facts["cleanest_logsnr"] = scored.cleanest_logsnr
        if request.ode:
            few = flow_score(learner, held_out.first(request.ode), scored, request.seed)
            facts["ode"] = likelihood_facts(few, FLOW, unit) | shares(few)
    except FloatingPointError as error:
        raise NonFinite(str(error)) from None
    return facts


def likelihood_facts(found: Likelihood, what: str, unit: str) -> dict[str, Any]:
    """A likelihood as numbers for evaluation.json: nats per `unit`, in all and term by term."""
    numbers: dict[str, Any] = {"what": what, f"{unit}s": len(found.nats), "draws": found.draws}
    numbers["network_evaluations_per_draw"] = found.nfe
    numbers |= measured(f"nats_per_{unit}", found.nats_per_datum)
    if len(found.terms) > 1:
        for name in found.terms:
            numbers |= measured(f"{name}_nats_per_{unit}", found.term(name))
    return numbers


def measured(name: str, estimate: Estimate) -> dict[str, float | None]:
    """A number and its standard error, by name; None where there is none (the error of one datum,
    a perplexity beyond the largest float), which JSON has no number for."""
    pairs = ((name, estimate.value), (f"{name}_standard_error", estimate.error))
    return {key: value if math.isfinite(value) else None for key, value in pairs}
