"""How varied sentences are, and how many are copies: what perplexity alone does not see.

A model that repeats one good sentence has a fine perplexity; its unigram entropy, its distinct
n-grams and the number of its distinct sentences give it away. Words are blank-separated.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence

GRAMS = (1, 2, 3)


def compute(
    predictions: Sequence[str], references: Sequence[str], training: Iterable[str]
) -> dict[str, float]:
    """Measures of `predictions`, and as `..._data` of `references`: held-out sentences, as many if
    possible, since entropy grows with the size of a sample and the share of distinct n-grams falls;
    `training` is what copies are copies of.

    ValueError when there are no predictions.
    """
    if not predictions:
        raise ValueError("diversity: no predictions were given")
    known = set(training)
    lengths = [len(sentence.split()) for sentence in predictions]
    return {
        "unigram_entropy": unigram_entropy(predictions),
        "unigram_entropy_data": unigram_entropy(references),
        **{f"distinct_{n}": distinct_n(predictions, n) for n in GRAMS},
        **{f"distinct_{n}_data": distinct_n(references, n) for n in GRAMS},
        "distinct_sentences": len(set(predictions)) / len(predictions),
        "training_copies": sum(s in known for s in predictions) / len(predictions),
        "words_mean": sum(lengths) / len(lengths),
        "words_max": max(lengths),
    }


def unigram_entropy(sentences: Iterable[str]) -> float:
    """Entropy of the words' frequencies, nats; 0 when there are none."""
    counts = Counter(word for sentence in sentences for word in sentence.split())
    total = counts.total()
    return -sum(n / total * math.log(n / total) for n in counts.values()) if total else 0.0


def distinct_n(sentences: Iterable[str], n: int) -> float:
    """Different n-grams over all n-grams, no n-gram crossing a sentence's end (Li et al. 2016)."""
    split = [sentence.split() for sentence in sentences]
    grams = [tuple(words[i : i + n]) for words in split for i in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0
