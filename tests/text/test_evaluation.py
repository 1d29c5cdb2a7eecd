"""`evaluate`: every number has its company, and the judge is trained once."""

import itertools
import json
import os
from pathlib import Path

import pytest
import torch

from shared import scene
from shared.configs import load_config
from shared.errors import ConfigError
from shared.requests import EvaluateRequest, SampleRequest
from shared.schema import override, validate
from shared.tokenizer import EOS
from tests.test_command import diptych
from tests.text.conftest import text_config
from text import judge as judges
from text.baseline import CausalLM
from text.config import TextConfig
from text.data import Rows, fixed_order
from text.panel import PANEL, build_learner
from text.pipeline import Pipeline
from text.teller import entropy, log_prob_given, pairs


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
    kept = [path.name for path in cache.iterdir() if path.is_dir()]
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
        examples = PANEL.examples(config, run)
        assert isinstance(examples, Rows)
        with pytest.raises(InterruptedError):
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


def test_statistics_of_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="for runs of the image panel"):
        PANEL.evaluate(tmp_path, EvaluateRequest(n=9, reference=tmp_path))


def test_encoders_of_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="for runs of the image panel"):
        PANEL.evaluate(tmp_path, EvaluateRequest(n=9, clip="runs/clip"))
    with pytest.raises(ConfigError, match="clip: sees pictures"):
        PANEL.sample(tmp_path, SampleRequest(n=1, clip="runs/clip"), tmp_path)


READS = (
    "data.source=scene", "data.source_length=40", "net.cross_attention=true", "net.source_depth=1"
)  # fmt: skip


def test_sentences_are_written_from_held_out_scenes_and_held_against_them(make_run, cache) -> None:
    run = make_run(*READS)
    request = EvaluateRequest(n=6, steps=2, likelihood=True, draws=2)
    found = PANEL.evaluate(run, request)
    assert found == json.loads(json.dumps(found))
    assert found["sources"] == 6
    assert 0 <= found["faithful"] <= min(found[k] for k in ("tone", "audience", "count", "facts"))
    told = found["likelihood"]
    # given its scene a sentence is less of a surprise than by itself
    assert 3 < told["nats_per_sentence_floor"] < entropy()
    assert told["nats_per_sentence"] > told["nats_per_sentence_floor"]
    prompted = PANEL.evaluate(run, EvaluateRequest(n=4, steps=2, prompt="formal child"))
    assert (prompted["sources"], prompted["settings"]["prompt"]) == (1, "formal child")
    with pytest.raises(
        ConfigError, match=r"prompt = 'a red star': .*'a' is no value.*spell a scene"
    ):
        PANEL.evaluate(run, EvaluateRequest(n=4, steps=2, prompt="a red star"))
    with pytest.raises(ConfigError, match="split = 'tset': expected one of"):
        PANEL.evaluate(run, EvaluateRequest(n=4, steps=2, split="tset"))


def test_the_floor_given_scenes_is_exact(make_run, cache) -> None:
    """-log p(sentence | scene) of the held-out sentences that are bounded, one by one."""
    run = make_run("model=causal", *READS[:2])
    told = PANEL.evaluate(run, EvaluateRequest(n=5, likelihood=True))["likelihood"]
    told_pairs = list(itertools.islice(pairs(0, "validation"), 400))
    chosen = [told_pairs[i] for i in fixed_order(400)[:5].tolist()]
    floor = -sum(log_prob_given(sentence, seen) for seen, sentence in chosen) / 5
    assert told["nats_per_sentence_floor"] == pytest.approx(floor)
    pipe = Pipeline.from_pretrained(run)
    exact: list[float] = []
    causal = pipe.learner
    assert isinstance(causal, CausalLM)
    for seen, sentence in chosen:
        source, _ = pipe.prompted(scene.spell(seen), 1)
        ids = torch.tensor([[*pipe.tokenizer.encode(sentence), EOS]])
        exact.append(float(causal.nll(ids, source).detach().double().sum()))
    assert told["nats_per_sentence"] == pytest.approx(sum(exact) / 5, rel=1e-4)


def test_tables_with_sources_have_overlap_and_slot_errors(make_run, cache, tmp_path) -> None:
    areas = ("riverside", "city centre")
    rows = [
        f'"name[A{i % 5}], area[{areas[i % 2]}]",A{i % 5} is by the {areas[i % 2]} .'
        for i in range(400)
    ]
    for split in ("train", "validation", "other"):
        some = rows if split != "other" else rows[:3]
        (tmp_path / f"{split}.csv").write_text("\n".join(["mr,text", *some]))
    data = (f"data.name={tmp_path}", "data.source=mr", "data.source_signs=true")
    run = make_run(*data, "data.source_length=14", *READS[2:])
    found = PANEL.evaluate(run, EvaluateRequest(n=10, steps=2, mbr=2))
    assert (found["sources"], found["references_per_source"]) == (10, 40)
    assert found["bleu_held_out"] == pytest.approx(100)
    assert found["slot_error_rate_held_out"] == 0
    assert found["slot_error_rate"] >= 0
    assert (found["settings"]["split"], found["settings"]["mbr"]) == ("validation", 2)
    other = PANEL.evaluate(run, EvaluateRequest(n=3, steps=2, split="other"))
    assert (other["sources"], other["held_out"]["sentences"]) == (3, 3)
    assert other["judge"] == found["judge"]


def test_the_large_recipe_has_the_papers_size() -> None:
    config = load_config("text/e2e_data_to_text_large", ("diffusion.fit_density=false",))[2]
    with torch.device("meta"):  # the fitted density has no parameters, and needs numbers
        learner = build_learner(config, 1200)
    count = sum(p.numel() for p in learner.parameters())
    assert 80e6 < count < 100e6
    small = load_config("text/e2e_data_to_text", ())[2]
    for name in ("name", "column", "source", "source_signs", "source_length", "min_count"):
        assert getattr(config.data, name) == getattr(small.data, name)


def test_the_data_to_text_recipe_trains_and_is_measured(cache, tmp_path) -> None:
    data = os.environ.get("DIPTYCH_DATA")
    if not data or not (Path(data) / "e2e/test.parquet").is_file():
        pytest.skip("DIPTYCH_DATA is not set, or holds no e2e/test.parquet")
    tiny = ["net.dim=16", "net.depth=1", "net.heads=2", "net.source_depth=1", "data.limit=300"]
    judge = ["judge.train.steps=2", "judge.net.dim=16", "judge.net.depth=1", "judge.net.heads=2"]
    words = [*tiny, *judge, "data.min_count=1", "train.steps=2", "train.batch=8", "--quiet"]
    run = tmp_path / "run"
    assert diptych("train", "text/e2e_data_to_text", f"run={run}", *words).code == 0
    asked = ["-n", "4", "--steps", "2", "--split", "test", "--guidance", "2", "--json"]
    result = diptych("evaluate", run, *asked)
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert found["sources"] == 4
    assert found["references_per_source"] > 1
    assert found["slot_error_rate"] > 0.5
    assert found["slot_error_rate_held_out"] < 0.2
    prompt = "name[Blue Spice], eatType[coffee shop]"
    assert diptych("sample", run, "-n", "2", "--steps", "2", "--prompt", prompt).code == 0
