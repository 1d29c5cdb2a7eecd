"""The reverse-time SDE of Score SDE, dx = [f x - g^2 score] dt + g dw (Song et al. 2021, eq. 6).

f dt = d ln alpha and g^2 dt = -sigma^2 d logsnr for every family. Both end clean on x0_hat, the
final denoising step (Tweedie's formula), without noise.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from shared.solver.step import Mix, Move, Path, Steps, share, to_clean


def euler_maruyama_step(move: Move) -> Mix:
    """With sigma^2 score = alpha x0_hat - x and d = logsnr_s - logsnr_t:
    x_s = (1 + ln(alpha_s / alpha_t)) x_t + d (alpha x0_hat - x_t) + sigma sqrt(d) noise."""
    at, to = move.at, move.to
    if to.sigma == 0:
        return to_clean(move)
    if at.alpha == 0:
        raise ValueError(
            "euler_maruyama: the drift is infinite at logsnr = -inf; begin the grid at a finite "
            "logsnr, or use ancestral"
        )
    d = to.logsnr - at.logsnr
    x = 1 + math.log(to.alpha / at.alpha) - d
    return Mix(at, to, x, d * at.alpha, std=at.sigma * math.sqrt(d))


def reverse_diffusion_step(move: Move) -> Mix:
    """The forward step x_t = r x_s + G noise turned round (eq. 46 there): x_s = (2 - r) x_t + G^2
    score + G noise, with r = alpha_t / alpha_s and G^2 = sigma_t^2 c, c as in `ancestral`."""
    if move.to.sigma == 0:
        return to_clean(move)
    r, c = move.at.alpha / move.to.alpha, share(move)
    return Mix(move.at, move.to, 2 - r - c, move.at.alpha * c, std=move.at.sigma * math.sqrt(c))


@dataclass(frozen=True)
class EulerMaruyama:
    """Weak order 1, 1 NFE, stochastic."""

    order = 1
    nfe = 1
    memory = 0
    stochastic = True

    def plan(self, moves: Sequence[Move], path: Path) -> Steps:
        return [euler_maruyama_step(move) for move in moves]


@dataclass(frozen=True)
class ReverseDiffusion:
    """Weak order 1, 1 NFE, stochastic."""

    order = 1
    nfe = 1
    memory = 0
    stochastic = True

    def plan(self, moves: Sequence[Move], path: Path) -> Steps:
        return [reverse_diffusion_step(move) for move in moves]
