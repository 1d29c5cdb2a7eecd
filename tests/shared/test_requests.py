"""Options that would be passed over are refused, each with what to do."""

from pathlib import Path
from typing import Any

import pytest
import torch

from shared.errors import ConfigError
from shared.likelihood.bound import evaluation_keys
from shared.objective.streams import sample_keys
from shared.requests import BOUND_SEEDS, EvaluateRequest, SampleRequest


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


@pytest.mark.parametrize("seed", [-1, 2**31, 2**40])
def test_seeds_whose_noise_could_be_that_of_training_are_refused_for_the_bound(seed: int):
    with pytest.raises(ConfigError, match=rf"seed = {seed}: with likelihood .* in \[0, 2\^31\)"):
        EvaluateRequest(likelihood=True, seed=seed)
    assert EvaluateRequest(seed=seed).seed == seed


def test_no_key_of_the_bound_is_one_of_training():
    rows = torch.tensor([0, 1, 2**32 - 1])
    for seed in (0, 7, BOUND_SEEDS - 1):
        assert bool((evaluation_keys(seed, rows) < 0).all())
        assert bool((sample_keys(seed, rows) >= 0).all())


def test_the_same_options_are_taken_where_they_are_read():
    assert SampleRequest(low=Path("a.png"), low_noise=0.2).low_noise == 0.2
    assert EvaluateRequest(likelihood=True, draws=2, ode=1).draws == 2
