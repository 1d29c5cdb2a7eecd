"""The configuration of an autoencoder of pictures."""

import math

from shared.schema import one_of, positive, schema

AUTOENCODERS = ("kl", "vq")


@schema
class AdversarialConfig:
    """A discriminator of patches beside the reconstruction loss; weight 0: none."""

    weight: float = 0.0  # of the adaptive weight; 0.5 in Rombach et al. 2022
    start: int = 0  # the step at which it joins: 50,001 there
    width: int = 64  # channels of its first layer
    layers: int = 3  # strided ones: each doubles the side of a patch

    def __post_init__(self) -> None:
        for name in ("weight", "start"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(
                    f"autoencoder.adversarial.{name} = {getattr(self, name)}: expected 0 or more"
                )
        positive("autoencoder.adversarial.width", self.width)
        positive("autoencoder.adversarial.layers", self.layers)


@schema
class AutoencoderConfig:
    """An autoencoder: `kl`, whose latents are drawn from a Gaussian, or `vq`, whose latents are
    vectors of a table. Level 0 has the pictures' size, each further one half its sides."""

    kind: str = "kl"
    channels: tuple[int, ...] = (16, 32, 64)  # of each level
    layers: int = 1  # residual blocks of a level on the way down; on the way up one more
    attention: bool = False  # in the middle
    latent_channels: int = 4
    kl_weight: float = 1e-6  # of the KL divergence per picture (Rombach et al. 2022, app. G)
    codes: int = 512
    commitment: float = 0.25  # beta (van den Oord et al. 2017, eq. 3)
    perceptual: str | None = None  # a run of model: classifier, in whose features to compare too
    perceptual_weight: float = 1.0
    adversarial: AdversarialConfig = AdversarialConfig()

    def __post_init__(self) -> None:
        one_of("autoencoder.kind", self.kind, AUTOENCODERS)
        if not self.channels or any(n < 4 or n % 4 for n in self.channels):
            raise ValueError(
                f"autoencoder.channels = {self.channels}: expected a multiple of 4 for each level"
            )
        for name in ("layers", "latent_channels", "perceptual_weight"):
            positive(f"autoencoder.{name}", getattr(self, name))
        if self.codes < 2:
            raise ValueError(f"autoencoder.codes = {self.codes}: expected 2 or more")
        for name in ("kl_weight", "commitment"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"autoencoder.{name} = {getattr(self, name)}: expected 0 or more")
