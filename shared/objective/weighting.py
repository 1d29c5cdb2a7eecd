"""Weightings: w in front of |x0 - x0_hat|^2, as functions of a level, for every family.

Matching a prediction F, with x0_hat = c_skip x_t + c_out F, is w = 1 / c_out^2: the squared error
in F's own space. eps: SNR; v: ((alpha^2 + sigma^2) / sigma)^2; velocity: ((alpha + sigma) /
sigma)^2; edm: (alpha^2 sd^2 + sigma^2) / (sigma sd)^2.

A weighting says nothing of the density of times. `elbo` is meant per unit of logsnr, to be divided
by the density; the others are used both ways (Kingma & Gao 2023 compare them as integrals over
logsnr, where most recipes take the mean over their own times).
"""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from shared.prediction import PREDICTIONS
from shared.schedule import Level

Weighting: TypeAlias = Callable[[Level], Tensor]


def matching(prediction: str, level: Level, data_std: float = 1.0) -> Tensor:
    """1 / c_out^2: the loss is the squared error of this prediction."""
    return PREDICTIONS[prediction](level.alpha, level.sigma, data_std)[1] ** -2


def min_snr(level: Level, gamma: float = 5.0) -> Tensor:
    """min(SNR, gamma) (Hang et al. 2023)."""
    return torch.exp(level.logsnr).clamp(max=gamma)


def p2(level: Level, k: float = 1.0, gamma: float = 1.0) -> Tensor:
    """SNR / (k + SNR)^gamma (Choi et al. 2022: the weight of eps over (k + SNR)^gamma)."""
    snr = torch.exp(level.logsnr)
    return snr / (k + snr) ** gamma


def sigmoid(level: Level, bias: float = 2.0) -> Tensor:
    """SNR sigmoid(bias - logsnr) (Kingma & Gao 2023, who weight the error of eps)."""
    return torch.exp(level.logsnr) * torch.sigmoid(bias - level.logsnr)


def elbo(level: Level) -> Tensor:
    """SNR / 2 per unit of logsnr, that is -SNR'(t) / 2 per unit of t (Kingma et al. 2021)."""
    return torch.exp(level.logsnr) / 2


# name -> w(level, standard deviation of x0)
WEIGHTINGS: dict[str, Callable[[Level, float], Tensor]] = {
    "x0": lambda level, sd: torch.ones_like(level.logsnr),
    "eps": lambda level, sd: matching("eps", level),
    "v": lambda level, sd: matching("v", level),
    "velocity": lambda level, sd: matching("velocity", level),
    "edm": lambda level, sd: matching("edm", level, sd),
    "min_snr": lambda level, sd: min_snr(level),
    "p2": lambda level, sd: p2(level),
    "sigmoid": lambda level, sd: sigmoid(level),
    "elbo": lambda level, sd: elbo(level),
}


def weight(name: str, level: Level, data_std: float = 1.0) -> Tensor:
    """w of a named weighting at a level, in its shape. ValueError for a name that there is not."""
    if name not in WEIGHTINGS:
        raise ValueError(f"weighting = {name!r}: expected one of {', '.join(WEIGHTINGS)}")
    return WEIGHTINGS[name](level, data_std)
