"""The loss of improved DDPM, which learns the variance of its steps (Nichol & Dhariwal 2021)."""

import torch
from torch import Tensor

from shared.codec import Codec
from shared.denoiser import Denoiser
from shared.objective.bound import step_kl
from shared.objective.loss import first_estimate, weights
from shared.objective.moment import noised
from shared.objective.streams import NOISE
from shared.objective.weighting import Weighting
from shared.schedule import Level, Schedule


def hybrid_loss(
    denoiser: Denoiser,
    codec: Codec,
    data: Tensor,
    condition: Tensor | None,
    t: Tensor,
    keys: Tensor,
    schedule: Schedule,
    steps: int,
    weighting: str | Weighting = "eps",
    share: float = 0.001,
) -> tuple[Tensor, Level]:
    """L_simple + share L_vlb for a denoiser with a learned range (Nichol & Dhariwal 2021, eq. 16):
    losses (B,), mean over a datum's elements, and their levels (B,).

    t (B,) is rounded up to a step of the grid 1 / steps, ..., 1. L_vlb is `steps` times the KL of
    that step, in nats per element (their code counts bits), in which the estimate is held fixed: it
    teaches the variance alone. The step to a clean end has no variance to learn and counts as 0.
    """
    x0 = codec.encode(data)
    step = (t * steps).ceil().clamp(1, steps)
    level, to = schedule(step / steps), schedule((step - 1) / steps)
    x_t = noised(x0, level, keys, NOISE)
    previous = first_estimate(denoiser, x_t, level, condition, keys)
    x0_hat, fraction = denoiser.with_range(x_t, level, condition, previous)
    error = (x0 - x0_hat).square().flatten(1).mean(1)
    noisy = to.sigma > 0  # a step from a level to itself costs nothing
    to = Level(
        torch.where(noisy, to.logsnr, level.logsnr),
        torch.where(noisy, to.alpha, level.alpha),
        torch.where(noisy, to.sigma, level.sigma),
    )
    kl = step_kl(x0, x0_hat.detach(), level, to, fraction) / x0[0].numel()
    return weights(weighting, level, denoiser.data_std) * error + share * steps * kl, level
