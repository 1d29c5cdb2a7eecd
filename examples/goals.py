"""What the demo aims at, beside what was measured. Nothing here is decided in advance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.report import Check

SECONDS = 360  # of training and sampling, on two cores
PEAK_BYTES = 3 * 2**30  # of any one process
DIFFERENCE = 1e-5  # of a sample alone from the same sample in a batch
PARAMETERS = 1_500_000  # of the text network
SENTENCES, DISTINCT = 256, 200
MASK = "[MASK]"


@dataclass(frozen=True)
class Measured:
    """The numbers of one demo. `images` and `texts` are evaluation.json by a run's title."""

    images: Mapping[str, dict[str, Any]]
    texts: Mapping[str, dict[str, Any]]
    given: str
    infilled: Sequence[str]
    text_parameters: int
    difference: float
    seconds: float
    peak_bytes: int


def goals(measured: Measured, claimed: bool) -> list[Check]:
    """One line a number. What a run too short to learn cannot reach is not `claimed`: its lines
    are neither met nor missed. Filling in and drawing alone must hold at any size."""
    checks: list[Check] = []
    for title, values in measured.images.items():
        checks += _images(title, values, claimed)
    for title, values in measured.texts.items():
        checks += _texts(title, values, claimed)
    kept = sum(keeps(measured.given, sentence) for sentence in measured.infilled)
    count, difference = len(measured.infilled), measured.difference
    return [
        *checks,
        Check("filling in", "given words kept", f"{kept} of {count}", "all", 0 < kept == count),
        Check(
            "all runs",
            "a sample alone, or in a batch: difference",
            f"{difference:.1e}",
            f"≤ {DIFFERENCE:.0e}",
            difference <= DIFFERENCE,
        ),
        Check(
            "all runs",
            "parameters of the text network",
            f"{measured.text_parameters:,}",
            f"≤ {PARAMETERS:,}",
            _if(claimed, measured.text_parameters <= PARAMETERS),
        ),
        Check(
            "all runs",
            "training and sampling",
            f"{measured.seconds:.0f} s",
            f"< {SECONDS} s on two cores",
            _if(claimed, measured.seconds < SECONDS),
        ),
        Check(
            "all runs",
            "memory of the largest process",
            f"{measured.peak_bytes / 2**30:.2f} GiB",
            f"≤ {PEAK_BYTES / 2**30:.0f} GiB",
            _if(claimed, measured.peak_bytes <= PEAK_BYTES),
        ),
    ]


def keeps(given: str, sentence: str) -> bool:
    """Whether a sentence has every given word in its place, and a word for each mask."""
    wanted, words = given.split(), sentence.split()
    return len(wanted) == len(words) and all(
        want in (MASK, word) for want, word in zip(wanted, words, strict=True)
    )


def _images(title: str, values: dict[str, Any], claimed: bool) -> list[Check]:
    agreement, accuracy = values["class_agreement"], values["judge"]["accuracy"]
    recall, distance, floor = (values[k] for k in ("recall", "frechet_distance", "frechet_floor"))
    return [
        Check(
            title,
            "class as asked for, says a classifier",
            f"{agreement:.1%}",
            "≥ 95%",
            _if(claimed, agreement >= 0.95),
        ),
        Check(
            title,
            "that classifier on held-out scans",
            f"{accuracy:.1%}",
            "≥ 96%",
            _if(claimed, accuracy >= 0.96),
        ),
        Check(
            title,
            f"recall of real scans (k = {values['recall_k']})",
            f"{recall:.3f}",
            "≥ 0.5",
            _if(claimed and values["recall_k"] == 3, recall >= 0.5),
        ),
        Check(title, "Fréchet distance to real scans", f"{distance:.3g}", "", None),
        Check(title, "its floor: held-out scans", f"{floor:.3g}", "", None),
    ]


def _texts(title: str, values: dict[str, Any], claimed: bool) -> list[Check]:
    grammatical, ratio = values["grammatical"], values["perplexity_ratio"]
    distinct = round(values["distinct_sentences"] * values["samples"])
    entropy, least = values["unigram_entropy"], values["unigram_entropy_data"] - 0.1
    return [
        Check(
            title,
            "parse under the grammar",
            f"{grammatical:.1%}",
            "≥ 90%",
            _if(claimed, grammatical >= 0.9),
        ),
        Check(
            title,
            "different sentences",
            f"{distinct} of {values['samples']}",
            f"≥ {DISTINCT} of {SENTENCES}",
            _if(claimed and values["samples"] == SENTENCES, distinct >= DISTINCT),
        ),
        Check(
            title,
            "entropy of words, nats",
            f"{entropy:.3f}",
            f"≥ {least:.3f} (data − 0.1)",
            _if(claimed, entropy >= least),
        ),
        Check(
            title,
            "perplexity over held-out text's",
            f"{ratio:.3f}",
            "≤ 1.3",
            _if(claimed, ratio <= 1.3),
        ),
    ]


def _if(claimed: bool, met: bool) -> bool | None:
    return met if claimed else None
