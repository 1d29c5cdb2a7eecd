"""How near a reconstruction is to its picture: PSNR, and SSIM (Wang et al. 2004, eq. 13).

    PSNR = 10 log10 (range^2 / MSE), in decibels
    SSIM = mean (2 m_x m_y + C1) (2 c_xy + C2) / ((m_x^2 + m_y^2 + C1) (v_x + v_y + C2))

with means m, variances v and covariance c under a window at each place of a picture. C1 and C2,
(K range)^2, keep flat places stable.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW, SIGMA = 11, 1.5  # pixels: a Gaussian window, as in the paper (sec. III-C)
K1, K2 = 0.01, 0.03


def compute(predictions: Tensor, references: Tensor, levels: int = 256) -> dict[str, float]:
    """{"psnr", "ssim"}: means over pairs of pictures (N, C, H, W) of levels, 0 to levels - 1.

    The mean of PSNR is over pictures, infinite when one of them is reconstructed exactly.
    ValueError for other shapes, or sides shorter than the window.
    """
    return {
        "psnr": float(psnr(predictions, references, levels).mean()),
        "ssim": float(ssim(predictions, references, levels).mean()),
    }


def psnr(predictions: Tensor, references: Tensor, levels: int = 256) -> Tensor:
    """Of each pair of pictures (N, C, H, W) of levels, dB, (N,)."""
    _check(predictions, references)
    error = (predictions.double() - references.double()).square().mean((1, 2, 3))
    return 10 * torch.log10((levels - 1) ** 2 / error)


def ssim(predictions: Tensor, references: Tensor, levels: int = 256) -> Tensor:
    """Of each pair of pictures (N, C, H, W) of levels, (N,), in [-1, 1]: the mean over channels and
    all places where the window lies within the picture."""
    _check(predictions, references)
    if min(references.shape[-2:]) < WINDOW:
        raise ValueError(
            f"ssim: pictures of {references.shape[-2]} x {references.shape[-1]}: expected "
            f"{WINDOW} pixels a side or more, those of the window"
        )
    N, C, H, W = references.shape
    x, y = (z.double().reshape(N * C, 1, H, W) for z in (predictions, references))
    mean_x, mean_y = _local(x), _local(y)
    var_x, var_y = _local(x * x) - mean_x.square(), _local(y * y) - mean_y.square()
    covariance = _local(x * y) - mean_x * mean_y
    c1, c2 = ((k * (levels - 1)) ** 2 for k in (K1, K2))
    light = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    structure = (2 * covariance + c2) / (var_x + var_y + c2)
    return (light * structure).reshape(N, -1).mean(1)


def _local(x: Tensor) -> Tensor:
    """Weighted means (M, 1, H', W') of x (M, 1, H, W) under the window."""
    places = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    weights = torch.softmax(-places.square() / (2 * SIGMA**2), 0)
    return F.conv2d(F.conv2d(x, weights.view(1, 1, -1, 1)), weights.view(1, 1, 1, -1))


def _check(predictions: Tensor, references: Tensor) -> None:
    if predictions.shape != references.shape or references.ndim != 4:
        raise ValueError(
            f"pictures {tuple(predictions.shape)} and {tuple(references.shape)}: expected pairs, "
            "(N, C, H, W)"
        )
