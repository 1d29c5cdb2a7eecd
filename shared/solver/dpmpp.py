"""DPM-Solver++(2M): second-order multistep in logsnr on x0 (Lu et al. 2022b, Alg. 2)."""

import math

from torch import Tensor

from shared.solver.ddim import ddim_step
from shared.solver.step import Move


def dpmpp_2m_step(x_t: Tensor, x0_hat: Tensor, move: Move) -> Tensor:
    """x_s = (sigma_s / sigma_t) x_t - alpha_s (e^-h - 1) D, where D = (1 + weight) x0_hat - weight
    x0_before is extrapolated from two estimates.

    h is the step in logsnr / 2. Order 2; the first step, and the last one if it ends clean
    (h infinite), are DDIM's.
    """
    if move.x0_before is None or move.before is None or move.to.sigma == 0:
        return ddim_step(x_t, x0_hat, move)
    h = (move.to.logsnr - move.at.logsnr) / 2
    h_before = (move.at.logsnr - move.before.logsnr) / 2
    weight = h / (2 * h_before)
    gain = -move.to.alpha * math.expm1(-h)
    x_s = x_t.mul_(move.to.sigma / move.at.sigma).add_(x0_hat, alpha=gain * (1 + weight))
    return x_s.add_(move.x0_before, alpha=-gain * weight)  # three passes in place, no temporary
