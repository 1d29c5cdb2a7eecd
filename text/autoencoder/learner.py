"""A sentence autoencoder as training sees it.

    loss = -log p(x | z) + beta sum_i max(KL_i, free bits),   z ~ q(z | x)

KL_i is coordinate i's divergence of q from N(0, 1), of each sentence by itself, and below
`free_bits` it is free (Kingma et al. 2016, app. C.8; per sentence as in Optimus' code). beta is 0
for the share `plain` of the run, then rises linearly during the share `ramp` (Li et al. 2020, sec.
3.3). Where the papers' plain autoencoder takes the mean, z is drawn from the start here: the
decoder then never sees a latent without noise.
"""

import torch
from torch import Tensor, nn

from shared import noise
from shared.objective.streams import ENCODE
from text.autoencoder.network import SentenceNetwork
from text.config import AutoencoderConfig


class AutoencoderLearner(nn.Module):
    """A learner as `shared.task.Panel.learner` wants it, over rows of ids (B, L)."""

    def __init__(
        self,
        network: SentenceNetwork,
        config: AutoencoderConfig,
        steps: int,
        autocast: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.network, self.config, self.steps, self.autocast = network, config, steps, autocast
        self.beta = config.beta

    def begin_step(self, step: int) -> None:
        """beta of this step."""
        self.beta = self.config.beta * rise(step / self.steps, self.config.plain, self.config.ramp)

    def forward(
        self, data: Tensor, condition: Tensor | None, keys: Tensor, t: Tensor
    ) -> tuple[Tensor, None]:
        """data (B, L) -> the loss over L, (B,). In training latents are drawn from the posterior, a
        function of the key; else they are its mean."""
        with torch.autocast(data.device.type, self.autocast, enabled=self.autocast is not None):
            mean, log_variance = self.network.encode(data)
            z = mean
            if self.training:
                eps = noise.normal(keys, ENCODE, self.network.latent_shape, device=data.device)
                z = mean + (log_variance / 2).exp() * eps
            losses = self.network.nll(data, z).sum(1)
        paid = kl_terms(mean, log_variance).clamp(min=self.config.free_bits)
        return (losses + self.beta * paid.flatten(1).sum(1)) / data.shape[1], None


def rise(share: float, plain: float, ramp: float) -> float:
    """0 up to the share `plain` of a run, 1 from `plain` + `ramp` on, linear in between."""
    if share < plain:
        return 0.0
    return min(1.0, (share - plain) / ramp) if ramp else 1.0


def kl_terms(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, e^log_variance) || N(0, 1)) of each coordinate, nats, of any shape."""
    return (mean.square() + log_variance.exp() - 1 - log_variance) / 2
