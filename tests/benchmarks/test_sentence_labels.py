"""Labels of review sentences: exact rules, and halves that share nothing."""

from collections import Counter
from pathlib import Path

import pytest
from datasets import Dataset

from benchmarks.sentence_labels import once, person, size, tense, write
from text.config import DataConfig
from text.data import read_labels


@pytest.mark.parametrize(
    ("sentence", "told"),
    [
        ("the food was great .", ("past", "none", "short")),
        ("we are back and they did not mind us at all .", ("", "", "long")),
        ("this is my favorite place for sushi .", ("present", "i", "medium")),
        ("great wings !", ("none", "none", "short")),
        ("their staff has never let them down .", ("present", "they", "medium")),
        ("our waiter forgot , so we left .", ("past", "we", "medium")),
        ("the isle of wasps", ("none", "none", "short")),  # whole words only
    ],
)
def test_rules_tell_what_the_words_say(sentence: str, told: tuple[str, str, str]):
    assert (tense(sentence), person(sentence), size(sentence)) == told


def test_a_sentence_with_two_labels_is_left_out():
    assert once(["a", "b", "a", "c", "c"], ["0", "1", "0", "0", "1"]) == {"a": "0", "b": "1"}


def test_halves_and_held_out_sentences_share_nothing(tmp_path: Path):
    trained = [f"the meal number {i} was good ." for i in range(200)]
    both, new = "it is what it is .", [f"the bill number {i} is wrong ." for i in range(20)]
    source = {
        "old": ([*trained, *trained[:9], both, both], [1] * 209 + [0, 1]),
        "new": ([*new, trained[3], both], [0] * 22),
    }
    for name, (text, label) in source.items():
        Dataset.from_dict({"text": text, "label": label}).to_parquet(
            str(tmp_path / f"{name}.parquet")
        )
    write(tmp_path / "out", str(tmp_path), "old", "new")
    parts: dict[str, list[str]] = {}
    for name in ("operator", "judge", "validation"):
        config = DataConfig(name=str(tmp_path / "out"), split=name, label_column="sentiment")
        parts[name], labels = read_labels(config)
        assert set(labels) == {"negative" if name == "validation" else "positive"}
    assert Counter(parts["operator"] + parts["judge"]) == Counter(trained)
    assert min(len(parts["operator"]), len(parts["judge"])) > 70
    assert sorted(parts["validation"]) == sorted(new)
    assert parts["operator"] != sorted(parts["operator"])
    config = DataConfig(name=str(tmp_path / "out"), split="operator", label_column="tense")
    assert set(read_labels(config)[1]) == {"past"}
