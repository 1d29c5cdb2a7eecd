"""The benchmark of operators: its demands are of the held-out language, its shares are shares."""

from collections import Counter

import pytest

from benchmarks.operators import _chance, _together, targets
from shared.scene import split_of
from text.operators.attributes import UNSAID, attribute
from text.reader import read


def test_demands_are_those_of_held_out_sentences_that_fit():
    for sentence, values in targets(40, 14):
        facts = read(sentence)
        assert facts is not None
        assert split_of(sentence) == "validation"
        assert len(sentence.split()) < 14
        assert values == {name: attribute(name, facts) for name in values}
        assert values["colour"] != UNSAID


def test_chance_is_the_share_of_all_pairs():
    free = ["look at a red star .", "look at a blue star .", "look at a red moon .", "no words"]
    demands = Counter({("1*colour=red",): 3, ("1*colour=green",): 1})
    pairs = [
        "red" in sentence and wanted == "red"
        for sentence in free
        for wanted in ("red", "red", "red", "green")
    ]
    assert _chance(free, demands, ("colour",)) == pytest.approx(sum(pairs) / len(pairs))


def test_means_are_over_sentences():
    def part(n: int, share: float, text: str) -> dict:
        return {
            "sentences": n, "exact": {"all": share}, "by_operators": {"all": share},
            "grammatical": 1.0, "seconds": 0.5, "texts": [text] * n,
        }  # fmt: skip

    found = _together([part(1, 1.0, "a"), part(3, 0.0, "b")])
    assert found["exact"] == found["by_operators"] == pytest.approx(0.25)
    assert found["distinct"] == pytest.approx(0.5)
    assert found["milliseconds"] == pytest.approx(250)
