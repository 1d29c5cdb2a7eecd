"""How like their references sentences are: BLEU, ROUGE-L and METEOR, with all references of each
source.

BLEU is sacrebleu's corpus BLEU (Papineni et al. 2002; 13a tokens, exponential smoothing); ROUGE-L
(Lin 2004) the F-measure of the longest common subsequence of rouge-score, without stemming, the
best over a sentence's references, averaged. METEOR (Banerjee & Lavie 2005) is nltk's: equal words,
then equal Porter stems,

    10 P R / (R + 9 P) * (1 - (chunks / matches)^3 / 2)

again the best over references, averaged; without the synonyms of WordNet, which is a download, and
with nltk's alignment, which does not look for the fewest chunks where a word repeats. The data's
own BLEU is that of the first sentence of each source against its others, so with one reference
less.
"""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from sacrebleu import BLEU


def compute(
    predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float | None]:
    """Measures from 0 to 100 of predictions and their own references, one or more each. ValueError
    for a prediction without any."""
    if not predictions or not all(references):
        raise ValueError("overlap: expected predictions with one reference or more each")
    several = [own for own in references if len(own) > 1]
    return {
        "bleu": bleu(predictions, references),
        "bleu_held_out": bleu([own[0] for own in several], [own[1:] for own in several])
        if several
        else None,
        "rouge_l": rouge_l(predictions, references),
        "meteor": meteor(predictions, references),
        "references_per_source": sum(map(len, references)) / len(references),
    }


def bleu(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Corpus BLEU, 0 to 100; sentences may have different numbers of references."""
    streams = [list(stream) for stream in zip_longest(*references)]
    scorer = BLEU(force=True)  # sentences in a corpus' own tokens are no mistake
    return scorer.corpus_score(list(predictions), streams).score


def rouge_l(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """The mean of the best ROUGE-L F-measure against any reference, 0 to 100."""
    from rouge_score.rouge_scorer import RougeScorer  # seconds, which others need not wait

    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    scores = [
        scorer.score_multi(list(own), prediction)["rougeL"].fmeasure
        for prediction, own in zip(predictions, references, strict=True)
    ]
    return 100 * sum(scores) / len(scores)


def meteor(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """The mean of the best METEOR against any reference, without synonyms, 0 to 100."""
    from nltk.translate.meteor_score import meteor_score

    empty: Any = _NoSynonyms()
    scores = [
        float(meteor_score([one.split() for one in own], prediction.split(), wordnet=empty))
        for prediction, own in zip(predictions, references, strict=True)
    ]
    return 100 * sum(scores) / len(scores)


class _NoSynonyms:
    """A WordNet that holds no words."""

    def synsets(self, word: str) -> list[Any]:
        return []
