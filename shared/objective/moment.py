"""Where a loss is taken: noisy samples, their levels, and how fast the levels pass."""

from dataclasses import dataclass

import torch
from torch import Tensor

from shared import noise
from shared.schedule import Learned, Level, Schedule, slope
from shared.schedule.calculus import derivative


@dataclass(frozen=True)
class Moment:
    """Where a loss is taken: levels (B,), and -d logsnr / dt (B,) there."""

    level: Level
    rate: Tensor
    interior: tuple[Tensor, ...] = ()  # all that the interior of a learned schedule acts through

    def descend_on_square(self, losses: Tensor) -> None:
        """Let the interior of a learned schedule see the gradient of losses (B,) squared, when
        that of the losses is taken: d l^2 = 2 l dl, sample by sample (Kingma et al. 2021)."""
        twice = 2 * losses.detach()

        def scale(gradient: Tensor) -> Tensor:
            return (gradient * twice).to(gradient.dtype)

        for part in self.interior:
            if part.requires_grad:
                part.register_hook(scale)


def moment(schedule: Schedule, t: Tensor) -> Moment:
    """The levels of a schedule at t (B,) and how fast they pass."""
    if not isinstance(schedule, Learned):
        logsnr, rate = slope(schedule, t)
        return Moment(schedule.family(logsnr), -rate)
    share, speed = derivative(schedule.share, t, keep_graph=torch.is_grad_enabled())
    logsnr = schedule.between(share)
    rate = schedule.between(torch.zeros_like(speed)) - schedule.between(speed)
    return Moment(schedule.family(logsnr), rate, (share, speed))


def noised(x0: Tensor, level: Level, keys: Tensor, stream: int) -> Tensor:
    """x_t (B, ...) of x0 (B, ...) at a level, with the noise of this stream of keys (B,)."""
    wide = level.widen(x0.ndim)
    eps = noise.normal(keys, stream, tuple(x0.shape[1:]), device=x0.device)
    return wide.alpha * x0 + wide.sigma * eps.to(x0)
