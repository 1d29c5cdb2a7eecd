"""Gaussian mixtures with full covariances: the oracle of solvers, guidance and likelihoods.

For x0 ~ sum_k w_k N(m_k, C_k), x_t is the mixture with means alpha m_k and covariances
alpha^2 C_k + sigma^2 I; E[x0 | x_t] is the responsibility-weighted mean of the Gaussian posteriors
m_k + alpha C_k (alpha^2 C_k + sigma^2 I)^-1 (x_t - alpha m_k) (Bishop 2006, eq. 2.116).
The component is the class y of guidance: p_t(y | x_t) and p_t(x_t | y) are known as well.
"""

import math

import torch
from torch import Tensor

from shared.schedule import Level


class GaussianMixture:
    """weights (K,), means (K, D), covariances (K, D, D) or their diagonals (K, D).

    A `condition` (B,) or (B, 1) names each sample's component, -1 for any: the answer is then that
    of the component alone. Raises ValueError when shapes disagree, a weight is not positive, a
    mean is not finite, a covariance is not symmetric positive definite, or a condition is no
    component.
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
        if not bool(means.isfinite().all()):
            raise ValueError("oracle: a mean is not finite")
        if not torch.allclose(covariances, covariances.mT):
            raise ValueError("oracle: a covariance is not symmetric")
        # float64: a float32 eigenvalue is good to 1e-7 of the largest one only
        variances, axes = torch.linalg.eigh(covariances.double())
        if bool((variances <= 0).any()):
            raise ValueError("oracle: a covariance is not positive definite")
        self.log_weights = torch.log(weights / weights.sum())
        self.means = means
        self.variances, self.axes = variances.to(means), axes.to(means)

    def _whitened(
        self, x: Tensor, level: Level, condition: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Residuals on each component's axes (B, K, D), variances there, log p(x, k) (B, K); where
        a condition is given log p(x | k), and -inf for the other components."""
        level = level.widen(3)
        # products and sums, not einsum: a row's result must not depend on the size of its batch
        centred = x[:, None, :] - level.alpha * self.means
        residual = (centred[..., :, None] * self.axes).sum(2)
        variances = level.alpha**2 * self.variances + level.sigma**2
        terms = -0.5 * (residual**2 / variances + variances.log() + math.log(2 * math.pi))
        log_p = terms.sum(2)
        joint = log_p + self.log_weights
        if condition is not None:
            chosen = self._checked(condition, len(x))[:, None]
            joint = torch.where(chosen < 0, joint, log_p)
            others = torch.arange(len(self.means), device=x.device) != chosen
            joint = joint.masked_fill(others & (chosen >= 0), -math.inf)
        return residual, variances, joint

    def _checked(self, condition: Tensor, n: int) -> Tensor:
        if condition.numel() != n or not bool(
            ((condition >= -1) & (condition < len(self.means))).all()
        ):
            raise ValueError(
                f"oracle: condition {condition.flatten()[:8].tolist()} of shape "
                f"{tuple(condition.shape)}: expected one component each for {n} samples, "
                f"0 to {len(self.means) - 1}, or -1 for any"
            )
        return condition.reshape(-1)

    def log_prob(self, x: Tensor, level: Level, condition: Tensor | None = None) -> Tensor:
        """x (B, D) at a level -> log p_t(x), or log p_t(x | component), nats, (B,)."""
        return self._whitened(x, level, condition)[2].logsumexp(1)

    def log_posterior(self, x_t: Tensor, level: Level) -> Tensor:
        """log p_t(component | x_t), nats, (B, K): the exact noisy classifier."""
        return self._whitened(x_t, level)[2].log_softmax(1)

    def denoise(
        self,
        x_t: Tensor,
        level: Level,
        condition: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> Tensor:
        """E[x0 | x_t] or E[x0 | x_t, component], (B, D), a Denoise."""
        residual, variances, joint = self._whitened(x_t, level, condition)
        gain = level.widen(3).alpha * self.variances / variances
        shift = (self.axes * (gain * residual)[..., None, :]).sum(-1)
        return (joint.softmax(1)[..., None] * (self.means + shift)).sum(1)

    def score(self, x: Tensor, level: Level, condition: Tensor | None = None) -> Tensor:
        """grad log p_t(x) (B, D), summed over the components: Tweedie's formula,
        (alpha E[x0 | x] - x) / sigma^2, would cancel all digits at high logsnr."""
        residual, variances, joint = self._whitened(x, level, condition)
        pull = -(self.axes * (residual / variances)[..., None, :]).sum(-1)
        return (joint.softmax(1)[..., None] * pull).sum(1)

    def flow(self, x_t: Tensor, at: Level, to: Level) -> Tensor:
        """x_s (B, D) at `to` on the path of the probability-flow ODE through x_t at `at`.

        A Gaussian's ODE keeps the z-score: on each axis x_s - alpha_s m = sqrt(v_s / v_t)
        (x_t - alpha_t m), v = alpha^2 c + sigma^2. Raises ValueError when there are several
        components, whose flow has no closed form.
        """
        if len(self.means) != 1:
            raise ValueError(
                f"oracle: the flow of {len(self.means)} components has no closed form: take one"
            )
        residual, variances, _ = self._whitened(x_t, at)
        to = to.widen(3)
        ratio = ((to.alpha**2 * self.variances + to.sigma**2) / variances).sqrt()
        moved = (self.axes * (ratio * residual)[..., None, :]).sum(-1)
        return (to.alpha * self.means + moved).squeeze(1)

    def sample(self, n: int, generator: torch.Generator, condition: Tensor | None = None) -> Tensor:
        """n draws (n, D) of x0, or of x0 given each draw's component."""
        k = torch.multinomial(self.log_weights.exp(), n, replacement=True, generator=generator)
        if condition is not None:
            chosen = self._checked(condition, n)
            k = torch.where(chosen < 0, k, chosen)
        D, dtype, device = self.means.shape[1], self.means.dtype, self.means.device
        z = torch.randn(n, D, generator=generator, dtype=dtype, device=device)
        return self.means[k] + (self.axes[k] @ (self.variances[k].sqrt() * z)[..., None])[..., 0]
