"""Our solvers beside diffusers' and k-diffusion's on the same levels and estimates, in float64.

Their tables are float32; each test puts the exact levels in their place. What they compute on them
must be ours to 1e-6, or the test says why it is not.
"""

import itertools
import math
from types import ModuleType
from typing import Any

import pytest
import torch
from diffusers.schedulers import scheduling_ddpm, scheduling_dpmsolver_multistep
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_heun_discrete import HeunDiscreteScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from torch import Tensor

from benchmarks.k_diffusion import k_sampling
from shared.schedule import Level
from shared.solver import CLEAN, Point, dpmpp, prepare, run
from shared.solver.ancestral import Ancestral
from shared.solver.corrector import PredictorCorrector, SnrLangevin
from shared.solver.ddim import Ddim
from shared.solver.desk import LoopDesk
from shared.solver.dpmpp import Dpmpp3m, DpmppSde2m
from shared.solver.edm import Churn, Euler, Heun
from shared.solver.plan import Plan
from shared.solver.step import Solver
from tests.solvers import Straight, exact_flow, noisy, smooth_mixture

TIMES = torch.tensor([1.0, 0.93, 0.8, 0.71, 0.5, 0.38, 0.3, 0.12, 0.05, 0.0], dtype=torch.float64)
CLEAN_TIMES = torch.cat([TIMES, torch.zeros(1, dtype=torch.float64)])
STEPS = len(TIMES)
ORACLE = smooth_mixture()


def levels(plan: Plan) -> list[Point]:
    return [step.at for step in plan.steps] + [plan.steps[-1].to]


def estimate(x_t: Tensor, point: Point) -> Tensor:
    return ORACLE.denoise(x_t, Level(*(x_t.new_tensor(v) for v in vars(point).values())))


def ours(solver: str | Solver, clean: bool, family: str = "vp") -> tuple[Plan, Tensor]:
    grid = CLEAN_TIMES if clean else TIMES
    plan = prepare(Straight(family), solver, grid=grid, end_clean=clean)
    return plan, noisy(ORACLE, plan.start, 3)


def same(plan: Plan, x: Tensor, theirs: Tensor, seeds: bool = False) -> None:
    got = run(plan, ORACLE.denoise, x, seeds=[1, 2, 3] if seeds else None).x
    torch.testing.assert_close(got, theirs, atol=1e-6, rtol=0)


# -- diffusers ---------------------------------------------------------------------------------


def chain(plan: Plan) -> Tensor:
    """Their alphas_cumprod of the levels, cleanest first."""
    return torch.tensor([p.alpha**2 for p in levels(plan)[:-1]], dtype=torch.float64).flip(0)


def noises(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Normals of each move, ours replaced by them."""
    generator = torch.Generator().manual_seed(8)
    drawn = [torch.randn(3, 2, generator=generator, dtype=torch.float64) for _ in range(3 * STEPS)]
    monkeypatch.setattr(LoopDesk, "normal", lambda desk, k: drawn[desk.move])
    return drawn


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_ddim_is_diffusers(eta: float, monkeypatch: pytest.MonkeyPatch):
    plan, x = ours(Ddim(eta), clean=True)
    drawn = noises(monkeypatch)
    scheduler: Any = DDIMScheduler(
        num_train_timesteps=STEPS, prediction_type="sample", clip_sample=False
    )
    scheduler.alphas_cumprod = chain(plan)
    scheduler.set_timesteps(STEPS)
    theirs = x
    for i, t in enumerate(scheduler.timesteps):
        x0_hat = estimate(theirs, levels(plan)[i])
        theirs = scheduler.step(x0_hat, t, theirs, eta=eta, variance_noise=drawn[i]).prev_sample
    same(plan, x, theirs, seeds=True)


@pytest.mark.parametrize("variance", ["small", "large"])
def test_ddpm_is_diffusers(variance: Any, monkeypatch: pytest.MonkeyPatch):
    plan, x = ours(Ancestral(variance), clean=True)
    drawn = noises(monkeypatch)
    left = iter(drawn)
    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *a, **k: next(left))
    scheduler: Any = DDPMScheduler(
        num_train_timesteps=STEPS,
        prediction_type="sample",
        clip_sample=False,
        variance_type="fixed_small" if variance == "small" else "fixed_large",
    )
    scheduler.alphas_cumprod = chain(plan)
    scheduler.set_timesteps(STEPS)
    theirs = x
    for i, t in enumerate(scheduler.timesteps):
        theirs = scheduler.step(estimate(theirs, levels(plan)[i]), int(t), theirs).prev_sample
    same(plan, x, theirs, seeds=True)


def multistep(scheduler: Any, plan: Plan, x: Tensor) -> Tensor:
    """DPMSolverMultistep and UniPC: sigmas are sigma / alpha, states those of the VP family."""
    scheduler.set_timesteps(STEPS)
    steps = len(plan.steps)
    scheduler.sigmas = torch.tensor([p.scaled for p in levels(plan)], dtype=torch.float64)
    scheduler.timesteps = torch.arange(steps - 1, -1, -1)
    scheduler.num_inference_steps = steps
    for i, t in enumerate(scheduler.timesteps):
        x = scheduler.step(estimate(x, levels(plan)[i]), t, x).prev_sample
    return x


class Wide:
    """torch with float64 where they name float32: they cast the state down once a step."""

    float32 = torch.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def dpm_solver(order: int, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Any:
    scheduler = DPMSolverMultistepScheduler(
        prediction_type="sample", solver_order=order, lower_order_final=False, **settings
    )
    monkeypatch.setattr(scheduling_dpmsolver_multistep, "torch", Wide())
    return scheduler


@pytest.mark.parametrize("clean", [True, False])
def test_dpmpp_2m_is_diffusers(clean: bool, monkeypatch: pytest.MonkeyPatch):
    plan, x = ours("dpmpp_2m", clean)
    scheduler = dpm_solver(2, monkeypatch, final_sigmas_type="zero" if clean else "sigma_min")
    same(plan, x, multistep(scheduler, plan, x))


def test_dpmpp_2m_with_lower_order_final_is_diffusers_where_the_end_is_clean(
    monkeypatch: pytest.MonkeyPatch,
):
    """Below 15 steps theirs makes the last of a 2M run first order; ours does at the clean end."""
    plan, x = ours("dpmpp_2m", clean=True)
    scheduler = DPMSolverMultistepScheduler(prediction_type="sample", lower_order_final=True)
    monkeypatch.setattr(scheduling_dpmsolver_multistep, "torch", Wide())
    same(plan, x, multistep(scheduler, plan, x))


def test_dpmpp_3m_is_diffusers_but_for_the_half_of_their_curvature(
    monkeypatch: pytest.MonkeyPatch,
):
    """Newton's parabola through three estimates has the second divided difference times u^2; the
    third term of diffusers (and of the DPM-Solver code it follows) has half of it, as if the
    difference were a second derivative: their method has order 2, ours 3."""
    scheduler = dpm_solver(3, monkeypatch, final_sigmas_type="sigma_min")
    plan, x = ours("dpmpp_3m", clean=False)
    theirs = multistep(scheduler, plan, x)
    exact_moments = dpmpp.exponential_moments

    def halved(h: float, count: int) -> list[float]:
        m0, m1, m2 = exact_moments(h, count)
        return [m0, m1, m2 / 2]

    errors: dict[str, list[float]] = {"ours": [], "theirs": []}
    for steps in (96, 192):
        for name, moments in (("ours", exact_moments), ("theirs", halved)):
            monkeypatch.setattr(dpmpp, "exponential_moments", moments)
            fine = prepare(Straight(), Dpmpp3m("single"), steps, end_clean=False)
            x_t = noisy(ORACLE, fine.start, 3)
            exact = exact_flow(ORACLE, x_t, fine.start, fine.steps[-1].to)
            errors[name].append(float((run(fine, ORACLE.denoise, x_t).x - exact).abs().mean()))
    same(ours("dpmpp_3m", clean=False)[0], x, theirs)  # planned with the halved moment
    orders = {name: math.log2(a / b) for name, (a, b) in errors.items()}
    assert orders["ours"] > 2.85
    assert orders["theirs"] < 2.2


@pytest.mark.parametrize("order", [2, 3])
def test_unipc_is_diffusers(order: int):
    plan, x = ours(f"unipc{order}", clean=False)
    scheduler = UniPCMultistepScheduler(
        prediction_type="sample",
        solver_order=order,
        lower_order_final=False,
        final_sigmas_type="sigma_min",
    )
    same(plan, x, multistep(scheduler, plan, x))


def test_unipc_ends_clean_on_the_estimate_as_in_diffusers():
    plan, x = ours("unipc2", clean=True)
    scheduler = UniPCMultistepScheduler(prediction_type="sample", solver_order=2)
    same(plan, x, multistep(scheduler, plan, x))


def test_heun_is_diffusers():
    """Their state is x / alpha, and a step is two calls."""
    plan, x = ours(Heun(), clean=True)
    points = levels(plan)
    scheduler: Any = HeunDiscreteScheduler(prediction_type="epsilon")
    scheduler.set_timesteps(STEPS)
    sigmas = torch.tensor([p.scaled for p in points], dtype=torch.float64)
    scheduler.sigmas = torch.cat([sigmas[:1], sigmas[1:-1].repeat_interleave(2), sigmas[-1:]])
    asked = [points[0]] + [p for p in points[1:-1] for _ in range(2)]
    scheduler.timesteps = torch.arange(len(asked) - 1, -1, -1)
    z = x / points[0].alpha
    for point, t in zip(asked, scheduler.timesteps, strict=True):
        eps_hat = (z - estimate(point.alpha * z, point)) / point.scaled
        z = scheduler.step(eps_hat, t, z).prev_sample
    same(plan, x, z)


# -- k-diffusion -------------------------------------------------------------------------------


@pytest.fixture(scope="module", name="k_sampling")
def k_diffusion() -> ModuleType:
    found = k_sampling()
    if found is None:
        pytest.skip("k-diffusion is not installed (see benchmarks/k_diffusion.py)")
    return found


def k_model(x: Tensor, sigma: Tensor) -> Tensor:
    """The oracle as they call it, with alpha = 1."""
    return ORACLE.denoise(x, Level(-2 * sigma.log(), torch.ones_like(sigma), sigma))


def k_sigmas(plan: Plan) -> Tensor:
    return torch.tensor([p.sigma for p in levels(plan)], dtype=torch.float64)


K_NAMES = {
    "euler": "sample_euler",
    "heun": "sample_heun",
    "dpmpp_2m": "sample_dpmpp_2m",
    "lms4": "sample_lms",
    "dpmpp_2s": "sample_dpmpp_2s_ancestral",
    "ancestral": "sample_euler_ancestral",
}


@pytest.mark.parametrize("name", ["euler", "heun", "dpmpp_2m", "lms4", "dpmpp_2s"])
def test_deterministic_solvers_are_k_diffusions(name: str, k_sampling: ModuleType):
    plan, x = ours(name, clean=True, family="ve")
    more = {"eta": 0.0, "noise_sampler": lambda a, b: 0.0} if name == "dpmpp_2s" else {}
    solve = getattr(k_sampling, K_NAMES[name])
    same(plan, x, solve(k_model, x, k_sigmas(plan), disable=True, **more))


@pytest.mark.parametrize(("solver", "theirs"), [(Euler, "sample_euler"), (Heun, "sample_heun")])
def test_churn_is_k_diffusions(
    solver: Any, theirs: str, k_sampling: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    """At a level below the schedule's noisiest, where ours has no room to raise."""
    plan, x = ours(solver(Churn(3.0, 0.1, 15.0, 1.01)), clean=True, family="ve")
    assert len(plan.steps) > STEPS  # some levels are raised, and some are not
    assert len(plan.steps) < 2 * STEPS
    drawn = noises(monkeypatch)
    renoised = iter([n for n, s in zip(drawn, plan.steps, strict=False) if hasattr(s, "excess")])
    at = [step.at for step in plan.steps]
    sigmas = torch.tensor(
        [p.sigma for i, p in enumerate(at) if i == 0 or not hasattr(plan.steps[i - 1], "excess")]
        + [0.0],
        dtype=torch.float64,
    )
    # theirs draws for every level; only raised ones are used
    gammas = (sigmas[:-1] >= 0.1) & (sigmas[:-1] <= 15.0)
    fed = iter([next(renoised) if bool(g) else torch.zeros(3, 2) for g in gammas])
    monkeypatch.setattr(k_sampling.torch, "randn_like", lambda like: next(fed).to(like))
    solve = getattr(k_sampling, theirs)
    churn = {"s_churn": 3.0, "s_tmin": 0.1, "s_tmax": 15.0, "s_noise": 1.01}
    same(plan, x, solve(k_model, x, sigmas, disable=True, **churn), seeds=True)


@pytest.mark.parametrize("name", ["ancestral", "sde_2m", "sde_2m_half"])
def test_stochastic_solvers_are_k_diffusions_with_the_same_noise(
    name: str, k_sampling: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    """sample_euler_ancestral with eta = 1 is DDPM's posterior with alpha = 1."""
    eta = 0.5 if name.endswith("half") else 1.0
    plan, x = ours("ancestral" if name == "ancestral" else DpmppSde2m(eta), True, "ve")
    left = iter(noises(monkeypatch))
    solve = getattr(k_sampling, K_NAMES.get(name, "sample_dpmpp_2m_sde"))
    theirs = solve(
        k_model, x, k_sigmas(plan), disable=True, eta=eta, noise_sampler=lambda a, b: next(left)
    )
    same(plan, x, theirs, seeds=True)


def test_dpmpp_sde_has_the_statistics_of_k_diffusions(k_sampling: ModuleType):
    """sample_dpmpp_sde asks twice a step, on one Brownian path: the same process, another method.
    20,000 samples each, 40 steps: means within 5 standard errors of a difference and 0.01 of
    discretisation, variances within 8 %, again 5 standard errors; false alarms below 1e-5."""
    n, steps = 20_000, 40
    plan = prepare(Straight("ve"), "dpmpp_sde_2m", steps, grid="logsnr")
    x = noisy(ORACLE, plan.start, n)
    mine = run(plan, ORACLE.denoise, x, seeds=range(n)).x
    sigmas = k_sigmas(plan)
    tree = k_sampling.BrownianTreeNoiseSampler(x, sigmas[-2], sigmas[0], seed=4)
    theirs = k_sampling.sample_dpmpp_sde(k_model, x, sigmas, disable=True, noise_sampler=tree)
    bound = 5 * theirs.std(0) * math.sqrt(2 / n) + 0.01
    assert bool(((mine.mean(0) - theirs.mean(0)).abs() < bound).all())
    assert bool(((mine.var(0) / theirs.var(0) - 1).abs() < 0.08).all()), (
        mine.var(0),
        theirs.var(0),
    )


# -- Score SDE ---------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["vp", "ve", "sub_vp"])
def test_predictor_corrector_is_score_sdes_but_for_its_batch_norms(
    family: str, monkeypatch: pytest.MonkeyPatch
):
    """Alg. 4 and 5 and the reverse-diffusion predictor in their own symbols, for one sample, where
    norms of a batch and of a sample agree; alpha_t of one step, which their sub-VP lacks."""
    plan, x = ours(PredictorCorrector(corrector=SnrLangevin(0.16)), True, family)
    x = x[:1]
    drawn = [part[:1] for part in noises(monkeypatch)]
    monkeypatch.setattr(LoopDesk, "normal", lambda desk, k: drawn[2 * desk.move + (k > 0)])
    points, theirs = levels(plan), x
    for i, (t, s) in enumerate(itertools.pairwise(points)):
        score = (t.alpha * estimate(theirs, t) - theirs) / t.sigma**2
        z = drawn[2 * i + 1]
        step = (0.16 * z.norm() / score.norm()) ** 2 * 2 * (t.alpha / s.alpha) ** 2
        theirs = theirs + step * score + (2 * step).sqrt() * z
        if s == CLEAN:
            theirs = estimate(theirs, t)
            break
        score = (t.alpha * estimate(theirs, t) - theirs) / t.sigma**2
        r = t.alpha / s.alpha
        g2 = t.sigma**2 - r**2 * s.sigma**2
        theirs = (2 - r) * theirs + g2 * score + math.sqrt(g2) * drawn[2 * i]
    got = run(plan, ORACLE.denoise, x, seeds=[1]).x
    torch.testing.assert_close(got, theirs, atol=1e-9, rtol=0)
