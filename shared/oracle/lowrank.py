"""One Gaussian in high dimension, x0 ~ N(mean, U U^T + std^2 I) with U of low rank.

The covariance has the r left singular vectors of U as axes, with variances s_i^2 + std^2, and
std^2 on all the rest. A function of the noised covariance, f(v) with v = alpha^2 c + sigma^2 on an
axis of variance c, is applied as f(rest) x + Q (f(axes) - f(rest)) Q^T x: 4 B D r multiplications
and additions, and no matrix of D x D.
"""

import math

import torch
from torch import Tensor

from shared.oracle.protocol import refuse_condition
from shared.schedule import Level


class LowRankGaussian:
    """mean (D,), factor U (D, r), std > 0. Its samples are as wide as mean's dtype.

    Matrix products make it fast, so a row's last digits may depend on the size of its batch.
    Raises ValueError when shapes disagree, std is not positive, or a number is not finite.
    """

    def __init__(self, mean: Tensor, factor: Tensor, std: float) -> None:
        if mean.ndim != 1 or factor.ndim != 2 or len(factor) != len(mean):
            raise ValueError(
                f"oracle: mean {tuple(mean.shape)}, factor {tuple(factor.shape)}: "
                "expected (D,) and (D, r)"
            )
        if not 0 < std < math.inf:
            raise ValueError(f"oracle: std = {std}: expected a positive number")
        if not bool(mean.isfinite().all()) or not bool(factor.isfinite().all()):
            raise ValueError("oracle: mean or factor is not finite")
        # float64: a small singular value would drown in the rounding of a large one
        axes, singular, _ = torch.linalg.svd(factor.double(), full_matrices=False)
        self.mean, self.factor, self.std = mean, factor, std
        self.axes = axes.to(mean)
        self.variances = (singular**2 + std**2).to(mean)

    def _noised(self, level: Level) -> tuple[Tensor, Tensor]:
        """Variances at a widened level: on the axes (1 or B, r), and on the rest (1 or B, 1)."""
        on_axes = level.alpha**2 * self.variances + level.sigma**2
        return on_axes, level.alpha**2 * self.std**2 + level.sigma**2

    def _apply(self, on_axes: Tensor, rest: Tensor, x: Tensor) -> Tensor:
        """The matrix with these eigenvalues, times each row of x (B, D)."""
        return rest * x + ((on_axes - rest) * (x @ self.axes)) @ self.axes.mT

    def log_prob(self, x: Tensor, level: Level) -> Tensor:
        """x (B, D) at a level -> log p_t(x), nats, (B,)."""
        level = level.widen(2)
        on_axes, rest = self._noised(level)
        centred = x - level.alpha * self.mean
        along = centred @ self.axes
        # subtracted as vectors: |centred|^2 - |along|^2 would cancel where the axes are long
        across = centred - along @ self.axes.mT
        D, r = self.axes.shape
        distance = (along**2 / on_axes).sum(-1) + (across**2 / rest).sum(-1)
        log_det = on_axes.log().sum(-1) + (D - r) * rest.log().sum(-1)
        return -0.5 * (distance + log_det + D * math.log(2 * math.pi))

    def denoise(
        self,
        x_t: Tensor,
        level: Level,
        condition: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> Tensor:
        """E[x0 | x_t] = mean + alpha C (alpha^2 C + sigma^2 I)^-1 (x_t - alpha mean), (B, D)."""
        refuse_condition("a single Gaussian", condition)
        level = level.widen(2)
        on_axes, rest = self._noised(level)
        gains = level.alpha * self.variances / on_axes, level.alpha * self.std**2 / rest
        return self.mean + self._apply(*gains, x_t - level.alpha * self.mean)

    def score(self, x: Tensor, level: Level) -> Tensor:
        """grad log p_t(x) (B, D)."""
        level = level.widen(2)
        on_axes, rest = self._noised(level)
        return -self._apply(1 / on_axes, 1 / rest, x - level.alpha * self.mean)

    def flow(self, x_t: Tensor, at: Level, to: Level) -> Tensor:
        """x_s (B, D) at `to` on the path of the probability-flow ODE through x_t at `at`: a
        Gaussian's ODE keeps the z-score on each axis."""
        at, to = at.widen(2), to.widen(2)
        before, after = self._noised(at), self._noised(to)
        on_axes, rest = ((v_s / v_t).sqrt() for v_s, v_t in zip(after, before, strict=True))
        return to.alpha * self.mean + self._apply(on_axes, rest, x_t - at.alpha * self.mean)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """n draws (n, D) of x0: mean + U z + std noise."""
        D, r = self.factor.shape
        dtype, device = self.mean.dtype, self.mean.device
        z = torch.randn(n, r, generator=generator, dtype=dtype, device=device)
        noise = torch.randn(n, D, generator=generator, dtype=dtype, device=device)
        return self.mean + z @ self.factor.mT + self.std * noise
