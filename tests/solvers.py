"""What the tests of solvers share: families of schedules, a mixture, its exact flow."""

from dataclasses import dataclass

import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from shared.oracle import GaussianMixture
from shared.schedule import Family, Level, Schedule, variance_preserving
from shared.solver.step import Point

FAMILIES = ("vp", "ve", "sub_vp", "flow")


@dataclass(frozen=True)
class Straight(Schedule):
    """logsnr linear in t, in any family: uniform time is uniform logsnr."""

    name: str = "vp"
    low: float = -6.0
    high: float = 6.0

    @property
    def family(self) -> Family:
        return self.level

    def logsnr(self, t: Tensor) -> Tensor:
        return self.high + t * (self.low - self.high)

    def time(self, logsnr: Tensor) -> Tensor:
        return (logsnr - self.high) / (self.low - self.high)

    def level(self, logsnr: Tensor) -> Level:
        k = torch.exp(logsnr / 2)  # alpha / sigma
        if self.name == "ve":
            return Level(logsnr, torch.ones_like(k), 1 / k)
        if self.name == "sub_vp":  # sigma = 1 - alpha^2
            alpha = 2 * k / (1 + torch.sqrt(1 + 4 * k**2))
            return Level(logsnr, alpha, alpha / k)
        if self.name == "flow":  # alpha + sigma = 1
            return Level(logsnr, k / (1 + k), 1 / (1 + k))
        return variance_preserving(logsnr)


def smooth_mixture(dtype: torch.dtype = torch.float64) -> GaussianMixture:
    """Two broad, correlated components in the plane."""
    weights = torch.tensor([0.3, 0.7], dtype=dtype)
    means = torch.tensor([[-0.8, 0.3], [0.6, -0.2]], dtype=dtype)
    covariances = torch.tensor([[[0.4, 0.1], [0.1, 0.3]], [[0.3, -0.1], [-0.1, 0.5]]], dtype=dtype)
    return GaussianMixture(weights, means, covariances)


def noisy(oracle: GaussianMixture, at: Point, n: int, seed: int = 0) -> Tensor:
    """n draws of x_t, float64."""
    generator = torch.Generator().manual_seed(seed)
    x0 = oracle.sample(n, generator)
    return at.alpha * x0 + at.sigma * torch.randn(
        x0.shape, generator=generator, dtype=torch.float64
    )


def exact_flow(oracle: GaussianMixture, x: Tensor, at: Point, to: Point) -> Tensor:
    """The probability-flow ODE, dz / dlogsnr = -(z - x0_hat) / 2 in z = x / alpha for every family,
    by scipy's DOP853 at 1e-12."""

    def slope(logsnr: float, flat: object) -> object:
        z = torch.as_tensor(flat, dtype=torch.float64).reshape(x.shape)
        parts = (logsnr, 1.0, 2.718281828459045 ** (-logsnr / 2))
        level = Level(*(torch.tensor(part, dtype=torch.float64) for part in parts))
        return (-(z - oracle.denoise(z, level)) / 2).flatten().numpy()

    solved = solve_ivp(
        slope,
        (at.logsnr, to.logsnr),
        (x / at.alpha).flatten().numpy(),
        method="DOP853",
        rtol=1e-12,
        atol=1e-12,
    )
    return to.alpha * torch.as_tensor(solved.y[:, -1]).reshape(x.shape)
