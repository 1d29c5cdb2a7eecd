"""Options that would be passed over are refused, each with what to do."""

from pathlib import Path
from typing import Any

import pytest

from shared.errors import ConfigError
from shared.requests import EvaluateRequest, SampleRequest


@pytest.mark.parametrize(
    ("request_of", "options", "message"),
    [
        (
            SampleRequest,
            {"low": Path("a.png"), "sketch": Path("b.png")},
            "low, sketch: .* leave one",
        ),
        (SampleRequest, {"low_noise": 0.2}, "low_noise: .* give low"),
        (EvaluateRequest, {"draws": 2}, "draws: .* give likelihood"),
        (EvaluateRequest, {"ode": 1}, "ode = 1: expected at most n = 256, with likelihood"),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    request_of: Any, options: dict[str, Any], message: str
):
    with pytest.raises(ConfigError, match=message):
        request_of(**options)


def test_the_same_options_are_taken_where_they_are_read():
    assert SampleRequest(low=Path("a.png"), low_noise=0.2).low_noise == 0.2
    assert EvaluateRequest(likelihood=True, draws=2, ode=1).draws == 2
