"""PSNR and SSIM from their definitions, place by place."""

import math

import pytest
import torch

from image.metrics.reconstruction import psnr, ssim

N, C, H, W = 2, 3, 13, 12


def pictures(seed: int) -> torch.Tensor:
    return torch.randint(256, (N, C, H, W), generator=torch.Generator().manual_seed(seed))


def test_psnr_is_that_of_each_pictures_mean_squared_error():
    x = torch.full((2, 1, 2, 3), 100)
    y = x + torch.tensor([[[[5, -5, 5], [5, 5, -5]]], [[[0, 0, 0], [0, 0, 9]]]])
    expected = [20 * math.log10(255 / 5), 10 * math.log10(255**2 / (81 / 6))]
    assert psnr(y, x, 255).tolist() == pytest.approx(expected)
    assert psnr(x, x, 255).tolist() == [math.inf, math.inf]


def test_ssim_is_its_formula_at_every_place_of_the_window():
    x, y = pictures(0).double(), pictures(1).double()
    y[1] = x[1] * 0.5 + 20
    weights = [
        [math.exp(-((i - 5) ** 2 + (j - 5) ** 2) / 4.5) for j in range(11)] for i in range(11)
    ]
    window = torch.tensor(weights, dtype=torch.float64)
    window /= window.sum()
    c1, c2 = (0.01 * 200) ** 2, (0.03 * 200) ** 2
    for n in range(N):
        total, count = 0.0, 0
        for c in range(C):
            for top in range(H - 10):
                for left in range(W - 10):
                    a, b = (z[n, c, top : top + 11, left : left + 11] for z in (x, y))
                    ma, mb = float((window * a).sum()), float((window * b).sum())
                    va = float((window * (a - ma) ** 2).sum())
                    vb = float((window * (b - mb) ** 2).sum())
                    both = float((window * (a - ma) * (b - mb)).sum())
                    light = (2 * ma * mb + c1) / (ma**2 + mb**2 + c1)
                    total += light * (2 * both + c2) / (va + vb + c2)
                    count += 1
        assert float(ssim(x, y, 200)[n]) == pytest.approx(total / count, abs=1e-10)


def test_ssim_of_equal_pictures_is_one_and_of_small_ones_refused():
    assert ssim(pictures(0), pictures(0), 255).tolist() == pytest.approx([1.0, 1.0])
    with pytest.raises(ValueError, match="expected 11 or more"):
        ssim(torch.zeros(1, 1, 8, 12), torch.zeros(1, 1, 8, 12), 255)
    with pytest.raises(ValueError, match="as many and as large"):
        psnr(torch.zeros(1, 1, 8, 12), torch.zeros(1, 1, 12, 8), 255)
