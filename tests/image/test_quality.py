"""Density, coverage, inception score, PSNR and SSIM against their definitions and closed forms."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from image.metrics import coverage, inception_score, neighbours, reconstruction


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("k", [1, 4])
def test_density_and_coverage_are_those_of_their_definition(k: int, monkeypatch):
    monkeypatch.setattr(neighbours, "CHUNK", 6)
    monkeypatch.setattr(coverage, "CHUNK", 7)
    ours = torch.randn(23, 3, generator=seeded(0)).double()
    real = torch.randn(31, 3, generator=seeded(1)).double() * 1.5 + 0.7
    apart = np.linalg.norm(real.numpy()[:, None] - real.numpy()[None], axis=-1)
    radii = np.sort(apart, axis=1)[:, k]
    inside = np.linalg.norm(ours.numpy()[:, None] - real.numpy()[None], axis=-1) <= radii
    expected = {"density": inside.sum() / (k * 23), "coverage": inside.any(0).mean()}
    assert coverage.compute(ours, real, k) == pytest.approx(expected, rel=1e-12)
    assert 0 < expected["coverage"] < 1


def test_density_and_coverage_of_one_law_are_their_expectations():
    """E density = 1; E coverage = 1 - (M - 1) ... (M - k) / (M + N - 1) ... (M + N - k). The mean
    of 200 draws is within 4 standard errors: 1 false alarm in 8,000 seeds; this one is fixed."""
    k, M, N = 3, 30, 20
    draws = torch.randn(200, M + N, 2, generator=seeded(2)).double()
    found = [coverage.compute(x[M:], x[:M], k) for x in draws]
    missed = math.prod((M - i) / (M + N - i) for i in range(1, k + 1))
    for name, expected in (("density", 1.0), ("coverage", 1 - missed)):
        values = np.array([each[name] for each in found])
        assert abs(values.mean() - expected) < 4 * values.std(ddof=1) / 200**0.5, name


def test_an_outlier_among_the_real_raises_precision_but_hardly_density():
    """Samples far from all but one real picture: its ball holds them, one of N."""
    real = torch.cat([torch.randn(50, 2, generator=seeded(3)), torch.tensor([[30.0, 0.0]])])
    ours = torch.tensor([[15.0, 0.0]]).repeat(10, 1)
    found = coverage.compute(ours, real, k=5)
    assert found["density"] == pytest.approx(1 / 5)  # of k balls one holds each sample
    assert found["coverage"] == pytest.approx(1 / 51)


def test_coverage_refuses_too_few():
    with pytest.raises(ValueError, match="more than k = 5"):
        coverage.compute(torch.zeros(9, 2), torch.zeros(5, 2))
    with pytest.raises(ValueError, match="0 predictions"):
        coverage.compute(torch.zeros(0, 2), torch.zeros(9, 2))


def test_inception_score_is_one_when_all_are_alike_and_the_classes_when_sure_and_even():
    alike = torch.randn(1, 5, generator=seeded(4)).repeat(30, 1)
    assert inception_score.compute(alike, 3)["inception_score"] == pytest.approx(1, rel=1e-12)
    sure = torch.eye(5).repeat(6, 1) * 200
    found = inception_score.compute(sure, 3)
    assert found["inception_score"] == pytest.approx(5, rel=1e-12)
    assert found["inception_score_std"] == pytest.approx(0, abs=1e-12)


def test_inception_score_of_two_classes_by_hand():
    """p = (0.9, 0.1) and (0.5, 0.5): the mean divergence from (0.7, 0.3)."""
    p = torch.tensor([[0.9, 0.1], [0.5, 0.5]], dtype=torch.float64)
    marginal = (0.7, 0.3)
    kl = sum(q * math.log(q / m) for row in p.tolist() for q, m in zip(row, marginal, strict=True))
    found = inception_score.compute(p.log() + 3.0, splits=1)
    assert found["inception_score"] == pytest.approx(math.exp(kl / 2), rel=1e-12)
    with pytest.raises(ValueError, match="in 3 splits"):
        inception_score.compute(p, splits=3)


def test_psnr_of_a_known_error():
    real = torch.full((2, 1, 3, 4), 100)
    ours = real.clone()
    ours[0] += 5  # every pixel off by 5 of 255
    ours[1, 0, 0, 0] += 16  # one of 12 off by 16
    found = reconstruction.psnr(ours, real)
    assert float(found[0]) == pytest.approx(20 * math.log10(255 / 5))
    assert float(found[1]) == pytest.approx(10 * math.log10(255**2 / (16**2 / 12)))
    assert math.isinf(float(reconstruction.psnr(real, real)[0]))
    # the range is that of the levels
    assert float(reconstruction.psnr(ours, real, levels=17)[0]) == pytest.approx(
        20 * math.log10(16 / 5)
    )


def test_ssim_is_its_definition_under_scipys_gaussian_window():
    real = torch.randint(0, 256, (2, 3, 13, 17), generator=seeded(5))
    ours = (real + torch.randint(-40, 41, real.shape, generator=seeded(6))).clamp(0, 255)
    for b in range(2):
        places = []
        for c in range(3):
            x, y = ours[b, c].double().numpy(), real[b, c].double().numpy()

            def local(z: np.ndarray) -> np.ndarray:  # radius 5: a window of 11
                return gaussian_filter(z, 1.5, truncate=5 / 1.5)[5:-5, 5:-5]

            mx, my = local(x), local(y)
            vx, vy, cxy = local(x * x) - mx**2, local(y * y) - my**2, local(x * y) - mx * my
            c1, c2 = 2.55**2, 7.65**2
            places.append(
                (2 * mx * my + c1) * (2 * cxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
            )
        found = reconstruction.ssim(ours[b : b + 1], real[b : b + 1])
        assert float(found) == pytest.approx(np.mean(places), rel=1e-10)


def test_ssim_of_a_lighter_picture_is_its_luminance_term():
    """A constant added to a flat picture: structure 1, (2 a b + C1) / (a^2 + b^2 + C1)."""
    a, b, c1 = 100.0, 130.0, 2.55**2
    found = reconstruction.compute(torch.full((1, 1, 11, 12), b), torch.full((1, 1, 11, 12), a))
    assert found["ssim"] == pytest.approx((2 * a * b + c1) / (a * a + b * b + c1), rel=1e-10)
    assert found["psnr"] == pytest.approx(20 * math.log10(255 / 30))


def test_reconstructions_of_another_shape_or_too_small_are_refused():
    with pytest.raises(ValueError, match="expected pairs"):
        reconstruction.psnr(torch.zeros(2, 1, 11, 11), torch.zeros(1, 1, 11, 11))
    with pytest.raises(ValueError, match="8 x 12: expected 11"):
        reconstruction.ssim(torch.zeros(2, 1, 8, 12), torch.zeros(2, 1, 8, 12))
