"""An autoencoder as training sees it: pictures in, one loss per sample out.

    (|x - x_hat|_1 + kl_weight KL(q(z | x) | N(0, 1))) / n + perceptual + adversarial        (kl)
    |x - x_hat|_1 / n + |sg[z] - e|^2 + commitment |z - sg[e]|^2 + perceptual + adversarial    (vq)

n numbers a picture, e the code nearest to z; squares are means over the latent's numbers (Rombach
et al. 2022, app. G; van den Oord et al. 2017, eq. 3). Codes pass gradients straight through.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.vq_model import VQModel
from torch import Tensor, nn

from image.autoencoder.config import AutoencoderConfig
from image.autoencoder.critic import PatchDiscriminator, verdict
from image.autoencoder.network import chosen, decoded, encoded, nearest, posterior, table
from image.autoencoder.perceptual import Perceptual
from image.codec import Pixels
from shared import noise
from shared.objective.streams import ENCODE


class AutoencoderLearner(nn.Module):
    """A learner as `shared.task.Panel.learner` wants it, over pictures (B, C, H, W) of levels."""

    def __init__(
        self,
        network: AutoencoderKL | VQModel,
        levels: int,
        shape: tuple[int, int, int],
        config: AutoencoderConfig,
        perceptual: Perceptual | None = None,
        autocast: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.network, self.config, self.perceptual = network, config, perceptual
        self.pixels, self.autocast = Pixels(levels, shape), autocast
        adversarial = config.adversarial
        self.critic = (
            PatchDiscriminator(shape[0], adversarial.width, adversarial.layers)
            if adversarial.weight
            else None
        )
        self.judged = False

    def begin_step(self, step: int) -> None:
        """From `adversarial.start` on the discriminator has its say."""
        self.judged = self.critic is not None and step >= self.config.adversarial.start

    def forward(
        self, data: Tensor, condition: Tensor | None, keys: Tensor, t: Tensor
    ) -> tuple[Tensor, None]:
        """Losses (B,). In training, latents are drawn from the posterior, a function of the key."""
        x = self.pixels.encode(data)
        with torch.autocast(x.device.type, self.autocast, enabled=self.autocast is not None):
            z, regular = self.encode(x, keys if self.training else None)
            if not self.judged:
                return self.apart(x, self.decode(z)) + regular, None
            with _seen(self.network.decoder.conv_out) as hidden:
                x_hat = self.decode(z)
            return self._adversarial(x, x_hat, hidden[0]) + regular, None

    def encode(self, x: Tensor, keys: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x (B, C, H, W) in [-1, 1] -> latents (B, c, h, w), their mean without keys, and what the
        loss asks of them (B,)."""
        if isinstance(self.network, AutoencoderKL):
            found = posterior(self.network, x)
            z = found.mean
            if keys is not None:
                z = z + found.std * noise.normal(keys, ENCODE, tuple(z.shape[1:]))
            return z, self.config.kl_weight * found.kl() / x[0].numel()
        z = encoded(self.network, x)
        codes = table(self.network)
        e = chosen(codes, nearest(z.detach(), codes.detach()))
        regular = _mean_square(z.detach() - e) + self.config.commitment * _mean_square(
            z - e.detach()
        )
        return z + (e - z).detach(), regular

    def decode(self, z: Tensor) -> Tensor:
        """Latents as `encode` gives them -> x_hat (B, C, H, W), float32."""
        return decoded(self.network, z, quantised=True)

    def apart(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """The reconstruction loss (B,)."""
        losses = (x - x_hat).abs().flatten(1).mean(1)
        if self.perceptual is not None:
            losses = losses + self.config.perceptual_weight * self.perceptual(x, x_hat)
        return losses

    def _adversarial(self, x: Tensor, x_hat: Tensor, hidden: Tensor) -> Tensor:
        """Reconstruction and both adversarial terms; its gradient at x_hat is found first, since
        the adaptive weight needs its size."""
        assert self.critic is not None
        leaf = x_hat.detach().requires_grad_()
        losses = self.apart(x, leaf)
        pull = torch.autograd.grad(losses.sum(), leaf)[0]
        along = ((x_hat - x_hat.detach()) * pull).flatten(1).sum(1)
        said = verdict(self.critic, x, x_hat, pull, hidden, self.config.adversarial)
        return losses.detach() + along + said.fooling + said.telling


def _mean_square(x: Tensor) -> Tensor:
    return x.square().flatten(1).mean(1)


@contextmanager
def _seen(layer: nn.Module) -> Generator[list[Tensor]]:
    """Inside, the inputs of a layer, as they come."""
    inputs: list[Tensor] = []

    def see(_: nn.Module, given: tuple[Any, ...]) -> None:
        inputs.append(given[0].detach())

    handle = layer.register_forward_pre_hook(see)
    try:
        yield inputs
    finally:
        handle.remove()
