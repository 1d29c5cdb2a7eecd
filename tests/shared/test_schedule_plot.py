"""`diptych schedule`: the table, the figure, and names that there are not."""

import contextlib
import io
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from shared.cli import main
from shared.schedule import SCHEDULES, Edm
from shared.schedule_plot import schedule_table


def diptych(*words: str) -> tuple[int, str, str]:
    """Exit code, stdout, stderr of `diptych schedule WORDS`."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(["schedule", *words])
        except SystemExit as stopped:
            code = int(stopped.code or 0)
    return code, out.getvalue(), err.getvalue()


def test_table_holds_the_levels_of_each_schedule():
    table = schedule_table(["edm", "flow"])
    assert list(table) == ["edm", "flow"]
    columns = table["edm"]
    assert {key: len(column) for key, column in columns.items()} == dict.fromkeys(
        ("t", "logsnr", "alpha", "sigma"), 101
    )
    level = Edm()(torch.tensor(columns["t"], dtype=torch.float64))
    assert columns["sigma"] == pytest.approx(level.sigma.tolist())
    assert columns["alpha"] == [1.0] * 101
    assert columns["logsnr"] == pytest.approx(level.logsnr.tolist())
    assert (columns["t"][0], columns["t"][-1]) == (0, 1)


def test_json_is_the_table_and_draws_nothing_unless_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    code, out, _ = diptych("ve", "--json")
    assert code == 0
    assert json.loads(out) == schedule_table(["ve"])
    assert not list(tmp_path.iterdir())
    assert diptych("ve", "--json", "--out", "ve.png")[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["ve.png"]


def test_all_schedules_are_drawn_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = diptych()
    assert code == 0
    for name in SCHEDULES:
        assert name in out
    width, height = Image.open("schedules.png").size
    assert width == height > 500


def test_wrong_name_ends_with_2_and_the_nearest(tmp_path: Path):
    code, _, err = diptych("cosine", "flwo", "--out", str(tmp_path / "x.png"))
    assert code == 2
    assert "did you mean flow?" in err
    assert not list(tmp_path.iterdir())


def test_file_that_is_no_picture_ends_with_2(tmp_path: Path):
    code, _, err = diptych("cosine", "--out", str(tmp_path / "x.words"))
    assert code == 2
    assert "expected a name that ends in .png" in err


def test_help_explains_itself():
    code, out, _ = diptych("--help")
    assert code == 0
    for word in ("logsnr", "alpha", "sigma", "schedules.png", "--json", "NAME"):
        assert word in out
