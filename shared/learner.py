"""A diffusion model as training sees it: data in, one loss per sample out.

The trainable module of both panels. It holds the denoiser, the codec and the schedule (which may
learn too) and, when asked, the density of training times that is fitted to the loss.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from shared.codec import Codec, PointCodec
from shared.config import DiffusionConfig
from shared.denoiser import Denoiser
from shared.density import LossDensity, named_density
from shared.groups import ALL, Groups, check_groups
from shared.objective import (
    EndToEnd,
    Uncertainty,
    diffusion_loss,
    drop_condition,
    named_times,
    weight,
)
from shared.schedule import FromBetas, Schedule, Shifted, from_betas, sqrt_betas


def build_schedule(config: DiffusionConfig) -> Schedule:
    """The schedule that a configuration names, with its numbers and its shift; the chain itself
    where latents are learned on one."""
    if config.end_to_end is not None:
        return from_betas(sqrt_betas(config.end_to_end))
    base = config.base_schedule()
    return Shifted(base, config.shift) if config.shift else base


class DiffusionLearner(nn.Module):
    """forward(data (B, ...), condition (B, ...) or None, keys (B,), t (B,)) -> losses (B,) and the
    logsnr (B,) they were taken at. t is uniform in [0, 1]; the times are made of it here.

    `groups` of the condition's columns may be dropped and guided by one. ConfigError for a rate of
    a group that there is not. `beside(data, condition, keys)` makes the condition that the network
    reads of these ids, where it is also told something about the data themselves; with
    `drop_beside` that is dropped in training as ids are, and may be a group.
    `augment(data, keys)` makes what training sees in place of data; a model in eval mode sees them
    as they are.
    """

    def __init__(
        self,
        net: nn.Module,
        codec: Codec,
        config: DiffusionConfig,
        data_std: float = 1.0,
        autocast: torch.dtype | None = None,
        groups: Groups | None = None,
        beside: nn.Module | None = None,
        augment: Callable[[Tensor, Tensor], Tensor] | None = None,
        drop_beside: bool = False,
    ) -> None:
        super().__init__()
        self.augment, self.drop_beside = augment, drop_beside
        self.groups: Groups = groups or {}
        self.drop, self.beside = config.drop_condition, beside
        if isinstance(self.drop, dict):
            check_groups("diffusion.drop_condition", self.drop.keys() - {ALL}, self.groups)
        self.denoiser = Denoiser(
            net,
            config.prediction,
            data_std,
            config.self_condition,
            codec,
            autocast,
            evidence=config.evidence,
            scale_input=config.scale_input,
        )
        self.codec = codec
        self.weighting, self.weighs = config.weighting, config.weigh_cross_entropy
        self.base = build_schedule(config)
        self.density: LossDensity | None = None
        if config.fit_density:
            self.density = named_density(self.base, config.density_options)
        self.fitted: Schedule | None = None
        self.times = named_times(config.times, config.times_options, self.base)
        self.integral = config.integral
        self.uncertainty = Uncertainty() if config.uncertainty else None
        self.end_to_end: EndToEnd | None = None
        if config.end_to_end is not None:
            assert isinstance(codec, PointCodec)  # as the panel's configuration has checked
            assert isinstance(self.base, FromBetas)
            self.end_to_end = EndToEnd(codec.logit_channels, self.base)

    @property
    def schedule(self) -> Schedule:
        """The schedule as it now stands: the base, or the base re-timed by the fitted density."""
        return self.base if self.fitted is None else self.fitted

    @property
    def data_std(self) -> float:
        """The root mean square of x0."""
        return self.denoiser.data_std

    def own_times(self, steps: int) -> tuple[Tensor, bool] | None:
        """None: sampled at equal times (`shared.drawing.Model`)."""
        return None

    def drops(self, names: Sequence[str] = ()) -> bool:
        """Whether training drops each of these groups by itself; without names, all of the
        condition at once, which one group alone is too."""
        names = names if len(self.groups) > 1 else ()
        if not isinstance(self.drop, dict):
            return self.drop > 0 and not names
        whole = not names and self.drop.get(ALL, 0.0) > 0
        return whole or all(self.drop.get(name, 0.0) > 0 for name in names or self.groups)

    def retime(self) -> None:
        """Take the schedule from the fitted density as it now stands."""
        if self.density is not None:
            self.fitted = self.density.schedule()

    def unweighted(self, losses: Tensor, logsnr: Tensor) -> Tensor:
        """What a density is fitted to: losses (B,) at logsnr (B,), cross-entropies without their
        weights."""
        if not self.weighs:
            return losses
        return losses / weight(self.weighting, self.base.family(logsnr), self.data_std)

    def forward(
        self, data: Tensor, condition: Tensor | None, keys: Tensor, t: Tensor
    ) -> tuple[Tensor, Tensor]:
        if self.augment is not None and self.training:
            data = self.augment(data, keys)
        if self.drop_beside:
            told = self._dropped(self._told(data, condition, keys), keys)
        else:
            told = self._told(data, self._dropped(condition, keys), keys)
        return self._losses(data, told, keys, t)

    def losses(
        self, data: Tensor, condition: Tensor | None, keys: Tensor, t: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What `forward` gives, of data as they are and the whole of their condition."""
        return self._losses(data, self._told(data, condition, keys), keys, t)

    def _told(self, data: Tensor, condition: Tensor | None, keys: Tensor) -> Tensor | None:
        """The condition, with what is told beside it."""
        return condition if self.beside is None else self.beside(data, condition, keys)

    def _dropped(self, condition: Tensor | None, keys: Tensor) -> Tensor | None:
        if condition is None:
            return None
        return drop_condition(condition, keys, self.drop, self.groups)

    def _losses(
        self, data: Tensor, condition: Tensor | None, keys: Tensor, t: Tensor
    ) -> tuple[Tensor, Tensor]:
        if self.end_to_end is not None:
            assert isinstance(self.codec, PointCodec)
            terms, level = self.end_to_end(self.denoiser, self.codec, data, condition, t, keys)
            return terms.total, level.logsnr
        t, density = self.times(t)
        losses, level = diffusion_loss(
            self.denoiser,
            self.codec,
            data,
            condition,
            t,
            keys,
            self.schedule,
            self.weighting,
            density if self.integral else None,
        )
        if self.weighs:
            losses = losses * weight(self.weighting, level, self.data_std)
        if self.uncertainty is not None:
            losses = self.uncertainty(losses, level.logsnr)
        return losses, level.logsnr
