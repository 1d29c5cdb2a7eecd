"""`evaluate`: every number has its company, and the judge is trained once."""

import json

import pytest

from shared.errors import ConfigError
from shared.schema import override, validate
from shared.task import EvaluateRequest
from tests.text.conftest import text_config
from text import judge as judges
from text.config import TextConfig
from text.data import Rows
from text.panel import PANEL


@pytest.fixture
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("judges")
    monkeypatch.setenv("DIPTYCH_CACHE", str(folder))
    return folder


def test_numbers_come_with_those_of_the_data_and_the_judge_is_kept(make_run, cache) -> None:
    run = make_run("codec.kind=embedding")
    request = EvaluateRequest(n=9, seed=4, steps=3)
    first = PANEL.evaluate(run, request)
    assert first == json.loads(json.dumps(first))
    assert first["samples"] == 9
    ratio = first["perplexity"] / first["perplexity_held_out"]
    assert first["perplexity_ratio"] == pytest.approx(ratio)
    assert 0 <= first["grammatical"] <= 1
    assert 3 < first["perplexity_floor"] < first["perplexity_held_out"]
    assert first["settings"]["seed"] == 4
    assert first["judge"]["steps"] == 8
    assert first["held_out"]["sentences"] == 400
    assert first["provenance"]["torch"]
    kept = [path.name for path in cache.iterdir()]
    assert kept == [first["judge"]["name"]]
    before = (cache / kept[0] / "checkpoints").stat().st_mtime_ns
    assert PANEL.evaluate(run, request) == first
    assert (cache / kept[0] / "checkpoints").stat().st_mtime_ns == before


def test_a_judge_of_other_data_or_settings_is_another(make_run, cache, monkeypatch) -> None:
    names: list[str] = []

    def stop(settings, run, panel, quiet=False):
        names.append(run.name)
        raise InterruptedError

    monkeypatch.setattr("shared.judges.train", stop)
    for settings in ((), ("data.limit=399",), ("judge.train.steps=9",), ("codec.dim=5",)):
        config = text_config(*settings)
        run = make_run("codec.kind=embedding")
        with pytest.raises(InterruptedError):
            examples = PANEL.examples(config, run)
            assert isinstance(examples, Rows)
            judges.find_judge(config, examples.ids, PANEL)
    assert len(set(names[:3])) == 3
    assert names[3] == names[0]  # the codec is the diffusion model's affair


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("codec.kind=words", "codec.kind = 'words': expected one of embedding, bits"),
        ("model=gpt", "model = 'gpt': expected one of diffusion, causal"),
        ("data.length=1", "data.length = 1"),
        ("data.tokenizer=bpe", "data.tokenizer = 'bpe'"),
        ("data.vocabulary=4", "data.vocabulary = 4: expected more than 4"),
        ("diffusion.prediction=v", "learned embeddings need 'categorical'"),
        ("net.cross_attention=true", "nothing to attend to without data.source"),
        ("data.colum=x", "unknown key data.colum; did you mean data.column"),
    ],
)
def test_impossible_settings_are_refused_by_name(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(TextConfig, override({"panel": "text"}, [assignment]), "test")
