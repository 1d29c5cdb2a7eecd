"""Data distributions whose exact denoiser, score and likelihood are known at every noise level.

For x0 ~ sum_k w_k N(m_k, C_k), x_t is the mixture with means alpha m_k and covariances
alpha^2 C_k + sigma^2 I; E[x0 | x_t] is the responsibility-weighted mean of the Gaussian posteriors
m_k + alpha C_k (alpha^2 C_k + sigma^2 I)^-1 (x_t - alpha m_k) (Bishop 2006, eq. 2.116).
"""

import math

import torch
from torch import Tensor

from shared.schedule import Level


class GaussianMixture:
    """weights (K,), means (K, D), covariances (K, D, D) or their diagonals (K, D).

    Raises ValueError when shapes disagree a weight is not positive, or a covariance is not
    symmetric positive definite.
    """

    def __init__(self, weights: Tensor, means: Tensor, covariances: Tensor) -> None:
        K, D = means.shape
        if covariances.shape == (K, D):
            covariances = torch.diag_embed(covariances)
        if weights.shape != (K,) or covariances.shape != (K, D, D):
            raise ValueError(
                f"oracle: weights {tuple(weights.shape)}, means {tuple(means.shape)}, covariances "
                f"{tuple(covariances.shape)}: expected (K,), (K, D) and (K, D, D) or (K, D)"
            )
        if not bool((weights > 0).all()):
            raise ValueError(f"oracle: weights {weights.tolist()}: expected positive numbers")
        if not torch.allclose(covariances, covariances.mT):
            raise ValueError("oracle: a covariance is not symmetric")
        self.variances, self.axes = torch.linalg.eigh(covariances)
        if bool((self.variances <= 0).any()):
            raise ValueError("oracle: a covariance is not positive definite")
        self.log_weights = torch.log(weights / weights.sum())
        self.means = means

    def _whitened(self, x: Tensor, level: Level) -> tuple[Tensor, Tensor, Tensor]:
        """Residuals on each component's axes (B, K, D), variances there, log joint (B, K)."""
        level = level.widen(3)
        # products and sums, not einsum: a row's result must not depend on the size of its batch
        centred = x[:, None, :] - level.alpha * self.means
        residual = (centred[..., :, None] * self.axes).sum(-2)
        variances = level.alpha**2 * self.variances + level.sigma**2
        log_p = -0.5 * (residual**2 / variances + variances.log() + math.log(2 * math.pi))
        return residual, variances, log_p.sum(-1) + self.log_weights

    def log_prob(self, x: Tensor, level: Level) -> Tensor:
        """x (B, D) at a level -> log p_t(x), nats, (B,)."""
        return self._whitened(x, level)[2].logsumexp(-1)

    def denoise(
        self,
        x_t: Tensor,
        level: Level,
        condition: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> Tensor:
        """E[x0 | x_t], (B, D), a Denoise; condition (B,) or (B, 1): the component, -1 for any."""
        residual, variances, joint = self._whitened(x_t, level)
        if condition is not None:
            chosen = condition.reshape(-1, 1)
            other = torch.arange(len(self.means), device=x_t.device) != chosen
            joint = joint.masked_fill(other & (chosen >= 0), -math.inf)
        gain = level.widen(3).alpha * self.variances / variances
        shift = (self.axes * (gain * residual)[..., None, :]).sum(-1)
        return (joint.softmax(-1)[..., None] * (self.means + shift)).sum(1)

    def score(self, x: Tensor, level: Level) -> Tensor:
        """grad log p_t(x) (B, D), summed over the components: Tweedie's formula,
        (alpha E[x0 | x] - x) / sigma^2, would cancel all digits at high logsnr."""
        residual, variances, joint = self._whitened(x, level)
        pull = -(self.axes * (residual / variances)[..., None, :]).sum(-1)
        return (joint.softmax(-1)[..., None] * pull).sum(1)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """n draws (n, D) of x0."""
        k = torch.multinomial(self.log_weights.exp(), n, replacement=True, generator=generator)
        z = torch.randn(n, self.means.shape[1], generator=generator, dtype=self.means.dtype)
        return self.means[k] + (self.axes[k] @ (self.variances[k].sqrt() * z)[..., None])[..., 0]
