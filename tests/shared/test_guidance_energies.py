"""Energies: sums, noised energies against quadrature and the product Gaussian, gradient flow."""

import math
from collections.abc import Sequence

import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

from shared.guidance import Energy, Quadratic, energy, log_factor
from shared.schedule import Cosine, Level, Linear, Schedule
from shared.solver import sample
from tests.guided import affine, f64, flow_level, normals

LEVELS = flow_level(0.1, 0.4, 0.6, 0.9)
# 2 measurements of 3 coordinates that share a direction
BOTH = Quadratic(f64([1.0, 0.5, 0.0], [0.3, -0.2, 0.9]), f64(0.7, -0.4), f64(0.5, 0.8))


def prior(
    x_t: Tensor, level: Level, condition: Tensor | None = None, previous: Tensor | None = None
) -> Tensor:
    """E[x0 | x_t] of a unit Gaussian, any family."""
    wide = level.widen(x_t.ndim)
    return wide.alpha * x_t / (wide.alpha**2 + wide.sigma**2)


def wave(z: Tensor, level: Level) -> Tensor:
    return torch.cos(z).prod(1) * level.alpha


def test_gradients_of_energies_add_with_their_weights():
    x = normals(4, 3)
    both = energy(prior, [wave, BOTH.noised], [0.3, 1.7])(x, LEVELS)
    alone = [energy(prior, [one], [1.0])(x, LEVELS) for one in (wave, BOTH.noised)]
    plain = prior(x, LEVELS)
    expected = plain + 0.3 * (alone[0] - plain) + 1.7 * (alone[1] - plain)
    torch.testing.assert_close(both, expected, atol=1e-12, rtol=0)
    wide, y = LEVELS.widen(2), x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(BOTH(y, LEVELS).sum(), y)
    down = energy(prior, [BOTH], [1.0])(x, LEVELS)
    torch.testing.assert_close(down, plain - wide.sigma**2 / wide.alpha * slope)


def test_plain_energy_is_its_formula_at_every_level_and_target():
    z, y = normals(4, 3), normals(4, 2, seed=2)
    got = Quadratic(BOTH.a, y, BOTH.std)(z, LEVELS)
    for i in range(4):
        expected = sum(
            (float(BOTH.a[k] @ z[i]) - float(y[i, k])) ** 2 / (2 * float(BOTH.std[k]) ** 2)
            for k in range(2)
        )
        assert float(got[i]) == pytest.approx(expected, rel=1e-12)


def test_noised_energy_is_minus_the_log_of_the_mean_factor_by_quadrature():
    one = Quadratic(f64([1.3]), f64(0.4), f64(0.6))

    def factor(x0: float) -> float:
        return math.exp(-((1.3 * x0 - 0.4) ** 2) / (2 * 0.6**2))

    z = f64([-1.0], [0.3], [0.8], [2.0])
    got = one.noised(z, LEVELS)
    for i in range(4):
        alpha, sigma, x = float(LEVELS.alpha[i]), float(LEVELS.sigma[i]), float(z[i])

        def joint(x0: float, alpha: float = alpha, sigma: float = sigma, x: float = x) -> float:
            return math.exp(-(x0**2) / 2 - (x - alpha * x0) ** 2 / (2 * sigma**2))

        peak = [x * alpha / (alpha**2 + sigma**2)]
        whole = quad(joint, -9, 9, points=peak)[0]
        kept = quad(lambda x0, joint=joint: factor(x0) * joint(x0), -9, 9, points=peak)[0]
        assert float(got[i]) == pytest.approx(-math.log(kept / whole), abs=1e-8)


def test_noised_energy_gives_the_product_gaussians_estimate_at_every_level():
    x = normals(4, 3)
    got = energy(prior, [BOTH.noised], [1.0])(x, LEVELS)
    weighed = BOTH.a.T / BOTH.std**2
    for i in range(4):
        snr = LEVELS.alpha[i] ** 2 / LEVELS.sigma[i] ** 2
        precision = (1 + snr) * torch.eye(3, dtype=torch.float64) + weighed @ BOTH.a
        pull = LEVELS.alpha[i] / LEVELS.sigma[i] ** 2 * x[i] + weighed @ BOTH.y
        torch.testing.assert_close(got[i], torch.linalg.solve(precision, pull))


def test_noised_energy_takes_a_scalar_level_a_target_per_sample_and_any_shape():
    z, y = normals(5, 3), normals(5, 2, seed=3)
    scalar = Level(*(part[0] for part in vars(flow_level(0.3)).values()))
    got = Quadratic(BOTH.a, y, BOTH.std).noised(z.reshape(5, 1, 3), scalar)
    for i in range(5):
        alone = Quadratic(BOTH.a, y[i], BOTH.std).noised(z[i : i + 1], flow_level(0.3))
        torch.testing.assert_close(got[i : i + 1], alone)


def samples(
    energies: Sequence[Energy], dim: int, schedule: Schedule, steps: int
) -> tuple[Tensor, Tensor]:
    """Mean and covariance of what the flow makes of unit Gaussian noise: it is affine."""
    guided = energy(prior, energies, [1.0] * len(energies))
    M, b = affine(lambda x: sample(guided, x, schedule, "dpmpp_2m", steps), dim)
    return b, M @ M.T


def test_noised_energy_samples_the_product_gaussian():
    mean, covariance = samples([BOTH.noised], 3, Cosine(-12, 12), 80)
    weighed = BOTH.a.T / BOTH.std**2
    expected = torch.linalg.inv(torch.eye(3, dtype=torch.float64) + weighed @ BOTH.a)
    torch.testing.assert_close(covariance, expected, atol=4e-3, rtol=0)
    torch.testing.assert_close(mean, expected @ weighed @ BOTH.y, atol=4e-3, rtol=0)


def test_time_independent_energy_samples_its_gradient_flow():
    """|z - y|^2 / 2 from the prior: y + e^-5.025 (z - y), spread e^-5.025, where the product would
    be N(y / 2, I / 2)."""
    target = f64(0.7, -0.4)
    one = Quadratic(torch.eye(2, dtype=torch.float64), target, f64(1.0, 1.0))
    mean, covariance = samples([one], 2, Linear(), 150)
    shrink = math.exp(-(0.1 + 20) / 4)  # half the integral of beta
    torch.testing.assert_close(mean, (1 - shrink) * target, atol=5e-4, rtol=0)
    spread = covariance.diagonal().sqrt()
    torch.testing.assert_close(spread, f64(shrink, shrink), atol=0, rtol=0.03)


def test_summing_separately_noised_energies_is_biased_where_they_share_a_direction():
    """Product of N(0, 1) and factors at 1.5 +- 0.4 and -1.0 +- 1.2: mean 1.093, variance 0.126.
    Summed one by one, the estimate counts what both leave open twice."""
    first, second = (
        Quadratic(f64([1.0]), f64(y), f64(std)) for y, std in ((1.5, 0.4), (-1.0, 1.2))
    )
    together = Quadratic(f64([1.0], [1.0]), f64(1.5, -1.0), f64(0.4, 1.2))
    schedule = Cosine(-12, 12)
    mean, variance = (float(m) for m in samples([together.noised], 1, schedule, 80))
    exact = 1 + 1 / 0.4**2 + 1 / 1.2**2
    assert variance == pytest.approx(1 / exact, abs=3e-3)
    assert mean == pytest.approx((1.5 / 0.4**2 - 1.0 / 1.2**2) / exact, abs=3e-3)
    mean, variance = (float(m) for m in samples([first.noised, second.noised], 1, schedule, 80))
    assert (mean, variance) == pytest.approx((0.950, 0.082), abs=2e-3)


def test_separately_noised_energies_of_orthogonal_directions_are_exact():
    axes = [
        Quadratic(f64(axis), f64(y), f64(std))
        for axis, y, std in (([1.0, 0.0, 1.0], 0.7, 0.5), ([1.0, 2.0, -1.0], -0.4, 0.8))
    ]
    joint = Quadratic(*(torch.cat([getattr(q, name) for q in axes]) for name in ("a", "y", "std")))
    x = normals(4, 3)
    apart = energy(prior, [q.noised for q in axes], [1.0, 1.0])(x, LEVELS)
    torch.testing.assert_close(apart, energy(prior, [joint.noised], [1.0])(x, LEVELS))
    values = sum(q.noised(x, LEVELS) for q in axes)  # constants included: quadrature knows one
    torch.testing.assert_close(joint.noised(x, LEVELS), values)


def test_energies_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="1 energies, 2 weights"):
        log_factor([wave], [1.0, 2.0])
    with pytest.raises(ValueError, match="0 energies, 0 weights"):
        energy(prior, [], [])
    with pytest.raises(ValueError, match=r"a \(2, 3\), y \(3,\), std \(2,\): expected \(K, D\)"):
        Quadratic(BOTH.a, f64(1, 2, 3), BOTH.std)
    with pytest.raises(ValueError, match=r"std = .*expected positive numbers"):
        Quadratic(BOTH.a, BOTH.y, f64(0.5, 0.0))
