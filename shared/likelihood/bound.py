"""-log p(data) bounded by the reverse process: in continuous time, or of a chain of steps.

Draw k of datum i has a key of its own, from which all noise follows, whatever the batch. The times
of a datum's draws are evenly spaced, u_k = (u + k / draws) mod 1 with one random u: their mean
varies less than that of independent times (Kingma et al. 2021, app. I.1, spread them over a batch;
here every datum has its own u, so that data stay independent and standard errors hold).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from shared import noise
from shared.codec import Codec
from shared.denoiser import Denoise
from shared.likelihood.checks import check, gathered
from shared.likelihood.estimate import Likelihood
from shared.objective import Bound, TimeSampler, discrete_bound, elbo_terms, uniform_times
from shared.objective.streams import TIME, sample_keys
from shared.schedule import Schedule

TERMS = ("prior", "diffusion", "reconstruction")

# data (R, ...), condition, keys (R,), uniforms (R,) -> one draw a row
_Draw = Callable[[Tensor, Tensor | None, Tensor, Tensor], Bound]


def elbo(
    denoise: Denoise,
    codec: Codec,
    data: Tensor,
    schedule: Schedule,
    condition: Tensor | None = None,
    draws: int = 8,
    seed: int = 0,
    times: TimeSampler = uniform_times,
    cleanest: float = 0.0,
    passes: int = 1,
    batch: int = 64,
    callback: Callable[[float], None] | None = None,
) -> Likelihood:
    """The continuous-time bound (`shared.objective.elbo_terms`) on -log p(data | condition).

    data (B, *data_shape), condition (B, ...) or None, both where the codec and the network are;
    terms prior, diffusion and reconstruction. `passes` = 2 for a self-conditioned denoiser; `batch`
    rows (datum and draw) at a time, after which `callback` hears the share done, in (0, 1]. NFE a
    draw = passes.

    Raises ValueError for what `elbo_terms` refuses, no data, draws or batch below 1, a condition of
    another length; FloatingPointError when a term is not a number.
    """

    def draw(data: Tensor, condition: Tensor | None, keys: Tensor, uniform: Tensor) -> Bound:
        return elbo_terms(
            denoise, codec, data, schedule, keys, condition, uniform, times, cleanest, passes
        )

    return _estimate(draw, data, condition, draws, seed, batch, callback, passes)


def chain_elbo(
    denoise: Denoise,
    codec: Codec,
    data: Tensor,
    schedule: Schedule,
    steps: int = 1000,
    condition: Tensor | None = None,
    draws: int = 1,
    seed: int = 0,
    fraction: float | None = 0.0,
    cleanest: float = 0.0,
    passes: int = 1,
    batch: int = 64,
    callback: Callable[[float], None] | None = None,
) -> Likelihood:
    """The bound of the ancestral chain of `steps` steps (`shared.objective.discrete_bound`, which
    says what `fraction` is); all else as in `elbo`. NFE a draw = steps x passes."""

    def draw(data: Tensor, condition: Tensor | None, keys: Tensor, uniform: Tensor) -> Bound:
        return discrete_bound(
            denoise, codec, data, schedule, keys, steps, condition, fraction, cleanest, passes
        )

    return _estimate(draw, data, condition, draws, seed, batch, callback, steps * passes)


@torch.no_grad()
def _estimate(
    draw: _Draw,
    data: Tensor,
    condition: Tensor | None,
    draws: int,
    seed: int,
    batch: int,
    callback: Callable[[float], None] | None,
    nfe: int,
) -> Likelihood:
    check(data, condition, draws, batch)
    parts: list[Tensor] = []
    for rows in torch.arange(len(data) * draws).split(batch):
        of = rows // draws
        bound = draw(
            data[of],
            None if condition is None else condition[of],
            evaluation_keys(seed, rows),
            _times(seed, rows, draws),
        )
        terms = torch.stack([bound.prior, bound.diffusion, bound.reconstruction])
        parts.append(terms.double().cpu())
        if callback is not None:
            callback((int(rows[-1]) + 1) / (len(data) * draws))
    return Likelihood(gathered(parts, TERMS, draws), data[0].numel(), draws, nfe)


def evaluation_keys(seed: int, rows: Tensor) -> Tensor:
    """Row numbers (R,) -> keys (R,): none of them is a key of training, for any seed below 2^31."""
    return ~sample_keys(seed, rows)


def _times(seed: int, rows: Tensor, draws: int) -> Tensor:
    """Evenly spaced numbers in [0, 1) for the draws of each datum, float64, (R,)."""
    first = rows // draws * draws
    offset = noise.uniform(evaluation_keys(seed, first), TIME).double()
    return (offset + (rows - first).double() / draws) % 1.0
