"""A trained model and held-out data -> numbers of evaluation.json."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from shared.codec import Bits
from shared.errors import NonFinite
from shared.likelihood import Estimate, Likelihood, elbo, ode
from shared.oracle import PointMixture
from shared.requests import EvaluateRequest
from shared.schedule import Cosine, Linear, Schedule, SubVp, from_betas, sqrt_betas
from shared.scoring import Split, bounds, flow_score, likelihood_facts, measured, score
from tests.likelihoods import f64

DATA = torch.tensor([[0, 3], [4, 1], [2, 3], [0, 3], [4, 1]])


class Half(nn.Module):
    """The exact denoiser of DATA below a logsnr, nonsense above; records what it is shown."""

    self_condition, data_std = False, 1.0

    def __init__(self, oracle: PointMixture, limit: float) -> None:
        super().__init__()
        self.oracle, self.limit = oracle, limit
        self.conditions: list[Tensor] = []

    def forward(self, x_t, level, condition=None, previous=None):
        if condition is not None:
            self.conditions.append(condition)
        exact = self.oracle.denoise(x_t, level)
        clean = level.widen(x_t.ndim).logsnr > self.limit
        return torch.where(clean, torch.zeros_like(x_t), exact)


def learner(limit: float, schedule: Schedule) -> Any:
    module: Any = nn.Linear(1, 1)  # something with parameters
    module.codec, module.schedule = Bits(5, (2,), scale=0.1), schedule
    module.denoiser = Half(PointMixture(module.codec.encode(DATA)), limit)
    return module


@pytest.mark.parametrize(("limit", "expected"), [(5.0, 4.5), (8.0, 7.5)])
def test_the_codec_takes_over_where_the_network_knows_nothing(limit: float, expected: float):
    """Not sooner: the bits are small, and rounding would lose more than the exact denoiser."""
    many = Split(DATA.repeat(12, 1))
    found = score(learner(limit, Cosine(-12, 12)), many, many, 3, progress=False)
    assert found is not None
    assert found.cleanest_logsnr == pytest.approx(expected)


def test_a_chain_which_is_clean_at_its_end_stops_before_it():
    some = Split(DATA)
    found = score(learner(5.0, from_betas(sqrt_betas(50))), some, some, 3, progress=False)
    assert found is not None
    assert found.cleanest_logsnr in [pytest.approx(x) for x in (9.0, 7.5, 6.0, 4.5, 3.0)]
    assert math.isfinite(found.likelihood.nats_per_datum.value)


def test_the_level_is_chosen_by_training_data_and_the_bound_is_of_held_out_data():
    model = learner(5.0, Cosine(-12, 12))
    condition = torch.arange(10).reshape(5, 2)
    found = score(
        model, Split(DATA[:2], condition[:2]), Split(DATA[2:], condition[2:]), 3, 7, progress=False
    )
    assert found is not None
    shown = torch.cat(model.denoiser.conditions).unique(dim=0)
    assert sorted(shown[:, 0].tolist()) == [0, 2, 4, 6, 8]
    assert model.denoiser.conditions[-1].unique(dim=0).tolist() == condition[:2].tolist()
    end = float(model.schedule.time(f64(found.cleanest_logsnr)))
    again = elbo(
        model.denoiser, model.codec, DATA[:2], model.schedule, condition[:2], draws=3, seed=7,
        cleanest=end,
    )  # fmt: skip
    torch.testing.assert_close(found.likelihood.nats, again.nats)


def test_levels_beyond_the_schedule_are_not_tried():
    found = score(learner(9.0, Cosine(-12, 2.5)), Split(DATA), Split(DATA), 3, progress=False)
    assert found is not None
    assert found.cleanest_logsnr == pytest.approx(2.5)


@pytest.mark.parametrize("schedule", [Linear(logsnr_max=4.0), SubVp(logsnr_max=7.5)])
def test_the_flow_begins_at_the_schedules_own_end_though_its_inverse_rounds(schedule: Schedule):
    assert float(schedule.time(schedule.logsnr(f64(0.0)))) < 0  # before all times there are
    model = learner(math.inf, schedule)
    scored = score(model, Split(DATA), Split(DATA), 3, progress=False)
    assert scored is not None
    found = flow_score(model, Split(DATA), scored, 7, progress=False)
    exact = ode(model.denoiser, model.codec, DATA, schedule, seed=7)
    torch.testing.assert_close(found.nats, exact.nats)


@pytest.mark.parametrize(
    ("flow_only", "words"),
    [(False, "the term 'diffusion' of datum 0"), (True, "the flow is not finite at logsnr")],
)
def test_a_model_that_gives_no_numbers_ends_with_exit_code_4(flow_only: bool, words: str):
    class Broken(Half):
        """Nothing everywhere, or only where the flow looks, with a gradient."""

        def forward(self, x_t, level, condition=None, previous=None):
            found = super().forward(x_t, level, condition, previous)
            return found if flow_only and not x_t.requires_grad else found * math.nan

    model = learner(math.inf, Cosine(-12, 6.5))
    model.denoiser = Broken(model.denoiser.oracle, math.inf)
    request = EvaluateRequest(n=5, likelihood=True, draws=3, ode=2)
    with pytest.raises(NonFinite, match=words) as raised:
        bounds(model, Split(DATA), Split(DATA), request, "word", lambda found: {})
    assert raised.value.code == 4


def test_numbers_carry_their_unit_and_their_standard_error():
    found = Likelihood({"a": f64([1.0, 3.0]), "b": f64([2.0, 2.0])}, 6, 4, 2.0)
    numbers = likelihood_facts(found, "a bound", "word")
    assert numbers == {
        "what": "a bound",
        "words": 2,
        "draws": 4,
        "network_evaluations_per_draw": 2.0,
        "nats_per_word": 4.0,
        "nats_per_word_standard_error": pytest.approx(1.0),
        "a_nats_per_word": 2.0,
        "a_nats_per_word_standard_error": pytest.approx(1.0),
        "b_nats_per_word": 2.0,
        "b_nats_per_word_standard_error": 0.0,
    }


def test_what_is_no_number_is_none():
    assert measured("x", Estimate(math.inf, math.nan)) == {"x": None, "x_standard_error": None}
