"""Continuous-time losses: E over t of w(logsnr) |x0 - x0_hat|^2, or a cross-entropy.

The density of t and the weighting w are two settings. Time, noise, the dropout of conditions and
self-conditioning are functions of the sample's key (run seed and global index) alone, so the loss
of a batch does not depend on how many processes share it.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from shared import noise
from shared.codec import Codec, DiscreteCodec
from shared.denoiser import Denoiser
from shared.schedule import Level, Schedule

# Streams of `noise`, one per use of a sample's key. Negative: the solvers take 0, 1, 2, ... under
# seeds that may be the keys of a run.
TIME, NOISE, DROP = -1, -2, -3

# w(logsnr) in front of |x0 - x0_hat|^2: eps-, v- and x0-matching for variance-preserving
# schedules; min-SNR with gamma 5 (Hang et al. 2023); sigmoid with bias 2 (Kingma & Gao 2023).
# The loss is their mean over the density of logsnr that the schedule gives to uniform t; Kingma &
# Gao divide by that density, so theirs is an integral over logsnr.
WEIGHTINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "x0": torch.ones_like,
    "eps": torch.exp,
    "v": lambda logsnr: torch.exp(logsnr) + 1,
    "min_snr": lambda logsnr: torch.exp(logsnr).clamp(max=5.0),
    "sigmoid": lambda logsnr: torch.exp(logsnr) * torch.sigmoid(2.0 - logsnr),
}


def sample_keys(seed: int, indices: Tensor) -> Tensor:
    """Global sample indices (B,) int64 -> one key per sample (B,) int64."""
    return (indices & 0xFFFFFFFF) + (seed << 32)


def stratified_times(seed: int, step: int, positions: Tensor) -> Tensor:
    """Low-discrepancy t (B,) in [0, 1] for the samples at `positions` (B,) of a global batch.

    One uniform offset per step, as in Kingma et al. 2021, app. I.1; then multiples of the golden
    ratio, so that every contiguous share of the batch is stratified too, not only the whole.
    """
    offset = noise.uniform(sample_keys(seed, torch.tensor([step])), TIME)[0].to(positions.device)
    return ((offset.double() + positions.double() * 0.6180339887498949) % 1.0).float()


def drop_condition(condition: Tensor, keys: Tensor, rate: float) -> Tensor:
    """condition (B, M) of ids -> the same with whole rows set to 0, "none", at the given rate."""
    if rate == 0:
        return condition
    drop = noise.uniform(keys, DROP) < rate
    return condition.masked_fill(drop[:, None], 0)


def diffusion_loss(
    denoiser: Denoiser,
    codec: Codec,
    data: Tensor,
    condition: Tensor | None,
    t: Tensor,
    keys: Tensor,
    schedule: Schedule,
    weighting: str = "v",
) -> tuple[Tensor, Level]:
    """Loss per sample (B,), mean over a datum's elements, and the levels (B,) it was taken at.

    data (B, *data_shape), t (B,), keys (B,). Categorical predictions give the cross-entropy in
    nats per element; others the weighted squared error. With self-conditioning, samples with an
    even key get a first pass whose estimate is `previous` (Chen et al. 2022, Alg. 1).
    """
    x0 = codec.encode(data)
    level = schedule(t)
    wide = level.widen(x0.ndim)
    eps = noise.normal(keys, NOISE, tuple(x0.shape[1:]), device=x0.device)
    x_t = wide.alpha * x0 + wide.sigma * eps
    previous = _first_estimate(denoiser, x_t, level, condition, keys)
    output = denoiser.output(x_t, level, condition, previous)
    if denoiser.prediction == "categorical":
        assert isinstance(codec, DiscreteCodec)
        return codec.nll(output, data) / (output.numel() // len(output) // output.shape[-1]), level
    x0_hat = denoiser.estimate(output, x_t, level)
    error = (x0 - x0_hat).square().flatten(1).mean(1)
    return WEIGHTINGS[weighting](level.logsnr) * error, level


def _first_estimate(
    denoiser: Denoiser, x_t: Tensor, level: Level, condition: Tensor | None, keys: Tensor
) -> Tensor | None:
    """x0_hat without gradient for the samples with an even key, zeros for the others."""
    if not denoiser.self_condition:
        return None
    previous = torch.zeros_like(x_t)
    rows = (keys % 2 == 0).nonzero().flatten()
    with torch.no_grad():
        part = Level(level.logsnr[rows], level.alpha[rows], level.sigma[rows])
        some = None if condition is None else condition[rows]
        previous[rows] = denoiser(x_t[rows], part, some, None)
    return previous
