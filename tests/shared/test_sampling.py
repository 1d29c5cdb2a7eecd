"""From a model and seeds to latents: what the settings say is what the solver is told."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from shared import noise
from shared.codec import Bits, Identity
from shared.config import DiffusionConfig, NetConfig
from shared.drawing import draw, fitted_grid, invert
from shared.errors import ConfigError, NonFinite
from shared.guidance import autoguidance, clamp
from shared.learner import DiffusionLearner
from shared.sampling import Sampling, Start
from shared.solver import SOLVERS, Fitted, for_data, sample
from tests.toy import ToyNet

SHAPE = (5, 3)
SEEDS = [4, 9, 2]


def made(seed: int, heads: int) -> DiffusionLearner:
    torch.manual_seed(seed)
    net = ToyNet(SHAPE[1], NetConfig(dim=8, depth=1, heads=heads))
    learner = DiffusionLearner(net, Identity(SHAPE), DiffusionConfig(), 0.5)
    for weight in learner.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return learner.eval()


@pytest.fixture
def learner() -> DiffusionLearner:
    return made(3, heads=2)


def drawn(learner: DiffusionLearner, **settings: Any) -> Tensor:
    return draw(learner, SEEDS, Sampling(**settings), progress=False)


def test_samples_begin_at_data_noised_to_a_time(learner: DiffusionLearner):
    x0, time = noise.normal([7, 8, 9], 1, SHAPE), 0.6
    level = learner.schedule(torch.tensor(time, dtype=torch.float64))
    x_t = (level.alpha * x0 + level.sigma * noise.normal(SEEDS, 0, SHAPE)).float()
    unit = x_t / math.hypot(level.alpha, level.sigma)  # what `sample` makes its first state of
    expected = sample(learner.denoiser, unit, learner.schedule, "ddim", 5, seeds=SEEDS, start=time)
    how = Sampling(solver="ddim", steps=5, batch=2)
    got = draw(learner, SEEDS, how, start=Start(x0, time), progress=False)
    torch.testing.assert_close(got, expected)
    for wrong in (0.0, 1.5):
        with pytest.raises(ConfigError, match="expected a number in"):
            draw(learner, SEEDS, how, start=Start(x0, wrong), progress=False)


def by_hand(learner: DiffusionLearner, solver: str, **settings: Any) -> Tensor:
    start = noise.normal(SEEDS, 0, SHAPE)
    return sample(learner.denoiser, start, learner.schedule, solver, seeds=SEEDS, **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"solver": "ddim", "steps": 7},
        {"solver": "ancestral", "steps": 6, "grid": "karras"},
        {"solver": "dpmpp_2m", "steps": 5, "grid": "logsnr"},
        {"solver": "ddim", "steps": 6, "td": 1.5},
    ],
)
def test_solver_steps_grid_and_td_reach_the_loop(
    learner: DiffusionLearner, settings: dict[str, Any]
):
    torch.testing.assert_close(drawn(learner, **settings), by_hand(learner, **settings))


def test_auto_steps_where_the_path_of_this_model_bends(learner: DiffusionLearner, tmp_path: Path):
    how, file = Sampling(solver="auto", steps=6), tmp_path / "grid.json"
    first = draw(learner, SEEDS, how, grid_file=file, progress=False)
    grid = fitted_grid(learner, file)
    torch.testing.assert_close(drawn(learner, solver="auto", steps=6), first)
    plain = drawn(learner, solver="auto", steps=6, grid="time")
    assert not torch.allclose(plain, first)
    written = file.read_text()
    assert fitted_grid(learner, file) == grid
    assert file.read_text() == written
    for damaged in (written[:-9], "[]", "{}"):
        file.write_text(damaged)
        assert fitted_grid(learner, file) == grid
        assert file.read_text() == written
    with torch.no_grad():
        next(learner.parameters()).add_(1.0)  # other weights, another grid
    assert fitted_grid(learner, file) != grid


@pytest.fixture
def weaker() -> DiffusionLearner:
    return made(5, heads=1)


def test_guide_takes_the_place_of_no_condition(learner: DiffusionLearner, weaker: DiffusionLearner):
    how = Sampling(steps=4, guidance=1.8, guidance_interval=(-4.0, 3.0), guide="runs/weaker")
    got = draw(learner, SEEDS, how, guide=weaker, progress=False)
    guided = autoguidance(learner.denoiser, weaker.denoiser, 1.8, (-4.0, 3.0))
    start = noise.normal(SEEDS, 0, SHAPE)
    torch.testing.assert_close(got, sample(guided, start, learner.schedule, steps=4, seeds=SEEDS))
    assert not torch.allclose(got, drawn(learner, steps=4))


def test_clamp_rounds_what_guidance_proposes_to_points_of_the_codec(
    learner: DiffusionLearner, weaker: DiffusionLearner
):
    learner.codec = codec = Bits(7, SHAPE[:1])
    how = Sampling(steps=4, guidance=1.8, guide="runs/weaker", clamp=True)
    got = draw(learner, SEEDS, how, guide=weaker, progress=False)
    guided = clamp(autoguidance(learner.denoiser, weaker.denoiser, 1.8), codec)
    start = noise.normal(SEEDS, 0, SHAPE)
    torch.testing.assert_close(got, sample(guided, start, learner.schedule, steps=4, seeds=SEEDS))
    assert torch.equal(got, codec.encode(codec.decode(got)))


def test_guide_of_other_latents_is_refused(learner: DiffusionLearner):
    net = ToyNet(2, NetConfig(dim=8, depth=1, heads=1))
    other = DiffusionLearner(net, Identity((5, 2)), DiffusionConfig())
    with pytest.raises(ConfigError, match=r"guide = runs/b: its latents are \(5, 2\)"):
        draw(learner, SEEDS, Sampling(guidance=2.0, guide="runs/b"), guide=other, progress=False)


@pytest.mark.parametrize("name", ["guidance", "td", "temperature"])
def test_numbers_that_are_not_finite_are_refused(name: str):
    settings: dict[str, Any] = {name: math.nan}
    with pytest.raises(ConfigError, match=f"{name} = nan: expected a finite number"):
        Sampling(**settings)


def test_guide_without_a_scale_is_refused():
    with pytest.raises(ConfigError, match="guide = runs/b: does nothing at guidance = 1"):
        Sampling(guide="runs/b")


def test_a_value_that_is_not_finite_is_named_with_its_step_on_request(learner: DiffusionLearner):
    with torch.no_grad():
        next(learner.parameters()).fill_(torch.nan)
    with pytest.raises(NonFinite, match="nan='stop' names the step"):
        drawn(learner, steps=3)
    with pytest.raises(NonFinite, match=r"step 0.*logsnr"):
        drawn(learner, steps=3, nan="stop")


def test_a_grid_is_not_fitted_to_values_that_are_not_finite(
    learner: DiffusionLearner, monkeypatch: pytest.MonkeyPatch
):
    with torch.no_grad():
        next(learner.parameters()).fill_(torch.nan)
    how = Sampling(solver="auto", steps=3)
    with pytest.raises(NonFinite, match="nan='stop' names the step"):
        draw(learner, SEEDS, how, progress=False)
    with pytest.raises(NonFinite, match="nan='stop' names the step"):
        invert(learner, torch.zeros(2, *SHAPE), how)

    def unfitted(*_: Any, **__: Any) -> Fitted:
        return Fitted((0.1, 0.2), (0.0, 0.0))

    monkeypatch.setattr("shared.drawing.fit", unfitted)
    with pytest.raises(ConfigError, match="rates must not be negative, and not all zero"):
        draw(learner, SEEDS, how, progress=False)


def test_solvers_that_ask_for_the_spread_of_data_are_told_it():
    told = {name for name in SOLVERS if getattr(for_data(name, 0.4), "data_std", None) == 0.4}
    assert told == {"auto", "trig2", "trig3", "ode"}
    assert for_data("lms2", 0.4) == SOLVERS["lms2"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"steps": 0}, "steps = 0: expected 1 or more"),
        ({"solver": "ddmi"}, "solver = 'ddmi': expected one of auto, ancestral"),
        ({"grid": "times"}, "grid = 'times': expected one of time, logsnr"),
        ({"nan": "go"}, "nan = 'go': expected one of end, stop"),
        ({"temperature": 0.0}, "temperature = 0.0: expected a number above 0"),
        ({"guidance_interval": (1.0, 1.0)}, "guidance_interval = 1.0 1.0"),
        ({"guidance_interval": (-1.0, 1.0)}, "guidance_interval: does nothing at guidance = 1"),
        ({"solver": "ancestral_learned"}, "needs a network that learned its variance"),
        ({"steps": 1, "td": 1.0}, "td = 1.0 with one step"),
        ({"td": -1.0}, "td = -1.0: expected a number of steps from 0 on"),
        ({"temperature": 0.9}, "temperature"),  # this model has no logits
    ],
)
def test_what_cannot_be_drawn_is_refused(
    learner: DiffusionLearner, settings: dict[str, Any], words: str
):
    with pytest.raises(ConfigError, match=words):
        drawn(learner, **settings)
