"""Linear inverse problems on a Gaussian against dense linear algebra."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from shared.guidance import classifier_free, linear_inverse, repaint, repaint_measured
from shared.oracle import GaussianMixture
from shared.schedule import Level
from shared.solver.step import CLEAN, Point
from tests.guided import f64, flow_level, normals, taken_at

D = 6
MEAN = f64(0.3, -0.5, 0.1, 0.8, -0.2, 0.4)
FACTOR = 0.4 * torch.eye(D, dtype=torch.float64) + 0.3 * normals(D, D, seed=5)
COVARIANCE = FACTOR @ FACTOR.T
LEVELS = flow_level(0.05, 0.4, 0.6, 0.95)
AT, TO = (Point(*(float(x) for x in vars(flow_level(t)).values())) for t in (0.6, 0.4))

Operator = Callable[[Tensor], Tensor]


def seen_places(x: Tensor) -> Tensor:
    """Inpainting: places 0, 2 and 3."""
    return x[..., [0, 2, 3]]


def mean_of_channels(x: Tensor) -> Tensor:
    """Colourisation: 3 channels of 2 places -> 2 grey ones."""
    return x.reshape(-1, 3, 2).mean(1)


def blur(x: Tensor) -> Tensor:
    """A circular kernel that is no reflection of itself: A and its transpose differ."""
    return 0.5 * x + 0.3 * x.roll(1, -1) + 0.2 * x.roll(2, -1)


OPERATORS = [seen_places, mean_of_channels, blur]


def dense(operator: Operator) -> Tensor:
    return operator(torch.eye(D, dtype=torch.float64)).T


def exact(A: Tensor, y: Tensor, std: float, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """E[x0 | x_t = x, y] of one sample, conditioning x0 on both at once."""
    eye = torch.eye(D, dtype=torch.float64)
    both = torch.cat([alpha * eye, A])
    noise = torch.cat([sigma.expand(D) ** 2, f64(std**2).expand(len(y))])
    gain = COVARIANCE @ both.T @ torch.linalg.inv(both @ COVARIANCE @ both.T + torch.diag(noise))
    return MEAN + gain @ (torch.cat([x, y]) - both @ MEAN)


def oracle() -> GaussianMixture:
    return GaussianMixture(f64(1.0), MEAN[None], COVARIANCE[None])


@pytest.mark.parametrize("std", [0.3, 1e-3])
@pytest.mark.parametrize("operator", OPERATORS)
@torch.no_grad()
def test_estimate_on_a_gaussian_is_the_exact_conditional(operator: Operator, std: float):
    A, x = dense(operator), normals(4, D)
    y = operator(MEAN + normals(4, D, seed=1) @ FACTOR.T)
    got = linear_inverse(oracle().denoise, operator, y, std, iterations=len(A) + 2)(x, LEVELS)
    for i in range(4):
        expected = exact(A, y[i], std, x[i], LEVELS.alpha[i], LEVELS.sigma[i])
        torch.testing.assert_close(got[i], expected, atol=1e-6, rtol=0)


def test_without_noise_the_measured_part_is_met_and_the_rest_follows():
    x, scalar = normals(4, D), Level(*(part[1] for part in vars(LEVELS).values()))
    y = normals(4, 3, seed=1)
    got = linear_inverse(oracle().denoise, seen_places, y, iterations=3)(x, scalar)
    torch.testing.assert_close(seen_places(got), y, atol=1e-9, rtol=0)
    for i in range(4):
        expected = exact(dense(seen_places), y[i], 0, x[i], scalar.alpha, scalar.sigma)
        torch.testing.assert_close(got[i], expected, atol=1e-7, rtol=0)


def test_one_iteration_is_enough_for_isotropic_data_and_solved_samples_stay():
    data = GaussianMixture(f64(1.0), MEAN[None], 0.7 * torch.eye(D, dtype=torch.float64)[None])
    x = normals(4, D)
    y = seen_places(normals(4, D, seed=1))
    y[2] = seen_places(data.denoise(x, LEVELS))[2]  # nothing to correct
    one, ten = (
        linear_inverse(data.denoise, seen_places, y, 0.2, iterations=n)(x, LEVELS) for n in (1, 10)
    )
    torch.testing.assert_close(one, ten, atol=1e-12, rtol=0)
    torch.testing.assert_close(one[2], data.denoise(x, LEVELS)[2])


def test_a_jacobian_of_the_wrong_sign_moves_nothing():
    x, y = normals(4, D), normals(4, 3, seed=1)

    def wrong(
        x_t: Tensor, level: Level, condition: Tensor | None = None, previous: Tensor | None = None
    ) -> Tensor:
        return -x_t

    torch.testing.assert_close(linear_inverse(wrong, seen_places, y)(x, LEVELS), -x)


def test_samples_are_solved_one_by_one_around_guidance_with_the_last_estimate():
    x, y = normals(4, D), normals(4, 2, seed=1)
    condition = torch.zeros(4, 1, dtype=torch.long)
    base = oracle().denoise

    def denoise(
        x_t: Tensor, level: Level, condition: Tensor | None = None, previous: Tensor | None = None
    ) -> Tensor:
        assert condition is not None
        assert previous is not None
        return base(x_t, level) + 0.1 * condition + 0.1 * previous

    guided = linear_inverse(classifier_free(denoise, 2.0), mean_of_channels, y, 0.1, iterations=2)
    got = guided(x, LEVELS, condition + 1, x)
    plain = linear_inverse(base, mean_of_channels, y - 0.2 - 0.1 * mean_of_channels(x), 0.1, 2)
    torch.testing.assert_close(got, plain(x, LEVELS) + 0.2 + 0.1 * x)
    for i in range(4):
        row, level = slice(i, i + 1), Level(*(part[i] for part in vars(LEVELS).values()))
        alone = linear_inverse(denoise, mean_of_channels, y[row], 0.1, 2)
        torch.testing.assert_close(alone(x[row], level, 2 * condition[row] + 2, x[row])[0], got[i])


@pytest.mark.parametrize("operator", OPERATORS)
@torch.no_grad()
def test_hook_draws_the_measured_part_and_leaves_the_rest(operator: Operator):
    A, x_s, z = dense(operator), normals(4, D), normals(4, D, seed=2)
    y = operator(normals(4, D, seed=1))
    draws = {0: torch.zeros_like(z), 2: z}
    taken = taken_at(AT, TO, x_s, 0.3, draws=draws.__getitem__)
    got = repaint_measured(operator, y, iterations=len(A) + 1, draw=2)(x_s, taken)
    torch.testing.assert_close(operator(got), TO.alpha * y + TO.sigma * operator(z))
    kernel = torch.linalg.svd(A).Vh[len(A) :]  # directions that A does not see
    torch.testing.assert_close(got @ kernel.T, x_s @ kernel.T)


def test_hook_of_a_selection_is_repaint_and_ends_at_what_was_measured():
    x_s, z, x0 = normals(4, D), normals(4, D, seed=2), normals(4, D, seed=1)
    mask = torch.tensor([True, False, True, True, False, False])
    hook = repaint_measured(seen_places, seen_places(x0), iterations=1)
    taken = taken_at(AT, TO, x_s, 0.3, draws=lambda k: z)
    torch.testing.assert_close(hook(x_s, taken), repaint(x0, mask)(x_s, taken))
    end = hook(x_s, taken_at(AT, CLEAN, x_s, 0.0))
    torch.testing.assert_close(end, torch.where(mask, x0, x_s))


def test_measurements_that_do_not_fit_are_refused():
    x, y = normals(4, D), normals(4, 2)
    for measured in (y, y[0]):
        with pytest.raises(ValueError, match=r"the operator gives \(4, 3\)"):
            linear_inverse(oracle().denoise, seen_places, measured)(x, LEVELS)
    with pytest.raises(ValueError, match=r"measured \(4, 2\): the operator gives \(4, 3\)"):
        repaint_measured(seen_places, y)(x, taken_at(AT, TO, x, 0.3))
    with pytest.raises(ValueError, match="noise_std = -1"):
        linear_inverse(oracle().denoise, seen_places, y, -1)
    for build in (
        lambda: linear_inverse(oracle().denoise, blur, y, 1, 0),
        lambda: repaint_measured(blur, y, 0),
    ):
        with pytest.raises(ValueError, match="iterations = 0"):
            build()


@torch.no_grad()
def test_an_operator_that_bends_is_taken_as_linear_around_the_estimate():
    """One step of Gauss-Newton, its Jacobian written out."""
    mix = normals(3, D, seed=6)

    def bent(x: Tensor) -> Tensor:
        return torch.tanh(x @ mix.T) + 0.3 * (x[..., :3] * x[..., 1:4])

    x, level = normals(4, D), Level(*(part[1] for part in vars(LEVELS).values()))
    y, std = normals(4, 3, seed=1), 0.2
    got = linear_inverse(oracle().denoise, bent, y, std, iterations=6)(x, level)
    eye = torch.eye(D, dtype=torch.float64)
    for i in range(4):
        at = oracle().denoise(x[i : i + 1], level)[0]
        A = torch.autograd.functional.jacobian(bent, at)
        assert isinstance(A, Tensor)
        precision = torch.linalg.inv(COVARIANCE) + (level.alpha / level.sigma) ** 2 * eye
        V = torch.linalg.inv(precision)
        gain = V @ A.T @ torch.linalg.inv(A @ V @ A.T + std**2 * torch.eye(3, dtype=torch.float64))
        torch.testing.assert_close(got[i], at + gain @ (y[i] - bent(at)), atol=1e-8, rtol=0)


def test_a_jacobian_that_is_not_symmetric_does_not_blow_up():
    """Conjugate gradients diverge on it; the iterate with the least residual is kept."""
    x, y = normals(4, D), normals(4, D, seed=1)
    turn = torch.eye(D, dtype=torch.float64) + 3 * (normals(D, D, seed=7) - normals(D, D, seed=7).T)

    def skewed(
        x_t: Tensor, level: Level, condition: Tensor | None = None, previous: Tensor | None = None
    ) -> Tensor:
        return x_t @ turn

    sizes = [
        float(linear_inverse(skewed, blur, y, 0.1, iterations=n)(x, LEVELS).abs().max())
        for n in (1, 40)
    ]
    assert sizes[1] < 10 * sizes[0], sizes
