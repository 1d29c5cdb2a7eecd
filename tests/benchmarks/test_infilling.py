"""Gaps in sentences: what is cut out, what is kept, and what either way fills in."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.infilling import Frame, frames, from_the_left, rows, run
from shared.configs import load_config
from shared.errors import ConfigError
from shared.seeds import candidate_seeds
from shared.train.loop import train
from text.baseline import CausalLM
from text.panel import PANEL

SENTENCE = "one two three four five six seven eight nine ten"
TINY = (
    "data.limit=300", "net.dim=16", "net.depth=1", "net.heads=2", "train.batch=8",
    "train.steps=2", "judge.net.dim=16", "judge.net.depth=1", "judge.net.heads=2",
    "judge.train.steps=4",
)  # fmt: skip


def test_the_middle_third_is_the_gap_and_both_sides_are_asked_for():
    gap = Frame.of(SENTENCE)
    assert (" ".join(gap.left), " ".join(gap.right)) == ("one two three", "eight nine ten")
    assert gap.sentence == SENTENCE
    assert gap.control.success(SENTENCE)
    assert gap.kept(gap.filled(["more"]))
    for wrong in ("one two three eight nine ten", "two three four five eight nine ten"):
        assert not gap.kept(wrong)
        assert not gap.control.success(wrong)


def test_frames_are_of_long_plain_and_different_sentences():
    found = frames([SENTENCE, SENTENCE, "too short", f"<unk> {SENTENCE}", f"( {SENTENCE} )"], 1)
    assert [gap.sentence for gap in found] == [SENTENCE]
    with pytest.raises(ConfigError, match="count = 2: 1 held-out sentences"):
        frames([SENTENCE], 2)


def test_from_the_left_takes_as_many_words_as_were_left_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("benchmarks.infilling.beginning_ids", lambda words, *_: words)
    written: list[tuple[list[int], str]] = []

    def write(seeds: list[int], _: Any, ask: Any) -> Any:
        written.append((seeds, ask.start))
        return SimpleNamespace(texts=[f"{ask.start} a b c d e f", f"{ask.start} a"])

    pipeline: Any = SimpleNamespace(write=write, tokenizer=None, config=SimpleNamespace(data=None))
    gap = Frame.of(SENTENCE)
    draws = from_the_left(pipeline, [gap, gap], 2, seed=5)
    assert draws == [["one two three a b c d eight nine ten", "one two three a eight nine ten"]] * 2
    assert written == [(candidate_seeds(5 + i, 2), "one two three") for i in (0, 1)]


class Letters(CausalLM):
    """A model under which a token costs its own number of nats."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)

    def nll(self, ids: torch.Tensor, source: torch.Tensor | None = None) -> torch.Tensor:
        return ids.float()


def test_the_likeliest_and_the_one_agreed_upon_are_chosen():
    gap = Frame.of(SENTENCE)
    first, agreed, likely = (gap.filled(words.split()) for words in ("x y z z", "p q r s", "a"))
    texts = [[first, agreed, agreed, likely]]
    cost = {first: 3, agreed: 2, likely: 1, SENTENCE: 0}
    model: Any = SimpleNamespace(
        learner=Letters(), rows=lambda texts: torch.tensor([[cost[text]] for text in texts])
    )
    yardstick: Any = SimpleNamespace(nats_per_token=lambda texts: cost[texts[0]])
    found = list(rows("this way", model, [gap], texts, yardstick))
    assert {row["chosen"]: row["texts"][0] for row in found} == {
        "the first": first, "agreement": agreed, "likelihood": likely,
    }  # fmt: skip
    assert [row["nats_per_token"] for row in found] == [3, 2, 1]
    assert {row["kept"] for row in found} == {1.0}
    perfect = list(rows("this way", model, [gap], [[SENTENCE]], yardstick))
    assert [row["bleu"] for row in perfect] == [pytest.approx(100)] * 3


def test_two_runs_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path / "cache"))
    for name, base in (("diffusion", "text/scene"), ("causal", "text/causal_scene")):
        train(load_config(base, TINY)[2], tmp_path / name, PANEL)
    file = tmp_path / "rows.json"
    asked: dict[str, Any] = {"count": 3, "candidates": 2, "steps": 2}
    run(tmp_path / "diffusion", tmp_path / "causal", **asked, json_file=file)
    found = json.loads(file.read_text())
    assert len(found["rows"]) == 6
    for row in found["rows"]:
        assert row["kept"] == 1
        assert 0 < row["bleu"] < 100
        assert len(row["texts"]) == 3
    with pytest.raises(ConfigError, match="RUN, CAUSAL"):
        run(tmp_path / "causal", tmp_path / "diffusion", **asked)
