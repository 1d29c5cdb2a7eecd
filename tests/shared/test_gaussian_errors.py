"""What is no Gaussian is refused, in any units, and wrong arguments are named."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from shared.gaussian import (
    Gaussian,
    box_mass,
    convolution,
    kl,
    product,
    wasserstein2_squared,
)
from tests.laws import covariance, law, normal


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("D", [2, 5, 30])
def test_covariance_of_dependent_coordinates_is_refused_in_any_units(D: int, dtype: torch.dtype):
    for seed in range(20):
        factor = (
            normal(D, D - 1, seed=seed).to(dtype) * torch.logspace(-3, 3, D, dtype=dtype)[:, None]
        )
        with pytest.raises(ValueError, match="singular"):
            Gaussian.of(torch.zeros(D, dtype=dtype), factor @ factor.mT)


@pytest.mark.parametrize("units", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("D", [2, 100])
def test_covariance_of_nearly_dependent_coordinates_is_taken_in_any_units(D: int, units: float):
    """Correlation 1 - 5e-14 leaves each of two coordinates 1e-13 of its variance."""
    near = torch.eye(D, dtype=torch.float64)
    near[0, 1] = near[1, 0] = 1 - 5e-14
    scale = torch.ones(3, D, dtype=torch.float64)
    scale[1, 1] = scale[2, 0] = units
    p = Gaussian.of(scale.new_zeros(D), scale[:, :, None] * near * scale[:, None, :])
    expected = scale[:, 1] * math.sqrt(1e-13)
    torch.testing.assert_close(p.cholesky[:, 1, 1], expected, rtol=1e-2, atol=0)


def test_a_coordinate_keeps_more_of_its_variance_than_rounding_takes():
    """The bound is a share of 10 sqrt(D) eps: 3.1e-15 for two coordinates in float64."""
    bound = 10 * math.sqrt(2) * 2.0**-52

    def with_share(share: float) -> torch.Tensor:
        covariance = torch.eye(2, dtype=torch.float64)
        covariance[0, 1] = covariance[1, 0] = 1 - share / 2
        return covariance

    Gaussian.of(torch.zeros(2, dtype=torch.float64), with_share(1.5 * bound))
    with pytest.raises(ValueError, match="singular"):
        Gaussian.of(torch.zeros(2, dtype=torch.float64), with_share(0.6 * bound))


def test_rounding_is_symmetrised_and_more_than_rounding_refused():
    C = covariance(3)
    skew = torch.zeros(3, 3, dtype=torch.float64)
    skew[0, 2] = 1e-9
    mean_of_both = C + (skew + skew.mT) / 2
    got = Gaussian.of(normal(3), C + skew).covariance
    torch.testing.assert_close(got, mean_of_both, atol=1e-12, rtol=0)
    with pytest.raises(ValueError, match="not symmetric"):
        Gaussian.of(normal(3), C + 1e3 * skew)
    small = 1e-10 * torch.eye(3, dtype=torch.float64)
    with pytest.raises(ValueError, match="not symmetric"):  # the bound has the covariance's units
        Gaussian.of(normal(3), small + 1e-3 * skew)
    with pytest.raises(ValueError, match="not symmetric"):
        Gaussian.of(normal(3), 1e10 * C + 1e13 * skew)


def test_half_of_the_digits_may_differ():
    """Entries may be 2^-26 of the standard deviations' product apart, in float64."""
    apart = torch.zeros(2, 2, dtype=torch.float64)
    apart[0, 1] = 6.0 * 2.0**-26
    C = torch.tensor([[4.0, 0.5], [0.5, 9.0]], dtype=torch.float64)
    Gaussian.of(torch.zeros(2, dtype=torch.float64), C + 0.9 * apart)
    with pytest.raises(ValueError, match="not symmetric"):
        Gaussian.of(torch.zeros(2, dtype=torch.float64), C + 1.1 * apart)


def dependent_rows(rows: int, columns: int, seed: int) -> Tensor:
    """All rows but the last, and a combination of them."""
    free = normal(rows - 1, columns, seed=seed)
    return torch.cat([free, normal(1, rows - 1, seed=seed + 50) @ free])


@pytest.mark.parametrize("matrix_shape", [(4, 3), (2, 3), (5, 7)])
def test_singular_image_is_refused(matrix_shape: tuple[int, int]):
    for seed in range(20):
        with pytest.raises(ValueError, match="singular"):
            law(matrix_shape[1]).affine(dependent_rows(*matrix_shape, seed))


def test_nearly_singular_image_is_taken():
    """Of the second coordinate 1e-12 of its standard deviation is its own, 1e-24 of the variance:
    no covariance in float64 could say so."""
    matrix = torch.tensor([[1.0, 0.0], [1.0, 1e-12]], dtype=torch.float64)
    image = Gaussian.isotropic(torch.zeros(2, dtype=torch.float64), 1.0).affine(matrix)
    torch.testing.assert_close(image.cholesky, matrix)
    with pytest.raises(ValueError, match="singular"):
        Gaussian.of(image.mean, image.covariance)


@pytest.mark.parametrize(
    ("mean", "square", "message"),
    [
        (torch.zeros(3), torch.eye(2), r"mean \(3,\), covariance \(2, 2\): expected"),
        (torch.zeros(3), torch.ones(3), "expected"),
        (torch.tensor(0.0), torch.eye(1), "expected"),
        (torch.zeros(2, 3), torch.eye(3).expand(5, 3, 3), "do not broadcast"),
        (torch.zeros(2), torch.eye(2).double(), "float32 or float64, both"),
        (torch.zeros(2).long(), torch.eye(2).long(), "float32 or float64, both"),
        (torch.zeros(2).half(), torch.eye(2).half(), "float32 or float64, both"),
        (torch.tensor([0.0, math.nan]), torch.eye(2), "not finite"),
        (torch.zeros(2), torch.diag(torch.tensor([1.0, math.inf])), "not finite"),
        (torch.zeros(2), torch.tensor([[1.0, 2.0], [2.0, 1.0]]), "not positive definite"),
        (torch.zeros(2), -torch.eye(2), "not positive definite"),
        (torch.zeros(2), torch.stack([torch.eye(2), torch.ones(2, 2)]), "singular"),
    ],
)
def test_what_is_no_law_is_refused(mean: Tensor, square: Tensor, message: str):
    with pytest.raises(ValueError, match=message):
        Gaussian.of(mean, square)


def test_constructor_refuses_a_factor_of_another_size():
    with pytest.raises(ValueError, match="cholesky"):
        Gaussian(torch.zeros(3), torch.eye(2))


P = Gaussian.isotropic(torch.zeros(3), 1.0)
NOISE = Gaussian.isotropic(torch.zeros(2), 1.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: P.log_prob(torch.zeros(5, 1)), r"x \(5, 1\): expected \(\.\.\., 3\)"),
        (lambda: P.characteristic(torch.zeros(1)), r"u \(1,\)"),
        (lambda: P.conditional([0, 1], torch.zeros(1)), r"\(\.\.\., 2\)"),
        (lambda: P.conditional([0, 1, 2], torch.zeros(3)), "all 3"),
        (lambda: P.marginal([]), "indices"),
        (lambda: P.marginal([0, 3]), "from 0 to 2"),
        (lambda: P.marginal([-1]), "from 0 to 2"),
        (lambda: P.marginal([1, 1]), "distinct"),
        (lambda: P.affine(torch.ones(2, 4)), r"matrix \(2, 4\): expected \(\.\.\., M, 3\)"),
        (lambda: P.affine(torch.ones(3)), "matrix"),
        (lambda: P.affine(torch.eye(3), torch.ones(1)), "shift"),
        (lambda: P.joint(torch.ones(4, 3), NOISE), r"expected \(\.\.\., 2, 3\)"),
        (lambda: P.predictive(torch.ones(1, 3), NOISE), r"expected \(\.\.\., 2, 3\)"),
        (lambda: P.posterior(torch.ones(2, 3), NOISE, torch.zeros(3)), r"\(\.\.\., 2\)"),
        (lambda: P.power(0.0), "exponent = 0.0"),
        (lambda: P.power(math.inf), "exponent = inf"),
        (lambda: Gaussian.isotropic(torch.zeros(3), 0.0), "std = 0.0"),
        (lambda: Gaussian.isotropic(torch.zeros(3), math.inf), "std = inf"),
        (lambda: product(P, NOISE), "product of laws in 3 and 2"),
        (lambda: convolution(P, NOISE), "convolution of laws in 3 and 2"),
        (lambda: kl(P, NOISE), "kl of laws in 3 and 2"),
        (lambda: wasserstein2_squared(P, NOISE), "wasserstein2_squared of laws in 3 and 2"),
        (lambda: box_mass(0), "dimension = 0"),
        (lambda: box_mass(1, 0.0), "width = 0.0"),
    ],
)
def test_wrong_arguments_are_named(call: Callable[[], object], message: str):
    with pytest.raises(ValueError, match=message):
        call()
