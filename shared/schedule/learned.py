"""A learned schedule: a monotone network between two ends (Kingma et al. 2021).

logsnr(t) = logsnr_max - (logsnr_max - logsnr_min) share(t), with share rising from 0 to 1.

The diffusion term of the likelihood bound is an integral over logsnr: its mean depends on the two
ends and not on the interior, whose only effect is the variance of the estimate. So the interior
descends on the square of the loss, everything else on the loss (`shared.objective.diffusion_loss`).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.schedule.calculus import rising_root
from shared.schedule.checks import check_ends
from shared.schedule.level import Family, Level, variance_preserving


class Learned(nn.Module):
    """share(t) = (g(t) - g(0)) / (g(1) - g(0)), g(t) = a t + sum_k c_k sigmoid(b_k (t - m_k)) with
    a, b, c above 0 by softplus: strictly rising. Near linear at the start, without randomness.

    The ends are fixed, or parameters too with `learn_ends`: then train on all three terms of the
    bound (`elbo_terms`), since the diffusion term alone is least where the ends meet.
    """

    def __init__(
        self,
        logsnr_min: float = -5.0,  # the ends from which the paper starts
        logsnr_max: float = 13.3,
        hidden: int = 1024,
        learn_ends: bool = False,
        family: Family = variance_preserving,
    ) -> None:
        super().__init__()
        check_ends("logsnr_min", logsnr_min, "logsnr_max", logsnr_max)
        if hidden < 1 or hidden != int(hidden):
            raise ValueError(f"schedule: hidden = {hidden}: expected a whole number, 1 or more")
        hidden = int(hidden)  # a configuration's numbers are floats
        self.family = family
        self.slope = nn.Parameter(torch.tensor(_raw(1.0)))
        self.steepness = nn.Parameter(torch.full((hidden,), _raw(10.0)))
        self.middle = nn.Parameter((torch.arange(hidden) + 0.5) / hidden)
        self.height = nn.Parameter(torch.full((hidden,), _raw(1.0 / hidden)))
        self.ends = nn.Parameter(torch.tensor([logsnr_max, logsnr_min]), requires_grad=learn_ends)

    def share(self, t: Tensor) -> Tensor:
        """t in [0, 1], any shape -> the share of the way to noise, rising from 0 to 1."""
        place = torch.cat([t.flatten(), t.new_tensor([0.0, 1.0])])
        steepness, height = F.softplus(self.steepness.to(t)), F.softplus(self.height.to(t))
        bends = torch.sigmoid(steepness * (place[:, None] - self.middle.to(t)))
        g = F.softplus(self.slope.to(t)) * place + (bends * height).sum(-1)
        return ((g[:-2] - g[-2]) / (g[-1] - g[-2])).reshape(t.shape)

    def between(self, share: Tensor) -> Tensor:
        """share in [0, 1] -> logsnr."""
        high, low = self.ends.to(share)
        return high - (high - low) * share

    def logsnr(self, t: Tensor) -> Tensor:
        return self.between(self.share(t))

    def time(self, logsnr: Tensor) -> Tensor:
        """By bisection, to the precision of logsnr; carries no gradient."""
        high, low = self.ends.detach().double().to(logsnr.device)
        return rising_root(self.share, (high - logsnr.double()) / (high - low)).to(logsnr.dtype)

    def forward(self, t: Tensor) -> Level:
        return self.family(self.logsnr(t))


def _raw(value: float) -> float:
    """The inverse of softplus."""
    return value + math.log(-math.expm1(-value))
