"""Orders of convergence between logsnr -6 and 6, uniform in logsnr, float64, on a mixture without
symmetry; weak orders without a single random number, from exact moments."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor

from shared.oracle import GaussianMixture
from shared.schedule import Level
from shared.solver import CLEAN, SOLVERS, prepare, run
from shared.solver.adams import Adams
from shared.solver.desk import LoopDesk
from shared.solver.dpmpp import Dpmpp3m, DpmppSde2m
from shared.solver.edm import Churn, Euler, Heun
from shared.solver.ode import Ode
from shared.solver.plan import Plan
from shared.solver.step import Solver
from tests.solvers import FAMILIES, Straight, exact_flow, noisy, smooth_mixture

DETERMINISTIC: dict[str, Solver] = {
    name: solver
    for name, solver in SOLVERS.items()
    if not solver.stochastic and name not in ("ode", "lms3", "lms4", "dpmpp_3m")
} | {  # order 3 and more with a start of order 2 or more
    "lms3": Adams(3, math.inf, "kutta"),
    "lms4": Adams(4, math.inf, "kutta"),
    "trig4": Adams(4, 1.0, "kutta"),
    "dpmpp_3m": Dpmpp3m("single"),
}
ORDERS = {"ddim": 1, "euler": 1, "heun": 2, "lms2": 2, "lms3": 3, "lms4": 4, "trig2": 2, "trig3": 3}
ORDERS |= {
    "auto": 3,
    "trig4": 4,
    "dpmpp_2m": 2,
    "dpmpp_3m": 3,
    "dpmpp_2s": 2,
    "unipc2": 2,
    "unipc3": 3,
}


WEAK: dict[str, tuple[Solver, int]] = {
    name: (SOLVERS[name], 1)
    for name in ("ancestral", "ancestral_large", "ddim_eta", "euler_maruyama", "reverse_diffusion")
} | {
    "euler_churn": (Euler(Churn(8.0, 0.01, 50.0, 1.0)), 1),
    "heun_churn": (Heun(Churn(8.0, 0.01, 50.0, 1.0)), 2),
    "dpmpp_sde_2m": (SOLVERS["dpmpp_sde_2m"], 2),
    "dpmpp_sde_2m_half": (DpmppSde2m(0.5), 2),
}


IN_X = ("euler_maruyama", "reverse_diffusion", "ancestral_large")  # work in x, not x / alpha


@pytest.fixture(scope="module")
def exact() -> Tensor:
    plan = prepare(Straight(), "ddim", 1, end_clean=False)
    return exact_flow(smooth_mixture(), start(plan), plan.start, plan.steps[-1].to)


def start(plan: Plan) -> Tensor:
    return noisy(smooth_mixture(), plan.start, 5)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_error_falls_at_the_stated_order(name: str, exact: Tensor):
    """From 96 to 192 steps, where all are in their asymptotic range: the last to come there is
    lms4, at 2.97, 3.47, 3.73 and 3.87 from 12, 24, 48 and 96 steps to twice as many."""
    solver, oracle = DETERMINISTIC[name], smooth_mixture()
    assert solver.order == ORDERS[name]
    errors: list[float] = []
    for steps in (96, 192):
        plan = prepare(Straight(), solver, steps, end_clean=False)
        errors.append(float((run(plan, oracle.denoise, start(plan)).x - exact).abs().mean()))
    assert math.log2(errors[0] / errors[1]) >= ORDERS[name] - 0.15, errors


@pytest.mark.parametrize("name", [n for n in {**DETERMINISTIC, **WEAK} if n not in IN_X])
def test_families_differ_in_their_scale_only(name: str):
    """x / alpha takes the same way in every family, so an order found in one holds in all."""
    solver, oracle = DETERMINISTIC.get(name) or WEAK[name][0], smooth_mixture()
    found: list[Tensor] = []
    for family in FAMILIES:
        plan = prepare(Straight(family), solver, 9, end_clean=False)
        x = start(plan)
        out = run(plan, oracle.denoise, x, seeds=range(5)).x
        found.append(out / plan.steps[-1].to.alpha)
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], atol=1e-8, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_adaptive_runge_kutta_keeps_its_tolerance(family: str):
    oracle = smooth_mixture()
    x = noisy(oracle, prepare(Straight(family)).start, 5)
    errors: list[float] = []
    for tolerance in (1e-4, 1e-8):
        solver = replace(SOLVERS["ode"], rtol=tolerance, atol=tolerance)  # type: ignore[type-var]
        plan = prepare(Straight(family), solver, 3, end_clean=False)
        exact = exact_flow(oracle, x, plan.start, plan.steps[-1].to)
        errors.append(float((run(plan, oracle.denoise, x).x - exact).abs().max()))
    assert errors[0] < 1e-2
    assert errors[1] < 1e-6


def test_adaptive_runge_kutta_may_take_any_std_of_the_data():
    """data_std scales what is integrated, not what comes out."""
    oracle = smooth_mixture()
    plans = [prepare(Straight(), Ode(1e-9, 1e-9, std), 3, end_clean=False) for std in (0.5, 1.0)]
    x = noisy(oracle, plans[0].start, 5)
    first, second = (run(plan, oracle.denoise, x).x for plan in plans)
    torch.testing.assert_close(first, second, atol=1e-6, rtol=0)


def test_adaptive_runge_kutta_ends_with_a_step_to_the_clean_end():
    for steps in (1, 2):
        assert [step.to for step in prepare(Straight(), "ode", steps).steps][-1] == CLEAN


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_start_of_higher_order_ends_clean_in_any_number_of_steps(steps: int):
    """Kutta's stages are for moves between noisy levels: the clean end has none."""
    oracle = smooth_mixture()
    plan = prepare(Straight(), Adams(4, 1.0, "kutta"), steps)
    out = run(plan, oracle.denoise, noisy(oracle, plan.start, 3)).x
    assert plan.steps[-1].to == CLEAN
    assert bool(torch.isfinite(out).all())


def test_gaussian_data_of_the_stated_std_are_exact_in_one_step():
    """The linear part of trig is the flow of such data: theta is the only thing that moves."""
    oracle = GaussianMixture(
        *(torch.tensor(v, dtype=torch.float64) for v in ([1.0], [[0.0, 0.0]], [[0.49, 0.49]]))
    )
    for family in FAMILIES:
        plan = prepare(Straight(family), Adams(2, 0.7), 1, end_clean=False)
        x = noisy(oracle, plan.start, 3)
        exact = exact_flow(oracle, x, plan.start, plan.steps[-1].to)
        torch.testing.assert_close(run(plan, oracle.denoise, x).x, exact, atol=1e-9, rtol=0)


def test_order_one_of_lms_is_ddim_and_trig_of_broad_data_is_lms():
    oracle = smooth_mixture()
    for one, other in ((Adams(1, math.inf), "ddim"), (Adams(3, 1e7), Adams(3, math.inf))):
        plans = [prepare(Straight("ve"), s, 7, end_clean=False) for s in (one, other)]
        x = noisy(oracle, plans[0].start, 3)
        first, second = (run(plan, oracle.denoise, x).x for plan in plans)
        torch.testing.assert_close(first, second, atol=1e-6, rtol=0)


# -- stochastic solvers ----------------------------------------------------------------------


def linear_moments(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> tuple[float, float]:
    """Mean and variance of x at the end, exactly, for Gaussian data: the state is affine in the
    start and in each move's noise, so each is run alone, as a row of one batch."""
    oracle = GaussianMixture(
        *(torch.tensor(v, dtype=torch.float64) for v in ([1.0], [[0.4]], [[0.25]]))
    )
    at, rows = plan.start, 2 + len(plan.steps)

    def one_row(desk: LoopDesk, k: int) -> Tensor:
        assert k == 0
        noise = torch.zeros(rows, 1, dtype=torch.float64)
        noise[2 + desk.move] = 1
        return noise

    monkeypatch.setattr(LoopDesk, "normal", one_row)
    x = torch.full((rows, 1), at.alpha * 0.4, dtype=torch.float64)
    x[1] += math.sqrt(at.alpha**2 * 0.25 + at.sigma**2)
    out = run(plan, oracle.denoise, x, seeds=range(rows)).x[:, 0]
    return float(out[0]), float((out[1:] - out[0]).square().sum())


@pytest.mark.parametrize(
    ("name", "family"), [(n, f) for n in WEAK for f in (FAMILIES if n in IN_X else ("vp",))]
)
def test_moments_of_gaussian_data_converge_at_the_weak_order(
    name: str, family: str, monkeypatch: pytest.MonkeyPatch
):
    solver, order = WEAK[name]
    assert solver.order == order
    errors: list[float] = []
    for steps in (128, 256):
        plan = prepare(Straight(family), solver, steps, end_clean=False)
        mean, variance = linear_moments(plan, monkeypatch)
        to = plan.steps[-1].to
        exact = to.alpha * 0.4, to.alpha**2 * 0.25 + to.sigma**2
        errors.append(abs(mean - exact[0]) + abs(variance - exact[1]))
    assert math.log2(errors[0] / errors[1]) >= order - 0.15, errors


NODES, WEIGHTS = (torch.from_numpy(part) for part in np.polynomial.hermite_e.hermegauss(24))


def expectation(plan: Plan, oracle: GaussianMixture, monkeypatch: pytest.MonkeyPatch) -> float:
    """E[sin(1.3 x) + x^2 / 2] at the end, by integrating backwards through the Markov chain: each
    step runs on a grid of states times Gauss-Hermite nodes for its noise."""
    reach = 8.0 * max(1.0, plan.start.sigma)
    states = np.sinh(np.linspace(-1, 1, 501) * np.arcsinh(reach))
    wide = torch.from_numpy(states)[:, None].expand(-1, len(NODES)).reshape(-1, 1)
    noise = NODES.repeat(len(states))[:, None]
    monkeypatch.setattr(LoopDesk, "normal", lambda desk, k: noise)
    value = CubicSpline(states, np.sin(1.3 * states) + states**2 / 2)
    for step in reversed(plan.steps):
        one = Plan(plan.solver, step.at, (step,))
        x = run(one, oracle.denoise, wide, seeds=range(len(wide))).x
        after = torch.from_numpy(value(x[:, 0].numpy())).reshape(len(states), -1)
        value = CubicSpline(states, (after @ (WEIGHTS / WEIGHTS.sum())).numpy())
    at = plan.start
    level = Level(*(torch.tensor(v, dtype=torch.float64) for v in (at.logsnr, at.alpha, at.sigma)))
    fine = torch.linspace(-reach, reach, 4001, dtype=torch.float64)
    density = oracle.log_prob(fine[:, None], level).exp().numpy()
    return float(np.trapezoid(density * value(fine.numpy()), fine.numpy()))


@pytest.mark.parametrize("name", [name for name in WEAK if "dpmpp" not in name])
def test_moments_of_a_mixture_converge_at_the_weak_order(
    name: str, monkeypatch: pytest.MonkeyPatch
):
    """In one dimension, by quadrature; solvers with a memory are no Markov chain in x."""
    oracle = GaussianMixture(
        torch.tensor([0.3, 0.7]).double(),
        torch.tensor([[-0.9], [0.5]]).double(),
        torch.tensor([[0.2], [0.1]]).double(),
    )
    solver, order = WEAK[name]
    values = [
        expectation(prepare(Straight("vp"), solver, n, end_clean=False), oracle, monkeypatch)
        for n in ((96, 192) if name in IN_X else (48, 96))
    ]
    to = prepare(Straight("vp"), solver, 1, end_clean=False).steps[-1].to
    fine = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    level = Level(*(torch.tensor(v, dtype=torch.float64) for v in (to.logsnr, to.alpha, to.sigma)))
    density = oracle.log_prob(fine[:, None], level).exp().numpy()
    target = np.sin(1.3 * fine.numpy()) + fine.numpy() ** 2 / 2
    exact = float(np.trapezoid(density * target, fine.numpy()))
    errors = [abs(value - exact) for value in values]
    assert math.log2(errors[0] / errors[1]) >= order - 0.15, errors


# -- ends and small numbers of steps ---------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in SOLVERS if n != "ancestral_learned"])
def test_every_number_of_steps_gives_finite_samples(name: str):
    """1 to 64, to the clean end, from a schedule that is all but pure noise (diffusers#9007)."""
    oracle, schedule = smooth_mixture(torch.float32), Straight("vp", -15.0, 15.0)
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(2))
    counts = range(1, 65) if name != "ode" else (1, 2, 64)
    for steps in counts:
        plan = prepare(schedule, name, steps)
        out = run(plan, oracle.denoise, x, seeds=[1, 2, 3]).x
        assert bool(torch.isfinite(out).all()), steps
        assert bool(out.abs().lt(1e3).all()) or steps < 64, (steps, out)


@pytest.mark.parametrize("name", [n for n, s in SOLVERS.items() if not s.stochastic])
def test_samples_end_clean_near_the_exact_flow(name: str):
    """64 steps in float64 from logsnr -6 to the clean end; order 1 within 0.06, others 0.01."""
    oracle = smooth_mixture()
    plan = prepare(Straight("vp", -6.0, 12.0), name, 64)
    x = noisy(oracle, plan.start, 5)
    nearly = prepare(Straight("vp", -6.0, 25.0), "ddim", 1, end_clean=False).steps[-1].to
    exact = exact_flow(oracle, x, plan.start, nearly)  # x_t and x0 differ by 4e-6 there
    bound = 0.06 if SOLVERS[name].order == 1 else 0.01
    assert float((run(plan, oracle.denoise, x).x - exact).abs().max()) < bound
