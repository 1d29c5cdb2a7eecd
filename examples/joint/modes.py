"""Every way to sample from a pair's denoiser, as models that `shared.drawing.draw` takes.

    joint         both sides at one level: `Together`
    conditional   the other side clean: `Alone`, with a row of `given` as the condition
    marginal      the other side all noise: `Alone`, with a row of `unknown` as the condition

(Bao et al. 2023, sec. 3.2). Classifier-free guidance that departs from `unknown` is their guidance
by the marginals, which needs no training of its own: x0_marginal + scale (x0_conditional -
x0_marginal) (ibid., sec. 3.3).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from examples.joint.sides import NOTHING, Levels, Pair, PairCodec, PairDenoise, Previous, join
from shared import noise
from shared.codec import Codec
from shared.denoiser import Denoise
from shared.groups import Groups
from shared.objective import OTHER_NOISE
from shared.schedule import Level, Schedule


@dataclass(frozen=True)
class Together:
    """The joint distribution as a Denoise of rows of both sides (B, D0 + D1)."""

    pair: PairDenoise
    codec: PairCodec
    temperature: float = 1.0

    def __call__(
        self,
        x_t: Tensor,
        level: Level,
        condition: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> Tensor:
        last = NOTHING if previous is None else Previous(*self.codec.split(previous))
        return join(self.pair(self.codec.split(x_t), (level, level), last, self.temperature))

    def tempered(self, temperature: float) -> Denoise:
        """The same with the logits of categorical sides over a temperature."""
        return replace(self, temperature=temperature)


@dataclass(frozen=True)
class Alone:
    """Side `which` (0 or 1) of a pair as a Denoise of (B, *latent_shape), given the other side as
    a condition (B, 1 + D): the time it stands at, and its noisy latent.

    ValueError without a condition, or for one of another size.
    """

    pair: PairDenoise
    codec: PairCodec
    schedule: Schedule
    which: int
    temperature: float = 1.0

    def __call__(
        self,
        x_t: Tensor,
        level: Level,
        condition: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> Tensor:
        size = 1 + self.codec.sizes[1 - self.which]
        if condition is None or condition.shape != (len(x_t), size):
            got = None if condition is None else tuple(condition.shape)
            raise ValueError(f"condition {got}: expected ({len(x_t)}, {size}), the other side")
        beside = condition[:, 1:].unflatten(1, self.codec.codecs[1 - self.which].latent_shape)
        there = self.schedule(condition[:, 0])
        states: Pair = (x_t, beside) if self.which == 0 else (beside, x_t)
        levels: Levels = (level, there) if self.which == 0 else (there, level)
        last = Previous(previous, None) if self.which == 0 else Previous(None, previous)
        return self.pair(states, levels, last, self.temperature)[self.which]

    def tempered(self, temperature: float) -> Denoise:
        """The same with the logits of categorical sides over a temperature."""
        return replace(self, temperature=temperature)


def clean_condition(x0: Tensor) -> Tensor:
    """The other side's latents (B, ...) -> the condition (B, 1 + D) that they are there, clean."""
    return torch.cat([x0.new_zeros(len(x0), 1), x0.flatten(1)], 1)


def unknown(seeds: Sequence[int], size: int, schedule: Schedule) -> Tensor:
    """The condition (B, 1 + D) that nothing is known of the other side: noise of each seed, as much
    as there is at time 1."""
    nothing = noise.normal(seeds, OTHER_NOISE, (size,))
    time = torch.ones_like(nothing[:, :1])
    return torch.cat([time, schedule(time).sigma * nothing], 1)


@dataclass(frozen=True)
class Mode:
    """One way to sample, as `shared.drawing.Model`: conditions need no training of their own."""

    denoiser: Denoise
    codec: Codec
    schedule: Schedule
    data_std: float
    weights: nn.Module
    groups: Groups

    def drops(self, names: Sequence[str] = ()) -> bool:
        return True

    def own_times(self, steps: int) -> tuple[Tensor, bool] | None:
        return None

    def parameters(self) -> Iterator[nn.Parameter]:
        return self.weights.parameters()
