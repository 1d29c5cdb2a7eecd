"""Every line of the table "Paper -> the pieces that compose it" runs, with small networks, few
steps and few samples."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_command import ROOT, diptych

SECTION = "## Paper -> the pieces that compose it"
TINY = ["train.steps=2", "train.batch=8", "net.dim=16", "net.depth=1", "net.heads=2"]
JUDGE = ["judge.train.steps=2", "judge.train.batch=8"]
SLOW = {"--steps": "4", "-n": "4"}  # what the command is given instead


def lines() -> list[str]:
    """What stands between backticks in the last column."""
    section = (ROOT / "docs/architecture.md").read_text(encoding="utf-8").split(SECTION)[1]
    rows = [row for row in section.split("\n## ")[0].splitlines() if row.startswith("| ")]
    return [line for row in rows[2:] for line in re.findall(r"`([^`]+)`", row.split(" | ")[-1])]


def shortened(words: list[str]) -> list[str]:
    """The same words with few steps and samples."""
    kept = [
        word
        for i, word in enumerate(words)
        if word not in SLOW and (i == 0 or words[i - 1] not in SLOW)
    ]
    if words[0] == "data":
        return [*kept, "-n", "90"]
    if words[0] == "train":
        text = [*JUDGE, "judge.net.dim=16", "data.limit=300"] if words[1].startswith("text") else []
        image = [*JUDGE, "judge.width=8"] if words[1].startswith("image") else []
        return [*kept, *TINY, *text, *image]
    if words[0] in ("sample", "edit", "evaluate", "control", "write"):
        return [*kept, *[word for option in SLOW.items() for word in option]]
    return kept


def test_the_table_names_all_papers():
    table = (ROOT / "docs/architecture.md").read_text(encoding="utf-8").split(SECTION)[1]
    for paper in (
        "DPM (",
        "DDPM (",
        "Score SDE, VP",
        "Score SDE, VE",
        "Score SDE, sub-VP",
        "IDDPM",
    ):
        assert f"| {paper}" in table
    for paper in ("ADM", "EDM", "VDM", "Analog Bits", "VQGAN", "Latent diffusion", "Diffusion-LM"):
        assert f"| {paper} (" in table
    assert "| LatentOps (" in table
    assert "| Rectified flow (" in table


def test_every_line_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """In one folder and in order: what a line samples was trained by a line above it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path / "cache"))
    for line in lines():
        words = shlex.split(line)
        if words[0] == "diptych":
            result = diptych(*shortened(words[1:]))
            assert result.code == 0, f"{line}\n{result.err}"
        elif words[1] == "-m":  # a measurement of minutes: it must be there and say what it takes
            module = subprocess.run(
                [sys.executable, *words[1:], "--help"], cwd=ROOT, capture_output=True, check=False
            )
            assert module.returncode == 0, f"{line}\n{module.stderr}"
        else:
            python = subprocess.run(
                [sys.executable, *words[1:]], cwd=ROOT, capture_output=True, check=False
            )
            assert python.returncode == 0, f"{line}\n{python.stderr}"
