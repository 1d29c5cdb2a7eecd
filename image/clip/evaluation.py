"""What a dual encoder says of pictures and captions.

CLIP score of a picture and its caption: 100 max(cos, 0) (Hessel et al. 2021, eq. 1, at the scale of
100 that is usual), and how often the right caption is found among 100, both beside those of real
held-out pictures of the same captions. The retrieval of the right one says more: it compares the
pictures of one caption with those of another under the same network.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from image.clip.encoder import Encoder
from image.clip.retrieval import retrieval
from image.data import Pictures


def clip_scores(pictures: Tensor, captions: Tensor) -> Tensor:
    """Points of unit length (..., D) of pictures and their captions -> scores (...), 0 to 100."""
    return 100 * cosines(pictures, captions).clamp(min=0)


def cosines(pictures: Tensor, captions: Tensor) -> Tensor:
    """The same points -> their cosines (...), in which all pairs have an order."""
    return (pictures * captions).sum(-1)


def prompted(
    encoder: Encoder,
    images: Tensor,
    held_out: Pictures,
    rows: Tensor,
    learned: Sequence[str] | None,
) -> dict[str, Any]:
    """Levels (n, C, H, W) drawn from the captions of these rows of the held-out split (n,) -> score
    and retrieval among its captions, of them and, `held_out`, of the real pictures; under `clip`,
    whose they are. `learned` are the captions that the encoder was trained on, where they are
    known."""
    assert held_out.captions is not None
    texts = list(dict.fromkeys(held_out.captions))
    places = {text: place for place, text in enumerate(texts)}
    own = torch.tensor([places[held_out.captions[row]] for row in rows.tolist()])
    captions = encoder.captions(texts)
    right = torch.zeros(len(rows), len(texts), dtype=torch.bool)
    right[torch.arange(len(rows)), own] = True

    def measured(some: Tensor) -> dict[str, float | int]:
        points = encoder.pictures(some, held_out.levels)
        scores = clip_scores(points, captions[own])
        found = retrieval(points @ captions.T, own, right)
        return {"score": float(scores.double().mean())} | _named("retrieval", found)

    ours, real = measured(images), measured(held_out.take(rows)[0])
    same = [key for key in ours if key.endswith(("_chance", "_among"))]
    asked = {texts[place] for place in own.tolist()}
    seen = None if learned is None else len(asked & set(learned))
    return {
        **{f"clip_{key}": value for key, value in ours.items()},
        **{f"clip_{key}_held_out": value for key, value in real.items() if key not in same},
        "clip": {
            "network": encoder.name,
            "images": len(images),
            "captions": len(asked),
            "captions_it_was_trained_on": seen,
            **encoder.facts,
        },
    }


def pairs(encoder: Encoder, held_out: Pictures, rows: Tensor) -> dict[str, Any]:
    """Of a dual encoder on these rows of the held-out split (n,): the score of its pairs, and how
    often the right caption of a picture, and the right picture of a caption, is found among 100."""
    assert held_out.captions is not None
    texts = [held_out.captions[row] for row in rows.tolist()]
    pictures = encoder.pictures(held_out.take(rows)[0], held_out.levels)
    captions = encoder.captions(texts)
    places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    numbers = torch.tensor([places[text] for text in texts])
    right, own = numbers[:, None] == numbers[None], torch.arange(len(texts))
    table = pictures @ captions.T
    return {
        "images": len(texts),
        "score": float(clip_scores(pictures, captions).double().mean()),
        **_named("image_to_text", retrieval(table, own, right)),
        **_named("text_to_image", retrieval(table.T, own, right)),
        "logit_scale": encoder.scale,
        "clip": {"network": encoder.name, **encoder.facts},
    }


def _named(name: str, found: dict[str, float | int]) -> dict[str, float | int]:
    return {f"{name}_{key}": value for key, value in found.items()}
