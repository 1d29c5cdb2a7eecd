"""What every writer of `diptych write` has in common, whatever kind of run it writes with.

A paragraph is a few sentences one after another. The parts of the message are dealt out among them,
in order and as evenly as can be; where there are too few parts every sentence is of all of it, and
only the noise it begins with is another.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

from shared.errors import ConfigError
from shared.requests import WriteRequest
from shared.sampling import Sampling

SENTENCES = 3  # of a paragraph, at most
USE_CASES = ("sentence", "paragraph")


@dataclass(frozen=True)
class Wanted:
    """What is asked for in words; empty or None where open. What they mean is the writer's."""

    message: str
    tone: str | None
    audience: str | None


class Drawn(NamedTuple):
    """A sentence, and what ranks it among others: the larger, the better; empty where nothing is
    to be chosen."""

    text: str
    score: tuple[float, ...] = ()


class Writer(Protocol):
    """Writes sentences of one wish, and tells what each of them has of it."""

    @property
    def how(self) -> Sampling:
        """How they are drawn."""
        ...

    def parts(self) -> Sequence["Writer"]:
        """A writer for each sentence of a paragraph."""
        ...

    def draw(self, seeds: Sequence[int], near: str | None) -> list[Drawn]:
        """A sentence for each seed, or a variation of `near`. ConfigError for what the model cannot
        do."""
        ...

    def told(self, text: str) -> dict[str, float]:
        """What was asked of a sentence -> 1 where it holds, else 0; `all` of it together."""
        ...

    def about(self) -> dict[str, Any]:
        """What it made of the wish, to be written beside the sentences."""
        ...


def check_wanted(message: str, tone: str | None, audience: str | None) -> None:
    """ConfigError when nothing is asked for."""
    if not (message or tone or audience):
        raise ConfigError("write: say a message, a tone or an audience")


def check_strength_used(request: WriteRequest) -> None:
    """ConfigError for a strength where only variations have one, and none is asked for."""
    if request.strength != WriteRequest.strength and request.more_like is None:
        raise ConfigError("strength: of variations; give more_like, or leave it out")


def between_commas(message: str) -> list[str]:
    """The parts of a message that are not blank."""
    return [part.strip() for part in message.split(",") if part.strip()]


def dealt(parts: Sequence[str], least: int = 1) -> list[list[str]]:
    """The parts of each sentence of a paragraph, no fewer than `least`; see above."""
    count = min(SENTENCES, len(parts) // least)
    if count < 2:
        return [list(parts)] * SENTENCES
    ends = [len(parts) * k // count for k in range(count + 1)]
    return [list(parts[begin:end]) for begin, end in pairwise(ends)]
