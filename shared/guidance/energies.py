"""Energies: samples of p(z0) exp(-sum_i w_i E_i(z0)), controls that compose by addition.

Exact at level t is the noised energy E_t(z) = -log E[exp(-E(z0)) | z_t = z], the log-likelihood of
a noisy classifier by another name. It is known for a quadratic energy and a unit Gaussian prior.

A time-independent energy E_t = E (Liu et al. 2022, LatentOps) gives something else: under the
probability-flow ODE a unit Gaussian prior cancels the drift, what remains is the gradient flow
dz / d ln alpha = -sum_i w_i grad E_i(z) from ln alpha at the noise to 0. It does not know when to
stop: a quadratic energy's spread shrinks by e^-5 (linear schedule), however weak the energy's
posterior would be.

Gradients add exactly. Noised energies do not: noising the sum is not summing the noised, unless
they look at orthogonal directions. Put energies that share one into one `Quadratic`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from shared.denoiser import Denoise
from shared.guidance.gradients import LogProb
from shared.guidance.noisy_classifier import classifier
from shared.schedule import Level


class Energy(Protocol):
    """z (B, ...) at its level -> an energy in nats (B,), differentiable in z."""

    def __call__(self, z: Tensor, level: Level, /) -> Tensor: ...


def log_factor(energies: Sequence[Energy], weights: Sequence[float]) -> LogProb:
    """-sum_i w_i E_i as a log-probability. ValueError unless there is one weight per energy."""
    if not energies or len(energies) != len(weights):
        raise ValueError(
            f"{len(energies)} energies, {len(weights)} weights: expected one or more, and one "
            "weight for each"
        )

    def log_prob(z: Tensor, level: Level, condition: Tensor | None) -> Tensor:
        pairs = zip(energies, weights, strict=True)
        return -torch.stack([weight * energy(z, level) for energy, weight in pairs]).sum(0)

    return log_prob


def energy(denoise: Denoise, energies: Sequence[Energy], weights: Sequence[float]) -> Denoise:
    """x0_hat - (sigma^2 / alpha) sum_i w_i grad E_i(x_t).

    Exact for one noised energy at weight 1. Order: as `classifier`. Cost per call: denoise's, and
    one forward and backward pass of every energy.
    """
    return classifier(denoise, log_factor(energies, weights))


@dataclass(frozen=True)
class Quadratic:
    """E(z) = sum_k (a_k . z - y_k)^2 / (2 std_k^2); called, it ignores the level.

    a (K, D) over the flattened z; y (K,) or (B, K); std (K,), positive. ValueError otherwise.
    """

    a: Tensor
    y: Tensor
    std: Tensor

    def __post_init__(self) -> None:
        K = len(self.a)
        if self.a.ndim != 2 or self.y.shape[-1:] != (K,) or self.std.shape != (K,):
            raise ValueError(
                f"a {tuple(self.a.shape)}, y {tuple(self.y.shape)}, std {tuple(self.std.shape)}: "
                "expected (K, D), (K,) or (B, K), and (K,)"
            )
        if not bool((self.std > 0).all()):
            raise ValueError(f"std = {self.std.tolist()}: expected positive numbers")

    def __call__(self, z: Tensor, level: Level) -> Tensor:
        return (((z.flatten(1) @ self.a.T - self.y) / self.std) ** 2).sum(1) / 2

    def noised(self, z: Tensor, level: Level) -> Tensor:
        """-log E[exp(-E(z0)) | z_t = z] for z0 ~ N(0, I), nats, (B,): itself an Energy.

        z0 given z is N(m, v I), m = alpha z / (alpha^2 + sigma^2), v = sigma^2 / (alpha^2 +
        sigma^2). With C = diag(std^2) + v a a^T and r = a m - y it is r^T C^-1 r / 2
        + ln det(C) / 2 - sum ln std.
        """
        level = level.widen(2)
        total = level.alpha**2 + level.sigma**2
        residual = (level.alpha / total * z.flatten(1)) @ self.a.T - self.y
        v = (level.sigma**2 / total)[..., None]
        root = torch.linalg.cholesky(torch.diag(self.std**2) + v * (self.a @ self.a.T))
        white = torch.linalg.solve_triangular(root, residual[..., None], upper=False)[..., 0]
        log_root = root.diagonal(dim1=-2, dim2=-1).log().sum(-1).reshape(-1)
        return (white**2).sum(-1) / 2 + log_root - self.std.log().sum()
