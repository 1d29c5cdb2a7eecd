"""The tokenizer: exact round trips, reserved ids, the same model twice, clear errors."""

import pytest

from shared.errors import CheckpointError, DataError
from shared.tokenizer import (
    BOS,
    EOS,
    PAD,
    SPECIAL,
    UNK,
    Tokenizer,
    load_tokenizer,
    train_tokenizer,
)

SENTENCES = [
    "a red circle , it's left of the blue star .",
    "the £ 30 café near Zizzi is family - friendly",
    "three small dots and a red star",
    "a star",
] * 3 + ["once rare"]


@pytest.mark.parametrize("kind", ["unigram", "word"])
def test_every_training_sentence_comes_back(kind: str) -> None:
    tokenizer = train_tokenizer(SENTENCES, kind, size=45)
    for sentence in SENTENCES:
        ids = tokenizer.encode(sentence)
        assert tokenizer.decode(ids) == sentence
        assert min(ids) >= SPECIAL
        assert max(ids) < len(tokenizer)


@pytest.mark.parametrize("kind", ["unigram", "word"])
def test_the_same_sentences_give_the_same_model(kind: str) -> None:
    first, second = (train_tokenizer(SENTENCES, kind, size=45) for _ in range(2))
    assert first.pieces() == second.pieces()
    assert first.encode("a red star and three dots") == second.encode("a red star and three dots")


def test_words_are_blank_separated_and_rare_ones_are_unknown() -> None:
    tokenizer = train_tokenizer(SENTENCES, "word", size=1000, min_count=2)
    words = {word for line in SENTENCES[:-1] for word in line.split()}
    assert {piece[1:] for piece in tokenizer.pieces()[SPECIAL:]} == words
    assert len(tokenizer.encode("it's left - of")) == 4
    ids = tokenizer.encode("a rare star")
    assert ids[1] == UNK
    assert tokenizer.decode(ids) == "a <unk> star"
    assert tokenizer.unknown("a rare star, once") == ["rare", "star,", "once"]


@pytest.mark.parametrize("kind", ["unigram", "word"])
def test_what_was_unknown_is_one_unknown_again(kind: str) -> None:
    tokenizer = train_tokenizer(SENTENCES, kind, size=45)
    ids = tokenizer.encode("a red ß near ßßß star")
    assert ids.count(UNK) == 2
    read = tokenizer.decode(ids)
    assert read == "a red <unk> near <unk> star"
    again = tokenizer.encode(read)
    assert (again.count(UNK), again[-1]) == (2, ids[-1])
    assert len(again) <= len(ids)
    assert tokenizer.encode("<unk>") == [UNK]


def test_the_most_frequent_words_are_kept_when_the_size_is_small() -> None:
    counts = {"often": 9, "half": 5, "seldom": 2}
    tokenizer = train_tokenizer([w for w, n in counts.items() for _ in range(n)], "word", size=6)
    assert tokenizer.pieces()[SPECIAL:] == ["▁often", "▁half"]


def test_decoding_stops_at_the_end_and_skips_what_says_nothing() -> None:
    tokenizer = train_tokenizer(SENTENCES, "word", size=1000)
    red, star = tokenizer.encode("red star")
    assert tokenizer.decode([BOS, red, PAD, star, EOS, red]) == "red star"
    assert tokenizer.decode([EOS, red]) == ""


def test_white_space_of_any_kind_is_one_blank() -> None:
    tokenizer = train_tokenizer(SENTENCES, "word", size=1000)
    assert tokenizer.encode(" a\tred \n star ") == tokenizer.encode("a red star")


def test_a_saved_model_reads_back(tmp_path) -> None:
    tokenizer = train_tokenizer(SENTENCES, "unigram", size=45)
    tokenizer.save(tmp_path / "tokenizer.model")
    again = load_tokenizer(tmp_path / "tokenizer.model")
    assert again.pieces() == tokenizer.pieces()


@pytest.mark.parametrize(
    ("sentences", "kind", "size", "message"),
    [
        (["a b"], "unigram", 500, "too few for a unigram vocabulary of 500"),
        (["a b", "c"], "word", 500, "no word occurs 2 times"),
        ([" ", ""], "word", 500, "there are none"),
    ],
)
def test_too_small_a_corpus_is_refused_with_advice(sentences, kind, size, message) -> None:
    with pytest.raises(DataError, match=message):
        train_tokenizer(sentences, kind, size, min_count=2)


def test_a_missing_or_damaged_file_is_a_checkpoint_error(tmp_path) -> None:
    path = tmp_path / "tokenizer.model"
    with pytest.raises(CheckpointError, match="no such tokenizer"):
        load_tokenizer(path)
    path.write_bytes(b"garbage")
    with pytest.raises(CheckpointError, match="damaged"):
        load_tokenizer(path)


def test_a_model_with_other_special_ids_is_refused() -> None:
    import io

    import sentencepiece

    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES),
        model_writer=written,
        model_type="word",
        vocab_size=10,
        minloglevel=2,
    )
    with pytest.raises(ValueError, match="expected 0, 1, 2, 3"):
        Tokenizer(written.getvalue())
