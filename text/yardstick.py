"""What sentences are measured with, whatever drew them: the data they should be like, and a judge.

Every number has the data's own beside it: held-out sentences under the same judge and, where a
number depends on how many sentences there are, as many of them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from shared.runs import Run
from shared.tables import check_split
from shared.task import Panel
from shared.tokenizer import FILE, PAD, Tokenizer, load_tokenizer
from text.config import TextConfig
from text.data import Rows, read_corpus, some, to_rows
from text.features import JUDGE, FeatureModel, JudgeFeatures, build_features
from text.judge import Judge, find_judge
from text.metrics import diversity, lengths, mauve, perplexity, self_bleu


@dataclass(frozen=True)
class Yardstick:
    """The splits of a run's data as rows of its tokenizer, and the judge of that data."""

    config: TextConfig
    tokenizer: Tokenizer
    training: Rows
    held_out: Rows
    judge: Judge
    features: FeatureModel | None = None  # what sentences are compared in; none: the judge's

    def measure(self, texts: list[str]) -> dict[str, Any]:
        """Everything that is measured of sentences, by name."""
        references = some(self.held_out_sentences, len(texts))
        ours, theirs = self._perplexity(texts), self._perplexity_held_out
        result: dict[str, Any] = {
            "samples": len(texts),
            "perplexity": ours["perplexity"],
            "perplexity_held_out": theirs["perplexity"],
            "perplexity_ratio": ours["perplexity"] / theirs["perplexity"],
            "mean_perplexity": ours["mean_perplexity"],
            "mean_perplexity_held_out": theirs["mean_perplexity"],
            **diversity.compute(texts, references, self._training),
            **self_bleu.compute(texts, references),
            **self._mauve(texts),
            **lengths.compute(
                self._lengths(texts), self._lengths(references), self._training_lengths
            ),
        }
        if self.config.data.name == "scene":
            result |= self._against_the_grammar(texts)
        return result

    @cached_property
    def compared_in(self) -> FeatureModel:
        """The model in whose features sentences are compared."""
        return self.features or JudgeFeatures(self.judge)

    def nats_per_token(self, texts: Sequence[str]) -> float:
        """Under the judge, the ends of sentences included."""
        return self._perplexity(texts)["nats_per_token"]

    @cached_property
    def nats_per_token_held_out(self) -> float:
        """Of the held-out sentences, as the model could have written them."""
        return self._perplexity_held_out["nats_per_token"]

    @cached_property
    def held_out_sentences(self) -> list[str]:
        """As the model could have written them: what the tokenizer does not know reads <unk>."""
        return [self.tokenizer.decode(ids) for ids in self.held_out.ids.tolist()]

    @cached_property
    def _training(self) -> list[str]:
        return [self.tokenizer.decode(ids) for ids in self.training.ids.tolist()]

    @cached_property
    def _perplexity_held_out(self) -> dict[str, Any]:
        return self._perplexity(self.held_out_sentences)

    @cached_property
    def _training_lengths(self) -> list[int]:
        return self._lengths(self._training)

    def _perplexity(self, texts: Sequence[str]) -> dict[str, Any]:
        return perplexity.compute(texts, self.judge.model, self.judge.tokenizer)

    def _mauve(self, texts: list[str]) -> dict[str, float]:
        """Of as many sentences as there are held-out ones to compare twice; {} for fewer than 2."""
        n = min(len(texts), len(self.held_out_sentences) // 2)
        if n < 2:
            return {}
        held_out = self.compared_in.features(some(self.held_out_sentences, 2 * n))
        ours = self.compared_in.features(texts[:n])
        return mauve.compute(ours, held_out[:n], held_out[n:])

    def _lengths(self, texts: list[str]) -> list[int]:
        """In tokens, without the end."""
        return [len(self.tokenizer.encode(text)) for text in texts]

    def _against_the_grammar(self, texts: list[str]) -> dict[str, float]:
        """The share of sentences that parse, and the perplexity of the scene world itself: the
        least that any model can have on average over its sentences."""
        from text.reader import grammatical
        from text.teller import entropy

        tokens = float((self.held_out.ids != PAD).sum() / len(self.held_out))
        return {
            "grammatical": sum(map(grammatical, texts)) / len(texts),
            "perplexity_floor": math.exp(entropy(only=self.config.data.narrowed()) / tokens),
        }


def find_yardstick(
    run: Run, panel: Panel, split: str | None = None, features: str = JUDGE
) -> Yardstick:
    """What a run is measured with, on this split of held-out data if it is named; its judge is
    trained now unless it is in the cache. ConfigError and CheckpointError for `features` that there
    are not."""
    chosen = build_features(features)
    config: TextConfig = run.config
    tokenizer = load_tokenizer(run.folder / FILE)
    measured = of_split(config, split)
    training, held_out = (
        to_rows(read_corpus(measured.data, held_out), tokenizer, measured.data)
        for held_out in (False, True)
    )
    judge = find_judge(config, training.ids, panel)
    return Yardstick(measured, tokenizer, training, held_out, judge, chosen)


def of_split(config: TextConfig, split: str | None) -> TextConfig:
    """The configuration with `split` as its held-out data, if it is named. ConfigError for data
    without splits."""
    check_split(config.data.name, split)
    if split is None:
        return config
    return replace(config, data=replace(config.data, held_out=split))
