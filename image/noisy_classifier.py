"""What a noisy picture shows: p_t(y | x_t) at every noise level, to guide by (Dhariwal & Nichol
2021, sec. 4).

The residual network of the judge, over latents, told the noise level by a scale and a shift after
the second norm of each block (as in their sec. 3). It sees x_t / sqrt(sigma^2 + alpha^2 data_std^2)
and logsnr, so it guides models of any schedule and family over the same latents. Trained on noised
latents at the levels of `diffusion.schedule`, uniform in its time.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from image.classifier import Block, jittered, label_losses, stages
from image.config import ImageConfig
from image.data import DataFacts, Pictures
from image.latent import channels_of, to_channels
from shared import noise
from shared.codec import Codec
from shared.denoiser import unit_scaled
from shared.learner import build_schedule
from shared.nets.transformer import level_features
from shared.objective.moment import noised
from shared.objective.streams import NOISE
from shared.schedule import Level

LEVELS = (6.0, 3.0, 0.0, -3.0, -6.0)  # logsnr that its accuracy is told at
PICTURES = 256  # that it is asked about at once


class NoisyClassifier(nn.Module):
    """A learner as `shared.task.Panel.learner` wants it, over pictures (B, C, H, W) of levels.

    With conditions of one id it learns which one; of several (a scene), which of all ids are there.
    `log_prob` is a `shared.guidance.LogProb`.
    """

    def __init__(
        self,
        config: ImageConfig,
        facts: DataFacts,
        codec: Codec,
        autocast: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.codec, self.autocast = codec, autocast
        self.data_std, self.several = facts.data_std, not facts.classes
        self.schedule = build_schedule(config.diffusion)
        width = config.judge.width
        self.dim = 2 * width
        self.level = nn.Sequential(
            nn.Linear(self.dim, self.dim), nn.SiLU(), nn.Linear(self.dim, self.dim), nn.SiLU()
        )
        layers, channels = stages(
            channels_of(codec.latent_shape), min(codec.latent_shape[1:3]), width, self.dim
        )
        self.body = nn.ModuleList(layers)
        self.head = nn.Sequential(
            nn.GroupNorm(8, channels), nn.SiLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(),
            nn.Linear(16 * channels, self.dim), nn.SiLU(), nn.Dropout(config.judge.dropout),
            nn.Linear(self.dim, facts.conditions - 1),
        )  # fmt: skip

    def logits(self, x_t: Tensor, level: Level) -> Tensor:
        """x_t (B, *latent_shape) at its level, of any family -> one logit per condition id from 1
        on, (B, conditions - 1), float32."""
        x = unit_scaled(x_t, level, self.data_std)
        logsnr = level.logsnr.reshape(-1).expand(len(x))
        with torch.autocast(x.device.type, self.autocast, enabled=self.autocast is not None):
            told = self.level(level_features(logsnr, self.dim))
            h = to_channels(x.float(), None, False)
            for layer in self.body:
                h = layer(h, told) if isinstance(layer, Block) else layer(h)
            return self.head(h).float()

    def log_prob(self, x_t: Tensor, level: Level, condition: Tensor | None) -> Tensor:
        """log p(condition | x_t) (B,), nats; of several ids, that all of them are there."""
        assert condition is not None
        logits = self.logits(x_t, level)
        if not self.several:
            return logits.log_softmax(1).gather(1, condition - 1)[:, 0]
        there = F.logsigmoid(logits).gather(1, (condition - 1).clamp(min=0))
        return (there * (condition != 0)).sum(1)

    def forward(
        self, data: Tensor, condition: Tensor, keys: Tensor, t: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Losses (B,), nats, as the judge's, and the logsnr (B,) they were taken at. In training
        each picture is shifted by a few pixels; that and its noise are functions of its key."""
        if self.training:
            data = jittered(data, keys)
        x0 = self.codec.encode(data)
        level = self.schedule(t)
        x_t = noised(x0, level, keys, NOISE)
        return label_losses(self.logits(x_t, level), condition, self.several), level.logsnr


@torch.no_grad()
def accuracy_by_level(model: NoisyClassifier, held_out: Pictures) -> dict[str, float]:
    """The share of held-out pictures whose class it tells at each logsnr of LEVELS; of a model of
    several ids, its mean loss there, nats. Row i has the noise of seed i."""
    device = next(model.parameters()).device
    found: dict[str, list[Tensor]] = {f"logsnr {logsnr:g}": [] for logsnr in LEVELS}
    for rows in torch.arange(len(held_out)).split(PICTURES):
        images, condition = held_out.take(rows)
        assert condition is not None
        condition, x0 = condition.to(device), model.codec.encode(images.to(device))
        eps = noise.normal(rows.tolist(), NOISE, tuple(x0.shape[1:]), device=device)
        for logsnr, parts in zip(LEVELS, found.values(), strict=True):
            level = model.schedule.family(torch.tensor(logsnr, device=device))
            logits = model.logits(level.alpha * x0 + level.sigma * eps, level)
            right = logits.argmax(1) + 1 == condition[:, 0]
            losses = label_losses(logits, condition, model.several)
            parts.append((losses if model.several else right).double().cpu())
    return {name: float(torch.cat(parts).mean()) for name, parts in found.items()}
