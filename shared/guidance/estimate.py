"""Guidance by what is said of clean data, asked of the estimate: no classifier of noisy data.

    log p(y | x_t) is taken to be f(x0_hat(x_t)), f(x0) = log p(y | x0) up to a constant,

as in diffusion posterior sampling (Chung et al. 2023, eq. 7 and 11) and the forward guidance of
Bansal et al. 2023 (eq. 3). Its gradient goes back through the denoiser. By Tweedie's formula of
second order the shift of the estimate, (sigma^2 / alpha) grad_x f(x0_hat), is V grad f with V the
covariance of x0 given x_t: exact where x0 given x_t is Gaussian and f linear, and otherwise blind
to how f bends within V, most so at high noise.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from shared.denoiser import Denoise
from shared.guidance.gradients import slope_of
from shared.schedule import Level

OfEstimate = Callable[[Tensor], Tensor]  # x0_hat (B, ...) -> log p(y | x0_hat), nats, (B,)


def through_estimate(denoise: Denoise, log_prob: OfEstimate, scale: float = 1.0) -> Denoise:
    """x0_hat + (sigma^2 / alpha) scale grad_x log_prob(x0_hat(x_t)).

    Order: around `classifier_free` and what else it is to differentiate, inside `clamp` and
    `infill`. Cost per call: denoise's evaluation, with gradients, and one backward pass through it
    and log_prob (none at scale 0). ValueError, when called, unless log_prob gives (B,).
    """

    def guided(
        x_t: Tensor,
        level: Level,
        condition: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> Tensor:
        if scale == 0:
            return denoise(x_t, level, condition, previous)
        with torch.enable_grad():
            x = x_t.detach().requires_grad_()
            x0_hat = denoise(x, level, condition, previous)
            slope = slope_of(log_prob(x0_hat), x)
        return x0_hat.detach() + scale * level.widen(x_t.ndim).gain * slope

    return guided
