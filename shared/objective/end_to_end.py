"""The end-to-end objective of Diffusion-LM: latents that are learned together with their model.

Data w are points EMB(w) of a learned table, x0 ~ N(EMB(w), sigma_1^2 I) has the noise of the first
step of a chain of T (the paper's sigma_0, so in their code), and x_t follows from x0 as ever. With
one t a datum, uniform in 1, ..., T, and f = x0_hat (Li et al. 2022, sec. 4.1, with the prediction
of x0 of sec. 4.2):

denoising  |x0 - f(x_t, t)|^2 for t > 1, and |EMB(w) - f(x_1, 1)|^2 for t = 1
rounding   -log p(w | x0), where p(v | x0) ~ exp(<EMB(v), x0> + b_v), element by element
prior      |alpha_T x0|^2

The squared errors alone are least when all points are one; the rounding term keeps them apart. As
in the authors' code each term is a mean over elements and all weigh 1. The paper's sums over steps
and elements would give rounding 1 / (T C) of this weight, with points of C coordinates.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from shared import noise
from shared.codec import PointCodec
from shared.denoiser import Denoiser
from shared.objective.loss import first_estimate
from shared.objective.moment import noised
from shared.objective.streams import LATENT, NOISE
from shared.schedule import FromBetas, Level


@dataclass(frozen=True)
class Terms:
    """Three terms (B,): squares per coordinate, rounding in nats per element of the data."""

    denoising: Tensor
    rounding: Tensor
    prior: Tensor

    @property
    def total(self) -> Tensor:
        """The loss (B,)."""
        return self.denoising + self.rounding + self.prior


class EndToEnd(nn.Module):
    """The objective on a chain; its own weights are the biases b (K,) of the rounding softmax."""

    def __init__(self, classes: int, chain: FromBetas) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(classes))
        self.chain, self.steps = chain, len(chain.betas)
        ends = chain(torch.tensor([1 / self.steps, 1.0], dtype=torch.float64, device="cpu"))
        self.sigma_1, self.alpha_T = float(ends.sigma[0]), float(ends.alpha[1])

    def forward(
        self,
        denoiser: Denoiser,
        codec: PointCodec,
        data: Tensor,
        condition: Tensor | None,
        t: Tensor,
        keys: Tensor,
    ) -> tuple[Terms, Level]:
        """The terms of data (B, *data_shape) and the levels (B,) they were taken at.

        t (B,) in [0, 1] is rounded up to a step of the chain; keys (B,) key all noise. With
        self-conditioning as in `diffusion_loss`.
        """
        point = codec.encode(data)
        spread = noise.normal(keys, LATENT, tuple(point.shape[1:]), device=point.device)
        x0 = point + self.sigma_1 * spread.to(point)
        step = (t.double() * self.steps).ceil().clamp(1, self.steps)
        level = self.chain(step / self.steps).to(point)
        x_t = noised(x0, level, keys, NOISE)
        previous = first_estimate(denoiser, x_t, level, condition, keys)
        x0_hat = denoiser(x_t, level, condition, previous)
        is_first = (step == 1).reshape(-1, *[1] * (x0.ndim - 1))
        target = torch.where(is_first, point, x0)
        terms = Terms(
            denoising=(target - x0_hat).square().flatten(1).mean(1),
            rounding=codec.nll(self.logits(codec, x0), data) / data[0].numel(),
            prior=(self.alpha_T * x0).square().flatten(1).mean(1),
        )
        return terms, level

    def logits(self, codec: PointCodec, x0: Tensor) -> Tensor:
        """Of the rounding softmax: x0 (B, ..., C) -> (B, ..., K)."""
        return x0 @ codec.table().to(x0).T + self.bias.to(x0)
