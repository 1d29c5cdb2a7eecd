"""Parts of speech of real text, learned from a few hundred tagged sentences.

The judge is a logistic regression of each word's tag on the word, its neighbours and its form
(Ratnaparkhi 1996, table 1, without the tags before), by scikit-learn; it is kept in the cache under
the digest of what it learned from. The lexicon, for the guide, only counts which tags a word had.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.errors import DataError
from text.control.cache import Fitted, fitted
from text.control.targets import Tagged
from text.control.vocabulary import Tags

VERSION = 1  # of what judges are; raise it when features or fit change
INVERSE_PENALTY = 3.0  # scikit-learn's C


@dataclass(frozen=True)
class Tagger:
    """tags (T,); weights (F, T) of the features by `index`, and of none, bias (T,)."""

    tags: tuple[str, ...]
    index: dict[str, int]
    weights: NDArray[np.float32]
    bias: NDArray[np.float32]

    def tag(self, words: Sequence[str]) -> tuple[str, ...]:
        """The most likely tag of each word of a sentence."""
        found: list[str] = []
        for place in range(len(words)):
            known = [self.index[f] for f in features(words, place) if f in self.index]
            found.append(self.tags[int((self.bias + self.weights[known].sum(0)).argmax())])
        return tuple(found)

    def accuracy(self, sentences: Iterable[Tagged]) -> float:
        """The share of words whose tag is right."""
        right = [
            ours == theirs
            for one in sentences
            for ours, theirs in zip(self.tag(one.words), one.tags, strict=True)
        ]
        return sum(right) / len(right)


def features(words: Sequence[str], place: int) -> list[str]:
    """What a word's tag may depend on."""

    def at(offset: int) -> str:
        there = place + offset
        return words[there] if 0 <= there < len(words) else ""

    word = words[place]
    return [
        f"word={word}",
        f"lower={word.lower()}",
        f"capital={word[:1].isupper()} first={place == 0}",
        f"digit={any(sign.isdigit() for sign in word)}",
        f"last 3={word[-3:]}",
        f"last 2={word[-2:]}",
        f"before={at(-1)}",
        f"after={at(1)}",
        f"two before={at(-2)} {at(-1)}",
        f"two after={at(1)} {at(2)}",
        f"before and word={at(-1)} {word}",
        f"word and after={word} {at(1)}",
    ]


def fit_tagger(sentences: Sequence[Tagged]) -> Tagger:
    """A tagger of these sentences: from the cache, or fitted now. DataError for fewer than two
    different tags."""
    if len({tag for one in sentences for tag in one.tags}) < 2:
        raise DataError(f"{len(sentences)} tagged sentences: a tagger needs two tags or more")
    stated = [VERSION, INVERSE_PENALTY, [(s.words, s.tags) for s in sentences]]
    names, held = fitted("tagger", stated, lambda: _fit(sentences))
    index = {name: i for i, name in enumerate(names["features"])}
    return Tagger(tuple(names["tags"]), index, held["weights"], held["bias"])


def lexicon(sentences: Iterable[Tagged], least: float) -> Tags:
    """The tags of every word that are at least this share of its tags."""
    counts: dict[str, Counter[str]] = {}
    for one in sentences:
        for word, tag in zip(one.words, one.tags, strict=True):
            counts.setdefault(word, Counter())[tag] += 1
    return {
        word: frozenset(tag for tag, n in found.items() if n >= least * found.total())
        for word, found in counts.items()
    }


def _fit(sentences: Sequence[Tagged]) -> Fitted:
    # scikit-learn: a second, which others need not wait
    from sklearn.feature_extraction import DictVectorizer
    from sklearn.linear_model import LogisticRegression

    vectors = DictVectorizer()
    rows = vectors.fit_transform(
        [dict.fromkeys(features(s.words, i), 1.0) for s in sentences for i in range(len(s.words))]
    )
    tags = [tag for one in sentences for tag in one.tags]
    model = LogisticRegression(C=INVERSE_PENALTY, max_iter=300).fit(rows, tags)
    weights, bias, classes = model.coef_, model.intercept_, [str(tag) for tag in model.classes_]
    if len(classes) == 2:  # one row for both
        weights, bias = np.concatenate([-weights, weights]), np.concatenate([-bias, bias])
    names = {"features": [str(name) for name in vectors.get_feature_names_out()], "tags": classes}
    return names, {
        "weights": np.ascontiguousarray(weights.T, dtype=np.float32),
        "bias": bias.astype(np.float32),
    }
