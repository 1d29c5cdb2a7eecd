"""The sampling loop and its contract: seeds, ends, history, memory, hooks; orders and peers have
files of their own."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from shared import noise
from shared.codec import Bits
from shared.denoiser import Denoise, Denoiser
from shared.nets.transformer import Transformer
from shared.oracle import GaussianMixture
from shared.prediction import PREDICTIONS, from_x0
from shared.schedule import Cosine, Level, Linear, Schedule
from shared.solver import (
    CLEAN,
    SOLVERS,
    Taken,
    Trajectory,
    encode,
    prepare,
    run,
    sample,
    time_grid,
    time_travel,
)
from shared.solver.adams import Adams
from shared.solver.adaptive import worst
from shared.solver.ancestral import Ancestral
from shared.solver.corrector import Langevin, PredictorCorrector, SnrLangevin
from shared.solver.ddim import Ddim
from shared.solver.dpmpp import Dpmpp2m, Dpmpp3m, DpmppSde2m
from shared.solver.edm import Churn
from shared.solver.ode import Ode
from shared.solver.sde import ReverseDiffusion
from shared.solver.step import Mix
from shared.solver.unipc import UniPC
from tests.solvers import FAMILIES, Straight, exact_flow, noisy, smooth_mixture

SCHEDULE = Cosine(-8, 8)
PLAIN = sorted(set(SOLVERS) - {"ancestral_learned"})  # whose network is any Denoise
EXTRAPOLATED = {name for name in SOLVERS if name.startswith(("lms", "trig", "auto"))}


class Counted:
    """A Denoise of 0.3 x_t + 1 that keeps what it was given and gave."""

    def __init__(self) -> None:
        self.levels: list[Level] = []
        self.previous: list[Tensor | None] = []
        self.estimates: list[Tensor] = []

    def __call__(
        self,
        x_t: Tensor,
        level: Level,
        condition: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> Tensor:
        self.levels.append(level)
        self.previous.append(previous)
        self.estimates.append(x_t * 0.3 + 1)
        return self.estimates[-1]


def test_dpmpp_2m_is_its_papers_formula_on_unequal_steps():
    """Lu et al. 2022b, Alg. 2, in its own symbols: lambda = logsnr / 2, h_i = lambda_i -
    lambda_(i-1), r_i = h_(i-1) / h_i. (Weights with r_i upside down have order 2 as well.)"""
    grid = torch.tensor([0.8, 0.7, 0.3], dtype=torch.float64)
    estimates = torch.tensor([[[0.3, -1.0]], [[0.9, 0.4]]], dtype=torch.float64)
    given = iter(estimates)

    def denoise(
        x_t: Tensor, level: Level, condition: Tensor | None = None, previous: Tensor | None = None
    ) -> Tensor:
        return next(given)

    x = torch.tensor([[0.5, -0.2]], dtype=torch.float64)
    got = sample(denoise, x, SCHEDULE, "dpmpp_2m", grid=grid, end_clean=False)
    levels = SCHEDULE(grid)
    alpha, sigma, lam = levels.alpha, levels.sigma, levels.logsnr / 2
    h = lam.diff()
    x_1 = sigma[1] / sigma[0] * x - alpha[1] * torch.expm1(-h[0]) * estimates[0]
    r = h[0] / h[1]
    d = (1 + 1 / (2 * r)) * estimates[1] - 1 / (2 * r) * estimates[0]
    torch.testing.assert_close(got, sigma[2] / sigma[1] * x_1 - alpha[2] * torch.expm1(-h[1]) * d)


@pytest.mark.parametrize("family", [*FAMILIES, "cosine", "linear"])
@pytest.mark.parametrize("solver", PLAIN)
def test_all_predictions_give_the_oracles_sample(solver: str, family: str):
    oracle = smooth_mixture()
    named: dict[str, Schedule] = {"cosine": SCHEDULE, "linear": Linear(logsnr_max=8.0)}
    schedule = named.get(family, Straight(family))
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    plan = prepare(schedule, solver, 4)
    expected = run(plan, oracle.denoise, x, seeds=range(3)).x
    for prediction in PREDICTIONS:
        got = run(plan, as_network(oracle, prediction, schedule), x, seeds=range(3)).x
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def as_network(oracle: GaussianMixture, prediction: str, schedule: Schedule) -> Denoise:
    """The oracle behind a network that outputs `prediction` and sees scaled inputs."""

    class Net(torch.nn.Module):
        def forward(self, x: Tensor, logsnr: Tensor, condition: None, previous: None) -> Tensor:
            flat = schedule(schedule.time(logsnr))
            level = flat.widen(2)
            x_t = x * (level.sigma**2 + (level.alpha * data_std) ** 2).sqrt()
            return from_x0(prediction, oracle.denoise(x_t, flat), x_t, level, data_std)

    data_std = 0.7
    return Denoiser(Net(), prediction, data_std)


def test_ancestral_sampling_has_the_mixtures_moments():
    """20,000 samples at 100 steps; each bound is 5 standard errors plus the discretisation's
    0.01: false alarms below 1e-5."""
    oracle, n = smooth_mixture(torch.float32), 20_000
    x = noise.normal(range(n), 0, (2,))
    out = sample(oracle.denoise, x, SCHEDULE, "ancestral", steps=100, seeds=range(n))
    mean = (oracle.log_weights.exp()[:, None] * oracle.means).sum(0)
    covariances = oracle.axes @ torch.diag_embed(oracle.variances) @ oracle.axes.mT
    apart = oracle.means - mean
    spread = covariances + apart[:, :, None] * apart[:, None, :]
    covariance = (oracle.log_weights.exp()[:, None, None] * spread).sum(0)
    bound = 5 * covariance.diagonal().max().sqrt() / math.sqrt(n) + 0.01
    assert bool(((out.mean(0) - mean).abs() < bound).all())
    assert bool(((torch.cov(out.T) - covariance).abs() < 5 * 1.5 / math.sqrt(n) + 0.01).all())


def test_ancestral_step_is_the_posterior_of_a_gaussian_chain():
    """Mean and variance of q(x_s | x_t, x0), from the joint Gaussian of (x_s, x_t) given x0."""
    t, s = (SCHEDULE(torch.tensor(value, dtype=torch.float64)) for value in (0.7, 0.4))
    x0, x_t = 0.9, -0.3
    ratio = t.alpha / s.alpha  # x_t = ratio x_s + noise of variance `added`
    added = t.sigma**2 - ratio**2 * s.sigma**2
    gain = s.sigma**2 * ratio / (ratio**2 * s.sigma**2 + added)
    mean = s.alpha * x0 + gain * (x_t - ratio * s.alpha * x0)
    variance = s.sigma**2 * (1 - gain * ratio)
    n = 200_000
    out = sample(
        lambda x_t, level, condition=None, previous=None: torch.full_like(x_t, x0),
        torch.full((n, 1), x_t, dtype=torch.float64),
        SCHEDULE,
        "ancestral",
        grid=torch.tensor([0.7, 0.4]),
        seeds=range(n),
        end_clean=False,
    )
    # 5 standard errors: false alarm below 1e-6
    assert float(out.mean()) == pytest.approx(float(mean), abs=5 * float(variance / n) ** 0.5)
    assert float(out.var()) == pytest.approx(float(variance), rel=5 * math.sqrt(2 / n))


def test_step_i_draws_noise_i_plus_1_which_is_not_the_start():
    """With an estimate of 0 the posterior is (alpha_s / alpha_t) keep x_t + std noise."""
    seeds, grid = [7, 8, 9], torch.tensor([0.9, 0.6, 0.2])
    start = noise.normal(seeds, 0, (4,))

    def nothing(
        x_t: Tensor, level: Level, condition: Tensor | None = None, previous: Tensor | None = None
    ) -> Tensor:
        return torch.zeros_like(x_t)

    got = sample(nothing, start, SCHEDULE, "ancestral", grid=grid, seeds=seeds, end_clean=False)
    levels, expected = SCHEDULE(grid.double()), start
    for i in range(2):
        keep = float((levels.logsnr[i] - levels.logsnr[i + 1]).exp())
        ratio = float(levels.alpha[i + 1] / levels.alpha[i]) * keep
        std = float(levels.sigma[i + 1]) * math.sqrt(1 - keep)
        expected = ratio * expected + std * noise.normal(seeds, i + 1, (4,))
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("solver", [name for name in PLAIN if name != "ode"])  # the batch's steps
def test_sample_alone_is_the_sample_in_a_batch_of_64(solver: str):
    oracle, seeds = smooth_mixture(torch.float32), list(range(100, 164))
    x = noise.normal(seeds, 0, (2,))
    batch = sample(oracle.denoise, x, Linear(), solver, steps=12, seeds=seeds)
    for i in (0, 17, 63):
        alone = sample(oracle.denoise, x[i : i + 1], Linear(), solver, 12, seeds=seeds[i : i + 1])
        torch.testing.assert_close(alone[0], batch[i], atol=1e-5, rtol=0)


@pytest.mark.parametrize("solver", PLAIN)
def test_history_goes_in_as_previous_and_runs_repeat(solver: str):
    denoise, x = Counted(), torch.ones(3, 2)
    first = sample(denoise, x, SCHEDULE, solver, steps=4, seeds=[1, 2, 3])
    assert denoise.previous[0] is None
    for previous, estimate in zip(denoise.previous[1:], denoise.estimates, strict=False):
        assert previous is estimate
    if solver not in EXTRAPOLATED:
        torch.testing.assert_close(first, denoise.estimates[-1])
    torch.testing.assert_close(sample(denoise, x, SCHEDULE, solver, 4, seeds=[1, 2, 3]), first)
    torch.testing.assert_close(x, torch.ones(3, 2))  # the caller's noise is left alone


@pytest.mark.parametrize("solver", [name for name in PLAIN if name != "ode"])
def test_evaluations_are_those_stated(solver: str):
    """nfe a step, and one at the clean end unless correctors come first; counted by the loop."""
    denoise, plan = Counted(), prepare(Straight("ve"), solver, 5)
    outcome = run(plan, denoise, torch.ones(3, 2), seeds=[1, 2, 3])
    nfe = SOLVERS[solver].nfe
    assert nfe is not None
    corrected = isinstance(SOLVERS[solver], PredictorCorrector)
    assert outcome.nfe == len(denoise.estimates) == 5 * nfe - (nfe - 1) * (not corrected)
    assert plan.evaluations == 5


@pytest.mark.parametrize("solver", PLAIN)
def test_every_evaluation_is_at_a_level_of_the_schedule(solver: str):
    schedule, denoise = Straight("sub_vp"), Counted()
    sample(denoise, torch.ones(3, 2), schedule, solver, 5, seeds=[1, 2, 3])
    for level in denoise.levels:
        exact = schedule(schedule.time(level.logsnr.double()))
        torch.testing.assert_close(level.alpha.double(), exact.alpha, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(level.sigma.double(), exact.sigma, atol=1e-6, rtol=1e-5)


def test_callback_sees_each_state_and_its_estimate():
    oracle, seen = smooth_mixture(), []

    def keep(i: int, x_t: Tensor, x0_hat: Tensor) -> None:
        seen.append((i, x_t.clone(), x0_hat.clone()))

    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    out = sample(oracle.denoise, x, SCHEDULE, "ddim", steps=4, callback=keep)
    assert [i for i, _, _ in seen] == [0, 1, 2, 3]
    torch.testing.assert_close(seen[0][1], x)
    torch.testing.assert_close(seen[-1][2], out)
    levels = SCHEDULE(time_grid(4))
    for i, x_t, x0_hat in seen:
        level = Level(levels.logsnr[i], levels.alpha[i], levels.sigma[i])
        torch.testing.assert_close(x0_hat, oracle.denoise(x_t, level))


@pytest.mark.parametrize("solver", PLAIN)
def test_estimate_that_is_the_state_itself_is_not_overwritten(solver: str):
    """A denoiser may hand its input back; the loop goes on in that memory."""

    def same(
        x_t: Tensor, level: Level, condition: Tensor | None = None, previous: Tensor | None = None
    ) -> Tensor:
        return x_t

    def copied(
        x_t: Tensor, level: Level, condition: Tensor | None = None, previous: Tensor | None = None
    ) -> Tensor:
        return x_t.clone()

    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(6))
    expected = sample(copied, x, SCHEDULE, solver, steps=5, seeds=[1, 2])
    torch.testing.assert_close(sample(same, x, SCHEDULE, solver, steps=5, seeds=[1, 2]), expected)


@pytest.mark.parametrize("prediction", ["v", "categorical"])
@pytest.mark.parametrize("solver", ["ancestral", "dpmpp_2m", "trig2"])
def test_network_gives_a_sample_alone_and_in_a_batch_of_64(solver: str, prediction: str):
    """Matrix products choose other kernels for other sizes, and each step of self-conditioning
    carries their differences on: 1e-5 after 20 steps."""
    L, C, seeds = 12, 6, list(range(500, 564))
    codec = Bits(50, (L,))
    torch.manual_seed(0)
    trunk = Transformer(2 * C, C, L, dim=64, depth=3, heads=4, conditions=5, cross_attention=True)
    for p in trunk.parameters():
        if not bool(p.any()):
            torch.nn.init.normal_(p, std=0.1)

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = trunk

        def forward(self, x: Tensor, logsnr: Tensor, condition: Tensor, previous: Tensor) -> Tensor:
            return self.trunk(torch.cat([x, previous], -1), logsnr, condition)

    denoiser = Denoiser(
        Net(), prediction, 1.0, True, codec, evidence=prediction == "categorical"
    ).eval()
    x = noise.normal(seeds, 0, (L, C))
    condition = torch.tensor(seeds)[:, None] % 5
    with torch.no_grad():
        batch = sample(denoiser, x, Cosine(-12, 12), solver, 20, condition, seeds)
        for i in (0, 41, 63):
            one = slice(i, i + 1)
            alone = sample(
                denoiser, x[one], Cosine(-12, 12), solver, 20, condition[one], seeds[one]
            )
            torch.testing.assert_close(alone[0], batch[i], atol=1e-5, rtol=0)


def network(make: Callable[[Tensor], Tensor]) -> Denoise:
    """A Denoise that looks at x_t alone."""

    def denoise(
        x_t: Tensor, level: Level, condition: Tensor | None = None, previous: Tensor | None = None
    ) -> Tensor:
        return make(x_t)

    return denoise


def broken(
    x_t: Tensor, level: Level, condition: Tensor | None = None, previous: Tensor | None = None
) -> Tensor:
    return x_t / (level.logsnr < 0).to(x_t)


def test_estimate_that_is_not_finite_is_named_by_its_step():
    with pytest.raises(FloatingPointError, match=r"step 2, logsnr 0\.000"):
        sample(broken, torch.ones(2, 3), SCHEDULE, "ddim", steps=4, nan="stop")
    with pytest.raises(FloatingPointError, match="nan='stop'"):
        sample(broken, torch.ones(2, 3), SCHEDULE, "ddim", steps=4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"solver": "newton"}, "expected one of"),
        ({"solver": "ancestral"}, "give seeds"),
        ({"seeds": [1]}, "1 seeds for 2 samples"),
        ({"steps": 0}, "one step or more"),
        ({"grid": torch.tensor([0.2, 0.8])}, "must be the lowest"),
        ({"grid": torch.tensor([0.2, 0.8]), "end_clean": False}, "give seeds"),
        ({"grid": torch.tensor([1.0])}, "two or more times"),
        ({"grid": torch.tensor([1.0, 0.5, 0.5, 0.0])}, "twice in a row"),
        ({"grid": torch.tensor([1.2, 0.5])}, r"in \[0, 1\]"),
        ({"grid": torch.tensor([0.5, -0.1])}, r"in \[0, 1\]"),
        ({"grid": torch.tensor([1.0, math.nan, 0.0])}, r"in \[0, 1\]"),
        ({"grid": torch.tensor([1.0, 0.0]), "start": 0.5}, "a start of its own"),
        ({"grid": "even"}, "expected one of time"),
        ({"start": 0.0}, r"a time in \(0, 1\]"),
        ({"td": 0.5, "steps": 1}, "td = 0.5 with one step"),
        ({"td": -1.0}, "td = -1.0"),
        ({"nan": "ask"}, "'end' or 'stop'"),
        ({"x0": torch.ones(2, 3)}, "shape of noise"),
        ({"solver": "ancestral_learned", "seeds": [1, 2]}, "learned its variance"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str):
    oracle = smooth_mixture(torch.float32)
    with pytest.raises(ValueError, match=message):
        sample(oracle.denoise, torch.ones(2, 2), SCHEDULE, **arguments)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Ddim(eta=1.5), "eta = 1.5"),
        (lambda: Ddim(eta=-0.1), "eta = -0.1"),
        (lambda: Ancestral("medium"), "expected one of small, large, learned"),
        (lambda: Adams(5), "from 1 to 4"),
        (lambda: Adams(2, 0.0), "data_std = 0.0"),
        (lambda: Adams(2, 1.0, "cold"), "'euler' or 'kutta'"),
        (lambda: Dpmpp3m("cold"), "'first' or 'single'"),
        (lambda: DpmppSde2m(0.0), "eta = 0.0"),
        (lambda: UniPC(1), "expected 2 or 3"),
        (lambda: Churn(amount=0.0), "amount = 0.0"),
        (lambda: Churn(low=2.0, high=2.0), "low < high"),
        (lambda: Churn(low=-1.0), "low = -1.0"),
        (lambda: Ode(rtol=0.0), "rtol = 0.0"),
        (lambda: Ode(atol=0.0), "atol = 0.0"),
        (lambda: Ode(data_std=math.inf), "data_std = inf"),
    ],
)
def test_bad_settings_of_solvers_are_refused(make: Callable[[], object], message: str):
    with pytest.raises(ValueError, match=message):
        make()


def test_default_settings_are_those_of_the_papers():
    """EDM's table 5 (ImageNet-64), Score SDE's 0.16 and 1e-5; the mild Langevin step is ours."""
    assert Churn() == Churn(amount=40.0, low=0.05, high=50.0, excess=1.003)
    assert SnrLangevin() == SnrLangevin(snr=0.16)
    assert Langevin() == Langevin(eps=0.1)
    assert Ode() == Ode(rtol=1e-5, atol=1e-5, data_std=1.0)
    assert PredictorCorrector() == PredictorCorrector(ReverseDiffusion(), SnrLangevin(), count=1)


def test_estimate_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"\(2, 1\) for x_t \(2, 3\)"):
        sample(network(lambda x_t: x_t[:, :1].clone()), torch.ones(2, 3), SCHEDULE)


def test_schedule_that_rises_somewhere_is_refused():
    class Bent(Straight):
        def logsnr(self, t: Tensor) -> Tensor:
            return torch.cos(7 * t)

    with pytest.raises(ValueError, match="expected it to fall strictly"):
        sample(smooth_mixture().denoise, torch.ones(2, 2), Bent(), steps=9)


# -- noise -----------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", PLAIN)
def test_streams_of_a_run_are_used_once_and_only_where_noise_is(
    solver: str, monkeypatch: pytest.MonkeyPatch
):
    used: list[int] = []
    monkeypatch.setattr(
        noise.Normals, "draw", lambda source, step: used.append(step) or torch.ones(source.shape)
    )
    monkeypatch.setattr(
        noise,
        "normal",
        lambda seeds, step, shape, device: used.append(step) or torch.ones(1, *shape),
    )

    def hook(x_s: Tensor, taken: Taken) -> Tensor:
        return x_s + 0 * taken.draw(0) + 0 * taken.draw(1)

    grid = time_travel(time_grid(6), 3, 2)
    sample(Counted(), torch.ones(1, 2), SCHEDULE, solver, seeds=[1], grid=grid, hooks=[hook])
    assert len(set(used)) == len(used)
    assert min(used) > 0  # 0 is the start's, negative ones are training's
    evaluated = prepare(SCHEDULE, solver, grid=grid).evaluations
    assert len(used) - 2 * evaluated >= 2  # the two moves that rise
    if not SOLVERS[solver].stochastic:
        assert len(used) - 2 * evaluated == 2


def test_state_at_the_first_level_has_the_variance_of_unit_data():
    """VE: sqrt(1 + sigma^2) times the noise; a datum instead of the noise alone is SDEdit's."""
    schedule, x = Straight("ve"), torch.randn(3, 2, dtype=torch.float64)
    seen = Trajectory()
    sample(Counted(), x, schedule, "ddim", 3, callback=seen)
    torch.testing.assert_close(seen.states[0], x * math.sqrt(1 + math.exp(6.0)))
    x0, seen = torch.randn(3, 2, dtype=torch.float64), Trajectory()
    sample(Counted(), x, schedule, "ddim", 3, callback=seen, start=0.4, x0=x0)
    torch.testing.assert_close(seen.states[0], x0 + math.exp(-1.2 / 2) * x)
    assert len(seen.estimates) == 3


# -- hooks -----------------------------------------------------------------------------------


def test_hook_sees_mean_and_std_of_the_step_and_its_state_goes_on():
    seeds, x = [7, 8, 9], torch.randn(3, 2, dtype=torch.float64)
    plan, seen, denoise = prepare(SCHEDULE, "ancestral", 3), list[Taken](), Counted()
    condition = torch.tensor([[1], [2], [3]])

    def hook(x_s: Tensor, taken: Taken) -> Tensor:
        step = plan.steps[taken.index]
        assert isinstance(step, Mix)
        assert (taken.at, taken.to, taken.std) == (step.at, step.to, step.std)
        assert taken.condition is condition
        assert taken.x0_hat is denoise.estimates[-1]
        draw = noise.normal(seeds, taken.index + 1, (2,)).double()
        torch.testing.assert_close(x_s, taken.mean + taken.std * draw)
        seen.append(taken)
        return torch.full_like(x_s, 0.25)

    out = run(plan, denoise, x, condition, seeds, hooks=[hook, lambda x_s, taken: x_s + 1])
    assert [taken.index for taken in seen] == [0, 1, 2]
    assert seen[-1].to == CLEAN
    for estimate in denoise.estimates[1:]:
        torch.testing.assert_close(estimate, torch.full_like(estimate, 1.25 * 0.3 + 1))
    torch.testing.assert_close(out.x, torch.full_like(x, 1.25))


def test_hooks_of_a_deterministic_step_see_the_state_as_mean():
    def hook(x_s: Tensor, taken: Taken) -> Tensor:
        assert taken.std == 0
        assert torch.equal(taken.mean, x_s)
        return x_s

    run(prepare(SCHEDULE, "heun", 3), Counted(), torch.ones(3, 2), hooks=[hook])
    with pytest.raises(ValueError, match="give seeds"):
        run(
            prepare(SCHEDULE, "ddim", 3),
            Counted(),
            torch.ones(3, 2),
            hooks=[lambda x_s, taken: taken.draw(0)],
        )


# -- learned variance ------------------------------------------------------------------------


@pytest.mark.parametrize(("fraction", "twin"), [(0.0, "ancestral"), (1.0, "ancestral_large")])
def test_learned_variance_runs_between_the_two_fixed_ones(fraction: float, twin: str):
    class Ranged(Counted):
        def with_range(
            self,
            x_t: Tensor,
            level: Level,
            condition: Tensor | None = None,
            previous: Tensor | None = None,
        ) -> tuple[Tensor, Tensor]:
            return self(x_t, level, condition, previous), torch.full_like(x_t, fraction)

    x, seeds = torch.randn(3, 2, dtype=torch.float64), [1, 2, 3]
    learned = sample(Ranged(), x, SCHEDULE, "ancestral_learned", 4, seeds=seeds)
    torch.testing.assert_close(learned, sample(Counted(), x, SCHEDULE, twin, 4, seeds=seeds))


def test_learned_variance_is_geometric_in_the_fraction():
    """sigma_t^2 c and sigma_s^2 c, c = 1 - e^(logsnr_t - logsnr_s), one number of x at a time."""

    class Ranged(Counted):
        def with_range(self, x_t: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
            return torch.zeros_like(x_t), torch.tensor([[0.25, 0.75]]).to(x_t)

    times = torch.tensor([0.8, 0.3], dtype=torch.float64)
    plan = prepare(SCHEDULE, "ancestral_learned", grid=times, end_clean=False)
    t, s = plan.steps[0].at, plan.steps[0].to
    got = run(plan, Ranged(), torch.zeros(1, 2, dtype=torch.float64), seeds=[5]).x
    c = 1 - math.exp(t.logsnr - s.logsnr)
    std = [(t.sigma**2 * c) ** (f / 2) * (s.sigma**2 * c) ** ((1 - f) / 2) for f in (0.25, 0.75)]
    expected = torch.tensor([std], dtype=torch.float64) * noise.normal([5], 1, (2,))
    torch.testing.assert_close(got, expected)


# -- grids that rise, asymmetric intervals, encoding -------------------------------------------


def test_a_rising_move_renoises_and_costs_nothing():
    """x_s = alpha_s / alpha_t x_t + sqrt(sigma_s^2 - (alpha_s sigma_t / alpha_t)^2) noise; move
    number i draws stream i + 1."""
    times = torch.tensor([0.9, 0.4, 0.7, 0.2], dtype=torch.float64)
    denoise, x = Counted(), torch.randn(3, 2, dtype=torch.float64)
    out = sample(denoise, x, SCHEDULE, "dpmpp_2m", grid=times, end_clean=False, seeds=[1, 2, 3])
    assert len(denoise.estimates) == 2
    first, third = (
        prepare(SCHEDULE, "ddim", grid=times[i : i + 2], end_clean=False) for i in (0, 2)
    )
    down = run(first, Counted(), x).x
    (t, s) = first.steps[0].to, third.start
    std = math.sqrt(s.sigma**2 - (s.alpha * t.sigma / t.alpha) ** 2)
    up = s.alpha / t.alpha * down + std * noise.normal([1, 2, 3], 2, (2,)).double()
    torch.testing.assert_close(out, run(third, Counted(), up).x)  # the history began again


def test_asymmetric_intervals_go_further_than_the_network_is_told():
    """Analog Bits' td, DDIM by hand on four uniform steps: max(1 - (i + 1 + td) / 4, 0)."""
    x, td = torch.randn(3, 2, dtype=torch.float64), 0.6
    denoise = Counted()
    got = sample(denoise, x, SCHEDULE, "ddim", 4, td=td)
    expected = x
    for i in range(4):
        t, s = (
            SCHEDULE(torch.tensor(time, dtype=torch.float64))
            for time in (1 - i / 4, max(1 - (i + 1 + td) / 4, 0))
        )
        assert float(denoise.levels[i].logsnr) == pytest.approx(float(t.logsnr))
        x0_hat = expected * 0.3 + 1
        eps_hat = (expected - t.alpha * x0_hat) / t.sigma
        expected = s.alpha * x0_hat + s.sigma * eps_hat if i < 3 else x0_hat
    torch.testing.assert_close(got, expected)
    same = sample(Counted(), x, SCHEDULE, "dpmpp_2m", 4, td=0.0)
    torch.testing.assert_close(same, sample(Counted(), x, SCHEDULE, "dpmpp_2m", 4))


@pytest.mark.parametrize("solver", PLAIN)
def test_asymmetric_intervals_work_with_every_solver(solver: str):
    out = sample(Counted(), torch.ones(3, 2), SCHEDULE, solver, 6, seeds=[1, 2, 3], td=1.5)
    assert bool(torch.isfinite(out).all())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("solver", [name for name in SOLVERS if not SOLVERS[name].stochastic])
def test_encoding_is_the_flow_run_backwards(solver: str, family: str):
    oracle, schedule = smooth_mixture(), Straight(family)
    plan = prepare(schedule, solver, 60, end_clean=False)
    clean, dirty = plan.steps[-1].to, plan.start
    x0 = noisy(oracle, clean, 4) / clean.alpha
    exact = exact_flow(oracle, clean.alpha * x0, clean, dirty) / math.hypot(
        dirty.alpha, dirty.sigma
    )
    code = encode(oracle.denoise, x0, schedule, solver, 60)
    bound = 0.1 if SOLVERS[solver].order == 1 else 0.01
    assert float((code - exact).abs().max()) < bound
    back = sample(oracle.denoise, code, schedule, solver, 60, end_clean=False) / clean.alpha
    assert float((back - x0).abs().max()) < bound


def test_the_adaptive_error_is_that_of_the_worst_sample():
    errors = torch.tensor([[1.0, 1.0], [3.0, 4.0], [0.0, 2.0]])
    assert float(worst(errors)) == pytest.approx(12.5**0.5)
    assert float(worst(torch.tensor([1.0, -9.0, 0.5]))) == 9.0


def test_a_code_has_the_scale_of_unit_noise():
    """With an estimate of 0 the flow is x_s = sigma_s / sigma_t x_t."""
    schedule, x0 = Straight("ve"), torch.randn(3, 2, dtype=torch.float64)
    code = encode(network(torch.zeros_like), x0, schedule, "ddim", 3)
    high, low = math.exp(3.0), math.exp(-3.0)
    torch.testing.assert_close(code, high / low * x0 / math.hypot(1, high))


def test_encoding_refuses_noise():
    with pytest.raises(ValueError, match="draws noise"):
        encode(Counted(), torch.ones(2, 2), SCHEDULE, "ancestral")
    with pytest.raises(ValueError, match="runs backwards"):
        encode(Counted(), torch.ones(2, 2), SCHEDULE, grid=torch.tensor([0.2, 0.8, 0.1]))


# -- plans and memory ------------------------------------------------------------------------


def test_a_plan_is_floats_and_serves_every_dtype():
    plan = prepare(SCHEDULE, Dpmpp2m(), 3)
    for step in plan.steps:
        assert isinstance(step, Mix)
        numbers = (step.x, step.x0, step.std, step.keep, *step.past, *vars(step.at).values())
        assert all(type(number) is float for number in numbers)
    x = torch.randn(3, 2, dtype=torch.float64)
    wide = run(plan, Counted(), x).x
    narrow = run(plan, Counted(), x.float()).x
    assert narrow.dtype == torch.float32
    torch.testing.assert_close(narrow.double(), wide, atol=1e-5, rtol=1e-5)


def test_an_estimate_of_another_dtype_or_layout_is_taken():
    """A network may answer in bfloat16, or with strides of its own."""
    x = torch.randn(2, 3, 4, 5)

    denoise = network(lambda x_t: (x_t * 0.5).to(memory_format=torch.channels_last))
    plain = sample(network(lambda x_t: x_t * 0.5), x, SCHEDULE, "dpmpp_2m", 5)
    torch.testing.assert_close(sample(denoise, x, SCHEDULE, "dpmpp_2m", 5), plain)
    rough = sample(network(lambda x_t: (x_t * 0.5).bfloat16()), x, SCHEDULE, "trig2", 5)
    assert rough.dtype == torch.float32


class Allocations(TorchDispatchMode):
    """Counts results of x's size or more that do not lie in the memory of an argument."""

    def __init__(self, nbytes: int) -> None:
        super().__init__()
        self.nbytes, self.count = nbytes, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def tensors(tree: Any) -> list[Tensor]:
            return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]

        given = {t.untyped_storage().data_ptr() for t in tensors((args, kwargs or {}))}
        result = func(*args, **(kwargs or {}))
        for out in tensors(result):
            storage = out.untyped_storage()
            self.count += storage.nbytes() >= self.nbytes and storage.data_ptr() not in given
        return result


@pytest.mark.parametrize("solver", [name for name in PLAIN if name != "ode"])
def test_nothing_of_the_states_size_is_allocated_after_two_steps(solver: str):
    """Except for history buffers, which fill as the history does: after `memory` + 1 steps."""
    x, x0_hat = torch.randn(4, 3, 8, 8), torch.randn(4, 3, 8, 8)
    counts: list[int] = []

    def free(
        x_t: Tensor, level: Level, condition: Tensor | None = None, previous: Tensor | None = None
    ) -> Tensor:
        counts.append(watch.count)
        return x0_hat

    with Allocations(x.nbytes) as watch:
        sample(free, x, SCHEDULE, solver, 12, seeds=range(4))
    at = [i for i in range(len(counts)) if i >= 2 * (SOLVERS[solver].nfe or 1) + 2]
    settled = counts[at[0] :]
    assert len(settled) >= 4
    assert settled[0] == settled[-1], counts


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("solver", [name for name in PLAIN if name != "ode"])
def test_the_loop_never_waits_for_the_device(solver: str):
    x, x0_hat = torch.randn(4, 3, 8, 8).cuda(), torch.randn(4, 3, 8, 8).cuda()
    plan, calls = prepare(SCHEDULE, solver, 8), itertools.count()

    def free(
        x_t: Tensor, level: Level, condition: Tensor | None = None, previous: Tensor | None = None
    ) -> Tensor:
        i = next(calls)
        if i == 2:
            torch.cuda.set_sync_debug_mode("error")
        if i == 7:
            torch.cuda.set_sync_debug_mode("default")
        return x0_hat

    try:
        run(plan, free, x, seeds=range(4))
    finally:
        torch.cuda.set_sync_debug_mode("default")


class PureNoise(Straight):
    """Rectified flow from its very end: alpha = 1 - t, sigma = t, logsnr -inf at t = 1."""

    def logsnr(self, t: Tensor) -> Tensor:
        return 2 * torch.log((1 - t) / t.clamp(min=0.02))

    def time(self, logsnr: Tensor) -> Tensor:
        return torch.sigmoid(-logsnr / 2)

    def __call__(self, t: Tensor) -> Level:
        sigma = t.clamp(min=0.02)
        return Level(2 * torch.log((1 - sigma) / sigma), 1 - sigma, sigma)


@pytest.mark.parametrize("solver", PLAIN)
def test_pure_noise_is_a_beginning_or_a_clear_error(solver: str):
    """Where alpha is 0 at first, the estimate there is the mean of the data whatever x is."""
    oracle, x = smooth_mixture(), torch.randn(3, 2, dtype=torch.float64)
    arguments: Any = {"steps": 12, "seeds": [1, 2, 3]}
    if solver == "ode" or solver.startswith(("lms", "euler_maruyama")):
        with pytest.raises(ValueError, match="finite"):
            sample(oracle.denoise, x, PureNoise(), solver, **arguments)
        return
    out = sample(oracle.denoise, x, PureNoise(), solver, **arguments)
    assert bool(out.abs().lt(6).all())
    if not SOLVERS[solver].stochastic and solver != "heun":  # its mean of slopes explodes there
        near = sample(oracle.denoise, x, PureNoise(), solver, start=1 - 1e-9, **arguments)
        torch.testing.assert_close(out, near, atol=1e-2, rtol=0)
    grid = time_travel(time_grid(4), 2, 2)  # and a level to go back to
    assert bool(
        sample(oracle.denoise, x, PureNoise(), solver, grid=grid, seeds=[1, 2, 3]).isfinite().all()
    )
