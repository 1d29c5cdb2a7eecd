"""The demo's logic: goals decided by numbers alone, and steps that are not done twice."""

import dataclasses
import json
import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from examples import demo, steps
from examples.exhibit import write_numbers
from examples.goals import Measured, goals, keeps
from examples.steps import StepFailed, Steps, Task
from shared.errors import CheckpointError

IMAGE: dict[str, Any] = {
    "class_agreement": 0.97,
    "judge": {"accuracy": 0.98},
    "recall": 0.7,
    "recall_k": 3,
    "frechet_distance": 1.5,
    "frechet_floor": 0.5,
}
TEXT: dict[str, Any] = {
    "samples": 256,
    "grammatical": 0.93,
    "distinct_sentences": 240 / 256,
    "unigram_entropy": 3.95,
    "unigram_entropy_data": 4.0,
    "perplexity_ratio": 1.1,
}
GIVEN = "a red [MASK] ."
GOOD = Measured(
    images={"digits": IMAGE},
    texts={"scene": TEXT},
    given=GIVEN,
    infilled=["a red star .", "a red moon ."],
    text_parameters=1_400_000,
    difference=3e-6,
    seconds=300.0,
    peak_bytes=2**30,
)


def missed(measured: Measured, claimed: bool = True) -> list[str]:
    return [check.what for check in goals(measured, claimed) if check.met is False]


def test_good_numbers_meet_every_goal_and_distances_have_none():
    checks = goals(GOOD, claimed=True)
    assert missed(GOOD) == []
    assert sum(check.met is True for check in checks) == 12
    assert {check.value for check in checks if check.met is None} == {"1.5", "0.5"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"images": {"digits": IMAGE | {"class_agreement": 0.949}}}, "class as asked for"),
        ({"images": {"digits": IMAGE | {"judge": {"accuracy": 0.959}}}}, "that classifier"),
        ({"images": {"digits": IMAGE | {"recall": 0.499}}}, "recall of real scans"),
        ({"texts": {"scene": TEXT | {"grammatical": 0.899}}}, "parse under the grammar"),
        ({"texts": {"scene": TEXT | {"distinct_sentences": 199 / 256}}}, "different sentences"),
        ({"texts": {"scene": TEXT | {"unigram_entropy": 3.899}}}, "entropy of words"),
        ({"texts": {"scene": TEXT | {"perplexity_ratio": 1.301}}}, "perplexity over"),
        ({"infilled": ["a red star .", "a blue star ."]}, "given words kept"),
        ({"infilled": []}, "given words kept"),
        ({"difference": 1.1e-5}, "a sample alone"),
        ({"difference": float("nan")}, "a sample alone"),
        ({"text_parameters": 1_500_001}, "parameters of the text network"),
        ({"seconds": 360.0}, "training and sampling"),
        ({"peak_bytes": 3 * 2**30 + 1}, "memory of the largest process"),
    ],
)
def test_each_bad_number_misses_its_goal_and_no_other(changes: dict[str, Any], expected: str):
    (what,) = missed(dataclasses.replace(GOOD, **changes))
    assert what.startswith(expected)


def test_every_run_is_held_to_its_goals():
    bad = IMAGE | {"recall": 0.1}
    checks = goals(dataclasses.replace(GOOD, images={"pixels": IMAGE, "bits": bad}), claimed=True)
    assert [check.subject for check in checks if check.met is False] == ["bits"]


def test_run_too_short_to_learn_claims_only_what_holds_at_any_size():
    hopeless = dataclasses.replace(
        GOOD, images={"digits": IMAGE | {"class_agreement": 0.1}}, seconds=999.0
    )
    assert [check.met for check in goals(hopeless, claimed=False)].count(True) == 2
    assert missed(hopeless, claimed=False) == []
    wrong = dataclasses.replace(GOOD, infilled=["red"], difference=0.1)
    assert len(missed(wrong, claimed=False)) == 2


def test_distinct_sentences_are_claimed_only_of_as_many_as_the_goal_speaks_of():
    few = dataclasses.replace(GOOD, texts={"scene": TEXT | {"samples": 64}})
    assert {c.what: c.met for c in goals(few, True)}["different sentences"] is None


def test_page_of_numbers_has_every_goal_under_its_run_with_what_it_depends_on(tmp_path: Path):
    few = dataclasses.replace(GOOD, texts={"scene": TEXT | {"grammatical": 0.5, "samples": 64}})
    checks = goals(few, claimed=True)
    write_numbers(checks, {"commit": "abc"}, "make demo", tmp_path / "demo.md")
    lines = (tmp_path / "demo.md").read_text(encoding="utf-8").splitlines()
    assert "Written by `make demo`." in lines
    assert "* commit: abc" in lines
    assert [line for line in lines if line.startswith("## ")] == [
        "## Digits", "## Scene", "## Filling in", "## All runs",
    ]  # fmt: skip
    rows = [line for line in lines if line.startswith("| ") and not line.startswith("| |")]
    assert len(rows) == len(checks)
    assert "| parse under the grammar | 50.0% | ≥ 90% | not met |" in rows
    assert rows[0].endswith("| met |")
    assert "| different sentences | 60 of 64 | ≥ 200 of 256 |  |" in rows
    assert lines[-1] == "Goals: 10 of 11 met."


@pytest.mark.parametrize(
    ("sentence", "kept"),
    [
        ("a red star .", True),
        ("a red [MASK] .", True),
        ("a blue star .", False),
        ("a red star !", False),
        ("a red .", False),
        ("a red big star .", False),
        ("", False),
    ],
)
def test_sentence_keeps_given_words_in_their_places(sentence: str, kept: bool):
    assert keeps(GIVEN, sentence) is kept


COUNT = "import sys; open(sys.argv[1], 'a').write('x'); sys.exit(int(sys.argv[2]))"


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of `diptych`, a program that adds to a file and ends with a code: FILE CODE."""
    monkeypatch.setattr(steps, "command", lambda procs: [sys.executable, "-c", COUNT])


def quiet(folder: Path) -> Steps:
    return Steps(folder, Console(quiet=True))


def times(path: Path) -> int:
    return len(path.read_text())


@pytest.mark.usefixtures("counting")
def test_finished_steps_are_not_done_again_and_keep_their_seconds(tmp_path: Path):
    first, second = tmp_path / "first", tmp_path / "second"
    told: list[float] = []
    for _ in range(2):
        some = quiet(tmp_path)
        some.run([Task("one", [str(first), "0"], first)])
        told.append(some.seconds())
        some.run([Task("two", [str(second), "0"], second)])
        assert some.peak_bytes > 2**20
    assert (times(first), times(second)) == (1, 1)
    assert told[0] == pytest.approx(told[1])
    assert told[0] > 0


@pytest.mark.usefixtures("counting")
@pytest.mark.parametrize("change", ["command", "lost"])
def test_step_is_done_again_when_it_changed_and_so_is_what_follows(tmp_path: Path, change: str):
    zero, first, second = (tmp_path / name for name in ("zero", "first", "second"))
    for attempt in range(2):
        some = quiet(tmp_path)
        if attempt and change == "lost":
            first.unlink()
        changed = bool(attempt and change == "command")
        some.run([Task("zero", [str(zero), "0"], zero)])
        some.run([Task("one", [str(first), "0", *(["more"] if changed else [])], first)])
        some.run([Task("two", [str(second), "0"], second)])
    assert (times(zero), times(second)) == (1, 2)


@pytest.mark.usefixtures("counting")
def test_failed_step_ends_with_its_code_and_is_started_again(tmp_path: Path):
    made = tmp_path / "made"
    for attempt in range(1, 3):
        with pytest.raises(StepFailed, match="train digits failed with exit code 3") as failed:
            quiet(tmp_path).run([Task("train digits", [str(made), "3"], made)])
        assert failed.value.code == 3
        assert times(made) == attempt
    record = json.loads((tmp_path / "steps.json").read_text())
    assert record["steps"]["train digits"]["done"] is False


def test_step_ended_by_a_signal_has_the_code_of_a_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    kill = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
    monkeypatch.setattr(steps, "command", lambda procs: kill)
    with pytest.raises(StepFailed) as failed:
        quiet(tmp_path).run([Task("one", [], tmp_path)])
    assert failed.value.code == 128 + 9


ALARM = """
import os, signal, sys, time
def stop(*_):
    open(sys.argv[1], "w").write("saved")
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
os.kill(os.getppid(), signal.SIGALRM)
time.sleep(60)
"""


def test_interrupt_ends_the_step_in_progress_and_waits_until_it_has_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(steps, "command", lambda procs: [sys.executable, "-c", ALARM])
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    some, made = quiet(tmp_path), tmp_path / "made"
    try:
        with pytest.raises(KeyboardInterrupt):
            some.run([Task("one", [str(made)], made)])
    finally:
        signal.signal(signal.SIGALRM, before)
    assert made.read_text() == "saved"
    record = json.loads((tmp_path / "steps.json").read_text())["steps"]["one"]
    assert record["done"] is False
    assert record["seconds"] > 0


MEET = """
import os, sys, time
open(sys.argv[1], "a").write("x")
while not os.path.exists(sys.argv[2]):
    time.sleep(0.01)
time.sleep(float(sys.argv[3]))
sys.exit(int(sys.argv[4]))
"""


def meeting(tmp_path: Path, name: str, other: str, seconds: float, code: int) -> Task:
    """A task that waits until the other one runs, then takes some seconds."""
    words = [str(tmp_path / name), str(tmp_path / other), str(seconds), str(code)]
    return Task(name, words, tmp_path / name)


def test_lanes_run_side_by_side_and_take_the_time_of_the_longest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(steps, "command", lambda procs: [sys.executable, "-c", MEET])
    lanes = [
        [meeting(tmp_path, "a", "c", 0.3, 0), meeting(tmp_path, "b", "c", 0.0, 0)],
        [meeting(tmp_path, "c", "a", 0.0, 0)],
    ]
    for _ in range(2):
        some = quiet(tmp_path)
        some.run(*lanes)
        a, b, c = (some.known[name].seconds for name in "abc")
        assert some.seconds() == max(a + b, c) < a + b + c
    assert [times(tmp_path / name) for name in "abc"] == [1, 1, 1]


def test_failure_in_one_lane_stops_the_other_and_is_the_one_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(steps, "command", lambda procs: [sys.executable, "-c", MEET])
    lanes = [[meeting(tmp_path, "a", "b", 60, 0)], [meeting(tmp_path, "b", "a", 0, 3)]]
    with pytest.raises(StepFailed, match="b failed with exit code 3") as failed:
        quiet(tmp_path).run(*lanes)
    assert failed.value.code == 3
    record = json.loads((tmp_path / "steps.json").read_text())["steps"]
    assert [record[name]["done"] for name in "ab"] == [False, False]
    assert record["a"]["seconds"] < 30


@pytest.mark.usefixtures("counting")
def test_what_follows_lanes_is_done_again_when_one_of_them_was(tmp_path: Path):
    a, b, c = (tmp_path / name for name in "abc")
    for attempt in range(2):
        if attempt:
            b.unlink()
        some = quiet(tmp_path)
        some.run([Task("a", [str(a), "0"], a)], [Task("b", [str(b), "0"], b)])
        some.run([Task("c", [str(c), "0"], c)])
    assert (times(a), times(b), times(c)) == (1, 1, 2)


def test_record_that_is_none_is_refused(tmp_path: Path):
    (tmp_path / "steps.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"steps\.json"):
        quiet(tmp_path)


def test_demo_ends_with_the_code_of_its_first_step_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    fail = "import sys; print('no room', file=sys.stderr); sys.exit(3)"
    monkeypatch.setattr(steps, "command", lambda procs: [sys.executable, "-c", fail])
    assert demo.main(["--out", str(tmp_path)]) == 3
    told = capfd.readouterr().err
    # two lanes begin at once: whichever of their first steps ends first
    failed = re.search(r"demo: train (digits|scene) failed with exit code 3", told)
    assert failed is not None
    assert told.index("no room") < failed.start()
    assert not (tmp_path / "report.html").exists()


def test_processes_are_started_by_the_launcher_with_this_interpreter():
    assert steps.command(1) == [sys.executable, "-m", "diptych"]
    words = steps.command(3)
    assert words[:3] == [sys.executable, "-m", "deepspeed.launcher.runner"]
    assert words[words.index("--num_accelerators") + 1] == "3"
    assert 1024 < int(words[words.index("--master_port") + 1]) < 65536
    assert words[-2:] == ["--module", "diptych"]


def test_impossible_number_of_processes_is_refused(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as refused:
        demo.main(["--procs", "0"])
    assert refused.value.code == 2
    assert "--procs 0" in capsys.readouterr().err
