"""Continuous-time losses: E over t of w(level) |x0 - x0_hat|^2, or a cross-entropy.

The density of t and the weighting w are two settings (Kingma & Gao 2023). Time, noise, the dropout
of conditions and self-conditioning are functions of the sample's key: see `streams`.
"""

from typing import Protocol

import torch
from torch import Tensor

from shared.codec import Codec, DiscreteCodec, SampledCodec
from shared.denoiser import Denoiser
from shared.objective.moment import moment, noised
from shared.objective.streams import NOISE
from shared.objective.weighting import Weighting, weight
from shared.schedule import Learned, Level, Schedule


def diffusion_loss(
    denoiser: Denoiser,
    codec: Codec,
    data: Tensor,
    condition: Tensor | None,
    t: Tensor,
    keys: Tensor,
    schedule: Schedule,
    weighting: str | Weighting = "v",
    density: Tensor | None = None,
) -> tuple[Tensor, Level]:
    """Loss per sample (B,), mean over a datum's elements, and the levels (B,) it was taken at.

    data (B, *data_shape), t (B,), keys (B,). Categorical predictions give the cross-entropy in
    nats per element; others the weighted squared error. With self-conditioning, samples with an
    even key get a first pass whose estimate is `previous` (Chen et al. 2022, Alg. 1).

    The mean of the losses is the mean over the times as drawn; with `density` (B,), the p(t) they
    were drawn from, it estimates the integral over logsnr (with the weighting `elbo`: the diffusion
    term of the bound, in nats per element), and a learned schedule takes its gradient from the
    square of the loss. ValueError for a learned schedule without density.
    """
    x0 = codec.draw(data, keys) if isinstance(codec, SampledCodec) else codec.encode(data)
    if density is not None:
        at = moment(schedule, t)
        level = at.level
    elif isinstance(schedule, Learned):
        raise ValueError(
            "density = None: a learned schedule is fitted to an integral over logsnr; give the "
            "density of t (ones where t is uniform)"
        )
    else:
        at, level = None, schedule(t)
    x_t = noised(x0, level, keys, NOISE)
    previous = first_estimate(denoiser, x_t, level, condition, keys)
    output = denoiser.output(x_t, level, condition, previous)
    losses = output_losses(denoiser, codec, output, data, x0, x_t, level, weighting)
    if at is not None and density is not None:
        losses = losses * at.rate / density
        at.descend_on_square(losses)
    return losses, level


class Predicts(Protocol):
    """What says what an output stands for: a `Denoiser`, or a part of one."""

    @property
    def prediction(self) -> str: ...
    @property
    def data_std(self) -> float: ...
    def estimate(self, output: Tensor, x_t: Tensor, level: Level) -> Tensor:
        """Network output (B, ...) -> x0_hat (B, ...)."""
        ...


def output_losses(
    predicts: Predicts,
    codec: Codec,
    output: Tensor,
    data: Tensor,
    x0: Tensor,
    x_t: Tensor,
    level: Level,
    weighting: str | Weighting,
) -> Tensor:
    """Loss per sample (B,) of an output at x_t, the noisy x0 of data: the weighted squared error of
    its estimate, or the cross-entropy of its logits, mean over elements."""
    if predicts.prediction == "categorical":
        assert isinstance(codec, DiscreteCodec)
        return codec.nll(output, data) / (output.numel() // len(output) // output.shape[-1])
    error = (x0 - predicts.estimate(output, x_t, level)).square().flatten(1).mean(1)
    return weights(weighting, level, predicts.data_std) * error


def weights(weighting: str | Weighting, level: Level, data_std: float) -> Tensor:
    """w (B,) of a weighting, given by name or as a function of the level."""
    return weight(weighting, level, data_std) if isinstance(weighting, str) else weighting(level)


def first_estimate(
    denoiser: Denoiser, x_t: Tensor, level: Level, condition: Tensor | None, keys: Tensor
) -> Tensor | None:
    """x0_hat without gradient for the samples with an even key, zeros for the others."""
    if not denoiser.self_condition:
        return None
    previous = torch.zeros_like(x_t)
    rows, passed = first_rows(keys % 2 == 0)
    with torch.no_grad():
        some = None if condition is None else condition[passed]
        found = denoiser(x_t[passed], level.take(passed), some, None)
    previous[rows] = found[: len(rows)]
    return previous


def first_rows(asked: Tensor) -> tuple[Tensor, Tensor]:
    """Which samples ask for a first pass (B,) -> their rows (n,), and those to hand to the network:
    the same, or one for nothing where there are none, since a network that is cut over ranks needs
    every rank's pass."""
    rows = asked.nonzero().flatten()
    return rows, rows if len(rows) else rows.new_zeros(1)
