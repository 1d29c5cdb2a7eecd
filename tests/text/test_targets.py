"""Files of targets: the four layouts of Diffusion-LM, ours, and what is said of a bad line."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from shared.errors import DataError
from text.control import Control, Target, read_targets
from text.control.targets import Tagged, read_tagged

WORDS = ["START", "A", "red", "star", "near", "the", "moon", ".", "\n", "END"]
TAGS = ["START", "DET", "ADJ", "NOUN", "ADP", "DET", "NOUN", "PUNCT", "PROPN", "END"]
SENTENCE = ("A", "red", "star", "near", "the", "moon", ".")
POS = Control("pos", "DET ADJ NOUN ADP DET NOUN PUNCT")
LAYOUTS: list[tuple[dict[str, Any], Target]] = [
    (
        {"attribute": ["name", ":", "The", "Moon"], "field": "name", "value": "The Moon"},
        Target((Control("says", "name: The Moon"),)),
    ),
    ({"words_": WORDS, "pos": TAGS}, Target((POS,), SENTENCE)),
    (
        {"words_": WORDS, "spans": [[3, 5, "PP"], [0, 7, "S"]]},
        Target((Control("span", "3-5 PP"), Control("span", "0-6 S")), SENTENCE),
    ),
    (
        {"words_": WORDS, "pos": TAGS, "attr": ["customer", "rating", ":", "5", "out"]},
        Target((POS, Control("says", "customer rating: 5 out")), SENTENCE),
    ),
    (
        {"length": 9, "says": ["colour:red", "shape:star"]},
        Target(
            (Control("length", "9"), Control("says", "colour:red"), Control("says", "shape:star"))
        ),
    ),
]


def written(path: Path, *lines: Any) -> Path:
    text = "".join((said if isinstance(said, str) else json.dumps(said)) + "\n" for said in lines)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_every_layout_reads_as_text_and_packed(tmp_path: Path, suffix: str):
    file = written(tmp_path / f"targets{suffix}", *[said for said, _ in LAYOUTS])
    assert read_targets(file) == [target for _, target in LAYOUTS]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"length": 9', r"line 3: .*delimiter"),
        ("[1]", "line 3: expected a JSON object"),
        ({"lenght": 9}, "line 3: control = 'lenght': expected one of"),
        ({"says": []}, "line 3: asks for nothing: expected one control or more"),
        ({"attribute": ["name"], "field": "name"}, "line 3: value: expected words, got None"),
        ({"words_": WORDS, "pos": TAGS[1:]}, "line 3: pos: 9 tags of 10 words_; expected one for"),
        ({"words_": ["START", "END"], "pos": ["START", "END"]}, "line 3: words_: no words between"),
        ({"words_": "A star", "pos": TAGS}, "line 3: words_: expected a list of words"),
        ({"words_": WORDS}, "line 3: words_: expected pos, spans or attr beside it"),
        ({"words_": WORDS, "spans": [[5, 3, "PP"]]}, r"places of words 0 to 6, got \[5, 3, 'PP'\]"),
        ({"words_": WORDS, "spans": [[3, 8, "PP"]]}, r"places of words 0 to 6"),
        ({"words_": WORDS, "spans": []}, r"line 3: spans: expected \[\[left, right, label\]"),
        ({"words_": WORDS, "spans": [[0, 1, "pp"]]}, "line 3: span = '0-1 pp': expected the first"),
        ({"words_": WORDS, "pos": TAGS, "attr": ["food"]}, "line 3: attr: expected a field and"),
    ],
)
def test_a_bad_line_is_named_with_what_was_expected(tmp_path: Path, line: Any, message: str):
    file = written(tmp_path / "targets.jsonl", {"length": 9}, "", line)
    with pytest.raises(DataError, match=message):
        read_targets(file)


def test_files_that_hold_nothing_or_are_not_there_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match="no such file of targets"):
        read_targets(tmp_path / "none")
    with pytest.raises(DataError, match="no targets in it"):
        read_targets(written(tmp_path / "targets.jsonl", ""))
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"length": 9}\n')[:-6])
    with pytest.raises(DataError, match="does not read"):
        read_targets(tmp_path / "cut.jsonl.gz")


def test_tagged_sentences_are_collected_with_the_phrases_known_of_them(tmp_path: Path):
    written(tmp_path / "target_pos.jsonl", LAYOUTS[1][0])
    written(tmp_path / "target_spans.jsonl.gz", LAYOUTS[2][0])
    written(tmp_path / "target_attribute.jsonl", LAYOUTS[0][0])
    tags = ("DET", "ADJ", "NOUN", "ADP", "DET", "NOUN", "PUNCT")
    assert read_tagged(tmp_path) == [Tagged(SENTENCE, tags, ((3, 5, "PP"), (0, 6, "S")))]
    with pytest.raises(DataError, match="no sentences with parts of speech"):
        read_tagged(tmp_path / "nowhere")
