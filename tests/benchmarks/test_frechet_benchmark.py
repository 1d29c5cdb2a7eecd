"""The benchmark of the Frechet distance: all that it times gives one answer, and it is written."""

import json
from pathlib import Path

import pytest

from benchmarks import frechet


def test_every_implementation_gives_the_distance_and_rows_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(frechet, "DIM", 24)
    monkeypatch.setattr(frechet.Given, "num_features", 24)
    monkeypatch.setattr(frechet, "COUNTS", (90, 11))
    file, page = tmp_path / "numbers.json", tmp_path / "page.md"
    frechet.main(rounds=2, json_file=file, markdown=page)
    rows = json.loads(file.read_text())["rows"]
    assert {row["count"] for row in rows} == {90, 11}
    for row in rows:
        assert row["error"] < (1e-9 if row["name"] == "diptych" and row["count"] == 90 else 1e-4)
        assert row["seconds"] > 0
        assert row["end_seconds"] > 0
        assert f"| {row['name']} | {row['seconds']:.3f} |" in page.read_text()
