"""Whether pictures and sentences say the same, by the exact readers of both panels.

Every mode gives pairs: a held-out sentence and the picture drawn from it, a held-out picture and
the sentence written of it, or both drawn together. A pair agrees when both can be read and the
picture shows all that the sentence says. Attributes are those that are said, of things matched as
well as they can be; where a sentence does not parse nothing is said, where a picture is no drawing
nothing is shown. With `shuffle` every sample is held against the condition of another: what chance
gives. With a dual encoder (`clip`) each of these pairs is the best of its candidates.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Annotated, Any

import tyro
from torch import Tensor

from examples.joint.choice import Best, ChosenRequest
from examples.joint.data import Captioned
from examples.joint.pipeline import JointPipeline
from image import reader as pictures
from shared.errors import ConfigError, DataError
from shared.scene import Thing, possible, relations
from shared.scene_facts import Facts, log_prob, true_of
from text import reader as sentences

Things = tuple[Thing, ...]


@dataclass(frozen=True, kw_only=True)
class JointEvaluation(ChosenRequest):
    """What to measure.

    Attributes:
        n: Samples of each mode; at most as many conditional ones as there are held-out pairs.
        shuffle: Hold every sample against the condition of another, to show what chance gives.
    """

    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 256
    solver: str = "ancestral"
    steps: int = 64
    shuffle: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shuffle and self.n < 2:
            raise ConfigError(
                f"n = {self.n}, shuffle: holds samples against each other's conditions; give n = 2 "
                "or more"
            )


def evaluate(
    pipeline: JointPipeline, held_out: Captioned, request: JointEvaluation
) -> dict[str, Any]:
    """Shares by mode. ConfigError unless the held-out pairs are scenes, DataError when no sentence
    of theirs fits, or too few to shuffle."""
    if held_out.scenes is None:
        raise ConfigError(
            f"data.name = {pipeline.config.data.name!r}: agreement is read exactly in the scene "
            "world only"
        )
    best = Best.of(pipeline, request)
    fits = _fitting(pipeline, held_out.sentences, request)
    told, shown = [held_out.sentences[i] for i in fits], held_out.images[fits]
    detail, alone = pipeline.config.data.detail, pipeline.config.alone
    free = replace(request, guidance=1.0, guidance_interval=None)
    found: dict[str, Any] = {"held_out": len(fits), "n": request.n, "shuffled": request.shuffle}

    def agreed(texts: Sequence[str], images: Tensor) -> dict[str, float]:
        rolled = images.roll(1, 0) if request.shuffle else images
        return agreement(read_texts(texts, detail), pictures.read(rolled))

    if best.encoder is not None:
        found["clip"] = {"network": best.encoder.name, **best.encoder.facts}
    if alone != "text":
        kept = best.images(request.seeds[: len(fits)], request, told)
        found["text_to_image"] = agreed(told, kept.images)
    if alone != "image":
        kept = best.texts(request.seeds[: len(fits)], request, shown)
        found["image_to_text"] = agreed(kept.texts, shown)
    if alone is None:
        kept = best.pairs(request.seeds, free)
        found["joint"] = agreed(kept.texts, kept.images)
        found["image"] = _drawings(pictures.read(pipeline.images(request.seeds, free)))
        found["text"] = _language(read_texts(pipeline.texts(request.seeds, free), detail))
    return found


def _fitting(
    pipeline: JointPipeline, sentences: Sequence[str], request: JointEvaluation
) -> list[int]:
    """Places of the first n held-out sentences that fit."""
    fits = [i for i, text in enumerate(sentences) if pipeline.fits(text)][: request.n]
    if not fits:
        data = pipeline.config.data
        raise DataError(
            f"data.held_out = {data.held_out!r}: none of {len(sentences)} sentences there fits "
            f"the model, of at most {data.length - 1} tokens that it knows, such as "
            f"{sentences[0]!r}; expected sentences like those it was trained on"
        )
    if request.shuffle and len(fits) < 2:
        raise DataError(
            "shuffle: 1 held-out sentence fits the model, and it is held against that of another; "
            "leave it out"
        )
    return fits


def read_texts(texts: Sequence[str], detail: str) -> list[Facts | None]:
    """What each sentence says; None where it does not parse."""
    return [sentences.read(text, detail) for text in texts]


def agreement(said: Sequence[Facts | None], shown: Sequence[Things | None]) -> dict[str, float]:
    """Pairs of what is said and what is shown -> shares: of sentences that parse, of pictures that
    can be read, of pairs that agree in all; and of what parsed sentences say, by attribute, what
    their picture shows (count: of them, whose number of things it does)."""
    total, right = Counter[str](), Counter[str]()
    for facts, things in zip(said, shown, strict=True):
        if facts is None:
            continue
        there = things or ()
        total["count"] += 1
        right["count"] += len(facts.things) == len(there)
        asked, found = _best_match(facts, there)
        total += asked
        right += found
    both = [(facts, things) for facts, things in zip(said, shown, strict=True)]
    agree = sum(
        facts is not None and things is not None and true_of(facts, things)
        for facts, things in both
    )
    return {
        "grammatical": sum(facts is not None for facts in said) / len(said),
        "readable": sum(things is not None for things in shown) / len(shown),
        "agree": agree / len(both),
        **{name: right[name] / total[name] for name in sorted(total)},
    }


def _best_match(facts: Facts, things: Things) -> tuple[Counter[str], Counter[str]]:
    """What is said by attribute, and how much of it holds under the matching of parts to things
    that makes most of it hold; a part may be matched to no thing."""
    asked = Counter(str(name) for name, *about in facts.values() if about)
    places: list[Thing | None] = [*things, *[None] * len(facts.things)]
    best = Counter[str]()
    for order in permutations(places, len(facts.things)):
        held = Counter[str]()
        for part, thing in zip(facts.things, order, strict=True):
            for name, value in zip(part._fields, part, strict=True):
                held[name] += (
                    value is not None and thing is not None and value == getattr(thing, name)
                )
        for subject, name, other in facts.relations:
            a, b = order[subject], order[other]
            held["relation"] += (
                a is not None
                and b is not None
                and a is not b
                and name in relations(a.place, b.place)
            )
        if held.total() > best.total():
            best = held
    return asked, best


def _drawings(shown: Sequence[Things | None]) -> dict[str, float]:
    """Shares of pictures that can be read, and that show a scene of this world."""
    good = [things is not None and possible(things) for things in shown]
    return {
        "readable": sum(things is not None for things in shown) / len(shown),
        "possible": sum(good) / len(good),
    }


def _language(said: Sequence[Facts | None]) -> dict[str, float]:
    """Shares of sentences that parse, and that are true of some scene."""
    good = [facts is not None and log_prob(facts) > float("-inf") for facts in said]
    return {
        "grammatical": sum(facts is not None for facts in said) / len(said),
        "possible": sum(good) / len(good),
    }
