"""Sentences written from scenes: what is right counts as right, what is of another scene not."""

import itertools
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.told import KINDS, SEED, WORDS, _row, faithful, wishes
from shared.requests import SampleRequest, WriteRequest
from text import teller
from text.config import DataConfig

ONLY = {"count": "1"}
N = 12


def writer_of(texts: list[str]) -> Any:
    """A pipeline that writes these sentences, whatever it is asked for."""
    return SimpleNamespace(
        config=SimpleNamespace(data=DataConfig(only={**ONLY})),
        prompted=lambda sources, n: (None, None),
        write=lambda seeds, request, ask, progress: SimpleNamespace(texts=texts),
    )


@pytest.mark.parametrize("shift", [0, 1])
def test_the_tellings_of_scenes_are_faithful_to_them_and_to_no_others(shift: int):
    told = [t for _, t in itertools.islice(teller.pairs(SEED, "validation", only=ONLY), N)]
    pipeline = writer_of(told[shift:] + told[:shift])
    rows = list(faithful(pipeline, N, SampleRequest(n=N), (1.0, 2.0)))
    assert [(row["source"], row["guidance"]) for row in rows] == [
        (kind, scale) for kind in KINDS for scale in (1.0, 2.0)
    ]
    for row in rows:
        assert row["grammatical"] == 1
        if shift == 0:
            assert row["faithful"] == 1
    whole = rows[0]
    assert (whole["faithful"] == 1) == (shift == 0)
    assert whole["faithful"] < 0.5 or shift == 0


def test_wishes_are_granted_by_the_sentences_they_come_from():
    asked = wishes(5, ONLY)
    words = [wish.message.split() for wish in asked]
    assert all(len(some) == WORDS for some in words)
    sources = [
        next(
            text
            for text in teller.stream(SEED, "validation", only=ONLY)
            if [word for word in text.split() if word in some][:WORDS] == some
        )
        for some in words
    ]
    varied = "a red"  # neither a sentence, nor the words asked for
    results = [{"texts": [text, varied], "more_like": text} for text in sources]
    row = _row(asked, results, "written", WriteRequest(n=2))
    assert row["sentences"] == 10
    assert row["grammatical"] == row["words"] == 0.5
    assert row["all"] <= 0.5
    assert 0.5 < row["kept"] < 0.7  # half of them keep all words, the others hardly any
