"""What is random in training, as functions of a sample's key (run seed and global index) alone.

So the loss of a batch does not depend on how many processes share it.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from shared import noise
from shared.groups import ALL, Groups

# Streams of `noise`, one per use of a sample's key. Negative: the solvers take 0, 1, 2, ... under
# seeds that may be the keys of a run. Step i of a discrete bound takes CHAIN - i.
TIME, NOISE, DROP, CLEANEST, LATENT, PROBE, CHAIN = -1, -2, -3, -4, -5, -6, -32
ENCODE = -7  # of a codec that draws its latents
OTHER_TIME, OTHER_NOISE = -8, -9  # of the second of two modalities
AUGMENT = -10  # of a condition that is noised: how much, and with -11 by what
FLIP = -12  # whether a sample is mirrored
LENGTH = -13  # of a sample, where its length is drawn before it
CLEAN = -14  # which of two modalities a sample sees clean
CROP = -15  # where of a larger sample the one that is seen lies
MASK = -16  # what is hidden of a sample
DECODE = -17  # of a codec that draws its data


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


def drop_condition(
    condition: Tensor, keys: Tensor, rate: float | Mapping[str, float], groups: Groups | None = None
) -> Tensor:
    """condition (B, M) of ids, or (B, M, D) of vectors -> the same with whole rows set to 0,
    "none", at the given rate.

    With a rate for each of several groups of columns, each group is dropped independently of the
    others; ALL stands for whole rows. Groups that come later do not change what others draw.
    """
    if rate == 0:
        return condition
    if not isinstance(rate, Mapping):
        drop = noise.uniform(keys, DROP) < rate
        return condition.masked_fill(drop.view(-1, *[1] * (condition.ndim - 1)), 0)
    columns = {ALL: range(condition.shape[1]), **(groups or {})}
    uniforms = noise.uniform(keys, DROP, (len(columns),))
    for name, u in zip(columns, uniforms.unbind(1), strict=True):
        within = torch.zeros(condition.shape[1], dtype=torch.bool, device=condition.device)
        within[list(columns[name])] = True
        drop = (u < rate.get(name, 0.0)).to(condition.device)
        there = (drop[:, None] & within).view(*condition.shape[:2], *[1] * (condition.ndim - 2))
        condition = condition.masked_fill(there, 0)
    return condition
