"""One setting at several values: as it is written, and as requests that differ in it alone."""

import dataclasses

import pytest

from shared.errors import ConfigError
from shared.requests import EvaluateRequest
from shared.sweep import SETTINGS, Sweep, parse_sweep


@pytest.mark.parametrize(
    ("asked", "sweep"),
    [
        ("temperature=0.7,1", Sweep("temperature", (0.7, 1.0))),
        (" steps = 64, 8 ", Sweep("steps", (64, 8))),
        ("td=0,1.5", Sweep("td", (0.0, 1.5))),
    ],
)
def test_values_keep_their_order_and_have_their_settings_type(asked: str, sweep: Sweep):
    found = parse_sweep("frontier", asked)
    assert found == sweep
    assert [type(value) for value in found.values] == [SETTINGS[found.name]] * 2


def test_points_differ_from_the_request_in_the_setting_alone():
    request = EvaluateRequest(n=5, seed=2, solver="ancestral", frontier="td=1.5,0")
    points = request.points()
    assert list(points) == [1.5, 0.0]
    for td, point in points.items():
        assert point == dataclasses.replace(request, frontier=None, td=td)


def test_an_impossible_value_is_refused_when_it_is_asked_for():
    for asked in ("steps=4,0", "temperature=nan", "solver=ddim", ""):
        with pytest.raises(ConfigError):
            EvaluateRequest(frontier=asked)
