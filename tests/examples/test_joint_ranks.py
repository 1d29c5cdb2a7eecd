"""The joint model in two processes: drawn and measured as by one."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from examples.joint.__main__ import main
from examples.joint.panel import PANEL
from shared.train.loop import train
from tests.examples.test_joint import joint_config
from tests.ranks import assert_same_numbers, launch

SCRIPT = """
import json, sys
from examples.joint.__main__ import main
print(json.dumps([main(words) for words in json.loads(sys.argv[1])]))
"""


def test_two_processes_draw_and_measure_what_one_does(tmp_path: Path):
    run, two, one, picture = (tmp_path / name for name in ("run", "two", "one", "picture.png"))
    train(joint_config(), run, PANEL, quiet=True)
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(picture)
    few = ["-n", "3", "--steps", "2", "--seed", "4"]
    near = ["sample", str(run), *few, "--picture", str(picture), "--vary", "--strength", "0.4"]
    commands = [
        ["evaluate", str(run), *few],
        ["sample", str(run), *few, "--out", str(two / "pairs")],
        [*near, "--out", str(two / "near")],
    ]
    missing = ["sample", str(tmp_path / "none")]
    done = launch(SCRIPT, json.dumps([*commands, missing]), json.dumps([*commands, commands[1]]))
    assert [each.returncode for each in done] == [0, 0], [each.stderr[-3000:] for each in done]
    codes = [json.loads(each.stdout.splitlines()[-1]) for each in done]
    assert codes == [[0, 0, 0, 3]] * 2
    assert len(done[1].stdout.splitlines()) == 1  # rank 0 tells
    measured = json.loads((run / "evaluation.json").read_text())
    commands[1][-1], commands[2][-1] = str(one / "pairs"), str(one / "near")
    assert [main(words) for words in commands] == [0, 0, 0]
    assert_same_numbers(measured, json.loads((run / "evaluation.json").read_text()))
    for name in ("pairs", "near"):
        ours, theirs = (json.loads((at / name / "samples.json").read_text()) for at in (two, one))
        assert ours == theirs
        drawn = [np.load(at / name / "images.npz")["images"].astype(int) for at in (two, one)]
        assert len(drawn[0]) == 3
        assert drawn[0] == pytest.approx(drawn[1], abs=1)
