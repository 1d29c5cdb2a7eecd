"""Ancestral sampling: a draw from q(x_s | x_t, x0 = x0_hat) (Ho et al. 2020, eq. 7, Alg. 2).

With c = 1 - e^(logsnr_t - logsnr_s), the posterior of a Gaussian chain has
mean = (alpha_s / alpha_t) (1 - c) x_t + alpha_s c x0 and variance sigma_s^2 c (the smaller of
DDPM's two; Kingma et al. 2021). At the clean end c = 1 and the draw is x0_hat itself.
"""

import math

from torch import Tensor

from shared.solver.step import Move


def ancestral_step(x_t: Tensor, x0_hat: Tensor, move: Move) -> Tensor:
    """One posterior draw, x_s (B, ...)."""
    keep = math.exp(move.at.logsnr - move.to.logsnr)
    mean = x_t.mul_(move.to.alpha / move.at.alpha * keep)
    mean.add_(x0_hat, alpha=move.to.alpha * (1 - keep))
    std = move.to.sigma * math.sqrt(-math.expm1(move.at.logsnr - move.to.logsnr))
    return mean if std == 0 else mean.add_(move.noise(), alpha=std)
