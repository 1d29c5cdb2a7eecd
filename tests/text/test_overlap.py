"""BLEU, ROUGE-L, METEOR with all references of a source, and which references belong together."""

import math

import pytest
import torch
from sacrebleu import corpus_bleu

from shared.errors import DataError
from shared.tokenizer import UNK, train_tokenizer
from text.config import DataConfig
from text.data import Corpus
from text.metrics import overlap
from text.references import find_references, group

TEXTS = ["the cat sat on the mat", "a dog barks at night"]
THEIRS = [["the cat is on the mat", "a cat sat on the mat"], ["a dog barks in the night"]]


def test_bleu_takes_every_reference_of_a_sentence_and_no_others():
    """Clipped counts of the definition, by hand: 2-grams and so on over both sentences."""
    found = overlap.compute(TEXTS, THEIRS)
    # matches over n-grams of the two sentences together: (6 + 4), (5 + 2), (3 + 1), (2 + 0)
    precisions = [10 / 11, 7 / 9, 4 / 7, 2 / 5]
    brevity = math.exp(1 - 12 / 11)  # the nearest references have 6 and 6 words, the texts 6 and 5
    expected = 100 * brevity * math.prod(precisions) ** 0.25
    assert found["bleu"] == pytest.approx(expected, rel=1e-6)
    padded = [["the cat is on the mat", THEIRS[1][0]], ["a cat sat on the mat", None]]
    assert found["bleu"] == corpus_bleu(TEXTS, padded).score
    assert found["references_per_source"] == 1.5


def test_the_datas_own_bleu_is_of_one_reference_against_its_others():
    found = overlap.compute(TEXTS, THEIRS)
    assert found["bleu_held_out"] == corpus_bleu([THEIRS[0][0]], [[THEIRS[0][1]]]).score
    assert overlap.compute(TEXTS, [[a[0]] for a in THEIRS])["bleu_held_out"] is None


def test_rouge_l_is_the_best_f_measure_of_the_longest_common_subsequence():
    # longest common subsequences: 5 of 6 and 6 (both references); 4 of 5 and 6 words
    expected = 100 * (5 / 6 + 2 * (4 / 5) * (4 / 6) / (4 / 5 + 4 / 6)) / 2
    assert overlap.rouge_l(TEXTS, THEIRS) == pytest.approx(expected)


def test_meteor_is_the_formula_of_its_matches_and_chunks():
    def score(matches: int, words: int, reference: int, chunks: int) -> float:
        p, r = matches / words, matches / reference
        return 10 * p * r / (r + 9 * p) * (1 - (chunks / matches) ** 3 / 2)

    own = [["two cats sat on my mat"], ["a dog barks in the night", "no word of it"], ["nothing"]]
    texts = ["my cat sat on two mats", "at night a dog barked", "else"]
    # cat ~ cats, mats ~ mat: [cat sat on], and my, two, mats alone; barked ~ barks: [a dog barked]
    expected = 100 * (score(6, 6, 6, 4) + score(4, 5, 6, 2) + 0) / 3
    assert overlap.meteor(texts, own) == pytest.approx(expected)
    assert overlap.compute(texts, own)["meteor"] == pytest.approx(expected)


def test_sentences_without_references_are_refused():
    with pytest.raises(ValueError, match="one reference or more each"):
        overlap.compute(TEXTS, [THEIRS[0], []])


def test_sentences_of_one_source_belong_together():
    corpus = Corpus(["a", "b", "c", "d"], ["x", "y", "x", "y"])
    assert group(corpus) == {"x": ["a", "c"], "y": ["b", "d"]}


def test_held_out_sources_come_in_turn_and_unknown_words_stay_unknown(tmp_path):
    table = tmp_path / "some.csv"
    rows = [f"s{i // 40},t{i}" for i in range(200)]  # held out: rows 0, 20, 40, ... of 5 sources
    table.write_text("\n".join(["mr,text", *rows]))
    config = DataConfig(name=str(table), source="mr", source_length=2)
    found = find_references(config, train_tokenizer(["s0 s1 s3"], "word", 20))
    assert found is not None
    assert found.sources == [f"s{i}" for i in range(5)]
    assert found.sentences[1] == ["t40", "t60"]
    assert found.rows[2, 0] == UNK
    seven = found.some(7)
    assert sorted(seven.sources[:5]) == found.sources
    assert seven.sources[5:] == seven.sources[:2]
    for source, ids, own in zip(seven.sources, seven.rows, seven.sentences, strict=True):
        i = found.sources.index(source)
        assert torch.equal(ids, found.rows[i])
        assert own == found.sentences[i]
    assert find_references(DataConfig(), train_tokenizer(["a"], "word", 20)) is None
    long = DataConfig(name=str(table), source="mr", source_length=1)
    with pytest.raises(DataError, match="no source of 1 to 1 tokens"):
        find_references(long, train_tokenizer(["s 0 1 2 3 4"] * 9, "unigram", 11))
