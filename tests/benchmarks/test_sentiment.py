"""The benchmark of review sentences: judges judge, shares are shares, a run is measured whole."""

import itertools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from datasets import Dataset

from benchmarks import sentence_labels
from benchmarks.sentence_judges import Judges, classifier
from benchmarks.sentiment import (
    KINDS,
    OTHER,
    Edit,
    _against,
    _chance,
    _measured,
    run,
    spelt,
)
from shared.train.loop import train
from tests.text.conftest import text_config
from text.panel import PANEL

GOOD, BAD = ("good", "great", "friendly"), ("bad", "awful", "rude")
SMALL = ("data.length=16", "data.limit=null", "autoencoder.dim=6", "autoencoder.beta=0.02")


def judges() -> Judges:
    words = [*GOOD, *BAD]
    sentences = [f"the food was {word} ." for word in words] * 2
    labels = [OTHER["positive" if word in BAD else "negative"] for word in words] * 2
    fluency: Any = SimpleNamespace(
        nats_per_token=lambda texts: sum(map(len, texts)) / 100, nats_per_token_held_out=0.0
    )
    return Judges(classifier(sentences, labels), fluency)


def test_a_sentence_counts_when_it_is_all_that_was_demanded():
    texts = ["we are rude .", "we were great .", "they are good ."]
    wanted = {"sentiment": "positive", "tense": "present", "person": "they"}
    told = judges().values(texts)
    assert [own["sentiment"] for own in told] == ["negative", "positive", "positive"]
    assert _measured(judges(), texts, [wanted] * 3)["success"] == pytest.approx(1 / 3)
    each = [{"sentiment": "negative"}, {"tense": "past"}, {"person": "they"}]
    assert _measured(judges(), texts, each)["success"] == 1


def test_an_edit_succeeds_when_the_judge_hears_the_other_sentiment():
    edits = [
        Edit("it is bad .", "negative", "it is good .", "it is great ."),
        Edit("it is great .", "positive", "it is rude .", "it is great ."),
    ]
    found = _against(judges(), [edit.system for edit in edits], edits)
    assert (found["success"], found["unchanged"]) == (0.5, 0.5)
    same = _against(judges(), [edit.text for edit in edits], edits)
    assert (same["success"], same["bleu"]) == (0, pytest.approx(100))
    assert _against(judges(), [edit.human for edit in edits], edits)["bleu_human"] > 99


def test_chance_is_the_mean_over_all_demands():
    values = [{"tense": "past", "person": "we"}, {"tense": "", "person": "i"}]
    assert _chance(values, ("tense",)) == pytest.approx(1 / 4)
    assert _chance(values, ("person",)) == pytest.approx(2 / 8)
    assert _chance(values, ("tense", "person")) == pytest.approx(1 / 16)


def test_rewritings_are_spelt_as_the_data():
    assert spelt("I don't  like Joe's (at all)!") == "i do n't like joe 's ( at all ) !"
    assert spelt("we've paid $ _num_.") == "we 've paid $ _num_ ."


def reviews(folder: Path) -> None:
    """Tables of all sentences of a small grammar, and references that none was trained on."""
    who, verb = ("i am", "we were", "they are", "the staff was"), ("with", "about", "for")
    made = [
        (f"{a} {b} {c} the {d} .", int(b in GOOD))
        for a, b, c, d in itertools.product(who, GOOD + BAD, verb, ("food", "bill", "wait"))
    ]
    for name, rows in (("old", made[::2]), ("new", made[1::4])):
        columns = {"text": [t for t, _ in rows], "label": [x for _, x in rows]}
        Dataset.from_dict(columns).to_parquet(str(folder / f"{name}.parquet"))
    chosen = made[3::12]
    columns = {"text": [t for t, _ in chosen], "label": [x for _, x in chosen]}
    columns |= {"human_transfer": columns["text"], "latentops_output": columns["text"]}
    Dataset.from_dict(columns).to_parquet(str(folder / "references.parquet"))


def test_a_run_is_measured_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path / "cache"))
    reviews(tmp_path)
    sentence_labels.write(tmp_path / "labels", str(tmp_path), "old", "new")
    points, writer = tmp_path / "points", tmp_path / "writer"
    data = (f"data.name={tmp_path}", "data.split=old", "data.held_out=new", *SMALL[:2])

    def made(folder: Path, *more: str) -> None:
        train(text_config(*more), folder, PANEL, quiet=True)

    made(points, "model=autoencoder", *data, *SMALL[2:])
    made(writer, "diffusion.prediction=v", "diffusion.fit_density=false", "codec.kind=sentence",
         f"codec.run={points}", *data)  # fmt: skip
    for name in KINDS["all three"]:
        made(
            writer / "operators" / name, "model=operator", "codec.kind=sentence",
            f"codec.run={writer}", f"data.name={tmp_path / 'labels'}", "data.split=operator",
            f"data.label_column={name}", *SMALL[:2],
        )  # fmt: skip
    json_file, markdown = tmp_path / "rows.json", tmp_path / "rows.md"
    run(writer, tmp_path / "labels", count=16, steps=3, edits=6, stays=(0.0, 1e4), batch=9,
        references=str(tmp_path / "references.parquet"), json_file=json_file,
        seconds=0.0, markdown=markdown)  # fmt: skip
    page = json.loads(json_file.read_text())
    rows, pace = page["rows"], page["about"]["pace"]
    assert pace["sentences"] == 9
    assert pace["times_one_pass"] > 0
    assert min(pace["milliseconds"], pace["milliseconds_one_pass"]) > 0
    what = [(row["what"], row.get("mode")) for row in rows]
    assert what[:2] == [("held-out sentences", None), ("no demand", None)]
    assert [w for w in what if w[1] == "flow"] == [
        *((kind, "flow") for kind in KINDS), *[("sentiment edited", "flow")] * 2
    ]  # fmt: skip
    assert rows[0]["success"] > 0.9  # the judge knows its grammar
    assert rows[0]["perplexity_ratio"] == pytest.approx(1)
    edited = {text.split(" -> ")[0] for text in rows[-1]["texts"]}
    untouched = next(row for row in rows if row["what"] == "left as it is")
    assert untouched["success"] < 0.2
    assert (untouched["unchanged"], untouched["bleu"]) == (1, pytest.approx(100))
    between = next(row for row in rows if row["what"] == "between two sentences")
    for way in between["texts"]:
        first, path, last = way.split(" -> ")
        assert {first, last} <= edited
        assert path.count(" | ") == 4
    assert [row["limit"] for row in rows[-3:]] == [0.6, 0.0, 1e4]
    for row in rows:
        assert len(row["texts"]) in (5, 6, 16, 20)
        assert markdown.read_text().count(f"### {row['what']}") >= 1
