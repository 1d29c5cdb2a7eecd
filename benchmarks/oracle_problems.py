"""Distributions with exact denoisers that solvers are compared on, and where their ODE ends.

A family draws a problem from a generator; all problems have mean 0 and unit mean variance of their
coordinates, so an error is in units of the data's standard deviation. TUNE are the problems that
`shared/solver/corrected.py` and `fitted.py` were tuned on, of fixed sizes. HELD_OUT are other
families, whose sizes are drawn too: another seed gives problems that nobody has seen.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Generator, Tensor

from shared.denoiser import Denoise
from shared.oracle import GaussianMixture, LowRankGaussian, PointMixture, swiss_roll
from shared.schedule import Level, Ve
from shared.solver import prepare, run
from shared.solver.adams import Adams
from shared.solver.grid import trig

CLEANEST = 1e-4  # sigma from which the reference extrapolates to 0
REFERENCE_STEPS = 200  # and twice as many


class Diagonal:
    """A GaussianMixture of diagonal covariances, by matrix products: weights (K,), means and
    variances (K, D). A tenth of the time in 64 dimensions, for rows that depend on their batch in
    the last digits."""

    def __init__(self, weights: Tensor, means: Tensor, variances: Tensor) -> None:
        self.weights, self.means, self.variances = weights, means, variances

    def denoise(
        self,
        x_t: Tensor,
        level: Level,
        condition: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> Tensor:
        """E[x0 | x_t], (B, D), at one level for all rows."""
        x, ratio = x_t / level.alpha, level.sigma / level.alpha
        precision = 1 / (self.variances + ratio**2)
        pulled = self.means * precision
        distance = x**2 @ precision.T - 2 * x @ pulled.T + (self.means * pulled).sum(1)
        joint = self.weights.log() - 0.5 * (distance - precision.log().sum(1))
        p, gain = joint.softmax(1), self.variances * precision
        return p @ (self.means - gain * self.means) + x * (p @ gain)

    def sample(self, n: int, generator: Generator) -> Tensor:
        """n draws (n, D) of x0."""
        k = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        return self.means[k] + self.variances[k].sqrt() * normal(generator, n, self.means.shape[1])


Known = Diagonal | GaussianMixture | LowRankGaussian | PointMixture


@dataclass(frozen=True)
class Problem:
    """What solvers are given: a denoiser of x0 (B, *shape), and draws to compare with."""

    name: str
    about: str
    shape: tuple[int, ...]
    oracle: Known

    @property
    def denoise(self) -> Denoise:
        return self.oracle.denoise

    def noise(self, n: int, seed: int) -> Tensor:
        """Unit noise (n, *shape) to begin with, float64."""
        return normal(torch.Generator().manual_seed(seed), n, *self.shape)


Family = Callable[[Generator], tuple[str, tuple[int, ...], Known]]


def normal(generator: Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def uniform(generator: Generator, low: float, high: float, *shape: int) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)


def whole(generator: Generator, low: int, high: int) -> int:
    """An integer from low to high, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def standard(
    weights: Tensor, means: Tensor, variances: Tensor
) -> tuple[Tensor, Tensor, Tensor, float]:
    """Moved to mean 0 and scaled to unit mean variance: weights, means, variances of the
    coordinates, and the scale that was divided by."""
    weights = weights / weights.sum()
    means = means - weights @ means
    spread = weights @ (variances + means**2)
    scale = float(spread.mean().sqrt())
    return weights, means / scale, variances / scale**2, scale


def mixture(weights: Tensor, means: Tensor, variances: Tensor) -> Diagonal:
    """Standardised; variances broadcast against means (K, D)."""
    return Diagonal(*standard(weights, means, variances.expand_as(means))[:3])


def points(weights: Tensor, at: Tensor, places: tuple[int, ...] = ()) -> PointMixture:
    """Standardised points at (K, E)."""
    weights, at, _, _ = standard(weights, at, torch.zeros_like(at))
    return PointMixture(at, weights, places=places)


# -- to tune on ------------------------------------------------------------------------------------


def ring(generator: Generator) -> tuple[str, tuple[int, ...], Known]:
    angle = torch.arange(8, dtype=torch.float64) * math.pi / 4
    at = torch.stack([angle.cos(), angle.sin()], 1)
    return "8 tight modes on a circle", (2,), mixture(angle.new_ones(8), at, at.new_tensor(0.05**2))


def power(generator: Generator) -> tuple[str, tuple[int, ...], Known]:
    spectrum = 1 / torch.arange(1, 65, dtype=torch.float64)
    at = normal(generator, 16, 64) * spectrum.sqrt()
    variances = 0.3 * spectrum * uniform(generator, 0.5, 1.5, 16, 64)
    weights = uniform(generator, 0.5, 1.5, 16)
    return "16 components, spectrum 1 / f", (64,), mixture(weights, at, variances)


def tokens(generator: Generator) -> tuple[str, tuple[int, ...], Known]:
    at, weights = normal(generator, 64, 64), uniform(generator, 0.2, 1.2, 64)
    return "64 tight clusters", (64,), mixture(weights, at, at.new_tensor(0.1**2))


def lattice(generator: Generator) -> tuple[str, tuple[int, ...], Known]:
    axis = torch.linspace(-1, 1, 5, dtype=torch.float64)
    at, weights = torch.cartesian_prod(axis, axis), uniform(generator, 0.2, 1.2, 25)
    return "25 tight modes on a lattice", (2,), mixture(weights, at, at.new_tensor(0.05**2))


def uneven(generator: Generator) -> tuple[str, tuple[int, ...], Known]:
    at, variances = normal(generator, 10, 16), (2 * normal(generator, 10, 16) - 3).exp()
    weights = uniform(generator, 0.3, 1.3, 10)
    return "10 components of uneven axes", (16,), mixture(weights, at, variances)


def two_scales(generator: Generator) -> tuple[str, tuple[int, ...], Known]:
    at = normal(generator, 4, 1, 8) + 0.25 * normal(generator, 4, 6, 8)
    weights = uniform(generator, 0.3, 1.3, 24)
    found = mixture(weights, at.reshape(24, 8), at.new_tensor(0.05**2))
    return "4 groups of 6 tight clusters", (8,), found


# -- held out --------------------------------------------------------------------------------------


def spiral(generator: Generator) -> tuple[str, tuple[int, ...], Known]:
    turns, width = float(uniform(generator, 1.0, 2.0)), float(uniform(generator, 0.03, 0.08))
    angle = torch.linspace(1.0, 1.0 + 2 * math.pi * turns, 80, dtype=torch.float64)
    at = angle[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
    found = mixture(angle, at, (width * angle.max()).square())
    return f"a spiral of {turns:.1f} turns", (2,), found


def roll(generator: Generator) -> tuple[str, tuple[int, ...], Known]:
    std = float(uniform(generator, 0.08, 0.2))
    noisy, scale = swiss_roll(std), math.hypot(1, std)  # its curve has unit power
    found = PointMixture(noisy.points / scale, noisy.log_weights.exp(), std / scale)
    return f"the swiss roll, std {std:.2f}", (2,), found


def spectrum(generator: Generator) -> tuple[str, tuple[int, ...], Known]:
    D, K = whole(generator, 24, 120), whole(generator, 5, 30)
    exponent, within = (float(uniform(generator, *ends)) for ends in ((0.6, 1.6), (0.2, 0.7)))
    falling = torch.arange(1, D + 1, dtype=torch.float64) ** -exponent
    at = normal(generator, K, D) * falling.sqrt()
    variances = within * falling * uniform(generator, 0.5, 1.5, K, D)
    about = f"{K} components, spectrum f^-{exponent:.1f}"
    return about, (D,), mixture(uniform(generator, 0.5, 1.5, K), at, variances)


def tilted(generator: Generator) -> tuple[str, tuple[int, ...], Known]:
    D, K = whole(generator, 3, 8), whole(generator, 4, 9)
    variances = (1.5 * normal(generator, K, D) - 2).exp()
    axes = torch.linalg.qr(normal(generator, K, D, D)).Q
    at, weights = normal(generator, K, D), uniform(generator, 0.3, 1.3, K)
    covariances = axes @ torch.diag_embed(variances) @ axes.mT
    weights, at, _, scale = standard(weights, at, covariances.diagonal(dim1=1, dim2=2))
    found = GaussianMixture(weights, at, covariances / scale**2)
    return f"{K} components, each with axes of its own", (D,), found


def words(generator: Generator) -> tuple[str, tuple[int, ...], Known]:
    K, d, L = whole(generator, 30, 100), whole(generator, 8, 24), whole(generator, 2, 5)
    weights = 1 / torch.arange(1, K + 1, dtype=torch.float64)
    found = points(weights, normal(generator, K, d), (L,))
    return f"{L} words out of {K}, by Zipf's law", (L, d), found


def bits(generator: Generator) -> tuple[str, tuple[int, ...], Known]:
    D, share = whole(generator, 6, 30), float(uniform(generator, 0.15, 0.5))
    weights = torch.tensor([share, 1 - share], dtype=torch.float64)
    at = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    return f"{D} bits, a share of {share:.2f} set", (D, 1), points(weights, at, (D,))


def memory(generator: Generator) -> tuple[str, tuple[int, ...], Known]:
    D, K = whole(generator, 12, 48), whole(generator, 60, 250)
    falling = torch.arange(1, D + 1, dtype=torch.float64) ** -float(uniform(generator, 0.5, 1.5))
    at = normal(generator, K, D) * falling.sqrt()
    return f"a training set of {K}", (D,), points(at.new_ones(K), at)


def nested(generator: Generator) -> tuple[str, tuple[int, ...], Known]:
    D, ratio = whole(generator, 3, 6), float(uniform(generator, 0.2, 0.4))
    at = normal(generator, 1, D)
    for depth in range(3):
        at = (at[:, None] + ratio**depth * normal(generator, len(at), 4, D)).reshape(-1, D)
    weights = uniform(generator, 0.3, 1.3, len(at))
    found = mixture(weights, at, at.new_tensor(0.3 * ratio**3).square())
    return f"clusters of clusters, each {ratio:.2f} as wide", (D,), found


def flat(generator: Generator) -> tuple[str, tuple[int, ...], Known]:
    D, r, std = whole(generator, 40, 150), whole(generator, 3, 10), 0.1
    factor = normal(generator, D, r) * (normal(generator, r) / 2).exp()
    scale = float(((factor**2).sum(1) + std**2).mean().sqrt())
    found = LowRankGaussian(factor.new_zeros(D), factor / scale, std / scale)
    return f"one Gaussian near {r} dimensions", (D,), found


def unequal(generator: Generator) -> tuple[str, tuple[int, ...], Known]:
    D, K = whole(generator, 6, 40), whole(generator, 6, 20)
    std = uniform(generator, math.log(0.03), 0.0, K).exp()
    at, weights = normal(generator, K, D), uniform(generator, 0.3, 1.3, K)
    return f"{K} clusters from tight to broad", (D,), mixture(weights, at, std[:, None] ** 2)


TUNE: tuple[Family, ...] = (ring, power, tokens, lattice, uneven, two_scales)
HELD_OUT: tuple[Family, ...] = (
    spiral,
    roll,
    spectrum,
    tilted,
    words,
    bits,
    memory,
    nested,
    flat,
    unequal,
)


def draw(families: tuple[Family, ...], seed: int) -> list[Problem]:
    """One problem of each family; each has a generator of its own."""
    found: list[Problem] = []
    for place, family in enumerate(families):
        about, shape, oracle = family(torch.Generator().manual_seed(100 * seed + place))
        found.append(Problem(family.__name__, about, shape, oracle))
    return found


def exact(
    denoise: Denoise, noise: Tensor, sigma: float, steps: int = REFERENCE_STEPS
) -> tuple[Tensor, Tensor]:
    """Where the ODE takes sigma noise (B, ...), to sigma = 0, and the error (B,) of half as many
    steps: Adams-Bashforth of order 4, begun by Runge-Kutta, in the angle atan(sigma)."""
    schedule = Ve(CLEANEST, sigma)
    solver, grid = Adams(4, start="kutta"), partial(trig, power=2.0, sigma=sigma)
    coarse, fine = (
        run(prepare(schedule, solver, count, grid), denoise, sigma * noise).x
        for count in (steps, 2 * steps)
    )
    return fine, distances(coarse, fine)


def distances(x: Tensor, y: Tensor) -> Tensor:
    """Root mean square over the coordinates, (B, ...) -> (B,)."""
    return (x - y).double().square().flatten(1).mean(1).sqrt()


def sliced_wasserstein(x: Tensor, y: Tensor, directions: int = 200) -> float:
    """Wasserstein-2 of projections of x and y (B, ...), root mean square over random directions:
    of two clouds that are a shift of 1 in every coordinate apart it is 1, nearly."""
    x, y = x.double().flatten(1), y.double().flatten(1)
    towards = normal(torch.Generator().manual_seed(0), x.shape[1], directions)
    towards = towards / towards.norm(dim=0)
    apart = (x @ towards).sort(0).values - (y @ towards).sort(0).values
    return float(apart.square().mean().sqrt())
