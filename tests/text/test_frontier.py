"""`diptych evaluate --frontier`: its points are those of `evaluate`, its errors come early."""

import json
import math
from pathlib import Path

import pytest
from PIL import Image

from shared.requests import EvaluateRequest
from tests.test_command import assert_refused, diptych
from text.frontier import PAIR
from text.panel import PANEL


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path_factory.getbasetemp() / "text-judges"))


@pytest.fixture(scope="module")
def run(make_run) -> Path:
    return make_run("codec.kind=embedding")


def test_points_are_what_evaluate_measures_there(run: Path) -> None:
    plain = PANEL.evaluate(run, EvaluateRequest(n=7, seed=3, steps=2, temperature=0.5))
    request = EvaluateRequest(n=7, seed=3, steps=2, frontier="temperature=0.5,1.5")
    found = PANEL.frontier(run, request)
    first, second = found["points"]
    assert first.pop("temperature") == 0.5
    assert first == {key: plain[key] for key in first}
    assert {*PAIR, "grammatical", "self_bleu", "length_distance"} <= first.keys()
    assert second["temperature"] == 1.5
    assert second["unigram_entropy"] > first["unigram_entropy"]
    for key in ("perplexity_held_out", "unigram_entropy_data", "self_bleu_held_out"):
        assert second[key] == first[key]
    assert found["data"] == {
        "unigram_entropy": plain["unigram_entropy_data"],
        "perplexity": plain["perplexity_held_out"],
    }
    del plain["settings"]["temperature"]
    for key in ("settings", "judge", "held_out", "provenance"):
        assert found[key] == plain[key]


def test_the_command_writes_a_table_and_a_picture_and_no_evaluation(run: Path) -> None:
    (run / "evaluation.json").unlink(missing_ok=True)
    words = ["-n", "5", "--frontier", "steps=1,3,2"]
    result = diptych("evaluate", run, *words, "--json")
    assert result.code == 0, result.err
    found = json.loads((run / "frontier.json").read_text())
    assert json.loads(result.out) == found
    assert found["setting"] == "steps"
    assert [point["steps"] for point in found["points"]] == [1, 3, 2]
    assert "steps" not in found["settings"]
    assert all(math.isfinite(point[key]) for point in found["points"] for key in PAIR)
    with Image.open(run / "frontier.png") as picture:
        assert min(picture.size) > 500
    assert not (run / "evaluation.json").exists()
    for i, value in enumerate((1, 3, 2)):
        assert f"steps = {value}: 5 sentences ({i + 1} of 3)" in result.err
        assert f"steps = {value}: unigram_entropy {found['points'][i]['unigram_entropy']:.3f}" in (
            result.err
        )


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("temperature=", ["expected a setting and its values"]),
        ("temperature", ["expected a setting and its values"]),
        ("temperatur=1", ["expected one of temperature, steps, td, got 'temperatur'"]),
        ("temperature=1,warm", ["temperature takes numbers", "got 'warm'"]),
        ("steps=8.5", ["steps takes whole numbers", "got '8.5'"]),
        ("temperature=1,,2", ["got ''"]),
        ("temperature=1,0.7,1.0", ["a value is there twice"]),
        ("temperature=1,0", ["temperature = 0.0: expected a number above 0"]),
        ("steps=4,0", ["steps = 0: expected 1 or more"]),
        ("td=1,-1", ["td = -1.0"]),
    ],
)
def test_an_impossible_axis_is_refused_with_code_2(run, asked: str, words: list[str]) -> None:
    before = {path.name for path in run.iterdir()}
    assert_refused(diptych("evaluate", run, "-n", "2", "--frontier", asked), 2, *words)
    assert {path.name for path in run.iterdir()} == before


def test_what_a_model_cannot_do_is_refused_before_a_judge_is_looked_for(make_run, monkeypatch):
    def stop(*_):
        raise AssertionError("a judge was looked for")

    monkeypatch.setattr("text.yardstick.find_judge", stop)
    result = diptych("evaluate", make_run("model=causal"), "--frontier", "steps=2,4")
    assert_refused(result, 2, "steps does nothing to the causal reference")
    bits = make_run("codec.kind=bits", "diffusion.prediction=x0")
    result = diptych("evaluate", bits, "-n", "2", "--steps", "2", "--frontier", "temperature=0.5")
    assert_refused(result, 2, "temperature")


def test_a_bound_and_a_frontier_are_not_asked_for_together(run: Path) -> None:
    result = diptych("evaluate", run, "--likelihood", "--frontier", "steps=2")
    assert_refused(result, 2, "likelihood, frontier")


def test_the_causal_reference_has_a_frontier_of_temperatures(make_run) -> None:
    request = EvaluateRequest(n=6, frontier="temperature=0.3,1")
    points = PANEL.frontier(make_run("model=causal"), request)["points"]
    assert points[0]["unigram_entropy"] < points[1]["unigram_entropy"]
