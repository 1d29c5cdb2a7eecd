"""`diptych evaluate --likelihood` for sentences."""

import json
import math
from typing import Any

import pytest
import torch

from shared.errors import ConfigError
from shared.likelihood import elbo, ode
from shared.requests import EvaluateRequest
from shared.tokenizer import PAD
from tests.text.conftest import text_config
from text.codec import Embedding
from text.data import Corpus, read_corpus, some, to_rows
from text.metrics import perplexity
from text.panel import PANEL
from text.pipeline import Pipeline
from text.teller import entropy


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.getbasetemp() / "text-judges"
    monkeypatch.setenv("DIPTYCH_CACHE", str(folder))


def asked(**settings: Any) -> EvaluateRequest:
    return EvaluateRequest(n=11, steps=2, likelihood=True, draws=3, **settings)


def held_out(pipeline: Pipeline) -> list[str]:
    """The eleven sentences that are bounded."""
    config = text_config().data
    rows = to_rows(read_corpus(config, held_out=True), pipeline.tokenizer, config)
    return some([pipeline.tokenizer.decode(ids) for ids in rows.ids.tolist()], 11)


@pytest.mark.parametrize("kind", ["embedding", "bits"])
def test_held_out_sentences_are_bounded_above_the_entropy_of_the_world(make_run, kind: str):
    run = make_run(f"codec.kind={kind}")
    result = PANEL.evaluate(run, asked(seed=4))
    told = result["likelihood"]
    assert result == json.loads(json.dumps(result))
    pipeline = Pipeline.from_pretrained(run)
    rows = to_rows(Corpus(held_out(pipeline)), pipeline.tokenizer, text_config().data).ids
    learner: Any = pipeline.learner
    end = learner.schedule.time(torch.tensor(told["cleanest_logsnr"], dtype=torch.float64))
    found = elbo(
        learner.denoiser, learner.codec, rows, learner.schedule, draws=3, seed=4, passes=2,
        cleanest=float(end),
    )  # fmt: skip
    tokens = (rows != PAD).sum(1)
    assert (told["sentences"], told["tokens"], told["draws"]) == (11, int(tokens.sum()), 3)
    assert told["nats_per_sentence"] == pytest.approx(found.nats_per_datum.value, rel=1e-5)
    parts = ("prior", "diffusion", "reconstruction")
    terms = [told[f"{name}_nats_per_sentence"] for name in parts]
    assert sum(terms) == pytest.approx(told["nats_per_sentence"])
    per_token = told["nats_per_sentence"] * 11 / told["tokens"]
    assert told["nats_per_token"] == pytest.approx(per_token)
    error = found.nats_per_token(tokens).error
    assert told["nats_per_token_standard_error"] == pytest.approx(error, rel=1e-4)
    characters = sum(map(len, held_out(pipeline)))
    bits = told["nats_per_sentence"] * 11 / characters / math.log(2)
    assert told["bits_per_char"] == pytest.approx(bits)
    assert told["perplexity_bound"] == pytest.approx(math.exp(per_token))
    assert told["nats_per_sentence_floor"] == pytest.approx(entropy())
    assert told["nats_per_token_floor"] == pytest.approx(entropy() * 11 / told["tokens"])
    assert told["nats_per_sentence"] > told["nats_per_sentence_floor"]
    assert told["split"] == "validation"


def test_the_causal_reference_is_exact_and_above_the_entropy(make_run):
    run = make_run("model=causal")
    told = PANEL.evaluate(run, asked())["likelihood"]
    pipeline = Pipeline.from_pretrained(run)
    model: Any = pipeline.learner
    own = perplexity.compute(held_out(pipeline), model, pipeline.tokenizer)
    assert told["perplexity"] == pytest.approx(own["perplexity"], rel=1e-5)
    assert told["tokens"] == own["tokens"]
    nats, characters = told["nats_per_sentence"] * 11, sum(map(len, held_out(pipeline)))
    assert told["bits_per_char"] == pytest.approx(nats / characters / math.log(2))
    assert told["what"] == "-log p(data), exact"
    assert told["nats_per_sentence"] > told["nats_per_sentence_floor"]
    assert "perplexity_bound" not in told
    assert "exact_nats_per_sentence" not in told


def test_the_flow_bounds_the_first_of_these_sentences(make_run):
    run = make_run("codec.kind=embedding")
    told = PANEL.evaluate(run, asked(ode=3))["likelihood"]
    pipeline = Pipeline.from_pretrained(run)
    rows = to_rows(Corpus(held_out(pipeline)[:3]), pipeline.tokenizer, text_config().data).ids
    learner: Any = pipeline.learner
    end = learner.schedule.time(torch.tensor(told["cleanest_logsnr"], dtype=torch.float64))
    found = ode(
        learner.denoiser, learner.codec, rows, learner.schedule, passes=2, cleanest=float(end),
        data_std=learner.denoiser.data_std,
    )  # fmt: skip
    flow, tokens = told["ode"], (rows != PAD).sum(1)
    assert (flow["sentences"], told["sentences"]) == (3, 11)
    assert flow["nats_per_sentence"] == pytest.approx(found.nats_per_datum.value, rel=1e-3)
    per_token = flow["nats_per_sentence"] * 3 / int(tokens.sum())
    assert flow["nats_per_token"] == pytest.approx(per_token)


def test_the_flow_has_no_part_in_an_exact_likelihood(make_run):
    with pytest.raises(ConfigError, match="ode: a causal model's likelihood is exact"):
        PANEL.evaluate(make_run("model=causal"), asked(ode=3))


def test_one_sentence_has_no_standard_error(make_run):
    request = EvaluateRequest(n=1, steps=2, likelihood=True, draws=2)
    told = PANEL.evaluate(make_run("codec.kind=embedding"), request)["likelihood"]
    assert told["sentences"] == 1
    assert told["nats_per_token_standard_error"] is None


def test_without_being_asked_nothing_is_bounded(make_run):
    result = PANEL.evaluate(make_run("codec.kind=embedding"), EvaluateRequest(n=3, steps=2))
    assert "likelihood" not in result


def test_a_codec_without_log_prob_leaves_it_undefined_and_says_why(make_run, monkeypatch):
    monkeypatch.setattr(Embedding, "log_prob", None)
    told = PANEL.evaluate(make_run("codec.kind=embedding"), asked())["likelihood"]
    assert list(told) == ["what"]
    assert told["what"].startswith("undefined: the codec has no log_prob")
