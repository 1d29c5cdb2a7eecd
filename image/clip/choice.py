"""Pictures of a prompt under a dual encoder: which candidates are kept, and where they are led.

The logit of a picture and a caption, scale times their cosine, is at the optimum of InfoNCE the
logarithm of p(picture, caption) / (p(picture) p(caption)) up to a constant (van den Oord et al.
2018, sec. 2.3). So guidance by its gradient at scale 1 turns a model of pictures into one of
pictures of that caption, as far as the encoder and the estimate x0_hat know.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from image.beside import BesidePictures
from image.clip.encoder import Encoder, open_encoder
from image.clip.evaluation import clip_scores, cosines
from image.pipeline import Glimpse, Pipeline
from shared.codec import Codec
from shared.drawing import ClassTarget, Wrap
from shared.errors import ConfigError
from shared.guidance import through_estimate
from shared.prompts import listed
from shared.ranks import share_out
from shared.requests import SampleRequest
from shared.seeds import all_candidates


@runtime_checkable
class Visible(Protocol):
    """A codec whose latents are seen as pictures, with gradients."""

    def pictures(self, x0: Tensor) -> Tensor:
        """x0 -> pictures (B, C, H, W), about [-1, 1]."""
        ...


@dataclass(frozen=True)
class Choice:
    """A dual encoder and the point (D,) of a prompt, or of each candidate's own (N, D); of every
    picture, so many candidates."""

    encoder: Encoder
    point: Tensor
    candidates: int = 1

    @classmethod
    def of(cls, request: SampleRequest, shape: tuple[int, int, int]) -> "Choice":
        """As a request says, for pictures of a shape (C, H, W). ConfigError without a prompt."""
        assert request.clip is not None
        if request.prompt is None:
            raise ConfigError(f"clip = {request.clip}: compares pictures with words; give a prompt")
        if request.candidates > 1 and request.trajectory:
            raise ConfigError(
                "trajectory, candidates: which candidate is kept is known when all are drawn, too "
                "late to watch it; leave one of them out"
            )
        encoder = open_encoder(request.clip, shape)
        asked = listed(request.prompt, "prompt")
        if len(asked) > 1:
            raise ConfigError(
                f"clip = {request.clip}: compares all pictures with one prompt, and "
                f"{request.prompt} has {len(asked)}; give one of them"
            )
        encoder.check_prompt(asked[0])
        return cls(encoder, encoder.captions(asked)[0], request.candidates)

    def best(self, images: Tensor, levels: int) -> tuple[Tensor, Tensor]:
        """Levels (n candidates, C, H, W) -> the rows of those of the largest cosine of each picture
        (n,), the first of equals, and the CLIP scores of all (n, candidates). Scores alone would
        not do: they are 0 wherever cosines are negative."""
        points, shape = self.encoder.pictures(images, levels), (-1, self.candidates)
        best = cosines(points, self.point).unflatten(0, shape).argmax(1)
        scores = clip_scores(points, self.point).unflatten(0, shape)
        return torch.arange(len(best)) * self.candidates + best, scores

    def guide(self, codec: Codec, scale: float) -> Wrap | None:
        """What adds guidance by the logit of the prompt, seen in x0_hat; None at scale 0.
        ConfigError for a codec whose latents are no pictures."""
        if scale == 0:
            return None
        if not isinstance(codec, Visible):
            raise ConfigError(
                f"clip_scale = {scale}: no gradient goes through the pictures of a "
                f"{type(codec).__name__} codec; use a model of pixels or of an autoencoder"
            )
        logits, point = self.encoder.scale, self.point

        def log_prob(x0_hat: Tensor) -> Tensor:
            seen = self.encoder.see(codec.pictures(x0_hat))
            return logits * (seen * point.to(seen)).sum(-1)

        return lambda denoise, _: through_estimate(denoise, log_prob, scale)

    def report(self, scores: Tensor) -> dict[str, Any]:
        """Scores (n, candidates) -> what is written of them."""
        return {
            "network": self.encoder.name,
            "scores": scores.amax(1).tolist(),
            "candidates": scores.tolist(),
        }


def draw_best(
    pipeline: Pipeline,
    request: SampleRequest,
    choice: Choice | None,
    condition: Tensor | None,
    negative: Tensor | None,
    target: ClassTarget | None = None,
    watch: Callable[[Glimpse], None] | None = None,
    low: BesidePictures | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Levels (n, C, H, W) of the request's pictures, as `Pipeline.latents` draws them; with a
    choice led by it, the best of its candidates, and the scores of all (n, candidates). The
    processes of a launch draw a part of them each."""
    seeds = request.seeds
    count = 1 if choice is None else choice.candidates
    wrap = choice and choice.guide(pipeline.learner.codec, request.clip_scale)

    def drawn(part: slice) -> tuple[Tensor, Tensor | None]:
        def each(rows: Tensor) -> Tensor:
            return rows.expand(len(seeds), *rows.shape[1:])[part].repeat_interleave(count, 0)

        x0 = pipeline.latents(
            all_candidates(seeds[part], count),
            None if condition is None else each(condition),
            request,
            watch=watch,
            progress=True,
            negative=None if negative is None else each(negative),
            target=target and target._replace(ids=each(target.ids)),
            wrap=wrap,
            low=low and BesidePictures(each(low.pictures), low.noise),
        )
        images = pipeline.decode(x0).to(torch.uint8)
        if choice is None:
            return images, None
        kept, scores = choice.best(images, pipeline.facts.levels)
        return images[kept], scores

    images, scores = zip(*share_out(len(seeds), drawn), strict=True)
    return torch.cat(images).long(), None if choice is None else torch.cat(scores)
