"""What a network outputs, as coefficients around x0.

x0_hat = c_skip x_t + c_out F; each row solves x_t = alpha x0 + sigma eps for x0. Everything else
in the core sees x0 only, so five predictions are five rows and no converters.
eps Ho et al. 2020; score Song et al. 2021; v Salimans & Ho 2022; velocity Liu et al. 2022.
"""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from shared.schedule import Level

Coefficients: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

PREDICTIONS: dict[str, Coefficients] = {
    "x0": lambda alpha, sigma: (torch.zeros_like(alpha), torch.ones_like(alpha)),
    "eps": lambda alpha, sigma: (1 / alpha, -sigma / alpha),
    "score": lambda alpha, sigma: (1 / alpha, sigma**2 / alpha),
    "v": lambda alpha, sigma: (alpha / (alpha**2 + sigma**2), -sigma / (alpha**2 + sigma**2)),
    "velocity": lambda alpha, sigma: (1 / (alpha + sigma), -sigma / (alpha + sigma)),
}


def coefficients(prediction: str, level: Level) -> tuple[Tensor, Tensor]:
    """(c_skip, c_out) of a prediction at a level, in the level's shape.

    Raises ValueError for an unknown prediction, and where alpha = 0 makes 1 / alpha meaningless.
    """
    if prediction not in PREDICTIONS:
        raise ValueError(f"prediction = {prediction!r}: expected one of {', '.join(PREDICTIONS)}")
    if prediction in ("eps", "score") and bool((level.alpha == 0).any()):
        raise ValueError(
            f"prediction = {prediction!r} is undefined where alpha = 0; use 'v' or 'x0', or a "
            "schedule with a finite logsnr_min"
        )
    return PREDICTIONS[prediction](level.alpha, level.sigma)


def to_x0(prediction: str, output: Tensor, x_t: Tensor, level: Level) -> Tensor:
    """Network output F (B, ...) at x_t (B, ...) -> x0_hat (B, ...)."""
    c_skip, c_out = coefficients(prediction, level)
    return c_skip * x_t + c_out * output


def from_x0(prediction: str, x0: Tensor, x_t: Tensor, level: Level) -> Tensor:
    """The output F (B, ...) that a perfect network gives for x0: the inverse of `to_x0`."""
    c_skip, c_out = coefficients(prediction, level)
    return (x0 - c_skip * x_t) / c_out
