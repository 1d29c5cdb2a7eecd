"""Sentences of two processes: written and measured as by one."""

import json
from pathlib import Path

from shared.requests import EvaluateRequest, SampleRequest
from tests.ranks import assert_same_numbers, on_two
from text.panel import PANEL


def test_two_processes_write_and_measure_what_one_does(make_run, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path / "cache"))
    run, two, one = make_run("codec.kind=embedding"), tmp_path / "two", tmp_path / "one"
    few = ["-n", "7", "--steps", "3"]
    commands = [
        ["evaluate", str(run), *few, "--likelihood", "--draws", "1"],
        ["evaluate", str(run), *few, "--frontier", "temperature=0.8,1"],
        ["sample", str(run), *few, "--mbr", "2", "--n-best", "2", "--out", str(two)],
    ]
    (codes, told), (others, nothing) = on_two(commands)
    assert (codes, others) == ([0, 0, 0], [0, 0, 0])
    assert "perplexity" in told
    assert nothing == ""
    frontier = EvaluateRequest(n=7, steps=3, frontier="temperature=0.8,1")
    measured = json.loads((run / "evaluation.json").read_text())
    points = json.loads((run / "frontier.json").read_text())
    asked = EvaluateRequest(n=7, steps=3, likelihood=True, draws=1)
    assert_same_numbers(measured, PANEL.evaluate(run, asked))
    assert_same_numbers(points, PANEL.frontier(run, frontier))
    PANEL.sample(run, SampleRequest(n=7, steps=3, mbr=2, n_best=2), one)
    for name in ("samples.txt", "samples.json", "n_best.txt"):
        assert (two / name).read_bytes() == (one / name).read_bytes(), name
