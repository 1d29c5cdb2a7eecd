"""Infilling: a part of x0 is given.

`infill` writes it into the estimate: it comes out exactly, and the rest follows as far as the
network makes it. `repaint` writes a noised copy into the state (Lugmayr et al. 2022, Alg. 1): on a
grid that travels back (`solver.grid.time_travel`) to make each step r times, the mean of the rest
approaches the conditional's; on a Gaussian its error falls as 1 / r.
"""

import torch
from torch import Tensor

from shared.denoiser import Denoise
from shared.schedule import Level
from shared.solver.step import StepHook, Taken


def infill(denoise: Denoise, known: Tensor, mask: Tensor) -> Denoise:
    """Where mask (B, ...) is true the estimate is `known` (B, ...), the clean latent given.

    Order: last. Cost per call: denoise's. ValueError when mask is not boolean.
    """
    _check(mask)

    def guided(
        x_t: Tensor,
        level: Level,
        condition: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> Tensor:
        return torch.where(mask, known, denoise(x_t, level, condition, previous))

    return guided


def repaint(known: Tensor, mask: Tensor, draw: int = 0) -> StepHook:
    """Where mask (B, ...) is true the state is a draw of q(x_s | x0 = known) (B, ...).

    `draw` numbers the step's reserved noise: hooks that draw together take different ones. Order:
    last of the hooks. Cost: no evaluation; a grid that travels back asks r times as often.
    ValueError when mask is not boolean.
    """
    _check(mask)

    def hook(x_s: Tensor, taken: Taken) -> Tensor:
        drawn = taken.to.alpha * known + taken.to.sigma * taken.draw(draw)
        return torch.where(mask, drawn, x_s)

    return hook


def _check(mask: Tensor) -> None:
    if mask.dtype != torch.bool:
        raise ValueError(f"mask of {mask.dtype}: expected booleans, true where known; compare it")
