"""Those who judge review sentences: of the half that operators have never seen.

    sentiment               a linear classifier of words, pairs and triples
    tense, person and size  the rules that made the labels (`benchmarks.sentence_labels`): exact
    fluency                 a causal model: perplexity over that of held-out sentences

None is of the operators' kind: they read latents, these read words.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.sentence_labels import RULES
from shared.runs import open_run
from shared.tokenizer import Tokenizer
from text.data import read_corpus, read_labels, to_rows
from text.judge import find_judge
from text.panel import PANEL
from text.yardstick import Yardstick

READS = 32  # tokens that the judge of fluency reads: rewritings may be longer than sentences
HELD_OUT = 2000  # sentences that perplexities are held against

Values = Mapping[str, str]


@dataclass(frozen=True)
class Judges:
    """What tells a sentence's values and its fluency."""

    sentiment: Any  # of scikit-learn
    fluency: Yardstick

    def values(self, texts: Sequence[str]) -> list[Values]:
        """Of every attribute, for each sentence."""
        told = self.sentiment.predict(list(texts))
        return [
            {"sentiment": str(label)} | {name: rule(text) for name, rule in RULES.items()}
            for label, text in zip(told, texts, strict=True)
        ]

    def perplexity_ratio(self, texts: Sequence[str]) -> float:
        """Over that of held-out sentences; of what the judge can read."""
        fits = [text for text in texts if len(text.split()) < READS]
        nats = self.fluency.nats_per_token(fits) - self.fluency.nats_per_token_held_out
        return math.exp(nats)


def find_judges(run: Path, labels: Path, tokenizer: Tokenizer) -> Judges:
    """Fitted now, the one of fluency taken from the cache if it is there."""
    config = open_run(run).config
    data = dataclasses.replace(
        config.data, name=str(labels), column="text", split="judge", held_out="validation",
        limit=None, length=READS,
    )  # fmt: skip
    config = dataclasses.replace(config, data=data)
    some = dataclasses.replace(data, limit=HELD_OUT)
    training = to_rows(read_corpus(data), tokenizer, data)
    held_out = to_rows(read_corpus(some, held_out=True), tokenizer, data)
    judge = find_judge(config, training.ids, PANEL)
    told = read_labels(dataclasses.replace(data, label_column="sentiment"))
    return Judges(classifier(*told), Yardstick(config, tokenizer, training, held_out, judge))


def classifier(sentences: Sequence[str], labels: Sequence[str]) -> Any:
    """Logistic regression on tf-idf of words, pairs and triples: sentences -> labels."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    grams = TfidfVectorizer(
        token_pattern=r"\S+", ngram_range=(1, 3), sublinear_tf=True, min_df=2, lowercase=False
    )
    made: Any = make_pipeline(grams, LogisticRegression(C=20.0, max_iter=300))
    return made.fit(list(sentences), list(labels))
