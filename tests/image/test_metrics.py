"""Frechet and kernel distance, precision and recall against closed forms and brute force."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor

from image.metrics import frechet, kernel, recall


def draw(n: int, dim: int, seed: int) -> Tensor:
    """Rows of correlated features with different scales and means, float64."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(dim, dim, dtype=torch.float64, generator=generator) / dim**0.5
    scales = torch.logspace(0, -2, dim, dtype=torch.float64)
    rows = torch.randn(n, dim, dtype=torch.float64, generator=generator) * scales
    return rows @ mix + torch.randn(dim, dtype=torch.float64, generator=generator) * 0.1


def by_sqrtm(x: Tensor, y: Tensor) -> float:
    """The distance as its reference implementation computes it."""
    a, b = np.cov(x.numpy(), rowvar=False), np.cov(y.numpy(), rowvar=False)
    root = np.real(np.asarray(sqrtm(a @ b)))
    apart = x.mean(0) - y.mean(0)
    return float(apart @ apart) + float(np.trace(a + b - 2 * root))


@pytest.mark.parametrize(("n", "m"), [(60, 45), (60, 9), (11, 45)])
def test_frechet_is_that_of_the_matrix_square_root(n: int, m: int):
    """Tall sets (reduced to triangles), and wide ones, whose covariances are singular."""
    x, y = draw(n, 12, 0), draw(m, 12, 1)
    # the root of a singular product is itself good to 1e-6 only
    tolerance = 1e-9 if min(n, m) > 12 else 1e-5
    distance = frechet.compute(x, y)["frechet_distance"]
    assert distance == pytest.approx(by_sqrtm(x, y), abs=tolerance)


@pytest.mark.parametrize(("n", "m"), [(400, 300), (20, 300), (20, 25)])
def test_frechet_is_that_of_an_independent_implementation_to_one_part_in_a_million(n: int, m: int):
    """Features as networks give them (float32, positive, of one scale), more rows than features and
    fewer, against tr (S1^(1/2) S2 S1^(1/2))^(1/2): two roots of symmetric matrices."""
    generator = torch.Generator().manual_seed(8)
    mix = torch.randn(32, 32, generator=generator)
    x, y = (torch.relu(torch.randn(k, 32, generator=generator) @ mix) for k in (n, m))
    a, b = (np.cov(z.double().numpy(), rowvar=False) for z in (x, 1.1 * y))
    root = np.real(np.asarray(sqrtm(a)))
    overlap = np.real(np.asarray(sqrtm(root @ b @ root)))
    apart = x.double().mean(0) - 1.1 * y.double().mean(0)
    expected = float(apart @ apart) + float(np.trace(a + b - 2 * overlap))
    found = frechet.compute(x, 1.1 * y)["frechet_distance"]
    assert found == pytest.approx(expected, rel=1e-6)


def test_frechet_of_gaussians_that_differ_in_place_and_scale_has_its_closed_form():
    """Y = 3 X + c: |m1 - m2|^2 + (3 - 1)^2 tr S1, exactly, whatever the samples."""
    x = draw(50, 7, 2)
    shift = torch.arange(7, dtype=torch.float64)
    y = 3 * x + shift
    apart = (y.mean(0) - x.mean(0)).square().sum()
    expected = float(apart + 4 * torch.cov(x.T).trace())
    assert frechet.compute(x, y)["frechet_distance"] == pytest.approx(expected, rel=1e-12)


def test_frechet_is_zero_to_itself_symmetric_and_blind_to_rotation_and_dead_features():
    x, y = draw(40, 6, 3), draw(30, 6, 4)
    distance = frechet.compute(x, y)["frechet_distance"]
    turn = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64)).Q
    dead = [torch.cat([z, torch.full((len(z), 2), 0.5, dtype=torch.float64)], 1) for z in (x, y)]
    assert frechet.compute(x, x)["frechet_distance"] == pytest.approx(0, abs=1e-12)
    for a, b in ((y, x), (x @ turn, y @ turn), dead):
        assert frechet.compute(a, b)["frechet_distance"] == pytest.approx(distance, rel=1e-10)


def test_frechet_refuses_what_has_no_covariance_or_other_features():
    with pytest.raises(ValueError, match="N >= 2"):
        frechet.compute(torch.zeros(1, 3), torch.zeros(5, 3))
    with pytest.raises(ValueError, match="3 and 4 features"):
        frechet.compute(torch.zeros(5, 3), torch.zeros(5, 4))


def covered_by_hand(points: list[list[float]], centres: list[list[float]], k: int) -> float:
    """The definition, pair by pair."""

    def apart(a: list[float], b: list[float]) -> float:
        return sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) ** 0.5

    radii = []
    for i, centre in enumerate(centres):
        others = sorted(apart(centre, other) for j, other in enumerate(centres) if j != i)
        radii.append(others[k - 1])
    inside = [
        any(apart(point, c) <= r for c, r in zip(centres, radii, strict=True)) for point in points
    ]
    return sum(inside) / len(inside)


@pytest.mark.parametrize("k", [1, 3])
def test_precision_and_recall_are_those_of_their_definition(k: int, monkeypatch):
    monkeypatch.setattr(recall, "CHUNK", 7)
    generator = torch.Generator().manual_seed(5)
    ours = torch.randn(23, 3, generator=generator)
    real = torch.randn(31, 3, generator=generator) * 1.5 + 1.2
    found = recall.compute(ours, real, k)
    a, b = ours.double().tolist(), real.double().tolist()
    assert found == {"precision": covered_by_hand(a, b, k), "recall": covered_by_hand(b, a, k)}
    assert 0 < found["recall"] != found["precision"] < 1


def test_one_mode_of_two_has_full_precision_and_half_the_recall():
    generator = torch.Generator().manual_seed(6)
    near, far = torch.randn(2, 40, 2, generator=generator).double()
    real = torch.cat([near, far + 100])
    found = recall.compute(near, real, 3)
    assert found == {"precision": 1.0, "recall": 0.5}


def test_recall_refuses_fewer_rows_than_neighbours():
    with pytest.raises(ValueError, match="expected more than k = 3"):
        recall.compute(torch.zeros(3, 2), torch.zeros(9, 2))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def discrepancy_by_hand(x: list[list[float]], y: list[list[float]]) -> float:
    """The definition, pair by pair."""

    def k(a: list[float], b: list[float]) -> float:
        return (sum(i * j for i, j in zip(a, b, strict=True)) / len(a) + 1) ** 3

    def within(z: list[list[float]]) -> float:
        pairs = [k(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j]
        return sum(pairs) / len(pairs)

    across = [k(a, b) for a in x for b in y]
    return within(x) + within(y) - 2 * sum(across) / len(across)


def test_kernel_distance_is_that_of_its_definition_pair_by_pair():
    x, y = draw(7, 3, 0), draw(5, 3, 1) + 0.5
    expected = discrepancy_by_hand(x.tolist(), y.tolist())
    assert float(kernel.squared_discrepancy(x, y)) == pytest.approx(expected, rel=1e-12)
    found = kernel.compute(x[:5], y, size=5, generator=seeded(0), subsets=2)  # all rows, reordered
    expected = discrepancy_by_hand(x[:5].tolist(), y.tolist())
    assert found["kernel_distance"] == pytest.approx(expected, rel=1e-12)
    assert found["kernel_std"] == pytest.approx(0, abs=1e-12)


def test_subsets_of_the_kernel_distance_are_drawn_without_replacement_and_averaged():
    x, y = draw(6, 3, 2), draw(9, 3, 3)
    found = kernel.compute(x, y, size=4, generator=seeded(4), subsets=3)
    generator = seeded(4)
    values = []
    for _ in range(3):
        rows = [torch.randperm(n, generator=generator)[:4] for n in (6, 9)]
        values.append(discrepancy_by_hand(x[rows[0]].tolist(), y[rows[1]].tolist()))
    assert found["kernel_distance"] == pytest.approx(np.mean(values), rel=1e-12)
    assert found["kernel_std"] == pytest.approx(np.std(values, ddof=1), rel=1e-12)
    assert found == kernel.compute(x, y, size=4, generator=seeded(4), subsets=3)
    assert found != kernel.compute(x, y, size=4, generator=seeded(5), subsets=3)


def test_kernel_distance_between_halves_of_one_law_is_zero_on_average():
    """2,000 pairs of halves of 8 rows: with i = j left in, the mean would be tens of standard
    errors above 0. False alarms: 1 in 370 seeds, and this one is fixed."""
    generator = seeded(7)
    halves = torch.randn(2, 2000, 8, 5, dtype=torch.float64, generator=generator)

    def distances(move: float) -> Tensor:
        pairs = zip(halves[0], halves[1] + move, strict=True)
        return torch.stack([kernel.squared_discrepancy(x, y) for x, y in pairs])

    values = distances(0.0)
    error = float(values.std() / len(values) ** 0.5)
    assert abs(float(values.mean())) < 3 * error
    assert float(distances(0.5).mean()) > 10 * error


@pytest.mark.parametrize(("n", "size", "subsets"), [(3, 4, 9), (9, 1, 9), (9, 4, 1)])
def test_kernel_distance_refuses_subsets_that_cannot_be(n: int, size: int, subsets: int):
    with pytest.raises(ValueError, match=f"kernel: {subsets} subsets of size {size} from {n}"):
        kernel.compute(torch.zeros(n, 2), torch.zeros(9, 2), size, seeded(0), subsets)
