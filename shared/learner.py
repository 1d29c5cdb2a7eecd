"""A diffusion model as training sees it: data in, one loss per sample out.

The trainable module of both panels. It holds the denoiser, the codec (which may learn too) and,
when asked, the density of training times that is fitted to the loss.
"""

import torch
from torch import Tensor, nn

from shared.codec import Codec
from shared.config import DiffusionConfig
from shared.denoiser import Denoiser
from shared.density import LossDensity
from shared.objective import diffusion_loss, drop_condition
from shared.schedule import Cosine, Linear, Schedule


def build_schedule(config: DiffusionConfig) -> Schedule:
    """The schedule that a configuration names, with its ends."""
    if config.schedule == "cosine":
        return Cosine(logsnr_min=config.logsnr_min, logsnr_max=config.logsnr_max)
    return Linear(logsnr_max=config.logsnr_max)


class DiffusionLearner(nn.Module):
    """forward(data (B, ...), condition (B, M) or None, keys (B,), t (B,)) -> losses (B,) and the
    logsnr (B,) they were taken at."""

    def __init__(
        self,
        net: nn.Module,
        codec: Codec,
        config: DiffusionConfig,
        data_std: float = 1.0,
        autocast: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.denoiser = Denoiser(
            net,
            config.prediction,
            data_std,
            config.self_condition,
            codec,
            autocast,
            evidence=config.evidence,
        )
        self.codec = codec
        self.weighting, self.drop_rate = config.weighting, config.drop_condition
        self.base = build_schedule(config)
        self.density = LossDensity(self.base) if config.fit_density else None
        self.schedule = self.base

    def retime(self) -> None:
        """Take the schedule from the fitted density as it now stands."""
        if self.density is not None:
            self.schedule = self.density.schedule()

    def forward(
        self, data: Tensor, condition: Tensor | None, keys: Tensor, t: Tensor
    ) -> tuple[Tensor, Tensor]:
        if condition is not None:
            condition = drop_condition(condition, keys, self.drop_rate)
        losses, level = diffusion_loss(
            self.denoiser, self.codec, data, condition, t, keys, self.schedule, self.weighting
        )
        return losses, level.logsnr
