"""Perplexity of sentences under a causal judge, the end of each sentence included.

Two averages go by the one name, and differ a lot when a few texts are bad: the corpus-level
exp(sum of nats / number of tokens), and the mean over texts of each text's own perplexity, which
is what `evaluate`'s metric returns as mean_perplexity. Both are given.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch

from shared.tokenizer import EOS, PAD, Tokenizer
from text.baseline import CausalLM


@torch.no_grad()
def compute(
    predictions: Sequence[str], model: CausalLM, tokenizer: Tokenizer, batch_size: int = 64
) -> dict[str, Any]:
    """{"perplexity" (corpus level), "mean_perplexity" (over texts), "perplexities" (each text),
    "nats_per_token", "tokens"}.

    ValueError when there are no predictions or one is longer than the judge reads.
    """
    if not predictions:
        raise ValueError("perplexity: no predictions were given")
    encoded = [[*tokenizer.encode(sentence), EOS] for sentence in predictions]
    longest = max(map(len, encoded))
    if longest > model.length + 1:
        raise ValueError(
            f"perplexity: a prediction has {longest} tokens with its end, the judge reads up to "
            f"{model.length + 1}"
        )
    device = next(model.parameters()).device
    nats: list[float] = []
    for start in range(0, len(encoded), batch_size):
        some = encoded[start : start + batch_size]
        width = max(map(len, some))
        rows = [ids + [PAD] * (width - len(ids)) for ids in some]
        nats += model.nll(torch.tensor(rows, device=device)).double().sum(1).tolist()
    lengths = [len(ids) for ids in encoded]
    each = [math.exp(n / length) for n, length in zip(nats, lengths, strict=True)]
    per_token = sum(nats) / sum(lengths)
    return {
        "perplexity": math.exp(per_token),
        "mean_perplexity": sum(each) / len(each),
        "perplexities": each,
        "nats_per_token": per_token,
        "tokens": sum(lengths),
    }
