"""Ways to write at equal training: every method is a valid run, and the rows are measured."""

import json
import math
from pathlib import Path

import pytest

from benchmarks.text import METHODS, run
from shared.configs import load_config
from text.config import TextConfig

TINY = (
    "data.limit=300", "net.dim=16", "net.depth=1", "net.heads=2", "train.batch=8",
    "judge.net.dim=16", "judge.net.depth=1", "judge.net.heads=2", "judge.train.steps=4",
)  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_a_configuration_of_the_same_data_and_network(name: str):
    base, made = (load_config("text/scene", more)[2] for more in ((), METHODS[name].overrides))
    assert isinstance(made, TextConfig)
    assert made.data == base.data
    assert (made.net.dim, made.net.depth) == (base.net.dim, base.net.depth)


@pytest.mark.parametrize("steps", [None, 2])
def test_rows_are_measured_and_runs_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int | None
):
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "rows.json"
    run(
        tmp_path / "runs",
        seconds=0.2,
        steps=steps,
        n=8,
        methods=("told lengths", "autoregressive"),
        overrides=TINY,
        json_file=file,
    )
    rows = json.loads(file.read_text())["rows"]
    told, rows = rows[:3], rows[3:]
    for row, draw in zip(told, METHODS["told lengths"].draws, strict=True):
        assert (row["draw"], row["evaluations"]) == (draw, draw["steps"])
        assert row["nats_per_token"] is None  # the bound would leave out what a length costs
        assert row["perplexity"] > 1
    assert [row["draw"] for row in rows] == list(METHODS["autoregressive"].draws)
    for row in rows:
        assert row["evaluations"] == pytest.approx(row["tokens_mean"] + 1)
        assert row["tokens_per_s"] == pytest.approx(100 * row["tokens_mean"] / row["seconds"])
        assert row["perplexity"] > 1
        assert row["train_steps"] == (steps or row["train_steps"]) >= 1
    assert math.log(4) < rows[0]["nats_per_token"] < 8  # hardly trained: near a uniform guess
    assert rows[1]["nats_per_token"] is None  # the temperature does not change what is likely
