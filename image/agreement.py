"""Whether pictures show what was asked for: as scenes are read exactly, under a judge of classes,
or under a judge of the words of captions."""

import torch
from torch import Tensor

from image.judge import Judge
from image.reader import read
from shared.scene import ATTRIBUTES, Thing, from_ids, unseen

AMONG = 100  # captions that the right one is to be found among


def scene_agreement(images: Tensor, asked: Tensor) -> dict[str, float]:
    """Levels (n, 3, size, size) and scene ids (n, M) -> shares of pictures that are readable and
    that show the whole scene; of things asked for, those that have each attribute where they should
    be (nothing there: none of them), and all; and the mean over attributes."""
    readings = read(images.to(torch.uint8))
    wanted = [from_ids(row).things for row in asked.tolist()]
    pairs = _pairs(wanted, readings)
    shares = {f"{name}_agreement": _share(pairs, (name,)) for name in ATTRIBUTES}
    return {
        "readable": sum(things is not None for things in readings) / len(readings),
        "scene_agreement": sum(a == b for a, b in zip(wanted, readings, strict=True)) / len(wanted),
        **shares,
        "attribute_agreement": sum(shares.values()) / len(shares),
        "thing_agreement": _share(pairs, tuple(ATTRIBUTES)),
    }


def unseen_agreement(images: Tensor, asked: Tensor) -> dict[str, float]:
    """As `scene_agreement`, and of the things in a shape and colour that no training scene has
    together, the share that show both."""
    readings = read(images.to(torch.uint8))
    pairs = _pairs([from_ids(row).things for row in asked.tolist()], readings)
    new = [(thing, found) for thing, found in pairs if unseen(thing)]
    return scene_agreement(images, asked) | {"unseen_pairs": _share(new, ("shape", "colour"))}


def class_agreement(judge: Judge, images: Tensor, asked: Tensor) -> dict[str, float]:
    """Levels (n, C, H, W) and class ids (n, 1) -> the share that the judge takes for it."""
    found = judge.labels(judge.features(images))
    return {"class_agreement": float((found == asked[:, 0]).double().mean())}


def caption_retrieval(judge: Judge, images: Tensor, asked: Tensor) -> float:
    """Levels (n, C, H, W) and rows of word ids (n, M) -> the share of pictures whose own caption is
    the likeliest of AMONG, or of all n when there are fewer, under a judge of words.

    The judge tells each word apart: log p(words | picture) is, up to what is the same for all
    captions, the sum of the logits of a caption's words. Of equally likely captions each counts in
    part.
    """
    logits = judge.scores(images)
    there = torch.zeros(len(asked), logits.shape[1] + 1).scatter_(1, asked, 1.0)[:, 1:]
    right = 0.0
    for rows in torch.arange(len(asked)).split(AMONG):
        scores = logits[rows] @ there[rows].T
        own = scores.diagonal()[:, None]
        best = own[:, 0] >= scores.amax(1)
        right += float((best / (scores >= own).sum(1)).sum())
    return right / len(asked)


def _pairs(
    wanted: list[tuple[Thing, ...]], readings: list[tuple[Thing, ...] | None]
) -> list[tuple[Thing, Thing | None]]:
    """Each thing that was asked for, and what stands in its place."""
    return [
        (thing, {found.place: found for found in things or ()}.get(thing.place))
        for asked, things in zip(wanted, readings, strict=True)
        for thing in asked
    ]


def _share(pairs: list[tuple[Thing, Thing | None]], names: tuple[str, ...]) -> float:
    right = [
        found is not None and all(getattr(found, name) == getattr(thing, name) for name in names)
        for thing, found in pairs
    ]
    return sum(right) / len(right)
