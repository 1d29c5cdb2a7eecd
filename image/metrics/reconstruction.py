"""How near pictures are to those they were made of, picture by picture.

    PSNR = 10 log10(peak^2 / mean squared error), in dB
    SSIM = mean of (2 m1 m2 + c1)(2 s12 + c2) / ((m1^2 + m2^2 + c1)(s1^2 + s2^2 + c2))

with means, variances and covariance in a Gaussian window of 11 pixels and deviation 1.5, c1 =
(0.01 peak)^2 and c2 = (0.03 peak)^2, over all places that the window fits (Wang et al. 2004, eq. 13
and sec. III-C).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW, DEVIATION = 11, 1.5


def psnr(images: Tensor, references: Tensor, peak: float) -> Tensor:
    """Pictures (N, C, H, W) -> dB (N,), float64; infinite for equal ones."""
    _check(images, references)
    error = (images.double() - references.double()).square().flatten(1).mean(1)
    return 10 * torch.log10(peak**2 / error)


def ssim(images: Tensor, references: Tensor, peak: float) -> Tensor:
    """Pictures (N, C, H, W) -> (N,) in [-1, 1], float64, the mean over channels. ValueError when a
    side is shorter than the window."""
    _check(images, references)
    C = images.shape[1]
    if min(images.shape[2:]) < WINDOW:
        raise ValueError(
            f"ssim: pictures of {tuple(images.shape[2:])} pixels: expected {WINDOW} or more a side"
        )
    places = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    bell = torch.exp(-0.5 * (places / DEVIATION) ** 2)
    window = torch.outer(bell, bell) / bell.sum() ** 2
    kernel = window.to(images.device).expand(C, 1, WINDOW, WINDOW)

    def local(x: Tensor) -> Tensor:
        return F.conv2d(x, kernel, groups=C)

    x, y = images.double(), references.double()
    m1, m2 = local(x), local(y)
    s1, s2, s12 = local(x * x) - m1**2, local(y * y) - m2**2, local(x * y) - m1 * m2
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    alike = (2 * m1 * m2 + c1) * (2 * s12 + c2) / ((m1**2 + m2**2 + c1) * (s1 + s2 + c2))
    return alike.flatten(1).mean(1)


def _check(images: Tensor, references: Tensor) -> None:
    if images.ndim != 4 or images.shape != references.shape:
        raise ValueError(
            f"reconstruction: {tuple(images.shape)} and {tuple(references.shape)}: expected "
            "pictures (N, C, H, W), as many and as large"
        )
