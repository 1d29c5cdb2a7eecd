"""Algorithms as their papers print them, beside our code, step by step on fixed inputs.

The papers count t = 1 .. T; abar_t is the product of alpha_s = 1 - beta_s over s <= t, and
abar_0 = 1. Numbers of two features, in float64 where nothing draws noise in float32.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from shared import noise
from shared.codec import Identity
from shared.denoiser import Denoiser
from shared.guidance import classifier, classifier_hook
from shared.objective import diffusion_loss
from shared.objective.streams import NOISE
from shared.schedule import FromBetas, Level, from_betas
from shared.solver import Trajectory, sample
from shared.solver.step import StepHook
from tests.guided import f64, normals

BETAS = f64(0.02, 0.05, 0.11, 0.2, 0.35, 0.5)
T = len(BETAS)
ABAR = torch.cat([f64(1.0), torch.cumprod(1 - BETAS, 0)])  # ABAR[t], t = 0 .. T
SEEDS = [7, 1, 12]
SCALE = 1.7
LABELS = torch.tensor([[2], [0], [1]])


def beta(t: int) -> Tensor:
    return BETAS[t - 1]


class EpsNet(nn.Module):
    """eps_theta(x, t) = tanh(x W) + t b; as our networks it is told logsnr, and finds t in it."""

    def __init__(self, schedule: FromBetas) -> None:
        super().__init__()
        self.schedule = schedule
        self.weight = nn.Parameter(f64([0.7, -0.4], [0.2, 0.9]))
        self.bias = nn.Parameter(f64(0.05, -0.03))

    def eps(self, x: Tensor, t: Tensor | int) -> Tensor:
        told = torch.as_tensor(t, dtype=torch.float64).reshape(-1, 1)
        return torch.tanh(x @ self.weight) + told * self.bias

    def forward(self, x: Tensor, logsnr: Tensor, condition: Any, previous: Any) -> Tensor:
        return self.eps(x, (self.schedule.step(logsnr) + 1).round())


WEIGHT, OFFSETS = f64([0.8, -0.5, 0.1], [-0.3, 0.4, 1.1]), f64(0.1, 0.0, -0.2)


def logits(x: Tensor, t: Tensor | int) -> Tensor:
    return x @ WEIGHT + torch.as_tensor(t, dtype=torch.float64).reshape(-1, 1) * OFFSETS


def slope(x: Tensor, t: int) -> Tensor:
    """grad_x log p_phi(y | x) of the classifier, by hand: W_y - sum_k p_k W_k."""
    return WEIGHT.T[LABELS[:, 0]] - logits(x, t).softmax(1) @ WEIGHT.T


def log_prob(x: Tensor, level: Level, condition: Tensor | None) -> Tensor:
    """log p_phi(y | x_t), as `shared.guidance` asks for it."""
    assert condition is not None
    t = (from_betas(BETAS).step(level.logsnr) + 1).round()
    return logits(x, t).log_softmax(1).gather(1, condition)[:, 0]


@pytest.fixture(name="net")
def network() -> EpsNet:
    return EpsNet(from_betas(BETAS))


def denoiser_of(net: EpsNet) -> Denoiser:
    return Denoiser(net, "eps", scale_input=False)


def states(net: EpsNet, solver: str, guided: bool = False, *hooks: StepHook) -> list[Tensor]:
    """x_T, ..., x_1, x_0 of our loop."""
    seen = Trajectory()
    denoise = denoiser_of(net)
    steered = classifier(denoise, log_prob_of_labels, SCALE) if guided else denoise
    with torch.no_grad():
        x_0 = sample(
            steered, normals(3, 2), net.schedule, solver, T, seeds=SEEDS, hooks=hooks,
            callback=seen,
        )  # fmt: skip
    return [*seen.states, x_0]


def log_prob_of_labels(x: Tensor, level: Level, condition: Tensor | None) -> Tensor:
    return log_prob(x, level, LABELS)


def z_of(t: int) -> Tensor:
    """The noise of the step from t: our loop draws that of its step i = T - t in stream i + 1."""
    return noise.normal(SEEDS, T - t + 1, (2,)).double()


def assert_steps(ours: list[Tensor], theirs: list[Tensor]) -> None:
    assert len(ours) == len(theirs) == T + 1
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


def test_training_loss_is_ddpms_algorithm_1(net: EpsNet):
    """Lines 2 to 5 (Ho et al. 2020): |eps - eps_theta(sqrt(abar_t) x0 + sqrt(1 - abar_t) eps, t)|^2
    and the gradient that descends on it. Ours is the mean over the two elements."""
    keys, t = torch.tensor([11, 5, 40, 8]), torch.tensor([1, 6, 3, 4])
    x0, eps = normals(4, 2), noise.normal(keys, NOISE, (2,)).double()
    abar = ABAR[t][:, None]
    theirs = (eps - net.eps(abar.sqrt() * x0 + (1 - abar).sqrt() * eps, t)).square().sum(1)
    wanted = torch.autograd.grad(theirs.mean() / 2, [*net.parameters()])
    denoiser, codec = denoiser_of(net), Identity((2,))
    ours, level = diffusion_loss(
        denoiser, codec, x0, None, t.double() / T, keys, net.schedule, "eps"
    )
    torch.testing.assert_close(level.alpha**2, ABAR[t])
    torch.testing.assert_close(ours, theirs / 2, atol=1e-6, rtol=0)
    got = torch.autograd.grad(ours.mean(), [*net.parameters()])
    torch.testing.assert_close(got, wanted, atol=1e-6, rtol=0)


@pytest.mark.parametrize("solver", ["ancestral", "ancestral_large"])
def test_ancestral_sampling_is_ddpms_algorithm_2(net: EpsNet, solver: str):
    """Lines 2 to 5 (Ho et al. 2020), with both variances of their sec. 3.2: sigma_t^2 = beta_t, or
    beta_t (1 - abar_t-1) / (1 - abar_t)."""
    x = normals(3, 2)
    theirs = [x]
    for t in range(T, 0, -1):
        z = z_of(t) if t > 1 else torch.zeros(3, 2)
        posterior = beta(t) * (1 - ABAR[t - 1]) / (1 - ABAR[t])
        sigma = (beta(t) if solver == "ancestral_large" else posterior).sqrt()
        with torch.no_grad():
            eps = net.eps(x, t)
        mean = (x - beta(t) / (1 - ABAR[t]).sqrt() * eps) / (1 - beta(t)).sqrt()
        x = mean + sigma * z
        theirs.append(x)
    assert_steps(states(net, solver), theirs)


def test_classifier_guided_ddpm_is_adms_algorithm_1(net: EpsNet):
    """x_t-1 ~ N(mu + s Sigma grad log p_phi(y | x), Sigma) (Dhariwal & Nichol 2021, Alg. 1), the
    gradient at x = mu and at the level of x_t-1, as their derivation has it (eqs. 3 to 10)."""
    x = normals(3, 2)
    theirs = [x]
    for t in range(T, 0, -1):
        with torch.no_grad():
            eps = net.eps(x, t)
        mu = (x - beta(t) / (1 - ABAR[t]).sqrt() * eps) / (1 - beta(t)).sqrt()
        variance = beta(t) * (1 - ABAR[t - 1]) / (1 - ABAR[t])
        if t > 1:  # Sigma is 0 in the last step
            mu = mu + SCALE * variance * slope(mu, t - 1)
            mu = mu + variance.sqrt() * z_of(t)
        x = mu
        theirs.append(x)
    assert_steps(
        states(net, "ancestral", False, classifier_hook(log_prob_of_labels, SCALE)), theirs
    )
    plain = states(net, "ancestral")
    assert float((plain[-1] - theirs[-1]).abs().max()) > 0.1


def test_classifier_guided_ddim_is_adms_algorithm_2(net: EpsNet):
    """eps_hat = eps_theta(x_t) - sqrt(1 - abar_t) s grad log p_phi(y | x_t), then a DDIM step with
    it (Dhariwal & Nichol 2021, Alg. 2; s is 1 as printed, their sec. 4.3 scales)."""
    x = normals(3, 2)
    theirs = [x]
    for t in range(T, 0, -1):
        now, then = ABAR[t], ABAR[t - 1]
        with torch.no_grad():
            eps = net.eps(x, t) - (1 - now).sqrt() * SCALE * slope(x, t)
        x = then.sqrt() * (x - (1 - now).sqrt() * eps) / now.sqrt() + (1 - then).sqrt() * eps
        theirs.append(x)
    assert_steps(states(net, "ddim", True), theirs)
    assert float((states(net, "ddim")[-1] - theirs[-1]).abs().max()) > 0.1
