"""Templates: which places are given, which tokens may stand at the others, and clear refusals."""

import pytest
import torch

from shared.errors import ConfigError
from shared.tokenizer import BOS, EOS, PAD, SPECIAL, UNK, train_tokenizer
from text.template import parse_template

LENGTH = 7


@pytest.fixture(scope="module")
def words():
    return train_tokenizer(["a red star near the blue dot"], "word", size=50)


def test_words_are_given_and_masks_are_free_words(words) -> None:
    given = parse_template("a [MASK] star", words, LENGTH)
    a, star = words.encode("a star")
    assert given.ids.tolist() == [a, PAD, star, EOS, PAD, PAD, PAD]
    assert given.known.tolist() == [True, False, True, True, True, True, True]
    assert not given.allowed[1, [PAD, UNK, BOS, EOS]].any()
    assert given.allowed[1, SPECIAL:].all()
    assert given.allowed.sum(1).tolist() == [1, len(words) - SPECIAL, 1, 1, 1, 1, 1]


def test_an_open_end_may_hold_anything_its_end_included(words) -> None:
    given = parse_template("a [MASK] [MASK]*", words, LENGTH)
    assert given.known.tolist() == [True] + [False] * 6
    assert not given.allowed[1, EOS]
    assert given.allowed[2:, EOS].all()
    assert given.allowed[2:, PAD].all()
    assert not given.allowed[:, BOS].any()


def test_pieces_cannot_make_a_given_word_longer() -> None:
    sentences = ["red reddish star", "stardust dust", "red dish"] * 4
    pieces = train_tokenizer(sentences, "unigram", size=18)
    given = parse_template("red [MASK]*", pieces, 20)
    after = len(pieces.encode("red"))
    inside = [i for i, p in enumerate(pieces.pieces()) if i >= SPECIAL and not p.startswith("▁")]
    assert inside
    assert not given.allowed[after, inside].any()
    assert given.allowed[after + 1][inside].all()
    assert given.allowed[after, EOS]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("a green star", "does not know 'green'"),
        ("a [MASK]* star", "may only stand at the end"),
        ("a a a a a a a", "7 tokens and the end, this model's rows have 7"),
        ("  ", "expected words"),
    ],
)
def test_what_cannot_be_given_is_refused(words, template: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_template(template, words, LENGTH)


def test_the_longest_template_that_fits_is_taken(words) -> None:
    given = parse_template("a a a a a a", words, LENGTH)
    assert torch.equal(given.known, torch.ones(LENGTH, dtype=torch.bool))
