"""What a likelihood estimate says, in named units, each number with its standard error.

Nats are the unit of everything that is not named otherwise. bits = nats / ln 2.

Data are taken to be independent draws from their distribution, with noise of their own: the spread
of their nats then holds both the choice of the data and the noise, and its standard error is that
of the mean over *all* data of that kind.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Estimate(NamedTuple):
    """A mean and its standard error, which is NaN for one datum: it has no spread."""

    value: float
    error: float


@dataclass(frozen=True)
class Likelihood:
    """-log p(data) of B data, or an upper bound on it in the mean over noise, as a sum of terms.

    `terms`: name -> nats per datum (B,), float64, each the mean of `draws` draws; `dims`: elements
    of a datum; `nfe`: network evaluations a draw. ValueError unless the terms are (B,) of one B.
    """

    terms: dict[str, Tensor]
    dims: int
    draws: int
    nfe: float

    def __post_init__(self) -> None:
        shapes = {name: tuple(term.shape) for name, term in self.terms.items()}
        if len(set(shapes.values())) != 1 or any(len(shape) != 1 for shape in shapes.values()):
            raise ValueError(f"likelihood: terms of shapes {shapes}: expected (B,), all alike")

    @property
    def nats(self) -> Tensor:
        """Nats per datum (B,)."""
        return torch.stack(list(self.terms.values())).sum(0)

    @property
    def nats_per_datum(self) -> Estimate:
        """The mean over the data."""
        return _mean(self.nats)

    def term(self, name: str) -> Estimate:
        """The mean of one term, nats per datum. ValueError for a term that there is not."""
        if name not in self.terms:
            raise ValueError(f"term = {name!r}: expected one of {', '.join(self.terms)}")
        return _mean(self.terms[name])

    @property
    def bits_per_dim(self) -> Estimate:
        """nats / (dims ln 2), dims being the elements of a datum (C H W of a picture)."""
        return _mean(self.nats / (self.dims * math.log(2)))

    def nats_per_token(self, tokens: Tensor) -> Estimate:
        """All nats over all tokens, of data with tokens (B,) tokens each (or characters, words).

        A ratio of two sums: its standard error is that of nats - ratio x tokens (the linearised
        ratio). ValueError unless there is one positive number a datum.
        """
        nats = self.nats
        if tokens.shape != nats.shape or not bool((tokens > 0).all()):
            raise ValueError(
                f"tokens {tuple(tokens.shape)}, least {float(tokens.min()):g}: expected a number "
                f"above 0 for each of {len(nats)} data"
            )
        count = tokens.to(nats)
        ratio = float(nats.sum() / count.sum())
        return Estimate(ratio, _mean(nats - ratio * count).error / float(count.mean()))

    def bits_per_char(self, characters: Tensor) -> Estimate:
        """All nats over all characters, (B,) a datum, in bits; its error as in `nats_per_token`."""
        nats, error = self.nats_per_token(characters)
        return Estimate(nats / math.log(2), error / math.log(2))

    def perplexity(self, tokens: Tensor) -> Estimate:
        """exp(nats per token), at the level of the corpus; its error to first order."""
        nats, error = self.nats_per_token(tokens)
        value = float(
            torch.tensor(nats, dtype=torch.float64).exp()
        )  # infinite beyond 709 nats, where math.exp raises
        return Estimate(value, value * error)


def _mean(values: Tensor) -> Estimate:
    error = float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return Estimate(float(values.mean()), error)
