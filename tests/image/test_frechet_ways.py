"""The Frechet distance by each of its ways, where a closed form or the definition is at hand.

With Y = X A + c for a symmetric positive A, the root is known: S2 = A S1 A, and
tr (S1 S2)^(1/2) = tr (S1^(1/2) A S1^(1/2)) = tr (A S1), for any samples, however few.
"""

import pytest
import torch
from torch import Tensor

from image.metrics import frechet
from image.metrics.moments import Moments, moments

D = 12


def features(n: int, seed: int = 0) -> Tensor:
    """Correlated, positive, of standard deviations over two orders, float64."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(D, D, dtype=torch.float64, generator=generator) / D**0.5
    scales = torch.logspace(0, -2, D, dtype=torch.float64)
    normals = torch.randn(n, D, dtype=torch.float64, generator=generator)
    return (normals * scales) @ mix + 2.0


def positive(seed: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    factor = torch.randn(D, D, dtype=torch.float64, generator=generator) / D**0.5
    return factor @ factor.T + 0.2 * torch.eye(D, dtype=torch.float64)


def by_definition(a: Moments, b: Moments) -> float:
    """|m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1^(1/2) S2 S1^(1/2))^(1/2), two symmetric roots."""
    s1, s2 = a.covariance(), b.covariance()
    values, vectors = torch.linalg.eigh(s1)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    overlap = torch.linalg.eigvalsh(root @ s2 @ root).clamp(min=0).sqrt().sum()
    return float((a.mean - b.mean).square().sum() + s1.trace() + s2.trace() - 2 * overlap)


@pytest.mark.parametrize("n", [2, 5, 11, 12, 13, 14, 60])
def test_linear_images_have_their_closed_form_with_rows_and_without(n: int):
    x, a = features(n), positive()
    shift = torch.linspace(0, 1, D, dtype=torch.float64)
    y = x @ a + shift
    s1 = torch.cov(x.T)
    apart = (x.mean(0) - y.mean(0)).square().sum()
    expected = float(apart + s1.trace() + (a @ s1 @ a).trace() - 2 * (a @ s1).trace())
    assert frechet.compute(x, y)["frechet_distance"] == pytest.approx(expected, rel=1e-9)
    assert frechet.compute(y, x)["frechet_distance"] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("n", "m"), [(9, 7), (9, 80), (80, 9), (13, 12), (80, 60)])
def test_every_pair_of_ways_is_the_definition(n: int, m: int):
    a, b = moments(features(n)), moments(1.3 * features(m, 1))
    # zero eigenvalues cost the definition, not us, half of its digits
    rel = 1e-9 if min(n, m) > D else 1e-6
    assert frechet.distance(a, b) == pytest.approx(by_definition(a, b), rel=rel)


@pytest.mark.parametrize("n", [8, 50])
def test_features_that_never_vary_change_nothing_but_the_distance_of_means(n: int):
    x, y = features(n), 1.3 * features(50, 1)
    expected = frechet.compute(x, y)["frechet_distance"]
    dead = [torch.cat([z, z.new_full((len(z), 3), 0.5 * i)], 1) for i, z in enumerate((x, y))]
    found = frechet.compute(*dead)["frechet_distance"]
    assert found == pytest.approx(expected + 3 * 0.25, rel=1e-10)
    # dead in one of them: its variance in the other counts in full
    alive = torch.randn(len(y), 1, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    half = [torch.cat([x, x.new_zeros(n, 1)], 1), torch.cat([y, alive], 1)]
    found = frechet.compute(*half)["frechet_distance"]
    more = float(alive.var() + alive.mean().square())
    assert found == pytest.approx(expected + more, rel=1e-9)


def test_singular_covariances_of_many_samples_lose_no_digits():
    """Copied features: X = Z C, rank 12 of 24, so that neither has a Cholesky factor. With C C' = 2
    the distance is twice that of Z."""
    x, y = features(60), 1.3 * features(70, 1)
    expected = 2 * frechet.compute(x, y)["frechet_distance"]
    copied = [torch.cat([z, z.flip(1)], 1) for z in (x, y)]
    assert frechet.compute(*copied)["frechet_distance"] == pytest.approx(expected, rel=1e-9)


def test_a_small_distance_keeps_its_digits():
    """Y = X + c, |c| = 1e-4: d^2 = 1e-8 exactly, 1e-9 of the traces."""
    x = features(70) * 2
    shift = torch.full((D,), 1e-4 / D**0.5, dtype=torch.float64)
    found = frechet.compute(x, x + shift)["frechet_distance"]
    assert found == pytest.approx(1e-8, rel=1e-5)


def test_eigenvalues_are_left_for_singular_values_where_they_lack_digits(monkeypatch):
    """Standard deviations over nine orders: squares of squares below rounding."""
    generator = torch.Generator().manual_seed(0)
    scales = torch.logspace(0, -9, D, dtype=torch.float64)
    x = torch.randn(40, D, dtype=torch.float64, generator=generator) * scales
    y = x * torch.linspace(1, 1.001, D, dtype=torch.float64)
    factors = torch.linspace(0, 0.001, D, dtype=torch.float64)
    expected = float((x.mean(0) * factors).square().sum() + (x.var(0) * factors.square()).sum())
    found = frechet.compute(x, y)["frechet_distance"]
    monkeypatch.setattr(frechet, "TOLERANCE", float("inf"))
    hasty = frechet.compute(x, y)["frechet_distance"]
    assert abs(found - expected) <= abs(hasty - expected)
    assert found == pytest.approx(expected, abs=1e-14)


def test_pictures_all_alike_are_as_far_as_their_means():
    ones = torch.ones(9, 4)
    assert frechet.compute(ones, 3 * ones)["frechet_distance"] == pytest.approx(16)
