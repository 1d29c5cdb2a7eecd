"""What sentences are made from and must satisfy, as a model reads it; `text.pipeline` makes it of
words."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor

from shared.errors import ConfigError
from shared.requests import ControlRequest, EvaluateRequest, SampleRequest
from shared.sampling import Sampling
from text.control import Automata
from text.mbr import check_candidates
from text.template import Template


@dataclass(frozen=True)
class Glimpse:
    """The estimate of one sentence at one step of its denoising."""

    step: int
    logsnr: float
    text: str


@dataclass(frozen=True)
class Near:
    """Sentences to vary: rows of ids (n, L), and the time in (0, 1] that they are noised to."""

    ids: Tensor
    time: float


Rank = Literal["agreement", "sureness"]


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What n sentences are asked for.

    source: what each is written from, condition ids (n, M) or patches of pictures (n, M, D).
    start: ids that a causal model's sentences begin with. given: a template that all of them fill.
    length: how many tokens each has, of a model that is told it; drawn when not given.
    automata: one for each, which it must be accepted by; `control_scale` is how strongly the rest
    of it follows. near: what each begins as, in place of noise. Of `candidates` drawn for each, the
    best is kept, by `rank` (`text.mbr`, or `text.sureness`), and the `n_best` come along. `watch`
    sees the first one's estimates.
    """

    source: Tensor | None = None
    start: tuple[int, ...] = ()
    given: Template | None = None
    length: int | None = None
    automata: Automata | None = None
    control_scale: float = ControlRequest.control_scale
    near: Near | None = None
    candidates: int = 1
    rank: Rank = "agreement"
    n_best: int = 1
    watch: Callable[[Glimpse], None] | None = None

    def __post_init__(self) -> None:
        check_candidates(self.candidates, self.n_best)
        if self.watch is not None and self.candidates > 1:
            raise ConfigError(
                "trajectory, mbr, surest: which candidate is kept is known when all are drawn, too "
                "late to watch it; leave one of them out"
            )
        if self.automata is not None and self.given is not None:
            raise ConfigError("given and controls: say both as one control, pattern='...'")

    def each_candidate(self) -> "Ask":
        """What is asked of every single draw: each row as often as there are candidates for it."""
        k, near = self.candidates, self.near
        return replace(
            self,
            source=None if self.source is None else self.source.repeat_interleave(k, 0),
            automata=None if self.automata is None else self.automata.repeat(k),
            near=None if near is None else Near(near.ids.repeat_interleave(k, 0), near.time),
            candidates=1,
            n_best=1,
        )

    def part(self, rows: slice) -> "Ask":
        """What is asked of some of the sentences."""
        near = self.near
        return replace(
            self,
            source=None if self.source is None else self.source[rows],
            automata=None if self.automata is None else self.automata[rows],
            near=None if near is None else Near(near.ids[rows], near.time),
        )


def choice(request: SampleRequest | EvaluateRequest) -> dict[str, Any]:
    """`candidates` and `rank` of an Ask, as they are asked for. ConfigError for both ways to choose
    at once."""
    if request.surest < 1:
        raise ConfigError(f"surest = {request.surest}: expected 1 candidate a sample or more")
    if request.surest == 1:
        return {"candidates": request.mbr, "rank": "agreement"}
    if request.mbr != 1:
        raise ConfigError("mbr, surest: two ways to choose among candidates; leave one of them out")
    return {"candidates": request.surest, "rank": "sureness"}


def check_diffusion(ask: Ask, how: Sampling) -> None:
    """ConfigError for what a diffusion model cannot do."""
    if ask.automata is not None and how.clamp:
        raise ConfigError("clamp: under controls estimates stay means of words; leave it out")
    if ask.source is None and how.guided:
        raise ConfigError("guidance: towards what? Give a prompt, or leave it out")
    if how.guide is not None:
        raise ConfigError("guide: sentences are not drawn under a weaker model; leave it out")


def check_causal(ask: Ask, how: Sampling) -> None:
    """ConfigError for what the causal reference cannot do."""
    if ask.rank == "sureness":
        raise ConfigError(
            "surest: ranks what diffusion wrote; the causal reference compares by mbr"
        )
    parts = (ask.given, ask.watch, ask.automata, ask.near)
    if how.clamp or any(part is not None for part in parts):
        raise ConfigError(
            "given, controls, trajectory, clamp: the causal reference writes from left to right "
            "only; use a run with model: diffusion"
        )
    if ask.length is not None:
        raise ConfigError(
            "length: does not apply to the causal reference, which writes the end of a sentence "
            "itself; leave it out"
        )
    if how.guided or how.guide is not None or how.classifier is not None:
        raise ConfigError(
            "guidance, classifier: for diffusion; the causal reference has none, leave them out"
        )
