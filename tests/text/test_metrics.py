"""Perplexity and diversity against computation by hand."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from shared.tokenizer import EOS, PAD, train_tokenizer
from text.metrics import diversity, perplexity


class Table(nn.Module):
    """A judge whose probabilities are known: every token costs a fixed number of nats."""

    def __init__(self, nats: dict[int, float], length: int) -> None:
        super().__init__()
        self.nats, self.length = nats, length
        self.place = nn.Parameter(torch.zeros(1))

    def nll(self, ids: Tensor) -> Tensor:
        values = [[0.0 if i == PAD else self.nats[i] for i in row] for row in ids.tolist()]
        return torch.tensor(values)


@pytest.fixture
def judge():
    tokenizer = train_tokenizer(["a b c"], "word", size=20)
    a, b, c = tokenizer.encode("a b c")
    return Table({a: 1.0, b: 2.0, c: 5.0, EOS: 0.5}, length=4), tokenizer


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_perplexity_is_that_of_hand_computation(judge, batch_size: int) -> None:
    model, tokenizer = judge
    found = perplexity.compute(["a b", "c", "a a a"], model, tokenizer, batch_size)
    nats, tokens = [3.5, 5.5, 3.5], [3, 2, 4]
    each = [math.exp(n / t) for n, t in zip(nats, tokens, strict=True)]
    assert found["tokens"] == 9
    assert_close(found["nats_per_token"], 12.5 / 9)
    assert_close(found["perplexity"], math.exp(12.5 / 9))
    assert_close(found["perplexities"], each)
    assert_close(found["mean_perplexity"], sum(each) / 3)


def test_perplexity_refuses_what_the_judge_cannot_read(judge) -> None:
    model, tokenizer = judge
    assert perplexity.compute(["a b a b"], model, tokenizer)["tokens"] == 5
    with pytest.raises(ValueError, match="6 tokens with its end, the judge reads up to 5"):
        perplexity.compute(["a b a b a"], model, tokenizer)
    with pytest.raises(ValueError, match="no predictions"):
        perplexity.compute([], model, tokenizer)


def test_distinct_n_crosses_no_sentence_end() -> None:
    sentences = ["a b a b", "b c"]
    assert diversity.distinct_n(sentences, 1) == 3 / 6
    assert diversity.distinct_n(sentences, 2) == 3 / 4  # ab ba ab | bc
    assert diversity.distinct_n(sentences, 3) == 2 / 2
    assert diversity.distinct_n(["a"], 2) == 0


def test_unigram_entropy_is_in_nats() -> None:
    assert_close(diversity.unigram_entropy(["a b", "c d"]), math.log(4))
    p = [3 / 4, 1 / 4]
    assert_close(diversity.unigram_entropy(["a a", "a b"]), -sum(x * math.log(x) for x in p))
    assert diversity.unigram_entropy([]) == 0


def test_copies_repeats_and_lengths_are_counted() -> None:
    found = diversity.compute(["a b", "a b", "c", "d e f"], ["a b c d"], ["a b", "x"])
    assert found["training_copies"] == 2 / 4
    assert found["distinct_sentences"] == 3 / 4
    assert found["words_mean"] == 2
    assert found["words_max"] == 3
    assert_close(found["unigram_entropy_data"], math.log(4))
