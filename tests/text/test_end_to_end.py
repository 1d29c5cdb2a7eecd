"""Diffusion-LM from a configuration: what it trains, samples and refuses, and its two recipes."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

import text
from shared.configs import load_config
from shared.drawing import draw
from shared.errors import ConfigError
from shared.learner import DiffusionLearner
from shared.requests import EvaluateRequest
from shared.runs import load_learner
from shared.sampling import Sampling
from shared.schedule import from_betas, sqrt_betas
from shared.schema import override, read_yaml, validate
from shared.solver import prepare
from tests.test_command import diptych
from text.codec import Embedding
from text.config import TextConfig
from text.panel import PANEL, build_learner

SIZE = 7
DATA = torch.tensor([[0, 4, 6], [2, 2, 5], [1, 0, 3], [6, 6, 6]])
KEYS, T = torch.tensor([3, 4, 8, 1]), torch.tensor([0.03, 0.15, 1.0, 0.0])
FREE = (
    "diffusion.schedule=sqrt", "diffusion.end_to_end=20", "diffusion.prediction=x0",
    "diffusion.weighting=x0", "diffusion.fit_density=false", "codec.unit_norm=false",
)  # fmt: skip


def config_of(*assignments: str) -> TextConfig:
    return validate(TextConfig, override({"panel": "text"}, [*FREE, *assignments]), "test")


@pytest.mark.parametrize("unit_norm", ["true", "false"])
def test_a_configuration_trains_on_the_objective_and_samples_on_its_chain(unit_norm: str):
    config = config_of(f"codec.unit_norm={unit_norm}", "data.length=3", "net.dim=16")
    learner = build_learner(config, SIZE)
    assert isinstance(learner, DiffusionLearner)
    assert isinstance(learner.codec, Embedding)
    assert learner.end_to_end is not None
    losses, logsnr = learner(DATA, None, KEYS, T)
    again = learner.end_to_end(learner.denoiser, learner.codec, DATA, None, T, KEYS)
    assert_close(losses, again[0].total)
    assert_close(logsnr, again[1].logsnr)
    losses.mean().backward()
    grad = learner.codec.weight.grad
    assert grad is not None
    assert bool((grad.abs().sum(1) > 0).all())
    lengths = learner.codec.table().detach().norm(dim=1)
    assert (float(lengths.std()) < 1e-5) == (unit_norm == "true")
    plan = prepare(learner.schedule, "ancestral_large", 20)
    noisy = from_betas(sqrt_betas(20))(torch.arange(20, 0, -1, dtype=torch.float64) / 20)
    assert_close(
        torch.tensor([step.at.logsnr for step in plan.steps]).double(),
        noisy.logsnr.float().double(),
    )


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("diffusion.schedule=cosine", "diffusion.schedule = 'cosine': end_to_end needs 'sqrt'"),
        ("diffusion.prediction=v", "diffusion.prediction = 'v': end_to_end needs 'x0'"),
        ("diffusion.weighting=v", "diffusion.weighting = 'v': end_to_end needs 'x0'"),
        ("diffusion.fit_density=true", "diffusion.fit_density = True: end_to_end needs False"),
        ("diffusion.integral=true", "diffusion.integral = True: end_to_end needs False"),
        ("diffusion.shift=1", "diffusion.shift = 1.0: end_to_end needs 0.0"),
        ("diffusion.logsnr_max=9", "diffusion.logsnr_max = 9.0: end_to_end needs 12.0"),
        ("diffusion.schedule_options={offset: 0.1}", "end_to_end needs {}"),
        ("diffusion.end_to_end=0", "diffusion.end_to_end = 0: expected a finite number above 0"),
        ("diffusion.end_to_end=null", "learned embeddings need 'categorical'.*end_to_end"),
        ("codec.kind=bits", "diffusion.end_to_end learns embeddings"),
    ],
)
def test_what_the_objective_cannot_take_is_refused_by_name(assignment: str, message: str):
    with pytest.raises(ConfigError, match=message):
        config_of(assignment)


def test_free_embeddings_need_the_objective():
    with pytest.raises(ConfigError, match=r"unit_norm = false: needs diffusion\.end_to_end"):
        validate(TextConfig, {"codec": {"unit_norm": False}}, "test")


# -- the recipes -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(make_run) -> Path:
    return make_run(*FREE, "diffusion.self_condition=false")


def test_clamped_sampling_ends_on_words(run: Path):
    learner = load_learner(run)
    assert isinstance(learner, DiffusionLearner)
    for clamped in (True, False):
        how = Sampling(solver="ancestral_large", steps=6, clamp=clamped)
        x0 = draw(learner, range(9), how, progress=False)
        with torch.no_grad():
            words = learner.codec.encode(learner.codec.decode(x0))
        assert torch.equal(x0, words) == clamped


def test_clamping_changes_what_is_said_and_keeps_what_is_given(run: Path):
    pipe = text.Pipeline.from_pretrained(run)
    settings: dict[str, Any] = {
        "seeds": range(8),
        "num_inference_steps": 5,
        "solver": "ancestral_large",
    }
    assert pipe(**settings).texts != pipe(**settings, clamp=True).texts
    for sentence in pipe(**settings, clamp=True, given="a red [MASK]*").texts:
        assert sentence.split()[:2] == ["a", "red"]


@pytest.mark.parametrize("solver", ["auto", "dpmpp_2m", "ancestral"])
def test_other_solvers_walk_the_chain_too(run: Path, solver: str):
    pipe = text.Pipeline.from_pretrained(run)
    texts = pipe(seeds=range(4), num_inference_steps=5, solver=solver, clamp=True).texts
    assert len(set(texts)) > 1


def test_held_out_sentences_have_a_bound_although_the_chain_ends_clean(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path))
    asked = EvaluateRequest(n=11, steps=2, clamp=True, likelihood=True, draws=3)
    told = PANEL.evaluate(run, asked)["likelihood"]
    assert told["nats_per_sentence_floor"] < told["nats_per_sentence"] < math.inf


def test_both_recipes_differ_in_size_alone():
    small, paper = (
        read_yaml(Path(text.__file__).parent / f"configs/e2e_diffusion_lm{end}.yaml")
        for end in ("", "_paper")
    )
    for section in ("panel", "data", "codec", "diffusion"):
        assert small[section] == paper[section]
    assert (paper["net"]["depth"], paper["net"]["dim"]) == (12, 768)


def test_the_papers_size_is_within_five_per_cent_of_its_network():
    """Theirs: BERT-base's encoder, Linear-Tanh-Linear on both sides, an MLP of the step, 512
    places and a norm, the embedding and the bias of its softmax."""
    d, inner, words, step = 768, 3072, 821, 128
    layer = 4 * (d * d + d) + (d * inner + inner) + (inner * d + d) + 4 * d
    sides = (16 * d + d) + 2 * (d * d + d) + (d * 16 + 16)
    level = (step * 4 * step + 4 * step) + (4 * step * d + d)
    theirs = 12 * layer + sides + level + 512 * d + 2 * d + words * 16 + words
    assert theirs == 87_129_749
    config = load_config("text/e2e_diffusion_lm_paper", ())[2]
    with torch.device("meta"):
        learner = build_learner(config, words)
    assert {p.device.type for p in learner.parameters()} == {"meta"}
    ours = sum(p.numel() for p in learner.parameters())
    assert ours == 91_067_285
    assert ours / theirs == pytest.approx(1.045, abs=5e-4)


def test_the_recipe_trains_and_samples_from_the_command_line(tmp_path: Path):
    run, tiny = tmp_path / "run", ["net.dim=16", "net.depth=1", "net.heads=2", "data.limit=300"]
    words = ["data.name=scene", "train.steps=2", "train.batch=8", *tiny, "--quiet", "--json"]
    result = diptych("train", "text/e2e_diffusion_lm", f"run={run}", *words)
    assert result.code == 0, result.err
    assert json.loads(result.out)["step"] == 2
    asked = ["-n", "3", "--solver", "ancestral_large", "--steps", "4", "--clamp", "--json"]
    result = diptych("sample", run, *asked)
    assert result.code == 0, result.err
    written = json.loads((run / "samples/samples.json").read_text())
    assert written["settings"]["clamp"] is True
    assert len(written["texts"]) == 3
