"""Learned uncertainty: a loss that divides itself by what it can be expected to be.

loss / e^u + u, with u(logsnr) learned beside the network (Kendall et al. 2018; Karras et al. 2024,
EDM2): least at u = ln E[loss], where every level has the gradient of its relative error.
"""

import math

import torch
from torch import Tensor, nn

from shared import noise


class Uncertainty(nn.Module):
    """u(logsnr), linear in fixed random Fourier features of ln(sigma / alpha) / 4; 0 at first."""

    def __init__(self, channels: int = 128) -> None:
        super().__init__()
        frequencies = 2 * math.pi * noise.normal([0], 0, (channels,))[0]
        phases = 2 * math.pi * noise.uniform([0], 1, (channels,))[0]
        self.frequencies: Tensor
        self.phases: Tensor
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.register_buffer("phases", phases, persistent=False)
        self.weights = nn.Parameter(torch.zeros(channels))

    def u(self, logsnr: Tensor) -> Tensor:
        """logsnr (B,) -> ln of the expected loss (B,)."""
        angles = -logsnr[:, None] / 8 * self.frequencies + self.phases
        return (torch.cos(angles) * self.weights).sum(-1)

    def forward(self, losses: Tensor, logsnr: Tensor) -> Tensor:
        """losses (B,) at logsnr (B,) -> loss / e^u + u, (B,)."""
        u = self.u(logsnr)
        return losses * torch.exp(-u) + u
