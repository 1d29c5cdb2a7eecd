"""Noise levels, the families that place them, and what a schedule is.

x_t = alpha x0 + sigma eps,   logsnr = ln(alpha^2 / sigma^2).

A schedule is a strictly falling function t -> logsnr and its inverse; a family turns logsnr into
alpha and sigma. One ratio r = sigma / alpha = e^(-logsnr / 2) fixes each family:

variance preserving   alpha^2 + sigma^2 = 1
variance exploding    alpha = 1
sub-VP                sigma + alpha^2 = 1
straight flow         alpha + sigma = 1
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch import Tensor


@dataclass(frozen=True)
class Level:
    """A noise level: three tensors of one shape, () or (B,), or widened against x: (B, 1, ...)."""

    logsnr: Tensor
    alpha: Tensor
    sigma: Tensor

    def widen(self, ndim: int) -> "Level":
        """A level of shape (B,) -> (B, 1, ..., 1) with ndim axes; a scalar level stays as it is."""
        if self.logsnr.ndim == 0:
            return self
        shape = (-1,) + (1,) * (ndim - 1)
        return Level(*(x.reshape(shape) for x in (self.logsnr, self.alpha, self.sigma)))

    def take(self, rows: Tensor) -> "Level":
        """The levels of these rows (n,) of a level of shape (B,)."""
        return Level(*(x[rows] for x in (self.logsnr, self.alpha, self.sigma)))

    @property
    def gain(self) -> Tensor:
        """sigma^2 / alpha: how far x0_hat moves with the score, E[x0 | x_t] = (x_t + sigma^2 score)
        / alpha (Efron 2011, Tweedie's formula)."""
        return self.sigma**2 / self.alpha

    def to(self, like: Tensor) -> "Level":
        """The same level on the device and in the dtype of `like`."""
        return Level(*(x.to(like) for x in (self.logsnr, self.alpha, self.sigma)))


Family: TypeAlias = Callable[[Tensor], Level]


def variance_preserving(logsnr: Tensor) -> Level:
    """alpha^2 + sigma^2 = 1 (Kingma et al. 2021, sec. 3.2); sigmoid does not overflow at either
    end."""
    return Level(logsnr, alpha=torch.sigmoid(logsnr).sqrt(), sigma=torch.sigmoid(-logsnr).sqrt())


def variance_exploding(logsnr: Tensor) -> Level:
    """alpha = 1, sigma = r (Song et al. 2021; Karras et al. 2022)."""
    return Level(logsnr, alpha=torch.ones_like(logsnr), sigma=torch.exp(-logsnr / 2))


def sub_variance_preserving(logsnr: Tensor) -> Level:
    """sigma = 1 - alpha^2 (Song et al. 2021): alpha = 2 / (r + sqrt(r^2 + 4)), the root
    without cancellation at either end."""
    ratio = torch.exp(-logsnr / 2)
    alpha = 2 / (ratio + torch.hypot(ratio, torch.full_like(ratio, 2)))
    return Level(logsnr, alpha=alpha, sigma=ratio * alpha)


def straight_flow(logsnr: Tensor) -> Level:
    """sigma = 1 - alpha (Liu et al. 2022): alpha = 1 / (1 + r), as a sigmoid against overflow."""
    return Level(logsnr, alpha=torch.sigmoid(logsnr / 2), sigma=torch.sigmoid(-logsnr / 2))


class Schedule(Protocol):
    """t in [0, 1] (0 data, 1 noise) -> noise level, strictly falling in logsnr, and its inverse.

    A pure function of tensors, traced and differentiated without a look at values: t outside
    [0, 1] is *not* refused here (it gives an extrapolation or NaN). Who makes times checks them,
    once: the sampling loop its grid, the samplers of training times by construction.
    """

    @property
    def family(self) -> Family:
        """logsnr -> Level, for any logsnr; variance preserving unless a schedule says otherwise."""
        return variance_preserving

    def logsnr(self, t: Tensor) -> Tensor:
        """t in [0, 1], any shape -> logsnr (nats), same shape."""
        ...

    def time(self, logsnr: Tensor) -> Tensor:
        """The inverse of logsnr: logsnr, any shape -> t in [0, 1]."""
        ...

    def __call__(self, t: Tensor) -> Level:
        """t, any shape -> the Level there, same shape."""
        return self.family(self.logsnr(t))
