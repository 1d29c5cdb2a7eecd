"""The gradient flow of energies: what LatentOps samples by (Liu et al. 2022, eq. 6 and its code).

Its probability-flow ODE has a unit Gaussian for a prior, whose score cancels the drift of the VP
process, and energies that do not depend on time. What remains is

    dz / ds = -sum_i w_i grad E_i(z),    s from 0 to half the integral of beta

from a start that the data's prior gives, or a datum to edit. beta from 0.1 to 20 makes it 5.025.
A quadratic energy's mean goes to its minimum, its spread to zero: not the product distribution,
which noised energies sample (`shared.guidance.energies`).

The same flow under any solver of `shared.solver` is `energy(unit_gaussian, energies, weights)` on
the linear schedule, of energies that do not look at their level: there s = ln alpha + 5.025.
"""

import math
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from shared.guidance.energies import Energy, log_factor
from shared.guidance.gradients import gradient
from shared.schedule import Level, variance_preserving
from shared.solver.adaptive import Integrated, integrate

LENGTH = (0.1 + 20) / 4  # half the integral of beta over [0, 1]


def gradient_flow(
    z: Tensor,
    energies: Sequence[Energy],
    weights: Sequence[float],
    length: float = LENGTH,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    budget: int | None = None,
) -> Integrated:
    """z (B, ...) after the flow of so long, by adaptive steps.

    Within `budget` evaluations of all energies; where they do not suffice it warns, and gives the
    state it has. ValueError for a length that is negative or not finite, and as `log_factor`.
    """
    if not 0 <= length < math.inf:
        raise ValueError(f"length = {length}: expected 0 or more")
    log_prob, level = log_factor(energies, weights), clean_level(z)

    def slope(gone: Tensor, z: Tensor) -> Tensor:
        return gradient(log_prob, z, level, None)

    if length == 0:
        return Integrated(z, 0.0, 0, done=True)
    with torch.no_grad():
        found = integrate(slope, z, 0.0, length, rtol, atol, budget)
    if not found.done:
        warnings.warn(
            f"gradient flow: {found.evaluations} evaluations reach {found.reached:.3g} of "
            f"{length:.3g}; the state there is taken. Give a larger budget, a shorter flow, or "
            "larger rtol and atol"
        )
    return found


def unit_gaussian(
    x_t: Tensor,
    level: Level,
    condition: Tensor | None = None,
    previous: Tensor | None = None,
) -> Tensor:
    """E[x0 | x_t] = alpha x_t / (alpha^2 + sigma^2) of x0 ~ N(0, I): a Denoise."""
    wide = level.widen(x_t.ndim)
    return wide.alpha * x_t / (wide.alpha**2 + wide.sigma**2)


def clean_level(like: Tensor) -> Level:
    """The level without noise, on the device and in the dtype of `like`."""
    return variance_preserving(like.new_tensor(math.inf))
