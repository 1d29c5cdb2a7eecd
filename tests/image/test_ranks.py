"""Pictures of two processes: drawn and measured as by one."""

import json
from pathlib import Path

import numpy as np
import pytest

from image.panel import PANEL
from shared.requests import EvaluateRequest, SampleRequest
from tests.ranks import assert_same_numbers, on_two


@pytest.fixture(scope="module")
def two(make_run, tmp_path_factory) -> tuple[Path, Path, list[tuple[list[int], str]]]:
    """A run, where its samples are, and what two processes told that evaluated it (and trained the
    judge), drew from it, and evaluated it again with no run on rank 1."""
    run, out = make_run(), tmp_path_factory.mktemp("two")
    evaluate = ["evaluate", str(run), "-n", "31", "--steps", "2", "--json"]
    evaluate += ["--likelihood", "--draws", "1"]
    sample = ["sample", str(run), "-n", "5", "--steps", "2", "--class", "all", "--trajectory"]
    sample += ["--out", str(out)]
    missing = ["evaluate", str(out / "none")]
    with pytest.MonkeyPatch.context() as patch:
        caches = tmp_path_factory.getbasetemp() / "caches"  # those of every test here
        patch.setenv("DIPTYCH_CACHE", str(caches / "diptych"))
        told = on_two([evaluate, sample, evaluate], [evaluate, sample, missing])
    return run, out, told


def test_two_processes_measure_what_one_does_and_rank_0_tells_it(two):
    run, _, told = two
    found = json.loads(told[0][1].splitlines()[0])
    assert found == json.loads((run / "evaluation.json").read_text())
    assert told[1][1] == ""
    request = EvaluateRequest(n=31, steps=2, likelihood=True, draws=1)
    assert_same_numbers(found, PANEL.evaluate(run, request))


def test_two_processes_draw_the_pictures_of_one(two, tmp_path: Path):
    run, out, _ = two
    asked = SampleRequest(n=5, steps=2, condition="all", trajectory=True)
    PANEL.sample(run, asked, tmp_path)
    ours, theirs = np.load(tmp_path / "samples.npz"), np.load(out / "samples.npz")
    for name in ours:
        assert np.array_equal(ours[name], theirs[name]), name
    for name in ("samples.json", "trajectory.json", "trajectory.png", "grid.png"):
        assert (tmp_path / name).read_bytes() == (out / name).read_bytes(), name


def test_a_run_that_one_process_does_not_find_ends_both_with_exit_code_3(two):
    assert [codes for codes, _ in two[2]] == [[0, 0, 3], [0, 0, 3]]
