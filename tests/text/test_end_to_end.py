"""The end-to-end objective of Diffusion-LM: a transcription of the paper, term by term, in float64,
and the two recipes that train with it."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import text
from shared import noise
from shared.config import override, read_yaml, validate
from shared.configs import load_config
from shared.denoiser import Denoiser
from shared.errors import ConfigError
from shared.learner import DiffusionLearner
from shared.objective import EndToEnd, Terms
from shared.objective.streams import LATENT, NOISE
from shared.runs import load_learner
from shared.sampling import Sampling, draw
from shared.schedule import from_betas, sqrt_betas
from shared.solver import prepare
from shared.task import EvaluateRequest
from tests.test_command import diptych
from text.codec import Embedding
from text.config import TextConfig
from text.panel import PANEL, build_learner

SIZE, LENGTH, DIM, STEPS = 7, 3, 5, 10
DATA = torch.tensor([[0, 4, 6], [2, 2, 5], [1, 0, 3], [6, 6, 6]])
KEYS = torch.tensor([3, 4, 8, 1])
AT = [1, 2, 10, 1]  # the step of each datum
T = torch.tensor([0.03, 0.15, 1.0, 0.0])
FREE = (
    "diffusion.schedule=sqrt", "diffusion.end_to_end=20", "diffusion.prediction=x0",
    "diffusion.weighting=x0", "diffusion.fit_density=false", "codec.unit_norm=false",
)  # fmt: skip
TERMS = ("denoising", "rounding", "prior")


class Mix(nn.Module):
    """F mixes places and coordinates, by the level."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.matrix = nn.Parameter(torch.randn(DIM, DIM, generator=generator) / 3)

    def forward(
        self, x: Tensor, logsnr: Tensor, condition: None, previous: Tensor | None
    ) -> Tensor:
        told = torch.sigmoid(logsnr)[:, None, None]
        last = 0 if previous is None else previous / 5
        return (x + x.roll(1, dims=1) / 2) @ self.matrix * told + last


def parts(self_condition: bool = False) -> tuple[EndToEnd, Denoiser, Embedding]:
    torch.manual_seed(0)
    codec = Embedding(SIZE, LENGTH, DIM, unit_norm=False).double()
    objective = EndToEnd(SIZE, from_betas(sqrt_betas(STEPS))).double()
    nn.init.normal_(objective.bias)
    net = Mix().double()
    return objective, Denoiser(net, "x0", self_condition=self_condition, codec=codec), codec


def transcribed(objective: EndToEnd, denoiser: Denoiser, table: Tensor) -> dict[str, Tensor]:
    """The paper's terms, datum by datum, with its betas from its alpha_bar."""
    betas, product = [], 1.0
    for i in range(1, STEPS + 1):
        here, before = (1 - math.sqrt(j / STEPS + 1e-4) for j in (i, i - 1))
        betas.append(min(1 - here / before, 0.999))
    alpha_bar = []
    for beta in betas:
        product *= 1 - beta
        alpha_bar.append(product)
    found: dict[str, list[Tensor]] = {name: [] for name in TERMS}
    for i, step in enumerate(AT):
        first, second = (
            noise.normal(KEYS[i : i + 1], stream, (LENGTH, DIM))[0].double()
            for stream in (LATENT, NOISE)
        )
        emb = table[DATA[i]]
        x_0 = emb + math.sqrt(1 - alpha_bar[0]) * first
        signal = alpha_bar[step - 1]
        x_t = math.sqrt(signal) * x_0 + math.sqrt(1 - signal) * second
        logsnr = torch.tensor([math.log(signal / (1 - signal))], dtype=torch.float64)
        f = denoiser.net(x_t[None], logsnr, None, None)[0]
        target = emb if step == 1 else x_0
        found["denoising"].append(((target - f) ** 2).sum() / (LENGTH * DIM))
        nats = torch.zeros((), dtype=torch.float64)
        for place, word in enumerate(DATA[i].tolist()):
            scores = torch.stack([table[v] @ x_0[place] + objective.bias[v] for v in range(SIZE)])
            nats = nats - torch.log(scores[word].exp() / scores.exp().sum())
        found["rounding"].append(nats / LENGTH)
        mean = math.sqrt(alpha_bar[-1]) * x_0
        found["prior"].append((mean**2).sum() / (LENGTH * DIM))
    return {name: torch.stack(values) for name, values in found.items()}


def terms_of(objective: EndToEnd, denoiser: Denoiser, codec: Embedding) -> Terms:
    return objective(denoiser, codec, DATA, None, T, KEYS)[0]


@pytest.mark.parametrize("name", TERMS)
def test_each_term_and_its_gradients_are_the_papers(name: str):
    objective, denoiser, codec = parts()
    got = getattr(terms_of(objective, denoiser, codec), name)
    expected = transcribed(objective, denoiser, codec.weight)[name]
    assert_close(got, expected, rtol=1e-10, atol=1e-14)
    weights = {
        "table": codec.weight,
        "bias": objective.bias,
        **dict(denoiser.net.named_parameters()),
    }
    one, other = (
        torch.autograd.grad(loss.sum(), list(weights.values()), allow_unused=True)
        for loss in (got, expected)
    )
    for key, a, b in zip(weights, one, other, strict=True):
        assert (a is None) == (b is None), key
        if a is not None and b is not None:
            assert_close(a, b, rtol=1e-8, atol=1e-14)
    table = one[0]
    assert table is not None
    for datum in DATA:  # of every word in it
        assert bool((table[datum].abs().sum(1) > 0).all())


def test_the_loss_is_the_sum_of_the_terms_and_the_levels_are_those_of_the_steps():
    objective, denoiser, codec = parts()
    terms, level = objective(denoiser, codec, DATA, None, T, KEYS)
    assert_close(terms.total, sum(getattr(terms, name) for name in TERMS))
    knots = objective.chain(torch.tensor(AT, dtype=torch.float64) / STEPS)
    assert_close(level.logsnr, knots.logsnr)
    assert_close(level.sigma, knots.sigma)


def test_every_step_of_the_chain_has_an_equal_share_of_the_times():
    objective, denoiser, codec = parts()
    times = (torch.arange(4 * STEPS) + 0.5) / (4 * STEPS)
    data, keys = DATA[:1].expand(len(times), LENGTH), torch.arange(len(times))
    level = objective(denoiser, codec, data, None, times, keys)[1]
    knots = objective.chain(torch.arange(1, STEPS + 1, dtype=torch.float64) / STEPS)
    assert_close(level.logsnr, knots.logsnr.repeat_interleave(4))


def test_self_conditioning_shows_even_keys_their_first_estimate():
    objective, denoiser, codec = parts()
    plain = terms_of(objective, denoiser, codec)
    conditioned = terms_of(*parts(self_condition=True))
    changed = (plain.denoising - conditioned.denoising).abs() > 1e-6
    assert torch.equal(changed, KEYS % 2 == 0)
    assert_close(plain.rounding, conditioned.rounding)


def test_without_the_rounding_term_the_points_fall_together_and_with_it_they_do_not():
    spread: dict[bool, float] = {}
    for rounding in (True, False):
        objective, denoiser, codec = parts()
        moving = [codec.weight, objective.bias, *denoiser.parameters()]
        optimizer = torch.optim.Adam(list({id(p): p for p in moving}.values()), lr=0.03)
        for step in range(300):
            keys = torch.arange(len(DATA)) + step * len(DATA)
            terms = objective(denoiser, codec, DATA, None, (T + step / 7) % 1, keys)[0]
            loss = terms.total if rounding else terms.denoising + terms.prior
            optimizer.zero_grad()
            loss.mean().backward()
            optimizer.step()
        spread[rounding] = float(torch.pdist(codec.weight.detach()).median())
    assert spread[False] < 0.3
    assert spread[True] > 1.5


# -- from a configuration ----------------------------------------------------------------------


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
