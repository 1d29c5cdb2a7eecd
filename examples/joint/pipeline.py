"""A trained joint run as functions from seeds to pictures and sentences.

    pipe = JointPipeline.from_pretrained("runs/joint")
    pipe.pairs(seeds, how)                              # pictures and their sentences
    pipe.images(seeds, how, texts=["a red star ."])     # of sentences; without, of anything
    pipe.texts(seeds, how, images=images)               # of pictures; without, of anything
    pipe.images(seeds, how, vary=images, strength=0.5)  # near these pictures

Sample i is a function of seeds[i] and of what it is given alone. The processes of a launch draw a
part of the samples each.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from examples.joint.config import SIDES, JointConfig, LatentsConfig
from examples.joint.learner import JointLearner
from examples.joint.modes import clean_condition, unknown
from examples.joint.panel import PANEL
from image.grid import to_bytes
from shared import runs
from shared.drawing import draw
from shared.errors import CheckpointError, ConfigError
from shared.levels import BYTES
from shared.prompts import pad_rows, sentence_ids
from shared.ranks import share_out
from shared.sampling import Sampling, Start, check_strength
from shared.tokenizer import EOS, FILE, Tokenizer, load_tokenizer

IMAGE, TEXT = 0, 1


@dataclass(frozen=True)
class JointPipeline:
    """A trained model with its tokenizer."""

    learner: JointLearner
    tokenizer: Tokenizer
    config: JointConfig

    @classmethod
    def from_pretrained(cls, run: str | Path, weights: str = "ema") -> "JointPipeline":
        """A run folder. CheckpointError when it is none, or one of a panel."""
        folder = Path(run)
        if not (folder / "config.yaml").is_file():
            raise CheckpointError(f"{folder}: no run folder; train one with examples.joint train")
        config: JointConfig = runs.read_config(folder, PANEL)
        learner = runs.trained(folder, PANEL, config, weights)
        assert isinstance(learner, JointLearner)
        learner.denoiser.autocast = None  # bfloat16 products depend on the shape of the batch
        return cls(learner, load_tokenizer(folder / FILE), config)

    @property
    def device(self) -> torch.device:
        return next(self.learner.parameters()).device

    def pairs(self, seeds: Sequence[int], how: Sampling) -> tuple[Tensor, list[str]]:
        """Pictures (n, C, H, W), uint8, and sentences, drawn together."""
        self._check(how, draws=None)
        if how.guided:
            raise ConfigError(
                f"guidance = {how.guidance}: pairs are drawn from nothing; leave it out"
            )
        model = self.learner.together()
        x0 = _shared(len(seeds), lambda rows: draw(model, seeds[rows], how, label="pairs"))
        images, words = self.learner.codec.split(x0)
        return self._images(images), self._texts(words)

    def images(
        self,
        seeds: Sequence[int],
        how: Sampling,
        texts: Sequence[str] | None = None,
        vary: Tensor | None = None,
        strength: float = 0.5,
    ) -> Tensor:
        """Pictures (n, C, H, W), uint8: of n sentences, or of any; near the pictures `vary`."""
        beside = None if texts is None else self._encode(TEXT, self.rows(texts))
        near = None if vary is None else self._encode(IMAGE, vary)
        return self._images(self._draw(IMAGE, seeds, how, beside, near, strength))

    def texts(
        self,
        seeds: Sequence[int],
        how: Sampling,
        images: Tensor | None = None,
        vary: Sequence[str] | None = None,
        strength: float = 0.5,
    ) -> list[str]:
        """Sentences: of n pictures (n, C, H, W), uint8, or of any; near the sentences `vary`."""
        beside = None if images is None else self._encode(IMAGE, images)
        near = None if vary is None else self._encode(TEXT, self.rows(vary))
        return self._texts(self._draw(TEXT, seeds, how, beside, near, strength))

    def fits(self, text: str) -> bool:
        """Whether the model knows all words of a sentence and has room for it."""
        ids = self.tokenizer.encode(text)
        return 0 < len(ids) < self.config.data.length and not self.tokenizer.unknown(text)

    def rows(self, texts: Sequence[str]) -> Tensor:
        """Sentences -> rows of ids (n, L), their end included. ConfigError for an unknown word, and
        for a sentence that is empty or too long."""
        length = self.config.data.length
        rows = sentence_ids(texts, self.tokenizer, length, "prompt")
        return pad_rows(([*ids, EOS] for ids in rows), length)

    def _draw(
        self,
        which: int,
        seeds: Sequence[int],
        how: Sampling,
        beside: Tensor | None,
        near: Tensor | None,
        strength: float,
    ) -> Tensor:
        """x0 of one side (n, *latent_shape), given the other side's, or from noise of it."""
        self._check(how, draws=which)
        check_strength(strength)
        nothing = unknown(seeds, self.learner.codec.sizes[1 - which], self.learner.schedule)
        if beside is None and how.guided:
            raise ConfigError(
                f"guidance = {how.guidance}: towards what? Give a sentence or a picture, or leave "
                "it out"
            )
        if beside is None and self.config.alone is not None:
            raise ConfigError(
                f"this run has alone = {self.config.alone}: it draws only given the other side"
            )
        condition = nothing if beside is None else clean_condition(beside)
        model, label = self.learner.one(which), ("pictures", "sentences")[which]

        def drawn(rows: slice) -> Tensor:
            return draw(
                model,
                seeds[rows],
                how,
                condition=condition[rows],
                negative=nothing[rows] if how.guided else None,
                start=None if near is None else Start(near[rows], strength),
                label=label,
            )

        return _shared(len(seeds), drawn)

    def _check(self, how: Sampling, draws: int | None) -> None:
        alone = self.config.alone
        if alone is not None and draws != SIDES.index(alone):
            raise ConfigError(f"this run has alone = {alone}: it draws nothing else")
        if how.solver == "auto" and draws is not None:
            raise ConfigError(
                "solver = 'auto': fits its grid to a model without conditions, and one side has "
                "the other as its condition; choose another solver"
            )
        if how.temperature != 1 and (draws == IMAGE or self.config.latents.text is not None):
            what = "pictures" if draws == IMAGE else "latents"
            raise ConfigError(
                f"temperature = {how.temperature}: of words; {what} have no logits, leave it out"
            )
        latents = self.config.latents
        pairs_in_latents = draws is None and latents != LatentsConfig()
        if how.clamp and (pairs_in_latents or (draws == TEXT and latents.text is not None)):
            raise ConfigError(
                "clamp: of words and pixels; this run has latents of autoencoders, leave it out"
            )
        for name in ("guide", "classifier"):
            if getattr(how, name) is not None:
                raise ConfigError(f"{name}: a joint model is guided by its marginals; leave it out")
        how.one_scale()

    def _encode(self, which: int, data: Tensor) -> Tensor:
        return self.learner.codec.codecs[which].encode(data.to(self.device)).cpu()

    @torch.no_grad()
    def _images(self, x0: Tensor) -> Tensor:
        levels = self.learner.codec.codecs[IMAGE].decode(x0.to(self.device))
        return to_bytes(levels.cpu(), BYTES)

    @torch.no_grad()
    def _texts(self, x0: Tensor) -> list[str]:
        ids = self.learner.codec.codecs[TEXT].decode(x0.to(self.device)).tolist()
        return [self.tokenizer.decode(row) for row in ids]


def _shared(n: int, drawn: Callable[[slice], Tensor]) -> Tensor:
    """x0 (n, ...) of all the parts that processes have drawn."""
    return torch.cat(share_out(n, drawn))
