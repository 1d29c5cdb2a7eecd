"""Operators: what they learn, what is asked by them, and what is drawn, moved and joined."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from shared.codec import Identity
from shared.config import DiffusionConfig
from shared.errors import ConfigError, DataError, NonFinite
from shared.gaussian import Gaussian
from shared.guidance import Quadratic
from shared.guidance.flow import LENGTH, clean_level
from shared.learner import DiffusionLearner
from shared.requests import ControlRequest, EvaluateRequest, SampleRequest
from shared.sampling import Sampling, Start
from shared.schedule import Level, variance_preserving
from shared.seeds import candidate_seeds
from shared.tokenizer import PAD
from tests.text.conftest import OPERATOR, POINTS, text_config
from text.config import OperatorConfig
from text.operators import data
from text.operators.attributes import UNSAID, attribute
from text.operators.choice import best_of, scores
from text.operators.control import _edited, load_operator, shares, steering
from text.operators.data import read_classes, read_labelled
from text.operators.demand import demand_energy, parse_demand
from text.operators.learner import Operator
from text.operators.sampler import Pull, between, flow, guided_draw
from text.panel import PANEL
from text.pipeline import Pipeline
from text.reader import read


class Zero(nn.Module):
    """v = 0: with a variance-preserving schedule, E[x0 | x_t] of a unit Gaussian."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, logsnr: Tensor, condition=None, previous=None) -> Tensor:
        return torch.zeros_like(x)


def unit_learner() -> DiffusionLearner:
    config = DiffusionConfig(prediction="v", self_condition=False)
    return DiffusionLearner(Zero(), Identity((1, 3)), config)


FIRST = Quadratic(torch.tensor([[1.0, 0.0, 1.0]]), torch.tensor([0.7]), torch.tensor([0.9]))
SECOND = Quadratic(torch.tensor([[1.0, 2.0, -1.0]]), torch.tensor([-0.4]), torch.tensor([2.5]))


def test_the_exact_mode_draws_the_product_gaussian():
    law = Gaussian.isotropic(torch.zeros(3), 1.0)
    for one in (FIRST, SECOND):
        law = law.posterior(one.a, Gaussian.isotropic(torch.zeros(1), float(one.std)), one.y)
    pull = Pull([FIRST.noised, SECOND.noised], [1.0, 1.0])
    how, n = Sampling(solver="dpmpp_2m", steps=40), 4000
    x0 = guided_draw(unit_learner(), range(n), how, pull).flatten(1)
    error = law.covariance.diagonal().sqrt() / n**0.5
    assert bool(((x0.mean(0) - law.mean).abs() < 5 * error + 0.01).all())
    assert_close(x0.T.cov(), law.covariance, atol=0.06, rtol=0)


@pytest.mark.parametrize("solver", ["ode", "dpmpp_2m"])
@pytest.mark.parametrize("one", [SECOND, SECOND.noised], ids=["clean", "noised"])
def test_the_papers_mode_moves_along_the_closed_form_flow(one, solver: str):
    """Along a of one energy: a.z - y shrinks by e^(-LENGTH w |a|^2 / std^2); nothing else moves.
    Of an energy that knows noisy latents, too, it takes the clean one at all times."""
    x0 = torch.randn(70, 1, 3, generator=torch.Generator().manual_seed(0))
    got = flow(x0, Sampling(solver=solver, steps=200), Pull([one], [0.5])).flatten(1)
    z, a = x0.flatten(1), SECOND.a[0]
    shrink = math.exp(-LENGTH * 0.5 * float(a @ a) / 2.5**2)
    residual = z @ a - SECOND.y
    exact = z - ((1 - shrink) * residual / (a @ a))[:, None] * a
    assert_close(got, exact, atol=3e-3, rtol=0)


def test_what_is_edited_stays_where_it_was_as_much_as_asked():
    """Energies |z - y|^2 / 2 and w |z - x0|^2 / 2: the flow ends at (y + w x0) / (1 + w)."""
    x0 = torch.randn(5, 1, 3, generator=torch.Generator().manual_seed(1))
    y = torch.tensor([0.5, -1.0, 2.0])
    pull = Pull([Quadratic(torch.eye(3), y, torch.ones(3))], [1.0])
    got = flow(x0, Sampling(solver="ode"), pull, stay=3.0).flatten(1)
    assert_close(got, (y + 3 * x0.flatten(1)) / 4, atol=1e-3, rtol=0)


def test_an_edit_is_noised_up_to_its_strength():
    """Under a unit prior and no energy, the flow is the identity: noise that is added stays."""
    x0, flat = torch.ones(2000, 1, 3), Quadratic(torch.zeros(1, 3), torch.zeros(1), torch.ones(1))
    how, learner = Sampling(solver="ddim", steps=30), unit_learner()
    out = guided_draw(learner, range(2000), how, Pull([flat], [1.0]), Start(x0, 0.3))
    level = learner.schedule(torch.tensor([0.3]))
    assert float(out.mean()) == pytest.approx(float(level.alpha), abs=0.02)
    assert float(out.std()) == pytest.approx(float(level.sigma), abs=0.02)
    with pytest.raises(ConfigError, match=r"strength = 1.5: expected a number in \(0, 1\]"):
        Start(x0, 1.5)


def test_a_flow_is_for_solvers_without_noise():
    with pytest.raises(ConfigError, match="this one draws noise"):
        flow(torch.zeros(1, 1, 3), Sampling(solver="ancestral"), Pull([FIRST], [1.0]))


@pytest.mark.parametrize("solver", ["ode", "dpmpp_2m"])
def test_a_flow_that_cannot_be_followed_says_so(solver: str):
    far = torch.full((2, 1, 3), 1e30)
    with pytest.raises(NonFinite, match=r"gradient flow: .* give smaller weights or stay"):
        flow(far, Sampling(solver=solver), Pull([FIRST], [1e30]))


def test_a_path_keeps_its_ends_and_the_norm_of_unit_vectors():
    a, b = torch.tensor([[1.0, 0, 0], [0, 0, 0]]), torch.tensor([[0, 0.6, 0], [0, 0, 0.8]])
    path = between(a, b, 5)
    assert_close(path[0], a)
    assert_close(path[4], b)
    assert_close(path.flatten(1).norm(dim=1), torch.ones(5))
    assert_close(path[2], (a + b) / 2**0.5)
    assert_close(between(a, 3 * a, 3)[1], 2 * a)
    with pytest.raises(ConfigError, match="two ends"):
        between(a, b, 1)


def test_a_noised_operator_learns_the_classifier_of_the_noisy_latent():
    """Classes at +-m of unit spread: p(+ | z_t) = sigmoid(2 alpha m.z), since z_t has spread 1
    around +-alpha m in a variance-preserving process."""
    torch.manual_seed(0)
    m = torch.tensor([[0.9, -0.5], [0.4, 0.0]])
    operator = Operator((2, 2), ["-", "+"], OperatorConfig(width=48, depth=1, dropout=0.0))
    optimizer = torch.optim.Adam(operator.parameters(), 3e-3)
    for step in range(700):
        keys = torch.arange(step * 256, (step + 1) * 256)
        label = keys % 2
        x0 = torch.randn(256, 2, 2) + (2 * label - 1)[:, None, None] * m
        loss = operator(x0, label[:, None] + 1, keys, torch.rand(256))[0].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for logsnr in (6.0, 0.0, -3.0):
        level = variance_preserving(torch.tensor(logsnr))
        z = level.alpha * m + torch.randn(200, 2, 2)
        exact = torch.sigmoid(2 * level.alpha * (z * m).sum((1, 2)))
        got = operator.log_probs(z, level)[:, 1].exp()
        assert float((got - exact).abs().mean()) < 0.04, logsnr


def test_an_operator_takes_any_family_and_a_clean_one_no_level():
    torch.manual_seed(0)
    noised = Operator((1, 3), ["a", "b"], OperatorConfig(width=8)).eval()
    clean = Operator((1, 3), ["a", "b"], OperatorConfig(width=8, noised=False)).eval()
    z, level = torch.randn(4, 1, 3), variance_preserving(torch.tensor(0.7))
    doubled = type(level)(level.logsnr, 2 * level.alpha, 2 * level.sigma)
    other = variance_preserving(torch.tensor(-3.0))
    assert_close(noised.log_probs(2 * z, doubled), noised.log_probs(z, level))
    assert not torch.allclose(noised.log_probs(z, other), noised.log_probs(z, level))
    assert_close(clean.log_probs(z, other), clean.log_probs(z, level))
    assert bool(noised.log_probs(z, variance_preserving(torch.tensor(math.inf))).isfinite().all())


class Fixed(Operator):
    """Whose probabilities are known."""

    def __init__(self, *p: float) -> None:
        super().__init__((1, 1), [f"v{i}" for i in range(len(p))], OperatorConfig(width=4))
        self.p = torch.tensor(p)

    def log_probs(self, z: Tensor, level) -> Tensor:
        return self.p.log().expand(len(z), -1)


@pytest.mark.parametrize(
    ("written", "probability", "weight"),
    [
        ("a=v1", 0.5, 1.0),
        ("a!=v1", 0.5, 1.0),
        ("2.5*a=v0", 0.2, 2.5),
        ("a=v0|v2", 0.2 + 0.3, 1.0),
        ("a!=v0|v1", 0.3, 1.0),  # neither of the two
        ("a=v0|b=v1", 1 - 0.8 * 0.1, 1.0),
        ("b=v0|a!=v1|v0", 1 - 0.9 * 0.7, 1.0),
        ("a=v0|a!=v1", 0.2 + 0.3, 1.0),
    ],
)
def test_a_demand_is_the_probability_of_what_it_says(written, probability, weight):
    demand = parse_demand(written)
    energy = demand_energy(demand, {"a": Fixed(0.2, 0.5, 0.3), "b": Fixed(0.1, 0.9)})
    level = variance_preserving(torch.tensor(1.0))
    got = torch.exp(-energy(torch.zeros(2, 1, 1), level))
    assert_close(got, torch.full((2,), probability), atol=1e-5, rtol=0)
    assert demand.weight == weight


def test_demands_hold_for_values_as_they_say():
    rows = [{"a": "v0", "b": "v1"}, {"a": "v2", "b": "v1"}, {}]
    demands = [parse_demand(word) for word in ("a=v0", "b!=v0", "a!=v0|v1")]
    found = shares(demands, rows)
    assert found == pytest.approx({"a=v0": 1 / 3, "b!=v0": 2 / 3, "a!=v0|v1": 1 / 3, "all": 0})
    assert shares(demands[:2], rows)["all"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("a!=v0|a!=v1", "asks for nothing, every value of a"),
        ("a=v0|v1|v2", "asks for nothing, every value of a"),
        ("a=v0|b=v0|v1", "asks for nothing, every value of b"),
        ("a!=v0|v1|v2", "allows none of them"),
        ("a=v0|b!=v1|v0", "b is one of v0, v1, and this allows none of them"),
    ],
)
def test_a_demand_that_everything_or_nothing_satisfies_is_refused(word: str, message: str):
    with pytest.raises(ConfigError, match=message):
        parse_demand(word).allowed({"a": ["v0", "v1", "v2"], "b": ["v0", "v1"]})


@pytest.mark.parametrize("word", ["tone", "=formal", "tone=", "0*tone=formal", ""])
def test_a_demand_that_does_not_read_is_refused(word: str):
    with pytest.raises(ConfigError, match="operator"):
        parse_demand(word)


def test_attributes_are_read_from_the_sentence():
    facts = read("look at a little heart on the left of a checked red cross .")
    assert facts is not None
    told = {name: attribute(name, facts) for name in ("tone", "audience", "count", "colour")}
    assert told == {"tone": "plain", "audience": "child", "count": "2", "colour": UNSAID}
    config = text_config(*OPERATOR, "codec.run=x", "data.label_column=mood")
    with pytest.raises(ConfigError, match="expected one of tone"):
        read_labelled(config.data)


@pytest.mark.parametrize("name", ["tone", "audience", "count", "colour"])
def test_labels_of_scenes_are_those_of_their_sentences(name: str):
    config = text_config(*OPERATOR, "codec.run=x", f"data.label_column={name}", "data.limit=60")
    for sentence, label in zip(*read_labelled(config.data, held_out=True), strict=True):
        facts = read(sentence)
        assert facts is not None
        assert attribute(name, facts) == label


def test_labels_of_a_file_are_read_and_checked(tmp_path: Path, make_run, points: Path):
    path = tmp_path / "labels.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "stars"])
        rows.writerows([["look at a star .", k % 3] for k in range(60)])
        rows.writerow(["look at a moon .", ""])
    name = f"data.name={path}"
    config = text_config(*OPERATOR, "codec.run=x", name, "data.label_column=stars")
    sentences, labels = read_labelled(config.data)
    assert len(sentences) == len(labels) == 57
    assert set(labels) == {"0", "1", "2"}
    wrong = text_config(*OPERATOR, "codec.run=x", name, "data.label_column=star")
    with pytest.raises(DataError, match=r"data.label_column = 'star': .* has text, stars"):
        read_labelled(wrong.data)
    with pytest.raises(ConfigError, match=r"1 different labels in 57 sentences"):
        make_run(*OPERATOR, f"codec.run={points}", name, "data.label_column=text")


def test_labels_are_counted_in_one_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    compared = 0

    class Label(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return str.__eq__(self, str(other))

    labels = [Label(k % 50) for k in range(1000)]
    monkeypatch.setattr(data, "read_labelled", lambda config: (["a star ."] * 1000, labels))
    config = text_config(*OPERATOR, "codec.run=x", "data.label_column=stars")
    data.write_classes(config.data, tmp_path)
    assert compared < 10_000  # 50,000 if each label were counted by itself
    written = json.loads((tmp_path / data.LABELS).read_text())
    assert written == {"column": "stars", "counts": {str(k): 20 for k in range(50)}}
    assert read_classes(tmp_path) == sorted(map(str, range(50)))


def test_an_operator_is_measured_at_every_level(writer: Path):
    found = PANEL.evaluate(writer / "operators" / "tone", EvaluateRequest(n=60))
    assert found["classes"] == ["cheerful", "formal", "plain"]
    assert found["by_logsnr"]["12"]["accuracy"] == found["accuracy"] > found["most_frequent_class"]
    assert read_classes(writer / "operators" / "count") == ["1", "2", "3"]
    clean = PANEL.evaluate(writer / "operators" / "count", EvaluateRequest(n=20))
    assert list(clean["by_logsnr"]) == ["inf"]


def ask(writer: Path, out: Path, *words: str, **more) -> dict:
    settings = {"n": 6, "steps": 6, "solver": "dpmpp_2m", "operator": words} | more
    return PANEL.control(writer, (), ControlRequest(**settings), out)


@pytest.mark.parametrize("mode", ["exact", "flow"])
def test_sentences_are_drawn_under_operators(mode: str, writer: Path, tmp_path: Path):
    words = ("tone=formal", "2*audience=child|tone=plain")
    found = ask(writer, tmp_path, *words, mode=mode)
    assert (tmp_path / "controlled.txt").read_text().count("\n") == found["sentences"] == 6
    for told in ("probability", "by_operators", "exact"):
        assert set(words) <= set(found[told])
    # stronger demands raise the operators' own probability
    weak, strong = (
        ask(writer, tmp_path, f"{w}*tone=formal", mode=mode, n=24)["probability_of_latents"]
        for w in (0.01, 20)
    )
    assert next(iter(strong.values())) > next(iter(weak.values()))


@torch.no_grad()
def test_the_best_candidate_is_the_one_whose_words_are_surest(writer: Path):
    """Scores by hand: of each row alone, its own probabilities and nats."""
    ask = steering(Pipeline.from_pretrained(writer), writer, ("tone=formal", "2*count!=2"), "flow")
    x0 = torch.randn(5, 1, 6, generator=torch.Generator().manual_seed(3))
    ids = ask.codec.words(x0, range(5))
    found = scores(ask.codec, ask.pull(), x0, ids)
    edited = scores(ask.codec, ask.pull(), x0, ids, start=x0 - 1)
    tone, count = ask.operators["tone"], ask.operators["count"]
    for i in range(5):
        again = ask.codec.encode(ids[i : i + 1])
        level = clean_level(again)
        formal = tone.log_probs(again, level)[0, tone.classes.index("formal")]
        two = count.log_probs(again, level)[0, count.classes.index("2")].exp()
        nll = ask.codec.network.nll(ids[i : i + 1], ask.codec.latents(x0[i : i + 1]))
        expected = formal + 2 * torch.log(1 - two) - nll.sum() / (ids[i] != PAD).sum()
        assert_close(found[i], expected, atol=1e-4, rtol=1e-4)
        apart = float((again - x0[i : i + 1] + 1).square().mean()) / 2
        assert float(edited[i]) == pytest.approx(float(expected) - apart, abs=1e-3)


def test_the_best_of_each_sentence_is_kept():
    assert best_of(torch.tensor([0.0, 2.0, 1.0, -1.0, -3.0, -1.0]), 3).tolist() == [1, 3]


def test_what_is_kept_is_what_one_of_the_candidates_seeds_writes(writer: Path, tmp_path: Path):
    name = "audience=child"
    asked = ControlRequest(n=2, seed=5, steps=6, solver="dpmpp_2m", operator=(name,), candidates=3)
    kept = PANEL.control(writer, (), asked, tmp_path)
    for i in range(2):
        alone = [
            ask(writer, tmp_path, name, n=1, seed=seed)["sentence 0"]
            for seed in candidate_seeds(5 + i, 3)
        ]
        assert kept[f"sentence {i}"] in alone
    edited = ask(writer, tmp_path, name, edit="look at a star .", n=3, candidates=2)
    assert edited["sentences"] == 3
    with pytest.raises(ConfigError, match="no more than its 6 steps"):
        ask(writer, tmp_path, name, edit="look at a star .", mode="flow", candidates=7)
    with pytest.raises(ConfigError, match="operators choose among them"):
        ControlRequest(candidates=2, edit="look at a star .")


def test_candidates_of_an_edit_are_noised_further_and_further(writer: Path):
    edit, words = "look at a star .", ("audience=child",)
    request = ControlRequest(
        steps=5, solver="dpmpp_2m", operator=words, edit=edit, strength=0.6, candidates=3
    )
    ask = steering(Pipeline.from_pretrained(writer), writer, words, "exact")
    start = ask.encoded([edit], "edit")
    seeds = candidate_seeds(0, 3)
    found = _edited(ask, start.repeat_interleave(3, dim=0), seeds, request)

    def alone(k: int, strength: float) -> Tensor:
        return guided_draw(ask.learner, [seeds[k]], request, ask.pull(), Start(start, strength))[0]

    for k, strength in enumerate((0.2, 0.4, 0.6)):
        assert_close(found[k], alone(k, strength), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found[0], alone(0, 0.6), atol=1e-2)


@pytest.mark.parametrize("solver", ["ode", "ddim"])
def test_candidates_of_an_edit_by_the_flow_are_stops_on_its_way(writer: Path, solver: str):
    """Of a quadratic along a: a.z - y has shrunk by e^(-s |a|^2 / std^2) after s of LENGTH."""
    x0 = torch.randn(4, 1, 3, generator=torch.Generator().manual_seed(2))
    how, pull = Sampling(solver=solver, steps=400), Pull([SECOND], [0.5])
    found = flow(x0, how, pull, stops=4).unflatten(0, (4, 4)).flatten(2)
    assert_close(found[:, 3], flow(x0, how, pull).flatten(1), atol=1e-3, rtol=0)
    a, rest = SECOND.a[0], x0.flatten(1) @ SECOND.a[0] - SECOND.y
    gone = (found @ a - SECOND.y) / rest[:, None]
    assert bool((gone.diff(dim=1) < 0).all())
    if solver == "ode":  # equal parts of the way
        s = LENGTH * torch.tensor([0.25, 0.5, 0.75, 1.0])
        assert_close(gone, torch.exp(-s * 0.5 * (a @ a) / 2.5**2).expand(4, 4), atol=1e-3, rtol=0)
    words = ("audience=child",)
    request = ControlRequest(
        mode="flow", solver=solver, steps=6, operator=words, edit="look at a star .", candidates=3
    )
    ask = steering(Pipeline.from_pretrained(writer), writer, words, "flow")
    start = ask.encoded(["look at a star .", "see a red moon ."], "edit")
    stops = _edited(ask, start.repeat_interleave(3, dim=0), range(6), request)
    alone = _edited(ask, start, range(2), replace(request, candidates=1))
    assert_close(stops[2::3], alone, atol=1e-3, rtol=1e-3)


def test_stops_of_an_adaptive_flow_share_its_budget():
    evaluations = 0

    def counted(z: Tensor, level: Level) -> Tensor:
        nonlocal evaluations
        evaluations += 1
        return SECOND(z, level)

    how = Sampling(solver="ode", budget=30)
    with pytest.warns(UserWarning, match="evaluations reach"):
        found = flow(torch.ones(2, 1, 3), how, Pull([counted], [50.0]), stops=4)
    assert evaluations <= 30
    assert found.shape == (8, 1, 3)


def test_sentences_are_edited_and_joined(writer: Path, tmp_path: Path):
    sentence = "look at a black star ."
    (tmp_path / "some.txt").write_text(f"{sentence}\n\nsee a red moon .\n")
    for mode in ("flow", "exact"):
        found = ask(
            writer, tmp_path, "tone=formal", mode=mode, n=2, edit=str(tmp_path / "some.txt")
        )
        assert found["sentences"] == 4
        assert 0 <= found["bleu_to_input"] <= 100.0001
    path = ask(writer, tmp_path, n=3, interpolate=(sentence, "see a red moon ."))
    assert path["sentences"] == 3
    with pytest.raises(ConfigError, match="interpolate = ''"):
        ask(writer, tmp_path, n=3, interpolate=(sentence, ""))


def test_conflicting_operators_are_both_told(writer: Path, tmp_path: Path):
    with pytest.warns(UserWarning, match=r"they conflict.*tone=formal \d\.\d+, tone=plain \d\.\d+"):
        found = ask(writer, tmp_path, "tone=formal", "tone=plain", n=8)
    assert found["by_operators"]["all"] == 0
    assert {"tone=formal", "tone=plain"} <= set(found["exact"])


def test_operators_that_do_not_fit_are_refused(writer: Path, make_run, tmp_path: Path):
    with pytest.raises(
        ConfigError, match=r"operator mood: not in .*audience, count, tone\); train"
    ):
        ask(writer, tmp_path, "mood=glad")
    with pytest.raises(ConfigError, match=r"no value 'formel'.*did you mean 'formal'"):
        ask(writer, tmp_path, "tone=formel")
    with pytest.raises(ConfigError, match=r"count: knows clean latents only"):
        ask(writer, tmp_path, "count=1")
    assert ask(writer, tmp_path, "count=1", mode="flow")["sentences"] == 6
    other = make_run(*POINTS, "train.seed=5")
    stranger = make_run(*OPERATOR, f"codec.run={other}", "data.label_column=tone")
    with pytest.raises(ConfigError, match=r"trained for other latents, those of .*train it with"):
        ask(writer, tmp_path, f"{stranger}=formal")
    with pytest.raises(ConfigError, match="is no run of model: operator"):
        load_operator(writer, str(other), "x")
    with pytest.raises(ConfigError, match="has no latents of whole sentences"):
        ask(make_run("model=causal"), tmp_path, "tone=formal")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"mode": "fast"}, "mode = 'fast'"),
        ({"mbr": 3}, "mbr: not with operators"),
        ({"prompt": "red"}, "prompt: not with operators, edits and paths"),
        ({"evaluate": Path("targets.jsonl")}, "evaluate: not with operators"),
        ({"control_scale": 3.0}, r"control_scale = 3.0: .* operators have weights .* 2\*NAME"),
        ({"guidance": 2.0}, "guidance, clamp: of models of words"),
        ({"guidance": 2.0, "mode": "flow"}, "guidance, clamp: of models of words"),
        ({"clamp": True}, "guidance, clamp: of models of words"),
        ({"strength": 0.2}, "strength: of --edit in --mode exact"),
        ({"interpolate": ("a", "b")}, "without operator and edit"),
        ({"stay": 1.0}, "stay: of --edit in --mode flow"),
        ({"stay": math.nan, "mode": "flow", "edit": "star"}, "stay = nan: expected a number"),
        ({"stay": math.inf, "mode": "flow", "edit": "star"}, "stay = inf: expected a number"),
        ({"stay": 1e9, "mode": "flow", "edit": "star"}, "expected a number from 0 to 10000"),
        ({"edit": "look at a zebra ."}, "does not know 'zebra'"),
        ({"edit": "no.txt"}, "edit = no.txt: no such file"),
        ({"edit": " ".join(["red"] * 30)}, "30 tokens, expected 1 to 23"),
    ],
)
def test_requests_that_cannot_be_are_refused(more, message, writer: Path, tmp_path: Path):
    with pytest.raises((ConfigError, DataError), match=message):
        ask(writer, tmp_path, "tone=formal", **more)


def test_a_file_to_edit_is_text(writer: Path, tmp_path: Path):
    (tmp_path / "some.txt").write_bytes("see a caf\u00e9 .".encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8 text"):
        ask(writer, tmp_path, "tone=formal", edit=str(tmp_path / "some.txt"))


def test_words_and_operators_do_not_mix(writer: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="mode, stay: of operators and edits"):
        ControlRequest(mode="flow", stay=1.0)
    with pytest.raises(ConfigError, match="by words or by operators"):
        PANEL.control(writer, ("length=5",), ControlRequest(operator=("tone=formal",)), tmp_path)
    with pytest.raises(ConfigError, match="it writes nothing by itself"):
        PANEL.sample(writer / "operators" / "tone", SampleRequest(n=1), tmp_path)


def test_the_adaptive_solver_keeps_to_its_budget(writer: Path, tmp_path: Path):
    for mode in ("exact", "flow"):
        with pytest.warns(UserWarning, match="Give a larger budget"):
            found = ask(writer, tmp_path, "tone=formal", mode=mode, solver="ode", budget=16)
        assert found["sentences"] == 6
    with pytest.raises(ConfigError, match="budget = 16: of solver ode"):
        ControlRequest(operator=("tone=formal",), budget=16)
