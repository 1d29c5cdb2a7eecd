"""The writer in the latents of whole sentences, for runs with operators in RUN/operators.

The tone is the operator `tone` or else `sentiment`, the audience the operator `audience`; they
guide in the exact mode, with weight `control_scale` (`text.operators`). A message of words is
encoded as it stands, noised to the time `strength`, and denoised towards them: much more often than
from noise its words are in what comes out. Of several sentences those are best that hold most of
the words, then those in which operators and decoder are surest (`text.operators.choice`). A message
that ends as a sentence does is edited in the same way, and what is near it is better. Operators
tell themselves which of them hold.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shared.errors import ConfigError
from shared.prompts import check_words
from shared.requests import WriteRequest
from shared.sampling import Sampling, Start
from shared.schema import one_of
from text.operators.choice import scores
from text.operators.control import OPERATORS, Steering, steering
from text.operators.data import read_classes
from text.operators.sampler import guided_draw
from text.parts import signs_apart
from text.pipeline import Pipeline
from text.writers.wanted import Drawn, Wanted, between_commas, check_wanted, dealt

NAMES = {"tone": ("tone", "sentiment"), "audience": ("audience",)}  # of operators, the first found
ENDS = (".", "!", "?")


@dataclass(frozen=True)
class LatentWriter:
    """A `Writer` of a message under the demands of `ask`."""

    request: WriteRequest
    ask: Steering
    message: str

    @property
    def how(self) -> Sampling:
        return self.request

    @property
    def edits(self) -> bool:
        """Whether the message is a sentence."""
        return self.message.endswith(ENDS)

    @property
    def words(self) -> list[str]:
        """Those that every sentence should hold."""
        said = " ".join(between_commas(self.message)).split()
        return [] if self.edits else list(dict.fromkeys(said))

    def parts(self) -> list["LatentWriter"]:
        if self.edits:
            sentences = re.findall(r"\S.*?[.!?](?=\s|$)", self.message)
            found = [" ".join(own) for own in dealt(sentences)]
        else:
            found = [", ".join(own) for own in dealt(between_commas(self.message))]
        return [replace(self, message=message) for message in found]

    def draw(self, seeds: Sequence[int], near: str | None) -> list[Drawn]:
        ask, begin = self.ask, self._begin(len(seeds), near)
        start = None if begin is None else Start(begin, self.request.strength)
        x0 = guided_draw(ask.learner, seeds, self.how, ask.pull(), start).to(ask.codec.shift.device)
        ids = ask.codec.words(x0, seeds)
        texts = [ask.pipeline.tokenizer.decode(row) for row in ids.tolist()]
        if self.request.surest == 1:
            return [Drawn(text) for text in texts]
        kept = begin if near is not None or self.edits else None
        surest = scores(ask.codec, ask.pull(), x0, ids, kept).tolist()
        return [
            Drawn(text, (sum(self._said(text).values()), score))
            for text, score in zip(texts, surest, strict=True)
        ]

    def _begin(self, n: int, near: str | None) -> Tensor | None:
        """The latents (n, ...) of what is to vary or else of the message, None without one.
        ConfigError for a message that the model cannot read."""
        said = self.message if self.edits else " ".join(self.words)
        if near is None and not said:
            return None
        ask = self.ask
        one = ask.encoded([said], "message") if near is None else ask.written_again([near])
        return one.expand(n, -1, -1)

    @torch.no_grad()
    def told(self, text: str) -> dict[str, float]:
        ask = self.ask
        (values,) = ask.values(ask.written_again([text]))
        held = {one.written: float(one.satisfied(values)) for one in ask.demands}
        said = self._said(text)
        found = held | {f"says {word}": there for word, there in said.items()}
        found["all"] = float(all(found.values()))
        if self.edits:
            own = self.message.split()
            found["words_kept"] = sum(word in text.split() for word in own) / len(own)
        return found

    def about(self) -> dict[str, Any]:
        return {"operators": [one.written for one in self.ask.demands], "edits": self.edits}

    def _said(self, text: str) -> dict[str, float]:
        """Whether each word is there, 1 or 0; of both, signs are words."""
        there = f" {signs_apart(text)} "
        return {word: float(f" {signs_apart(word)} " in there) for word in self.words}


def latent_writer(pipeline: Pipeline, request: WriteRequest, wanted: Wanted) -> LatentWriter:
    """ConfigError for an operator or a value that there is not, for words that are unknown, and for
    what does not apply to latents."""
    check_wanted(wanted.message, wanted.tone, wanted.audience)
    if request.guided or request.clamp:
        raise ConfigError(
            "guidance, clamp: of models of words that write from a source; how strongly operators "
            "pull is control_scale"
        )
    if not request.control_scale > 0:
        raise ConfigError(
            f"control_scale = {request.control_scale}: is the weight of operators; expected a "
            "number above 0"
        )
    run = pipeline.run
    if run is None:
        raise ConfigError("write: operators are in a run folder; use Pipeline.from_pretrained")
    asked = [
        f"{_operator(run, option, value)}={value}"
        for option in NAMES
        if (value := getattr(wanted, option)) is not None
    ]
    ask = steering(pipeline, run, asked, "exact")
    weighed = [replace(one, weight=request.control_scale) for one in ask.demands]
    writer = LatentWriter(request, replace(ask, demands=weighed), wanted.message.strip())
    begins = bool(writer.message) or request.more_like is not None
    if request.strength != WriteRequest.strength and not begins:
        raise ConfigError("strength: of a message and of variations; give one, or leave it out")
    check_words("message", " ".join(writer.words), pipeline.tokenizer)
    return writer


def _operator(run: Path, option: str, value: str) -> str:
    """The name of the operator that tells it. ConfigError for none, and for a value that it has
    not."""
    own = run / OPERATORS
    known = sorted(path.name for path in own.iterdir()) if own.is_dir() else []
    name = next((name for name in NAMES[option] if name in known), None)
    if name is None:
        raise ConfigError(
            f"{option}: is the operator {' or '.join(NAMES[option])}, and {own} has "
            f"{', '.join(known) or 'none'}; train it with diptych train text/operator "
            f"data.label_column={option} codec.run={run} run={own / option}"
        )
    try:
        one_of(option, value, read_classes(own / name))
    except ValueError as error:
        raise ConfigError(f"{error} (of the operator {name})") from None
    return name
