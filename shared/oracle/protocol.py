"""What every continuous oracle offers; x_t = alpha x0 + sigma eps, with sigma > 0."""

from typing import Protocol

import torch
from torch import Tensor

from shared.schedule import Level


class Oracle(Protocol):
    """A distribution of x0 (B, ...) whose noised versions are known exactly.

    The level is one for all samples, (), or one each, (B,). Score and estimate are tied by
    Tweedie's formula, score = (alpha E[x0 | x_t] - x_t) / sigma^2, whatever alpha and sigma are.
    """

    def denoise(
        self,
        x_t: Tensor,
        level: Level,
        condition: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> Tensor:
        """E[x0 | x_t], (B, ...): itself a Denoise; `previous` has nothing to add to it.

        Raises ValueError when a condition is given to an oracle that knows none.
        """
        ...

    def score(self, x: Tensor, level: Level) -> Tensor:
        """grad log p_t(x), (B, ...)."""
        ...

    def log_prob(self, x: Tensor, level: Level) -> Tensor:
        """log p_t(x), nats, (B,)."""
        ...

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """n independent draws of x0, (n, ...)."""
        ...


def refuse_condition(name: str, condition: Tensor | None) -> None:
    """ValueError when a condition is given: ignoring it would answer another question."""
    if condition is not None:
        raise ValueError(
            f"oracle: condition of shape {tuple(condition.shape)}: {name} has no components to "
            "choose from; give none, or use GaussianMixture"
        )
