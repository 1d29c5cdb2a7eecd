"""Labelled halves of review sentences: `python -m benchmarks.sentence_labels FOLDER`.

    operator.parquet    half of the training sentences, for operators
    judge.parquet       the other half, for those that judge what operators make
    validation.parquet  held-out sentences, none of them in either half

in an order that hashes make, with columns text, sentiment (negative or positive, by the stars of
the review), and what exact rules over words tell: tense, person and size. What no rule speaks of is
a value of its own, none, which operators learn to keep away from; a cell is empty where a rule does
not decide. Every sentence is there once; one with both sentiments is left out. Which half
it is in is a function of its words.
"""

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import tyro

from benchmarks.command import command
from shared.files import write_atomic
from text.config import DataConfig
from text.data import read_labels

SENTIMENTS = {"0": "negative", "1": "positive"}
HALVES = ("operator", "judge")


def _forms(words: str) -> frozenset[str]:
    return frozenset(words.split())


# Finite forms only, and none that is also another form's (`have` after `did`, `love` after `to`).
TENSES = {
    "past": _forms(
        "was were had did went came said told took gave got ate left paid found felt thought knew "
        "brought sat asked tried ordered called walked waited loved liked wanted needed enjoyed "
        "stopped decided"
    ),
    "present": _forms("is are am 'm 're has does loves likes wants needs makes takes"),
}
PERSONS = {
    "i": _forms("i me my mine myself"),
    "we": _forms("we us our ours ourselves"),
    "they": _forms("they them their theirs themselves"),
}
SHORT, LONG = 6, 11  # words: at most, at least


def tense(sentence: str) -> str:
    """past or present, by the finite verbs of two lists; none without any, empty with both."""
    return _only(sentence, TENSES)


def person(sentence: str) -> str:
    """i, we or they, when its pronouns of these are of one person; none without any, else empty."""
    return _only(sentence, PERSONS)


def size(sentence: str) -> str:
    """short, medium or long, by the number of words."""
    count = len(sentence.split())
    return "short" if count <= SHORT else "long" if count >= LONG else "medium"


RULES: dict[str, Callable[[str], str]] = {"tense": tense, "person": person, "size": size}


def _only(sentence: str, lists: Mapping[str, frozenset[str]]) -> str:
    """The list that alone has words of it; none when no list has, empty when several have."""
    words = set(sentence.split())
    found = [name for name, forms in lists.items() if words & forms]
    return "" if len(found) > 1 else found[0] if found else "none"


def half(sentence: str) -> str:
    """Which of HALVES a training sentence is in."""
    return HALVES[_digest(sentence, b"half")[0] % 2]


def once(sentences: Sequence[str], labels: Sequence[str]) -> dict[str, str]:
    """Each sentence with its label; those with several labels are left out."""
    found: dict[str, set[str]] = {}
    for sentence, label in zip(sentences, labels, strict=True):
        found.setdefault(sentence, set()).add(label)
    return {sentence: next(iter(own)) for sentence, own in found.items() if len(own) == 1}


def write(
    folder: Annotated[Path, tyro.conf.Positional],
    source: str = "$DIPTYCH_DATA/yelp",
    train: str = "shen_test",
    held_out: str = "shen_validation",
) -> None:
    """Write the labelled halves and the held-out sentences.

    Args:
        folder: Where to.
        source: A folder of tables with columns text and label (0 or 1).
        train: Its file of training sentences.
        held_out: Its file of held-out sentences.
    """
    config = DataConfig(name=source, split=train, held_out=held_out, label_column="label")
    sentences, labels = read_labels(config)
    known, trained = once(sentences, labels), set(sentences)
    new = {s: label for s, label in once(*read_labels(config, True)).items() if s not in trained}
    parts = {name: {s: x for s, x in known.items() if half(s) == name} for name in HALVES}
    for name, part in (parts | {"validation": new}).items():
        _write(folder / f"{name}.parquet", part)
        print(f"{folder / name}.parquet: {len(part):,} sentences")


def _write(path: Path, labelled: dict[str, str]) -> None:
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    sentences = sorted(labelled, key=lambda sentence: _digest(sentence, b"order"))
    columns = {"text": sentences, "sentiment": [SENTIMENTS[labelled[s]] for s in sentences]}
    for name, rule in RULES.items():
        columns[name] = [rule(sentence) for sentence in sentences]

    def fill(file: Path) -> None:
        Dataset.from_dict(columns).to_parquet(str(file))

    write_atomic(path, fill)


def _digest(sentence: str, of: bytes) -> bytes:
    return hashlib.blake2b(sentence.encode(), digest_size=8, person=of).digest()


if __name__ == "__main__":
    sys.exit(command(write))
