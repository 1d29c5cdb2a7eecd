"""Of several candidates for every pair the one whose picture and sentence agree most, as a dual
encoder of pictures and captions has learned to tell (`image.clip`).

It has to know the pictures' size and all words of the model, so it learns from such pairs:

    python -m examples.joint pairs CONFIG FOLDER data.split=test data.limit=4000
    diptych train image/clip_scene run=runs/clip data.name=FOLDER data.split=train \\
        data.caption_column=text
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from examples.joint.pipeline import JointPipeline
from image.clip.choice import Choice
from image.clip.encoder import Encoder, open_encoder
from shared.errors import ConfigError
from shared.levels import BYTES
from shared.requests import Request
from shared.sampling import Sampling
from shared.seeds import all_candidates
from shared.tokenizer import SPECIAL, WORD_START


@dataclass(frozen=True, kw_only=True)
class ChosenRequest(Request):
    """A request whose pairs may be the best of several.

    Attributes:
        clip: Run of a dual encoder (model: clip) of these pictures and words, or a folder of a
            CLIPModel, that scores pairs.
        candidates: Draw this many for each pair and keep the one with the best of these scores.
    """

    clip: str | None = None
    candidates: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.candidates < 1:
            raise ConfigError(f"candidates = {self.candidates}: expected 1 or more")
        if self.candidates > 1 and self.clip is None:
            raise ConfigError(
                f"candidates = {self.candidates}: by whose score? Give clip = RUN, or leave them "
                "out"
            )


class Kept(NamedTuple):
    """The best pairs, pictures (n, C, H, W), uint8, and sentences; and what `Choice.report` says of
    all that were drawn for them, if there was a choice."""

    images: Tensor
    texts: list[str]
    report: dict[str, Any] | None


@dataclass(frozen=True)
class Best:
    """A trained model, of whose candidates for a pair, so many each, a dual encoder keeps one.
    Without an encoder there is one candidate, and it is kept."""

    pipeline: JointPipeline
    encoder: Encoder | None = None
    candidates: int = 1

    @classmethod
    def of(cls, pipeline: JointPipeline, request: ChosenRequest) -> "Best":
        """As a request says. ConfigError for an encoder that has learned pictures of another size
        or does not know all words that the model writes; else as `open_encoder`."""
        if request.clip is None:
            return cls(pipeline)
        size = pipeline.config.data.size
        encoder = open_encoder(request.clip, (3, size, size))
        pieces = pipeline.tokenizer.pieces()[SPECIAL:]
        # whole words, not pieces of them: those have every character by itself, too
        if all(piece.startswith(WORD_START) for piece in pieces):
            for piece in pieces:
                _check_words(encoder, piece.removeprefix(WORD_START))
        return cls(pipeline, encoder, request.candidates)

    def pairs(self, seeds: Sequence[int], how: Sampling) -> Kept:
        """Drawn together."""
        images, texts = self.pipeline.pairs(all_candidates(seeds, self.candidates), how)
        return self._keep(images, texts)

    def images(self, seeds: Sequence[int], how: Sampling, texts: Sequence[str]) -> Kept:
        """Pictures of n sentences. ConfigError for one with a word that the encoder lacks."""
        if self.encoder is not None:
            for text in dict.fromkeys(texts):
                _check_words(self.encoder, text)
        told = [text for text in texts for _ in range(self.candidates)]
        drawn = self.pipeline.images(all_candidates(seeds, self.candidates), how, texts=told)
        return self._keep(drawn, told)

    def texts(self, seeds: Sequence[int], how: Sampling, images: Tensor) -> Kept:
        """Sentences of n pictures (n, C, H, W), uint8."""
        shown = images.repeat_interleave(self.candidates, 0)
        written = self.pipeline.texts(all_candidates(seeds, self.candidates), how, images=shown)
        return self._keep(shown, written)

    def _keep(self, images: Tensor, texts: list[str]) -> Kept:
        if self.encoder is None:
            return Kept(images, texts, None)
        choice = Choice(self.encoder, self.encoder.captions(texts), self.candidates)
        rows, scores = choice.best(images, BYTES)
        return Kept(images[rows], [texts[row] for row in rows.tolist()], choice.report(scores))


def _check_words(encoder: Encoder, said: str) -> None:
    """ConfigError unless the encoder knows all that is said."""
    try:
        encoder.check_prompt(said)
    except ConfigError as error:
        raise ConfigError(
            f"{error}. It has to know all words of this model: train it on what "
            "`python -m examples.joint pairs CONFIG FOLDER` writes (data.name=FOLDER "
            "data.split=train data.caption_column=text)"
        ) from None
