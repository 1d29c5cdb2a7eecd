"""What a network outputs, as coefficients around x0.

x0_hat = c_skip x_t + c_out F; each row solves x_t = alpha x0 + sigma eps for x0. Everything else
in the core sees x0 only, so six predictions are six rows and no converters.
eps Ho et al. 2020; score Song et al. 2021; v Salimans & Ho 2022; velocity Liu et al. 2022; edm
Karras et al. 2022, table 1, for any alpha: with q^2 = alpha^2 sd^2 + sigma^2, the variance of x_t,
its F = (sigma x0 / sd - alpha sd eps) / q has unit variance. sd is the standard deviation of x0.
"""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from shared.schedule import Level

Coefficients: TypeAlias = Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]

PREDICTIONS: dict[str, Coefficients] = {
    "x0": lambda alpha, sigma, sd: (torch.zeros_like(alpha), torch.ones_like(alpha)),
    "eps": lambda alpha, sigma, sd: (1 / alpha, -sigma / alpha),
    "score": lambda alpha, sigma, sd: (1 / alpha, sigma**2 / alpha),
    "v": lambda alpha, sigma, sd: (alpha / (alpha**2 + sigma**2), -sigma / (alpha**2 + sigma**2)),
    "velocity": lambda alpha, sigma, sd: (1 / (alpha + sigma), -sigma / (alpha + sigma)),
    "edm": lambda alpha, sigma, sd: (
        alpha * sd**2 / (alpha**2 * sd**2 + sigma**2),
        sigma * sd * torch.rsqrt(alpha**2 * sd**2 + sigma**2),
    ),
}


def coefficients(prediction: str, level: Level, data_std: float = 1.0) -> tuple[Tensor, Tensor]:
    """(c_skip, c_out) of a prediction at a level, in the level's shape; only edm asks for data_std.

    Raises ValueError for an unknown prediction, and where alpha = 0 makes 1 / alpha meaningless.
    """
    if prediction not in PREDICTIONS:
        raise ValueError(f"prediction = {prediction!r}: expected one of {', '.join(PREDICTIONS)}")
    if prediction in ("eps", "score") and bool((level.alpha == 0).any()):
        raise ValueError(
            f"prediction = {prediction!r} is undefined where alpha = 0; use 'v' or 'x0', or a "
            "schedule with a finite logsnr_min"
        )
    return PREDICTIONS[prediction](level.alpha, level.sigma, data_std)


def to_x0(
    prediction: str, output: Tensor, x_t: Tensor, level: Level, data_std: float = 1.0
) -> Tensor:
    """Network output F (B, ...) at x_t (B, ...) -> x0_hat (B, ...)."""
    c_skip, c_out = coefficients(prediction, level, data_std)
    return c_skip * x_t + c_out * output


def from_x0(
    prediction: str, x0: Tensor, x_t: Tensor, level: Level, data_std: float = 1.0
) -> Tensor:
    """The output F (B, ...) that a perfect network gives for x0: the inverse of `to_x0`."""
    c_skip, c_out = coefficients(prediction, level, data_std)
    return (x0 - c_skip * x_t) / c_out
