"""Trained runs as functions from seeds to sentences."""

import json

import pytest
import torch

import text
from shared.drawing import draw
from shared.errors import CheckpointError, ConfigError
from shared.learner import DiffusionLearner
from shared.requests import SampleRequest
from shared.runs import load_learner
from shared.sampling import Sampling
from text.panel import PANEL

GIVEN = "a red [MASK] [MASK] of the [MASK]*"


@pytest.fixture(scope="module", params=["embedding", "bits"])
def run(request, make_run):
    return make_run(f"codec.kind={request.param}")


@pytest.fixture(scope="module")
def pipe(run):
    return text.Pipeline.from_pretrained(run)


def test_a_sentence_depends_on_its_seed_alone(pipe) -> None:
    together = pipe(seeds=range(100, 164), num_inference_steps=6).texts
    assert len(set(together)) > 32
    for i in (0, 17, 63):
        assert pipe(seeds=[100 + i], num_inference_steps=6).texts == [together[i]]


def test_a_latent_alone_agrees_with_it_in_a_batch_to_1e_5(run) -> None:
    learner = load_learner(run)
    assert isinstance(learner, DiffusionLearner)
    how = Sampling(steps=6, solver="ancestral")
    x0 = draw(learner, range(64), how, progress=False)
    for i in (0, 40):
        alone = draw(learner, [i], how, progress=False)
        torch.testing.assert_close(alone[0], x0[i], atol=1e-5, rtol=0)


@pytest.mark.parametrize("solver", ["ancestral", "ddim", "dpmpp_2m"])
def test_given_words_are_in_every_sentence(pipe, solver: str) -> None:
    texts = pipe(seeds=range(16), num_inference_steps=4, solver=solver, given=GIVEN).texts
    for sentence in texts:
        words = sentence.split()
        assert words[:2] == ["a", "red"]
        assert words[4:6] == ["of", "the"]
    assert len(set(texts)) > 8


def test_without_an_open_end_the_sentence_ends_where_the_template_ends(pipe) -> None:
    for sentence in pipe(seeds=range(16), num_inference_steps=4, given="[MASK] red [MASK]").texts:
        words = sentence.split()
        assert len(words) == 3
        assert words[1] == "red"


def test_temperature_changes_what_is_said_and_one_is_the_model_itself(pipe) -> None:
    seeds = range(16)
    plain = pipe(seeds=seeds, num_inference_steps=6).texts
    assert pipe(seeds=seeds, num_inference_steps=6, temperature=1.0).texts == plain
    cold = pipe(seeds=seeds, num_inference_steps=6, temperature=0.2).texts
    assert cold != plain
    words = [len({word for text in texts for word in text.split()}) for texts in (cold, plain)]
    assert words[0] < words[1]


def test_seeds_come_from_a_generator_or_are_new(pipe) -> None:
    first, again = (
        pipe(n=3, num_inference_steps=2, generator=torch.Generator().manual_seed(5))
        for _ in range(2)
    )
    assert first == again
    assert pipe(n=2, num_inference_steps=2).seeds != pipe(n=2, num_inference_steps=2).seeds
    with pytest.raises(ConfigError, match="not both"):
        pipe(seeds=[1], generator=torch.Generator())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"given": "a purplish [MASK]"}, "does not know 'purplish'"),
        ({"num_inference_steps": 0}, "steps = 0"),
        ({"solver": "newton"}, "solver = 'newton'"),
        ({"n": 0}, "n = 0"),
        ({"temperature": 0.0}, "temperature = 0.0"),
    ],
)
def test_what_the_model_cannot_do_is_refused(pipe, arguments, message) -> None:
    with pytest.raises(ConfigError, match=message):
        pipe(**arguments)


def test_sample_writes_sentences_settings_and_a_trajectory(run, tmp_path) -> None:
    request = SampleRequest(n=5, seed=3, steps=4, trajectory=True, given="a red [MASK]*")
    result = PANEL.sample(run, request, tmp_path)
    lines = (tmp_path / "samples.txt").read_text().splitlines()
    written = json.loads((tmp_path / "samples.json").read_text())
    assert result["n"] == len(lines) == 5
    assert written["texts"] == lines
    assert written["seeds"] == [3, 4, 5, 6, 7]
    assert written["settings"]["given"] == "a red [MASK]*"
    trajectory = json.loads((tmp_path / "trajectory.json").read_text())
    assert [row["step"] for row in trajectory] == [0, 1, 2, 3]
    levels = [row["logsnr"] for row in trajectory]
    assert levels == sorted(levels)
    assert trajectory[-1]["text"] == lines[0]  # the last step returns its estimate
    assert len((tmp_path / "trajectory.txt").read_text().splitlines()) == 4


def test_a_condition_is_refused(run, tmp_path) -> None:
    for request, message in (
        (SampleRequest(n=1, guidance=2.0), "towards what"),
        (SampleRequest(n=1, condition="3"), "sentences have none"),
        (SampleRequest(n=1, prompt="a"), "writes from nothing"),
    ):
        with pytest.raises(ConfigError, match=message):
            PANEL.sample(run, request, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_run_that_lost_its_tokenizer_is_a_checkpoint_error(run, tmp_path) -> None:
    import shutil

    broken = tmp_path / "run"
    shutil.copytree(run, broken)
    (broken / "tokenizer.model").write_bytes(b"garbage")
    with pytest.raises(CheckpointError, match="damaged"):
        text.Pipeline.from_pretrained(broken)
    (broken / "tokenizer.model").unlink()
    with pytest.raises(CheckpointError, match="no such tokenizer"):
        text.Pipeline.from_pretrained(broken)


def test_the_causal_reference_writes_too_but_cannot_infill(make_run) -> None:
    pipe = text.Pipeline.from_pretrained(make_run("model=causal"))
    texts = pipe(seeds=range(12)).texts
    assert len(texts) == 12
    assert pipe(seeds=[7]).texts == [texts[7]]
    with pytest.raises(ConfigError, match="left to right"):
        pipe(seeds=[7], given="a [MASK]*")
    with pytest.raises(ConfigError, match="left to right"):
        pipe(seeds=[7], clamp=True)
