"""Schedules by name: every one with its own numbers, and no others."""

import pytest

from shared.schedule import SCHEDULES, Cosine, Edm, Learned, named_schedule, schedule_options
from shared.schedule.checks import check_options


def test_every_name_makes_its_schedule_with_its_own_numbers():
    assert named_schedule("cosine", {"logsnr_min": -5, "s": 0.1}) == Cosine(-5, s=0.1)
    assert named_schedule("edm", {"rho": 5.0}) == Edm(rho=5.0)
    assert isinstance(named_schedule("learned", {"hidden": 3.0}), Learned)
    for name in SCHEDULES:
        assert type(named_schedule(name, {})).__name__.lower() == name.replace("_", "")


def test_numbers_of_a_schedule_are_those_of_its_constructor():
    assert schedule_options("sigmoid") == ["logsnr_min", "logsnr_max", "start", "end", "tau"]
    assert schedule_options("learned") == ["logsnr_min", "logsnr_max", "hidden"]


def test_a_number_that_a_schedule_has_not_is_refused_with_the_nearest():
    with pytest.raises(ValueError) as refused:
        named_schedule("ve", {"sigma_mix": 3.0})
    assert str(refused.value) == (
        "ve has no option sigma_mix: expected one of sigma_min, sigma_max; did you mean sigma_min?"
    )
    with pytest.raises(
        ValueError, match=r"flow has no option xyz: expected one of logsnr_min, lo.*x$"
    ):
        named_schedule("flow", {"xyz": 3.0})
    with pytest.raises(ValueError, match=r"thing has no option x: it has none$"):
        check_options("thing", ["x"], [])
