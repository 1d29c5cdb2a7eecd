"""Measures of sentences against computation by hand."""

import math

import pytest
import torch
from sacrebleu import sentence_bleu
from torch import Tensor, nn
from torch.testing import assert_close

from shared.tokenizer import EOS, PAD, train_tokenizer
from text.metrics import diversity, lengths, perplexity, self_bleu


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
    for n in (1, 2, 3):
        assert found[f"distinct_{n}"] == diversity.distinct_n(["a b", "a b", "c", "d e f"], n)
        assert found[f"distinct_{n}_data"] == diversity.distinct_n(["a b c d"], n)


def test_self_bleu_is_that_of_sacrebleu_with_the_others_as_references() -> None:
    a, b, c = "the red star is near", "the red dot is near the star", "a blue dot on top"
    by_hand = [
        sentence_bleu(x, others).score for x, others in ((a, [b, c]), (b, [a, c]), (c, [a, b]))
    ]
    assert 0 < min(by_hand) < max(by_hand) < 100
    assert self_bleu.self_bleu([a, b, c]) == pytest.approx(sum(by_hand) / 3)
    assert self_bleu.self_bleu([a, a, a]) == pytest.approx(100)
    assert self_bleu.self_bleu(["a b", "c d", "e f"]) == 0
    assert self_bleu.self_bleu([a]) is None


def test_self_bleu_compares_equally_many_of_both_and_says_how_many() -> None:
    ours, theirs = ["a b c d"] * 4, ["a b c d", "a b c d", "e f g h", "a b c d", "e f g h"]
    found = self_bleu.compute(ours, theirs, count=3)
    assert found == {
        "self_bleu": pytest.approx(100),
        "self_bleu_held_out": pytest.approx(200 / 3),
        "self_bleu_sentences": 3,
    }
    assert self_bleu.compute(ours, theirs)["self_bleu_sentences"] == 4
    assert self_bleu.compute(ours * 26, theirs * 21)["self_bleu_sentences"] == 100
    assert self_bleu.compute(["a"], theirs)["self_bleu"] is None


@pytest.mark.parametrize(
    ("ours", "theirs", "distance"),
    [
        ([5], [9, 9], 4.0),  # two points: their distance
        ([3, 4, 5], [7, 6, 5], 2.0),  # a shift: its size
        ([1, 1, 4], [4, 1], 0.5),  # F - G = 2/3 - 1/2 on [1, 4)
        ([2, 6], [4], 2.0),  # the same mean
        ([6, 2, 2], [2, 6, 2, 2, 6, 2], 0.0),  # the same shares
    ],
)
def test_length_distance_is_its_closed_form(ours, theirs, distance: float) -> None:
    assert lengths.distance(ours, theirs) == pytest.approx(distance)
    assert lengths.distance(theirs, ours) == pytest.approx(distance)


def test_lengths_of_both_are_held_against_the_training_split() -> None:
    found = lengths.compute([2, 2, 8], [3, 5], [4, 4, 4, 4])
    assert found == {
        "tokens_mean": 4,
        "tokens_mean_held_out": 4,
        "length_distance": pytest.approx(8 / 3),
        "length_distance_held_out": pytest.approx(1),
    }
