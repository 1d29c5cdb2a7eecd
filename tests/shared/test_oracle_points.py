"""Weighted points against Bayes' rule written out, point by point, and against the codecs."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from shared.codec import Bits
from shared.oracle import GaussianMixture, PointMixture
from shared.schedule import Level
from tests.largest import Largest
from tests.levels import FAMILIES, level_at, noised, single

K, EVENT = 6, (2, 3)
WEIGHTS = torch.tensor([1.0, 2.0, 0.5, 1.0, 3.0, 0.1])


def cloud(dtype: torch.dtype = torch.float64) -> Tensor:
    """Six points, of which the first two are so near that logsnr 20 just tells them apart."""
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(K, *EVENT, generator=generator, dtype=torch.float64)
    points[1] = points[0] + 2e-5
    return points.to(dtype)


def bayes(points: Tensor, x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
    """log w_k N(x; alpha p_k, sigma^2) (B, K) by differences, and E[x0 | x] (B, *event), in
    float64."""
    points, wide = points.double(), level.to(x.double()).widen(2 + len(EVENT))
    distance = (x.double()[:, None] - wide.alpha * points).square().flatten(2).sum(-1)
    variance = wide.sigma.reshape(-1, 1) ** 2
    log_w = (WEIGHTS.double() / WEIGHTS.double().sum()).log()
    width = math.prod(EVENT)
    joint = log_w - distance / (2 * variance) - width / 2 * torch.log(2 * math.pi * variance)
    mean = (joint.softmax(-1)[..., None] * points.flatten(1)).sum(1)
    return joint, mean.reshape(x.shape)


@pytest.mark.parametrize("logsnr", [-20.0, -10.0, 0.0, 10.0, 20.0])
@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_bayes_rule_at_both_ends_in_float32(family: str, logsnr: float):
    """Of x and the level as float32 has them: their own rounding is not the oracle's."""
    points, level = cloud(torch.float32), single(level_at(family, logsnr))
    oracle = PointMixture(points, WEIGHTS)
    x = noised(points[[0, 1, 4, 5]], level)
    joint, mean = bayes(points, x, level)
    torch.testing.assert_close(
        oracle.log_posterior(x, level).double(), joint.log_softmax(-1), rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(
        oracle.log_prob(x, level).double(), joint.logsumexp(-1), rtol=1e-6, atol=1e-5
    )
    torch.testing.assert_close(oracle.denoise(x, level).double(), mean, rtol=1e-6, atol=1e-6)
    alpha, sigma = level.alpha.double(), level.sigma.double()
    score = (alpha * mean - x.double()) / sigma**2
    got = oracle.score(x, level)
    assert got.dtype == oracle.denoise(x, level).dtype == torch.float32
    torch.testing.assert_close(got.double(), score, rtol=1e-5, atol=1e-5 / float(sigma))


def test_the_near_pair_is_undecided_at_logsnr_20():
    """So that the test above asks for the digits that decide."""
    level = level_at("ve", 20.0)
    x = noised(cloud()[:1], level)
    p = PointMixture(cloud(), WEIGHTS).log_posterior(x, level).exp()
    assert 0.02 < float(p[0, 0]) < 0.98
    assert float(p[0, :2].sum()) == pytest.approx(1)


def test_a_clean_picture_comes_back_and_noise_gives_the_weighted_mean():
    points = cloud()[1:]
    oracle = PointMixture(points, WEIGHTS[1:])
    clean, noise = level_at("vp", 20.0), level_at("vp", -20.0)
    torch.testing.assert_close(oracle.denoise(points, clean), points, rtol=0, atol=1e-12)
    mean = (WEIGHTS[1:, None, None] * points).sum(0) / WEIGHTS[1:].sum()
    torch.testing.assert_close(
        oracle.denoise(points, noise), mean.expand_as(points), rtol=0, atol=1e-3
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_with_noise_of_its_own_it_is_a_mixture_of_round_gaussians(family: str):
    points, std = cloud().flatten(1), 0.3
    oracle = PointMixture(points, WEIGHTS, std=std)
    mixture = GaussianMixture(WEIGHTS.double(), points, torch.full_like(points, std**2))
    level = level_at(family, -6.0, 0.0, 1.0, 7.0)
    x = noised(points[:4], level)
    for name in ("denoise", "score", "log_prob"):
        got, expected = (getattr(each, name)(x, level) for each in (oracle, mixture))
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(oracle.log_posterior(x, level), mixture.log_posterior(x, level))


@pytest.mark.parametrize("chunk", [1, 4, 5])
def test_points_taken_in_chunks_are_all_the_points(chunk: int):
    level = level_at("flow", -3.0, 0.5, 2.0, 9.0)
    x = noised(cloud()[2:6], level)
    whole, parts = (PointMixture(cloud(), WEIGHTS, std=0.1, chunk=c) for c in (1000, chunk))
    for name in ("denoise", "score", "log_prob", "log_posterior"):
        got, expected = (getattr(oracle, name)(x, level) for oracle in (parts, whole))
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_memory_is_bounded_for_ten_thousand_points():
    B, wide = 7, 48
    points = torch.randn(10_000, wide, generator=torch.Generator().manual_seed(0))
    oracle, level = PointMixture(points), level_at("vp", 3.0)
    x = noised(points[:B], level)
    with Largest() as largest:
        for answer in (oracle.denoise, oracle.score, oracle.log_prob):
            answer(x, level)
    assert largest.numel <= 1024 * wide  # one chunk of points, in float64
    joint = -((x.double()[:, None] - level.alpha * points.double()) ** 2).sum(-1)
    expected = (joint / (2 * level.sigma**2)).softmax(-1) @ points.double()
    torch.testing.assert_close(oracle.denoise(x, level), expected.float(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["denoise", "score", "log_prob", "log_posterior"])
def test_a_row_does_not_depend_on_its_batch(name: str):
    oracle, level = PointMixture(cloud(), WEIGHTS, std=0.1), level_at("vp", 1.0)
    x = noised(cloud(), level)
    batch = getattr(oracle, name)(x, level)
    for i in range(len(x)):
        alone = getattr(oracle, name)(x[i : i + 1], level)
        torch.testing.assert_close(alone, batch[i : i + 1], rtol=1e-13, atol=1e-13)


def test_far_from_all_points_nothing_overflows():
    oracle, level = PointMixture(cloud(torch.float32)), single(level_at("ve", 20.0))
    x = torch.full((1, *EVENT), 1e4, requires_grad=True)
    log_p = oracle.log_prob(x, level)
    (gradient,) = torch.autograd.grad(log_p.sum(), x)
    assert bool(log_p.isfinite().all())
    torch.testing.assert_close(gradient, oracle.score(x.detach(), level))


def test_places_are_independent_each_at_its_samples_level():
    B, places = 2, (3, 4)
    table = cloud()[2:].flatten(1)
    tokens, one = PointMixture(table, places=places), PointMixture(table)
    level = level_at("sub_vp", -1.0, 2.0)
    x = noised(torch.zeros(B, *places, table.shape[1], dtype=torch.float64), level)
    posterior = tokens.log_posterior(x, level)
    assert posterior.shape == (B, *places, len(table))
    log_p = tokens.log_prob(x, level)
    for b, own in enumerate((-1.0, 2.0)):
        rows, alone = x[b].reshape(12, -1), level_at("sub_vp", own)
        torch.testing.assert_close(posterior[b].reshape(12, -1), one.log_posterior(rows, alone))
        torch.testing.assert_close(log_p[b], one.log_prob(rows, alone).sum())
        x0_hat = tokens.denoise(x, level)[b].reshape(12, -1)
        torch.testing.assert_close(x0_hat, one.denoise(rows, alone))


@pytest.mark.parametrize("family", FAMILIES)
def test_evidence_of_analog_bits_is_the_exact_posterior_of_a_fair_bit(family: str):
    codec = Bits(64, (3,), scale=0.5)
    level = level_at(family, -4.0, 3.0)
    x_t = noised(codec.encode(torch.tensor([[5, 63, 0], [17, 32, 9]])).double(), level)
    fair = PointMixture(torch.tensor([[-0.5], [0.5]]).double(), places=codec.latent_shape)
    off, on = fair.log_posterior(x_t[..., None], level).unbind(-1)
    torch.testing.assert_close(codec.evidence(x_t, level), on - off, rtol=1e-9, atol=1e-9)
    x0_hat = codec.mean(codec.evidence(x_t, level))
    torch.testing.assert_close(x0_hat, fair.denoise(x_t[..., None], level)[..., 0])


@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize("size", [8, 21])
def test_rounding_of_analog_bits_is_the_exact_posterior_over_the_valid_words(size: int, gray: bool):
    codec, data = Bits(size, (3,), scale=0.7, gray=gray), torch.tensor([[5, 7, 0], [1, 2, 6]])
    level = level_at("flow", -1.0, 2.0)
    x_t = noised(codec.encode(data).double(), level)
    words = PointMixture(codec.encode(torch.arange(size)[:, None])[:, 0].double(), places=(3,))
    exact = words.log_posterior(x_t, level).gather(-1, data[..., None])[..., 0].sum(-1)
    torch.testing.assert_close(codec.log_prob(data, x_t, level), exact)


def test_samples_have_the_points_frequencies_in_every_place():
    """20,000 draws at each of two places, 5 standard errors: false alarms below 1e-5 (of 12)."""
    n, points = 20_000, cloud()[:, 0]
    drawn = PointMixture(points, WEIGHTS, places=(2,)).sample(n, torch.Generator().manual_seed(1))
    assert drawn.shape == (n, 2, 3)
    p = WEIGHTS.double() / WEIGHTS.sum()
    hits = (drawn[:, :, None] == points).all(-1).double()
    assert bool((hits.sum(-1) == 1).all())
    error = torch.sqrt(p * (1 - p) / n)
    assert bool(((hits.mean(0) - p).abs() < 5 * error).all())
    both = (hits[:, 0, 4] * hits[:, 1, 4]).mean()  # the places are independent
    assert abs(float(both - p[4] ** 2)) < 5 * float(p[4]) / math.sqrt(n)


def test_samples_with_noise_of_their_own_have_its_spread():
    """40,000 numbers, 5 standard errors: a false alarm below 1e-6."""
    oracle = PointMixture(torch.zeros(1, 2, dtype=torch.float64), std=0.3)
    squares = oracle.sample(20_000, torch.Generator().manual_seed(1)).square().flatten()
    error = 0.09 * math.sqrt(2 / 40_000)
    assert abs(float(squares.mean()) - 0.09) < 5 * error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"points": torch.ones(3)}, r"points \(3,\): expected \(K, \*event\)"),
        ({"points": torch.ones(0, 2)}, r"points \(0, 2\)"),
        ({"points": torch.tensor([[math.nan]])}, "a point is not finite"),
        ({"weights": torch.ones(3)}, r"weights \(3,\) for 4 points"),
        ({"weights": torch.tensor([1.0, 1.0, 1.0, 0.0])}, "one positive number each"),
        ({"weights": torch.tensor([1.0, 1.0, 1.0, math.nan])}, "one positive number each"),
        ({"std": -0.1}, "std = -0.1"),
        ({"std": math.nan}, "std = nan"),
        ({"std": math.inf}, "std = inf"),
        ({"chunk": 0}, "chunk = 0"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        PointMixture(**{"points": torch.ones(4, 2), **arguments})


def test_x_of_another_shape_is_refused():
    oracle = PointMixture(torch.ones(4, 2), places=(3,))
    with pytest.raises(ValueError, match=r"\(5, 2\), expected \(B, 3, 2\)"):
        oracle.denoise(torch.ones(5, 2), level_at("vp", 0.0))
