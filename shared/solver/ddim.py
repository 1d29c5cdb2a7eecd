"""DDIM: the first-order step of the probability-flow ODE.

(Song, Meng & Ermon 2021, eq. 12 with eta = 0.)
"""

from torch import Tensor

from shared.solver.step import Move


def ddim_step(x_t: Tensor, x0_hat: Tensor, move: Move) -> Tensor:
    """x_s = (sigma_s / sigma_t) x_t + (alpha_s - alpha_t sigma_s / sigma_t) x0_hat. Order 1."""
    ratio = move.to.sigma / move.at.sigma
    return x_t.mul_(ratio).add_(x0_hat, alpha=move.to.alpha - move.at.alpha * ratio)
