"""`diptych evaluate --likelihood` for pictures."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from image.codec import Pixels
from image.comparison import some_rows
from image.data import load_pictures
from image.panel import PANEL
from image.pipeline import Pipeline
from shared.cli import main
from shared.errors import ConfigError
from shared.likelihood import elbo, ode
from shared.requests import EvaluateRequest
from shared.schedule import Schedule
from tests.image.conftest import image_config

TERMS = ("prior", "diffusion", "reconstruction")


def asked(n: int = 9, **settings: Any) -> EvaluateRequest:
    return EvaluateRequest(n=n, steps=2, likelihood=True, draws=3, **settings)


def cleanest(schedule: Schedule, told: dict[str, Any]) -> float:
    """The time of the level at which the bound says it stopped."""
    assert told["cleanest_logsnr"] == pytest.approx(12) or told["cleanest_logsnr"] < 9.1
    return float(schedule.time(torch.tensor(told["cleanest_logsnr"], dtype=torch.float64)))


@pytest.mark.parametrize("codec", ["pixels", "bits"])
def test_held_out_pictures_are_bounded_given_their_class(make_run, codec: str):
    run = make_run(f"codec.kind={codec}")
    result = PANEL.evaluate(run, asked(seed=5))
    told = result["likelihood"]
    assert result == json.loads(json.dumps(result))
    learner = Pipeline.from_pretrained(run).learner
    held_out = load_pictures(image_config().data, held_out=True)
    rows = some_rows(len(held_out), 9, 5)
    images, condition = held_out.take(rows)
    found = elbo(
        learner.denoiser, learner.codec, images, learner.schedule, condition, draws=3, seed=5,
        passes=2, cleanest=cleanest(learner.schedule, told),
    )  # fmt: skip
    assert told["nats_per_picture"] == pytest.approx(found.nats_per_datum.value)
    assert told["nats_per_picture_standard_error"] == pytest.approx(found.nats_per_datum.error)
    for name in TERMS:
        assert told[f"{name}_nats_per_picture"] == pytest.approx(found.term(name).value)
    assert told["bits_per_dim"] == pytest.approx(told["nats_per_picture"] / 64 / math.log(2))
    assert told["bits_per_dim_standard_error"] == pytest.approx(found.bits_per_dim.error)
    assert (told["pictures"], told["draws"], told["dims"], told["split"]) == (9, 3, 64, "test")
    assert told["network_evaluations_per_draw"] == 2  # self-conditioned
    assert told["what"].startswith("upper bound")
    assert "nats_per_picture_floor" not in told


def test_without_being_asked_nothing_is_bounded(make_run):
    assert "likelihood" not in PANEL.evaluate(make_run(), EvaluateRequest(n=9, steps=2))


def test_no_more_pictures_than_there_are(make_run):
    run = make_run("data.limit=100")
    assert PANEL.evaluate(run, asked(110))["likelihood"]["pictures"] == 100


def test_scenes_are_certain_given_all_their_attributes(make_run):
    run = make_run("data.name=scene", "data.limit=80", "patch=8")
    told = PANEL.evaluate(run, asked(60))["likelihood"]
    assert told["nats_per_picture_floor"] == 0
    assert told["nats_per_picture"] > 3 * told["nats_per_picture_standard_error"]
    assert told["dims"] == 3 * 32 * 32


@pytest.mark.parametrize("more", [(), ("diffusion.self_condition=false", "codec.kind=bits")])
def test_the_flow_bounds_the_first_of_these_pictures(make_run, more: tuple[str, ...]):
    run = make_run(*more)
    told = PANEL.evaluate(run, asked(seed=5, ode=3))["likelihood"]
    learner: Any = Pipeline.from_pretrained(run).learner
    held_out = load_pictures(image_config().data, held_out=True)
    images, condition = held_out.take(some_rows(len(held_out), 9, 5)[:3])
    found = ode(
        learner.denoiser, learner.codec, images, learner.schedule, condition, seed=5,
        cleanest=cleanest(learner.schedule, told), passes=1 if more else 2,
        data_std=learner.denoiser.data_std,
    )  # fmt: skip
    flow = told["ode"]
    assert (flow["pictures"], flow["draws"], told["pictures"]) == (3, 1, 9)
    assert flow["nats_per_picture"] == pytest.approx(found.nats_per_datum.value, rel=1e-4)
    for name in ("flow", "noise", "reconstruction"):
        assert flow[f"{name}_nats_per_picture"] == pytest.approx(found.term(name).value, rel=1e-4)
    assert flow["bits_per_dim"] == pytest.approx(flow["nats_per_picture"] / 64 / math.log(2))
    assert flow["network_evaluations_per_draw"] > 20


def test_a_run_without_classes_has_a_likelihood_and_nothing_else(make_run):
    run = make_run("data.label_column=null")
    result = PANEL.evaluate(run, asked(9, ode=2))
    assert set(result) == {"likelihood", "settings", "provenance"}
    assert result["likelihood"]["pictures"] == 9
    assert result["likelihood"]["ode"]["pictures"] == 2
    with pytest.raises(ConfigError, match=r"data\.label_column = null"):
        PANEL.evaluate(run, EvaluateRequest(n=9, steps=2))


@pytest.mark.parametrize("wrong", [{"ode": 10}, {"ode": -1}, {"ode": 3, "likelihood": False}])
def test_the_flow_bounds_no_more_than_the_bound_does(wrong: dict[str, Any]):
    with pytest.raises(ConfigError, match=r"ode = .*at most n = 9, with likelihood"):
        EvaluateRequest(**({"n": 9, "likelihood": True} | wrong))


def test_a_codec_without_log_prob_leaves_it_undefined_and_says_why(make_run, monkeypatch):
    monkeypatch.setattr(Pixels, "log_prob", None)
    told = PANEL.evaluate(make_run(), asked())["likelihood"]
    assert told == {"what": told["what"]}
    assert "undefined: the codec has no log_prob" in told["what"]


def test_a_classifier_has_none(make_run):
    with pytest.raises(ConfigError, match="likelihood: a classifier draws no pictures"):
        PANEL.evaluate(make_run("model=classifier"), asked())


def test_the_command_writes_it_to_the_run(make_run, capsys):
    run: Path = make_run()
    words = ["-n", "9", "--steps", "2", "--likelihood", "--draws", "2", "--json"]
    assert main(["evaluate", str(run), *words]) == 0
    told = json.loads(capsys.readouterr().out)["likelihood"]
    assert json.loads((run / "evaluation.json").read_text())["likelihood"] == told
    assert told["draws"] == 2
    assert main(["evaluate", str(run), "--likelihood", "--draws", "0"]) == 2


def test_guidance_has_no_part_in_it(make_run):
    plain, guided = (
        PANEL.evaluate(make_run(), asked(guidance=scale))["likelihood"] for scale in (1.0, 3.0)
    )
    assert plain == guided
    assert torch.tensor(plain["nats_per_picture"]).isfinite()
