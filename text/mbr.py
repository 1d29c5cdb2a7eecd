"""Minimum Bayes risk: of several sentences drawn alike, the one that the others agree with most.

    choice = argmax over w in S of the mean of u(w, w') over the other w' in S

S are draws of one model, so the mean estimates a sentence's expected utility under it; a bad draw
is unlike the others and loses (Kumar & Byrne 2004; Li et al. 2022, where the loss is -u). Copies
are not thrown away: a sentence drawn k times is k members of S, weighs k, and is ranked once.

u is sentence BLEU, the sentence as hypothesis and every other draw in turn as its reference. (The
code that Li et al. released has the two the other way round, and add-one smoothing.)
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.progress import track
from sacrebleu import BLEU

from shared.errors import ConfigError

SCORER = BLEU(effective_order=True)  # made once: sentence_bleu makes one a call, twice its work
Utility = Callable[[str, str], float]


@dataclass(frozen=True)
class Candidate:
    """A sentence with the score that ranks it, its mean utility against the other draws (None when
    there are none) or -loss (`text.sureness`); how many draws gave it, and the least of their
    seeds."""

    text: str
    score: float | None
    count: int
    seed: int


def check_candidates(count: int, n_best: int) -> None:
    """ConfigError unless 1 <= n_best <= count."""
    if count < 1:
        raise ConfigError(f"mbr = {count}: expected 1 candidate a sample or more")
    if not 1 <= n_best <= count:
        raise ConfigError(
            f"n_best = {n_best}: expected 1 to {count}, the candidates drawn for a sample; more "
            "are drawn with mbr"
        )


def bleu(hypothesis: str, reference: str) -> float:
    """As sacrebleu's sentence_bleu: 0 to 100, 13a words, orders up to 4 or as many as the
    hypothesis has words, exponential smoothing."""
    return SCORER.sentence_score(hypothesis, [reference]).score


def rank(texts: Sequence[str], seeds: Sequence[int], utility: Utility = bleu) -> list[Candidate]:
    """Draws and their seeds -> the different sentences among them, best first.

    `utility(hypothesis, reference)` is high when they agree. The order of the draws does not
    matter: of equals, the one drawn more often comes first, then the alphabet decides.
    """
    counts = Counter(texts)
    return best_first(texts, seeds, lambda text: _mean_utility(text, counts, utility))


def best_first(
    texts: Sequence[str], seeds: Sequence[int], score: Callable[[str], float | None]
) -> list[Candidate]:
    """The different sentences among draws, with their seeds, by falling score."""
    seeds_of: dict[str, list[int]] = {}
    for text, seed in zip(texts, seeds, strict=True):
        seeds_of.setdefault(text, []).append(seed)
    ranked = [Candidate(text, score(text), len(own), min(own)) for text, own in seeds_of.items()]
    return sorted(ranked, key=lambda c: (-(c.score or 0.0), -c.count, c.text))


def rank_each(
    texts: Sequence[str], seeds: Sequence[int], count: int, progress: bool = False
) -> list[list[Candidate]]:
    """The draws of several samples, `count` of each in turn -> `rank` of every sample's own."""
    starts = track(
        range(0, len(texts), count),
        "choosing",
        console=Console(stderr=True),
        disable=not progress or count == 1,
    )
    return [rank(texts[i : i + count], seeds[i : i + count]) for i in starts]


def _mean_utility(text: str, counts: dict[str, int], utility: Utility) -> float | None:
    """The mean over all draws but one of `text`; fsum, whose sum does not depend on the order."""
    others = {other: count - (other == text) for other, count in counts.items()}
    total = sum(others.values())
    if total == 0:
        return None
    weighed = (count * utility(text, other) for other, count in others.items() if count)
    return math.fsum(weighed) / total
