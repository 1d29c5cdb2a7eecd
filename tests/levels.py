"""Levels of every schedule family at a given logsnr, from their definitions, for tests of oracles,
and the probability-flow ODE along them."""

from collections.abc import Callable

import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from shared.denoiser import Denoise
from shared.schedule import Level

# ratio = alpha / sigma -> alpha
FAMILIES: dict[str, Callable[[Tensor], Tensor]] = {
    "vp": lambda ratio: ratio / torch.sqrt(1 + ratio**2),
    "ve": lambda ratio: ratio / ratio,  # 1, with a derivative
    "sub_vp": lambda ratio: 2 * ratio / (1 + torch.sqrt(1 + 4 * ratio**2)),  # sigma = 1 - alpha^2
    "flow": lambda ratio: ratio / (1 + ratio),  # sigma = 1 - alpha
}


def level_of(family: str, logsnr: Tensor) -> Level:
    ratio = torch.exp(logsnr / 2)
    alpha = FAMILIES[family](ratio)
    return Level(logsnr, alpha, alpha / ratio)


def level_at(family: str, *logsnr: float) -> Level:
    """Float64; a level for all samples, (), of one number, or one each, (B,), of several."""
    values = torch.tensor(logsnr, dtype=torch.float64)
    return level_of(family, values[0] if len(logsnr) == 1 else values)


def single(level: Level) -> Level:
    return Level(level.logsnr.float(), level.alpha.float(), level.sigma.float())


def noised(x0: Tensor, level: Level, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    eps = torch.randn(x0.shape, generator=generator, dtype=torch.float64).to(x0)
    level = level.widen(x0.ndim)
    return level.alpha * x0 + level.sigma * eps


def solved_flow(denoise: Denoise, x: Tensor, family: str, start: float, end: float) -> Tensor:
    """dx = alpha' x0_hat + sigma' eps_hat along logsnr, by scipy's DOP853 at 1e-11."""

    def slope(logsnr: float, flat: object) -> object:
        at = torch.tensor(logsnr, dtype=torch.float64, requires_grad=True)
        level = level_of(family, at)
        (d_alpha,) = torch.autograd.grad(level.alpha, at, retain_graph=True)
        (d_sigma,) = torch.autograd.grad(level.sigma, at)
        fixed = Level(*(part.detach() for part in (level.logsnr, level.alpha, level.sigma)))
        x_t = torch.as_tensor(flat, dtype=torch.float64).reshape(x.shape)
        x0_hat = denoise(x_t, fixed)
        eps_hat = (x_t - fixed.alpha * x0_hat) / fixed.sigma
        return (d_alpha * x0_hat + d_sigma * eps_hat).flatten().numpy()

    flat = x.flatten().numpy()
    solved = solve_ivp(slope, (start, end), flat, method="DOP853", rtol=1e-11, atol=1e-11)
    return torch.as_tensor(solved.y[:, -1]).reshape(x.shape)
