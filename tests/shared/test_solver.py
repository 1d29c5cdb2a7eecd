"""Solvers against a Gaussian mixture whose denoiser is exact: orders, moments, seeds, ends."""

import math

import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from shared import noise
from shared.codec import Bits
from shared.denoiser import Denoise, Denoiser
from shared.nets.transformer import Transformer
from shared.oracle import GaussianMixture
from shared.prediction import PREDICTIONS, from_x0
from shared.schedule import Cosine, Level, Linear
from shared.solver import SOLVERS, sample, time_grid

SCHEDULE = Cosine(-8, 8)


def smooth_mixture(dtype: torch.dtype = torch.float64) -> GaussianMixture:
    """Two broad, correlated components in the plane."""
    weights = torch.tensor([0.3, 0.7], dtype=dtype)
    means = torch.tensor([[-0.8, 0.3], [0.6, -0.2]], dtype=dtype)
    covariances = torch.tensor([[[0.4, 0.1], [0.1, 0.3]], [[0.3, -0.1], [-0.1, 0.5]]], dtype=dtype)
    return GaussianMixture(weights, means, covariances)


def exact_flow(oracle: GaussianMixture, x: Tensor, start: float, end: float) -> Tensor:
    """The probability-flow ODE in t, d x / d t = a' x / a + (s' - a' s / a) eps_hat, by scipy's
    DOP853 at 1e-12, with a and s differentiated by autograd."""

    def slope(t: float, flat: object) -> object:
        time = torch.tensor(t, dtype=torch.float64, requires_grad=True)
        level = SCHEDULE(time)
        (d_alpha,) = torch.autograd.grad(level.alpha, time, retain_graph=True)
        (d_sigma,) = torch.autograd.grad(level.sigma, time)
        fixed = Level(*(part.detach() for part in (level.logsnr, level.alpha, level.sigma)))
        x_t = torch.as_tensor(flat, dtype=torch.float64).reshape(x.shape)
        x0_hat = oracle.denoise(x_t, fixed)
        eps_hat = (x_t - fixed.alpha * x0_hat) / fixed.sigma
        return (d_alpha * x0_hat + d_sigma * eps_hat).flatten().numpy()

    solved = solve_ivp(
        slope, (start, end), x.flatten().numpy(), method="DOP853", rtol=1e-12, atol=1e-12
    )
    return torch.as_tensor(solved.y[:, -1]).reshape(x.shape)


@pytest.mark.parametrize(("solver", "order"), [("ddim", 1), ("dpmpp_2m", 2)])
def test_solver_converges_at_its_stated_order_between_finite_levels(solver: str, order: int):
    oracle, start, end = smooth_mixture(), 0.85, 0.15
    level = SCHEDULE(torch.tensor(start, dtype=torch.float64))
    generator = torch.Generator().manual_seed(0)
    x = level.alpha * oracle.sample(7, generator)
    x = x + level.sigma * torch.randn(7, 2, generator=generator, dtype=torch.float64)
    exact = exact_flow(oracle, x, start, end)
    errors = []
    for steps in (64, 128):
        grid = time_grid(steps, start, end)
        out = sample(oracle.denoise, x, SCHEDULE, solver=solver, grid=grid, end_clean=False)
        errors.append(float((out - exact).abs().mean()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.15), errors


def test_dpmpp_2m_is_its_papers_formula_on_unequal_steps():
    """Lu et al. 2022b, Alg. 2, in its own symbols: lambda = logsnr / 2, h_i = lambda_i -
    lambda_(i-1), r_i = h_(i-1) / h_i. (Weights with r_i upside down have order 2 as well.)"""
    grid = torch.tensor([0.8, 0.7, 0.3], dtype=torch.float64)
    estimates = torch.tensor([[[0.3, -1.0]], [[0.9, 0.4]]], dtype=torch.float64)
    given = iter(estimates)

    def denoise(
        x_t: Tensor, level: Level, condition: Tensor | None = None, previous: Tensor | None = None
    ) -> Tensor:
        return next(given)

    x = torch.tensor([[0.5, -0.2]], dtype=torch.float64)
    got = sample(denoise, x, SCHEDULE, "dpmpp_2m", grid=grid, end_clean=False)
    levels = SCHEDULE(grid)
    alpha, sigma, lam = levels.alpha, levels.sigma, levels.logsnr / 2
    h = lam.diff()
    x_1 = sigma[1] / sigma[0] * x - alpha[1] * torch.expm1(-h[0]) * estimates[0]
    r = h[0] / h[1]
    d = (1 + 1 / (2 * r)) * estimates[1] - 1 / (2 * r) * estimates[0]
    torch.testing.assert_close(got, sigma[2] / sigma[1] * x_1 - alpha[2] * torch.expm1(-h[1]) * d)


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_all_predictions_give_one_sample(solver: str):
    oracle = smooth_mixture()
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = sample(oracle.denoise, x, SCHEDULE, solver, steps=9, seeds=range(5))
    for prediction in PREDICTIONS:
        got = sample(as_network(oracle, prediction), x, SCHEDULE, solver, 9, seeds=range(5))
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def as_network(oracle: GaussianMixture, prediction: str) -> Denoise:
    """The oracle behind a network that outputs `prediction` and sees scaled inputs."""

    class Net(torch.nn.Module):
        def forward(self, x: Tensor, logsnr: Tensor, condition: None, previous: None) -> Tensor:
            sigma = torch.sigmoid(-logsnr).sqrt().reshape(-1, 1)
            alpha = torch.sigmoid(logsnr).sqrt().reshape(-1, 1)
            x_t = x * (sigma**2 + (alpha * data_std) ** 2).sqrt()
            level = Level(logsnr.reshape(-1, 1), alpha, sigma)
            flat = Level(logsnr, alpha[:, 0], sigma[:, 0])
            return from_x0(prediction, oracle.denoise(x_t, flat), x_t, level, data_std)

    data_std = 0.7
    return Denoiser(Net(), prediction, data_std)


def test_ancestral_sampling_has_the_mixtures_moments():
    """20,000 samples at 100 steps; each bound is 5 standard errors plus the discretisation's
    0.01: false alarms below 1e-5."""
    oracle, n = smooth_mixture(torch.float32), 20_000
    x = noise.normal(range(n), 0, (2,))
    out = sample(oracle.denoise, x, SCHEDULE, "ancestral", steps=100, seeds=range(n))
    mean = (oracle.log_weights.exp()[:, None] * oracle.means).sum(0)
    covariances = oracle.axes @ torch.diag_embed(oracle.variances) @ oracle.axes.mT
    apart = oracle.means - mean
    spread = covariances + apart[:, :, None] * apart[:, None, :]
    covariance = (oracle.log_weights.exp()[:, None, None] * spread).sum(0)
    bound = 5 * covariance.diagonal().max().sqrt() / math.sqrt(n) + 0.01
    assert bool(((out.mean(0) - mean).abs() < bound).all())
    assert bool(((torch.cov(out.T) - covariance).abs() < 5 * 1.5 / math.sqrt(n) + 0.01).all())


def test_ancestral_step_is_the_posterior_of_a_gaussian_chain():
    """Mean and variance of q(x_s | x_t, x0), from the joint Gaussian of (x_s, x_t) given x0."""
    t, s = (SCHEDULE(torch.tensor(value, dtype=torch.float64)) for value in (0.7, 0.4))
    x0, x_t = 0.9, -0.3
    ratio = t.alpha / s.alpha  # x_t = ratio x_s + noise of variance `added`
    added = t.sigma**2 - ratio**2 * s.sigma**2
    gain = s.sigma**2 * ratio / (ratio**2 * s.sigma**2 + added)
    mean = s.alpha * x0 + gain * (x_t - ratio * s.alpha * x0)
    variance = s.sigma**2 * (1 - gain * ratio)
    n = 200_000
    out = sample(
        lambda x_t, level, condition=None, previous=None: torch.full_like(x_t, x0),
        torch.full((n, 1), x_t, dtype=torch.float64),
        SCHEDULE,
        "ancestral",
        grid=torch.tensor([0.7, 0.4]),
        seeds=range(n),
        end_clean=False,
    )
    # 5 standard errors: false alarm below 1e-6
    assert float(out.mean()) == pytest.approx(float(mean), abs=5 * float(variance / n) ** 0.5)
    assert float(out.var()) == pytest.approx(float(variance), rel=5 * math.sqrt(2 / n))


def test_step_i_draws_noise_i_plus_1_which_is_not_the_start():
    """With an estimate of 0 the posterior is (alpha_s / alpha_t) keep x_t + std noise."""
    seeds, grid = [7, 8, 9], torch.tensor([0.9, 0.6, 0.2])
    start = noise.normal(seeds, 0, (4,))

    def nothing(
        x_t: Tensor, level: Level, condition: Tensor | None = None, previous: Tensor | None = None
    ) -> Tensor:
        return torch.zeros_like(x_t)

    got = sample(nothing, start, SCHEDULE, "ancestral", grid=grid, seeds=seeds, end_clean=False)
    levels, expected = SCHEDULE(grid.double()), start
    for i in range(2):
        keep = float((levels.logsnr[i] - levels.logsnr[i + 1]).exp())
        ratio = float(levels.alpha[i + 1] / levels.alpha[i]) * keep
        std = float(levels.sigma[i + 1]) * math.sqrt(1 - keep)
        expected = ratio * expected + std * noise.normal(seeds, i + 1, (4,))
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_sample_alone_is_the_sample_in_a_batch_of_64(solver: str):
    oracle, seeds = smooth_mixture(torch.float32), list(range(100, 164))
    x = noise.normal(seeds, 0, (2,))
    batch = sample(oracle.denoise, x, Linear(), solver, steps=12, seeds=seeds)
    for i in (0, 17, 63):
        alone = sample(oracle.denoise, x[i : i + 1], Linear(), solver, 12, seeds=seeds[i : i + 1])
        torch.testing.assert_close(alone[0], batch[i], atol=1e-5, rtol=0)


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_last_step_returns_the_estimate_and_history_goes_in_as_previous(solver: str):
    seen: list[Tensor | None] = []
    estimates: list[Tensor] = []

    def denoise(
        x_t: Tensor, level: Level, condition: Tensor | None = None, previous: Tensor | None = None
    ) -> Tensor:
        seen.append(previous)
        estimates.append(x_t * 0.3 + 1)
        return estimates[-1]

    x = torch.ones(3, 2)
    first = sample(denoise, x, SCHEDULE, solver, steps=4, seeds=[1, 2, 3])
    torch.testing.assert_close(first, estimates[-1])
    assert seen[0] is None
    for previous, estimate in zip(seen[1:], estimates, strict=False):
        assert previous is estimate
    torch.testing.assert_close(sample(denoise, x, SCHEDULE, solver, 4, seeds=[1, 2, 3]), first)
    torch.testing.assert_close(x, torch.ones(3, 2))  # the caller's noise is left alone


def test_callback_sees_each_state_and_its_estimate():
    oracle, seen = smooth_mixture(), []

    def keep(i: int, x_t: Tensor, x0_hat: Tensor) -> None:
        seen.append((i, x_t.clone(), x0_hat.clone()))

    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    out = sample(oracle.denoise, x, SCHEDULE, "ddim", steps=4, callback=keep)
    assert [i for i, _, _ in seen] == [0, 1, 2, 3]
    torch.testing.assert_close(seen[0][1], x)
    torch.testing.assert_close(seen[-1][2], out)
    levels = SCHEDULE(time_grid(4))
    for i, x_t, x0_hat in seen:
        level = Level(levels.logsnr[i], levels.alpha[i], levels.sigma[i])
        torch.testing.assert_close(x0_hat, oracle.denoise(x_t, level))


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_estimate_that_is_the_state_itself_is_not_overwritten(solver: str):
    """A denoiser may hand its input back; the loop goes on in that memory."""

    def same(
        x_t: Tensor, level: Level, condition: Tensor | None = None, previous: Tensor | None = None
    ) -> Tensor:
        return x_t

    def copied(
        x_t: Tensor, level: Level, condition: Tensor | None = None, previous: Tensor | None = None
    ) -> Tensor:
        return x_t.clone()

    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(6))
    expected = sample(copied, x, SCHEDULE, solver, steps=5, seeds=[1, 2])
    torch.testing.assert_close(sample(same, x, SCHEDULE, solver, steps=5, seeds=[1, 2]), expected)


@pytest.mark.parametrize("prediction", ["v", "categorical"])
@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_network_gives_a_sample_alone_and_in_a_batch_of_64(solver: str, prediction: str):
    """Matrix products choose other kernels for other sizes, and each step of self-conditioning
    carries their differences on: 1e-5 after 20 steps."""
    L, C, seeds = 12, 6, list(range(500, 564))
    codec = Bits(50, (L,))
    torch.manual_seed(0)
    trunk = Transformer(2 * C, C, L, dim=64, depth=3, heads=4, conditions=5, cross_attention=True)
    for p in trunk.parameters():
        if not bool(p.any()):
            torch.nn.init.normal_(p, std=0.1)

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = trunk

        def forward(self, x: Tensor, logsnr: Tensor, condition: Tensor, previous: Tensor) -> Tensor:
            return self.trunk(torch.cat([x, previous], -1), logsnr, condition)

    denoiser = Denoiser(
        Net(), prediction, 1.0, True, codec, evidence=prediction == "categorical"
    ).eval()
    x = noise.normal(seeds, 0, (L, C))
    condition = torch.tensor(seeds)[:, None] % 5
    with torch.no_grad():
        batch = sample(denoiser, x, Cosine(-12, 12), solver, 20, condition, seeds)
        for i in (0, 41, 63):
            one = slice(i, i + 1)
            alone = sample(
                denoiser, x[one], Cosine(-12, 12), solver, 20, condition[one], seeds[one]
            )
            torch.testing.assert_close(alone[0], batch[i], atol=1e-5, rtol=0)


def test_estimate_that_is_not_finite_is_named_by_its_step():
    def denoise(
        x_t: Tensor, level: Level, condition: Tensor | None = None, previous: Tensor | None = None
    ) -> Tensor:
        return x_t / (level.logsnr < 0).to(x_t)

    with pytest.raises(FloatingPointError, match="step 2"):
        sample(denoise, torch.ones(2, 3), SCHEDULE, "ddim", steps=4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"solver": "euler"}, "expected one of"),
        ({"solver": "ancestral"}, "give seeds"),
        ({"seeds": [1]}, "1 seeds for 2 samples"),
        ({"steps": 0}, "one step or more"),
        ({"grid": torch.tensor([0.2, 0.8])}, "strictly falling"),
        ({"grid": torch.tensor([1.0])}, "strictly falling"),
        ({"grid": torch.tensor([1.2, 0.5])}, r"in \[0, 1\]"),
        ({"grid": torch.tensor([0.5, -0.1])}, r"in \[0, 1\]"),
        ({"grid": torch.tensor([1.0, math.nan, 0.0])}, "strictly falling"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, object], message: str):
    oracle = smooth_mixture(torch.float32)
    with pytest.raises(ValueError, match=message):
        sample(oracle.denoise, torch.ones(2, 2), SCHEDULE, **arguments)  # type: ignore[arg-type]
