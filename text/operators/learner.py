"""An operator: p(label | latent), of clean latents or of noisy ones too.

LatentOps' classifiers see clean latents, and their energies do not depend on time. A noised
operator is told the level and learns p(label | z_t), the classifier whose gradient guides exactly
(`shared.guidance.noisy_classifier`); at the clean level it does what a clean one does.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.denoiser import unit_scaled
from shared.nets.transformer import level_features
from shared.objective.moment import noised
from shared.objective.streams import NOISE
from shared.schedule import Level, variance_preserving
from text.config import OperatorConfig

NOISIEST, CLEANEST = -10.0, 12.0  # logsnr; beyond, nothing changes


class Operator(nn.Module):
    """A learner as `shared.task.Panel.learner` wants it, over latents x0 (B, latents, dim); the
    condition (B, 1) is the class, from 1 on."""

    def __init__(
        self, latent_shape: tuple[int, ...], classes: list[str], config: OperatorConfig
    ) -> None:
        super().__init__()
        self.classes, self.noised = classes, config.noised
        width = config.width
        size = latent_shape[0] * latent_shape[1]
        self.embed = nn.Linear(size, width)
        self.level = nn.Linear(width, width) if config.noised else None
        self.body = nn.Sequential(
            *(
                layer
                for _ in range(config.depth)
                for layer in (nn.SiLU(), nn.Dropout(config.dropout), nn.Linear(width, width))
            )
        )
        self.out = nn.Linear(width, len(classes))

    def log_probs(self, z: Tensor, level: Level) -> Tensor:
        """Noisy latents z (B, ...) of any family at their level -> log p(class | z) (B, classes).
        An operator of clean latents ignores the level."""
        x = unit_scaled(z, level, 1.0)  # the VP state of the same logsnr
        h = self.embed(x.flatten(1))
        if self.level is not None:
            logsnr = level.logsnr.reshape(-1).expand(len(z)).clamp(NOISIEST, CLEANEST)
            h = h + self.level(level_features(logsnr, h.shape[1]).to(h.dtype))
        return self.out(F.silu(self.body(h))).log_softmax(-1)

    def forward(
        self, data: Tensor, condition: Tensor, keys: Tensor, t: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Cross-entropy (B,), nats; of a noised operator at logsnr uniform in its range."""
        logsnr = CLEANEST + (NOISIEST - CLEANEST) * t
        if not self.noised:
            logsnr = torch.full_like(t, torch.inf)
        level = variance_preserving(logsnr)
        log_probs = self.log_probs(noised(data, level, keys, NOISE), level)
        losses = F.nll_loss(log_probs, condition[:, 0] - 1, reduction="none")
        return losses, logsnr if self.noised else None
