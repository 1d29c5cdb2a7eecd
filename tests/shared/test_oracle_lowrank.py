"""The low-rank Gaussian against the same Gaussian with its full covariance, and its cost."""

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from shared.oracle import GaussianMixture, LowRankGaussian
from tests.largest import Largest
from tests.levels import FAMILIES, level_at, noised, single, solved_flow

D, R, STD = 11, 3, 0.2


def low_rank(dtype: torch.dtype = torch.float64) -> LowRankGaussian:
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(D, generator=generator, dtype=torch.float64)
    factor = torch.randn(D, R, generator=generator, dtype=torch.float64)
    return LowRankGaussian(mean.to(dtype), factor.to(dtype), STD)


def dense() -> GaussianMixture:
    oracle = low_rank()
    covariance = oracle.factor @ oracle.factor.mT + STD**2 * torch.eye(D, dtype=torch.float64)
    return GaussianMixture(torch.ones(1), oracle.mean[None], covariance[None])


@pytest.mark.parametrize("logsnr", [-20.0, -10.0, 0.0, 10.0, 20.0])
@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_the_dense_gaussian(family: str, logsnr: float):
    level = level_at(family, logsnr)
    x = noised(dense().sample(5, torch.Generator().manual_seed(1)), level)
    for name in ("denoise", "score", "log_prob"):
        got, expected = (getattr(oracle, name)(x, level) for oracle in (low_rank(), dense()))
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("logsnr", [-20.0, -10.0, 0.0, 10.0, 20.0])
@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_right_at_both_ends_in_float32(family: str, logsnr: float):
    level = level_at(family, logsnr)
    oracle = low_rank(torch.float32)
    x = noised(dense().sample(5, torch.Generator().manual_seed(1)), level).float()
    scale = 1 / math.sqrt(float((level.alpha * STD) ** 2 + level.sigma**2))
    for name, size in (("denoise", 1.0), ("score", scale), ("log_prob", 10.0)):
        got = getattr(oracle, name)(x, single(level))
        expected = getattr(dense(), name)(x.double(), level)
        assert got.dtype == torch.float32
        torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-5 * size)


def test_each_sample_has_its_own_level():
    level = level_at("flow", -3.0, 0.5, 4.0)
    x = noised(dense().sample(3, torch.Generator().manual_seed(1)), level)
    for name in ("denoise", "score", "log_prob"):
        got, expected = (getattr(oracle, name)(x, level) for oracle in (low_rank(), dense()))
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_its_flow_solves_the_ode(family: str):
    oracle, at, to = low_rank(), level_at(family, -4.0), level_at(family, 3.0)
    x = noised(dense().sample(2, torch.Generator().manual_seed(1)), at)
    solved = solved_flow(oracle.denoise, x, family, -4.0, 3.0)
    torch.testing.assert_close(oracle.flow(x, at, to), solved, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(dense().flow(x, at, to), solved, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(oracle.flow(oracle.flow(x, at, to), to, at), x)


def test_the_flow_takes_each_sample_between_its_own_levels():
    at, to = level_at("ve", -3.0, 0.5, 4.0), level_at("sub_vp", 1.0, -2.0, 6.0)
    x = noised(dense().sample(3, torch.Generator().manual_seed(1)), at)
    got, expected = low_rank().flow(x, at, to), dense().flow(x, at, to)
    torch.testing.assert_close(got, expected)
    pairs = [(level_at("ve", a), level_at("sub_vp", b)) for a, b in ((0.5, -2.0), (4.0, 6.0))]
    for i, (a, b) in enumerate(pairs, start=1):
        torch.testing.assert_close(low_rank().flow(x[i : i + 1], a, b), got[i : i + 1])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_flow_is_right_from_end_to_end_in_float32(family: str):
    at, to = level_at(family, -20.0), level_at(family, 20.0)
    x = noised(dense().sample(5, torch.Generator().manual_seed(1)), at).float()
    expected = dense().flow(x.double(), at, to)
    got = low_rank(torch.float32).flow(x, single(at), single(to))
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-5)


def test_samples_have_the_mean_and_covariance():
    """50,000 draws, 5.5 standard errors: false alarms below 3e-6 (of 77 numbers)."""
    oracle, n = low_rank(), 50_000
    drawn = oracle.sample(n, torch.Generator().manual_seed(3)) - oracle.mean
    assert bool((drawn.mean(0).abs() < 5.5 * drawn.std(0) / math.sqrt(n)).all())
    products = drawn[:, :, None] * drawn[:, None, :]
    expected = oracle.factor @ oracle.factor.mT + STD**2 * torch.eye(D)
    error = products.std(0) / math.sqrt(n)
    assert bool(((products.mean(0) - expected).abs() < 5.5 * error).all())


def test_a_factor_whose_columns_repeat_is_a_gaussian_all_the_same():
    mean, column = torch.zeros(4, dtype=torch.float64), torch.ones(4, 1, dtype=torch.float64)
    twice = LowRankGaussian(mean, column.expand(4, 2), 0.5)
    once = LowRankGaussian(mean, math.sqrt(2) * column, 0.5)
    x, level = torch.tensor([[1.0, -2.0, 0.5, 3.0]], dtype=torch.float64), level_at("vp", 1.0)
    torch.testing.assert_close(twice.denoise(x, level), once.denoise(x, level))
    torch.testing.assert_close(twice.log_prob(x, level), once.log_prob(x, level))


@pytest.mark.parametrize("name", ["denoise", "score", "log_prob", "flow"])
def test_cost_is_four_products_of_batch_width_and_rank_and_no_square_matrix(name: str):
    B, wide, rank = 5, 3072, 4
    generator = torch.Generator().manual_seed(0)
    factor = torch.randn(wide, rank, generator=generator)
    oracle = LowRankGaussian(torch.zeros(wide), factor, 0.1)
    x, level = oracle.sample(B, generator), single(level_at("vp", 1.0))
    arguments = (x, level, level) if name == "flow" else (x, level)
    with FlopCounterMode(display=False) as flops, Largest() as largest:
        getattr(oracle, name)(*arguments)
    assert flops.get_total_flops() == 4 * B * wide * rank
    assert largest.numel <= B * wide


@pytest.mark.parametrize(
    ("mean", "factor", "std", "message"),
    [
        ((3,), (4, 2), 0.1, r"\(3,\), factor \(4, 2\): expected \(D,\) and \(D, r\)"),
        ((3,), (3,), 0.1, r"expected \(D,\) and \(D, r\)"),
        ((3, 1), (3, 2), 0.1, r"expected \(D,\) and \(D, r\)"),
        ((3,), (3, 2), 0.0, "std = 0.0: expected a positive number"),
        ((3,), (3, 2), math.nan, "std = nan"),
        ((3,), (3, 2), math.inf, "std = inf"),
    ],
)
def test_bad_arguments_are_refused(
    mean: tuple[int, ...], factor: tuple[int, ...], std: float, message: str
):
    with pytest.raises(ValueError, match=message):
        LowRankGaussian(torch.ones(mean), torch.ones(factor), std)


@pytest.mark.parametrize("place", ["mean", "factor"])
def test_numbers_that_are_not_finite_are_refused(place: str):
    mean, factor = torch.ones(3), torch.ones(3, 2)
    (mean if place == "mean" else factor)[0] = math.nan
    with pytest.raises(ValueError, match="not finite"):
        LowRankGaussian(mean, factor, 0.1)
