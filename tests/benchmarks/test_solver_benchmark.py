"""The benchmark of solver loops: what it counts and what it writes."""

import json
from pathlib import Path

import pytest

from benchmarks import solver


def test_calls_are_those_of_the_loops():
    assert solver.evaluations("diptych ddim") == 50
    assert solver.evaluations("diptych heun") == solver.evaluations("k-diffusion heun") == 99
    assert solver.evaluations("diffusers DPM++ 2M") == 50


def test_numbers_and_goals_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(solver, "SHAPES", ((2, 3, 4),))
    file, page = tmp_path / "numbers.json", tmp_path / "page.md"
    solvers = ("ddim", "dpmpp_2m", "ancestral")
    solver.main(seconds=0, solvers=solvers, json_file=file, markdown=page)
    written = json.loads(file.read_text())
    assert len(written["summary"]) == 5
    rows = {row["loop"]: row for row in written["2x3x4"]}
    assert rows["diptych ancestral"]["draws"] > 0
    assert rows["diptych ddim"]["draws"] is None
    assert rows["diptych ddim"]["set_up_us"] > 0
    assert all(row["us"] > 0 for row in rows.values() if not row["loop"].startswith("diffusers"))
    for name, value in written["summary"].items():
        assert f"| {name} | {value:.2f} |" in page.read_text()
