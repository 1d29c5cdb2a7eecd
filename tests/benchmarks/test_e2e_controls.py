"""How the benchmark of real text splits targets and chooses settings."""

from pathlib import Path

import pytest

from benchmarks.e2e_controls import CLOSE, choose, is_test, targets
from text.control import Control, Target


def row(satisfied: float, lm_score: float) -> dict[str, float]:
    return {"satisfied": satisfied, "lm_score": lm_score}


def test_chosen_is_what_satisfies_most_among_fluent_settings():
    best, fluent = row(0.9, 2.0 + CLOSE), row(0.8, 2.0)
    assert choose([fluent, best, row(1.0, 2.1 + CLOSE)], free=2.0) is best
    assert choose([row(0.9, 2.4), row(0.9, 2.3)], free=2.0) == row(0.9, 2.3)
    assert choose([row(1.0, 4.0), row(0.5, 3.0)], free=2.0) == row(0.5, 3.0)


def test_a_target_is_always_of_the_same_half_and_halves_are_even():
    made = [Target((Control("length", str(n)),)) for n in range(1, 401)]
    chosen = [is_test(target) for target in made]
    assert chosen == [is_test(Target(target.controls, ("other", "words"))) for target in made]
    assert 160 < sum(chosen) < 240


def test_lengths_leave_a_place_for_the_end():
    found = targets("length", Path("nowhere"))
    assert [target.controls[0].value for target in found] == [str(n) for n in range(9, 40)]


def test_every_kind_of_file_is_read(tmp_path: Path):
    with pytest.raises(Exception, match=r"target_pos.jsonl.gz: no such file of targets"):
        targets("parts of speech", tmp_path)
