"""The commands of the newcomers' pages run as written, with small networks and few steps."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_command import ROOT, diptych
from tests.test_papers import shortened

PAGES = {
    "docs/image.md": {"data", "train", "sample", "edit", "evaluate", "report"},
    "docs/text.md": {"train", "sample", "control", "evaluate"},
    "docs/operators.md": {"train", "control", "evaluate"},
}


def commands(page: str) -> list[str]:
    """The lines of the blocks that name no language."""
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [line for language, block in blocks if not language for line in block.splitlines()]


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_runs_in_order(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path / "cache"))
    for line in commands(page):
        words = shlex.split(line)
        if words[0] == "diptych":
            result = diptych(*shortened(words[1:]))
            assert result.code == 0, f"{line}\n{result.err}"
        else:
            assert words[0] == "python", line
            done = subprocess.run(
                line.replace("python", shlex.quote(sys.executable), 1),
                shell=True,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                capture_output=True,
                check=False,
            )
            assert done.returncode == 0, f"{line}\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES)
def test_a_page_takes_at_most_six_kinds_of_command(page: str):
    verbs = {line.split()[1] for line in commands(page) if line.startswith("diptych")}
    assert PAGES[page] <= verbs
    assert len(verbs) <= 6


def test_a_new_attribute_takes_four_commands():
    lines = [line.split() for line in commands("docs/operators.md") if line.startswith("diptych")]
    assert [line[1] for line in lines[:4]] == ["train", "train", "train", "control"]
    assert lines[3][2:5] == ["runs/writer", "--operator", "mood=exclaims"]
