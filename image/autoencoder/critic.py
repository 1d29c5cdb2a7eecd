"""The adversarial term of VQGAN (Esser et al. 2021, sec. 3.1) as a part of one loss per sample.

    L_G = - D(x_hat),  weighted by  w = weight |d L_rec / d W| / (|d L_G / d W| + 1e-4)  (eq. 7)
    L_D = (max(0, 1 - D(x)) + max(0, 1 + D(x_hat))) / 2

with W the last layer of the decoder, D the mean over patches. Autoencoder and discriminator take
their steps at once, from one backward pass, not in turns: L_G is told to the autoencoder by its
gradient at x_hat alone, and L_D sees x_hat as a constant, so that neither moves the other's
weights. w is taken for every sample by itself, where the paper has one for the batch: so a sample's
loss does not depend on its neighbours, nor on the number of processes. Norms are over groups of
channels for the same reason (Isola et al. 2017 have batch norm).
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

from image.autoencoder.config import AdversarialConfig

SMALL, MOST = 1e-4, 1e4  # of the adaptive weight, as in the authors' code


class PatchDiscriminator(nn.Module):
    """x (B, C, H, W) in [-1, 1] -> a score of each patch, (B, patches), high for real ones (Isola
    et al. 2017, sec. 3.2.2)."""

    def __init__(self, channels: int, width: int, layers: int) -> None:
        super().__init__()
        body: list[nn.Module] = [nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        inner = width
        for i in range(1, layers + 1):
            out, stride = width * min(2**i, 8), 2 if i < layers else 1
            norm = nn.GroupNorm(math.gcd(32, out), out)
            body += [nn.Conv2d(inner, out, 4, stride, 1, bias=False), norm, nn.LeakyReLU(0.2)]
            inner = out
        self.body = nn.Sequential(*body, nn.Conv2d(inner, 1, 4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).flatten(1).float()


@dataclass(frozen=True)
class Verdict:
    """Both terms (B,): `fooling`, whose gradient reaches what made x_hat, and `telling`, whose
    gradient reaches the discriminator. `weight` (B,) is the adaptive one of `fooling`."""

    fooling: Tensor
    telling: Tensor
    weight: Tensor


def verdict(
    critic: nn.Module,
    x: Tensor,
    x_hat: Tensor,
    pull: Tensor,
    hidden: Tensor,
    config: AdversarialConfig,
) -> Verdict:
    """x, x_hat (B, C, H, W); pull (B, C, H, W), the gradient of each sample's reconstruction loss
    at x_hat; hidden (B, D, H, W), what the last layer, a convolution of 3 x 3, made x_hat of."""
    leaf = x_hat.detach().requires_grad_()
    fooling = -critic(leaf).mean(1)
    push = torch.autograd.grad(fooling.sum(), leaf)[0]
    ratio = last_layer_norms(hidden, pull) / (last_layer_norms(hidden, push) + SMALL)
    weight = config.weight * ratio.clamp(0, MOST)
    # the value of the weighted loss, and its gradient at x_hat
    along = ((x_hat - x_hat.detach()) * push).flatten(1).sum(1)
    told = weight * (fooling.detach() + along)
    real, made = critic(x), critic(x_hat.detach())
    telling = (F.relu(1 - real).mean(1) + F.relu(1 + made).mean(1)) / 2
    return Verdict(told, telling, weight)


def last_layer_norms(hidden: Tensor, gradient: Tensor) -> Tensor:
    """|d L_i / d W| (B,) of a convolution of 3 x 3 with padding 1 and weights W, from its input
    (B, D, H, W) and the gradients of the samples' losses at its output (B, C, H, W)."""
    B, D, H, W = hidden.shape
    C = gradient.shape[1]
    by_sample = conv2d_weight(  # a group for each sample
        hidden.detach().float().reshape(1, B * D, H, W),
        (B * C, D, 3, 3),
        gradient.float().reshape(1, B * C, H, W),
        padding=1,
        groups=B,
    )
    return by_sample.view(B, -1).norm(dim=1)
