"""diffusers' schedulers around our exact denoiser, beside our solvers on the same grid, in float64.

Their modules name float32 for tables and states; `in_float64` has them compute in float64.
"""

import itertools
from typing import Any

import pytest
import torch
from diffusers.schedulers import (
    scheduling_ddim,
    scheduling_ddpm,
    scheduling_deis_multistep,
    scheduling_dpmsolver_multistep,
    scheduling_euler_ancestral_discrete,
    scheduling_euler_discrete,
    scheduling_flow_match_euler_discrete,
    scheduling_heun_discrete,
    scheduling_unipc_multistep,
)
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.schedulers.scheduling_k_dpm_2_discrete import KDPM2DiscreteScheduler
from torch import Tensor

from shared.denoiser import Denoise
from shared.interop import DiptychModel, DiptychScheduler, sample_with
from shared.schedule import Level
from tests.borders import B, C, H, W, drive, in_float64, normals, of_pictures, picture_mixture

# their numpy calls on tensors
pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")

ORACLE = of_pictures(picture_mixture())
NOISE = normals(B, C, H, W, seed=5)
STEPS = 10  # divides 1000: DDIM steps by 1000 // steps whatever its own timesteps are
BETAS: dict[str, Any] = {"beta_start": 2e-4, "beta_end": 0.025, "timestep_spacing": "trailing"}


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(11)


def ours(solver: str, **settings: Any) -> Tensor:
    """Our scheduler on the same oracle and grid, as a pipeline runs it."""
    settings = {**BETAS, **settings}
    scheduler = DiptychScheduler(solver=solver, prediction_type="sample", **settings)
    scheduler.set_timesteps(STEPS)
    model = DiptychModel(ORACLE, scheduler, (C, H, W))
    return drive(scheduler, model, NOISE, generator=generator())


# their module and class, settings of theirs, the name of ours
SAME: list[tuple[Any, str, dict[str, Any], str]] = [
    (scheduling_ddpm, "DDPMScheduler", {"clip_sample": False}, "ancestral"),
    (
        scheduling_ddpm,
        "DDPMScheduler",
        # its large variance is added at the end as well, unless that is timestep 0
        {"clip_sample": False, "variance_type": "fixed_large", "timestep_spacing": "leading"},
        "ancestral_large",
    ),
    (scheduling_ddim, "DDIMScheduler", {"clip_sample": False}, "ddim"),
    (scheduling_dpmsolver_multistep, "DPMSolverMultistepScheduler", {}, "dpmpp_2m"),
    (
        scheduling_dpmsolver_multistep,
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "sde-dpmsolver++"},
        "dpmpp_sde_2m",
    ),
    (scheduling_heun_discrete, "HeunDiscreteScheduler", {}, "heun"),
    (scheduling_unipc_multistep, "UniPCMultistepScheduler", {}, "unipc2"),
    (scheduling_euler_discrete, "EulerDiscreteScheduler", {}, "euler"),
    (scheduling_euler_ancestral_discrete, "EulerAncestralDiscreteScheduler", {}, "ancestral"),
]
PREDICTIONS = {"sample", "epsilon", "v_prediction"}


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(("module", "name", "settings", "solver"), SAME)
def test_their_loop_around_our_denoiser_is_our_solver(
    module: Any,
    name: str,
    settings: dict[str, Any],
    solver: str,
    prediction_type: str,
    monkeypatch: pytest.MonkeyPatch,
):
    """To 1e-6 where they state their noise in x_t; those whose state is x_t / alpha begin at
    sigma_max times unit noise, not sqrt(1 + sigma_max^2) times: 1e-5 of it (sigma_max = 340)."""
    in_float64(monkeypatch, module)
    theirs = getattr(module, name)(prediction_type=prediction_type, **{**BETAS, **settings})
    noise = NOISE
    if float(theirs.init_noise_sigma) != 1:
        theirs.set_timesteps(STEPS)
        sigma = float(theirs.sigmas[0])
        assert float(theirs.init_noise_sigma) == sigma
        noise = noise * (1 + sigma**2) ** 0.5 / sigma
    got = sample_with(theirs, ORACLE, noise, STEPS, generator=generator())
    spacing = settings.get("timestep_spacing", "trailing")
    torch.testing.assert_close(got, ours(solver, timestep_spacing=spacing), atol=1e-6, rtol=0)


def test_dpm_solver_of_order_3_is_ours_to_its_own_error_only():
    """Its third term is half of what it should be, so it has order 2 (see test_solver_peers)."""
    theirs = scheduling_dpmsolver_multistep.DPMSolverMultistepScheduler(solver_order=3, **BETAS)
    got = sample_with(theirs, ORACLE, NOISE, STEPS)
    gap = float((got - ours("dpmpp_3m")).abs().max())
    assert 1e-4 < gap < 0.05


def test_deis_is_an_adams_method_in_sigma_as_lms_is():
    """log rho polynomials there, rho here: near each other, and not the same."""
    theirs = scheduling_deis_multistep.DEISMultistepScheduler(**BETAS)
    gap = (sample_with(theirs, ORACLE, NOISE, 40) - ours_at(40, "lms2")).abs().mean()
    assert float(gap) < 0.03


def ours_at(steps: int, solver: str) -> Tensor:
    scheduler = DiptychScheduler(solver=solver, prediction_type="sample", **BETAS)
    scheduler.set_timesteps(steps)
    return drive(scheduler, DiptychModel(ORACLE, scheduler, (C, H, W)), NOISE)


def test_flow_match_euler_is_our_euler_on_its_levels(monkeypatch: pytest.MonkeyPatch):
    in_float64(monkeypatch, scheduling_flow_match_euler_discrete)
    theirs: Any = FlowMatchEulerDiscreteScheduler(shift=3.0)
    got = sample_with(theirs, ORACLE, NOISE, STEPS)
    theirs.set_timesteps(STEPS)
    scheduler = DiptychScheduler(
        schedule="flow", prediction_type="flow_prediction", shift=3.0, solver="euler"
    )
    # theirs shifts its last level twice; ours are told the levels it has
    scheduler.set_timesteps(timesteps=theirs.timesteps.tolist())
    mine = drive(scheduler, DiptychModel(ORACLE, scheduler, (C, H, W)), NOISE)
    torch.testing.assert_close(got, mine, atol=1e-6, rtol=0)


def test_options_and_condition_reach_their_step_and_our_denoiser(monkeypatch: pytest.MonkeyPatch):
    in_float64(monkeypatch, scheduling_ddim)
    scheduler: Any = DDIMScheduler(clip_sample=False, **BETAS)
    component = torch.tensor([0, 1, 2, 1, 0])
    got = sample_with(scheduler, ORACLE, NOISE, STEPS, component, generator(), options={"eta": 1.0})
    net = DiptychModel(ORACLE, scheduler, (C, H, W))
    scheduler.set_timesteps(STEPS)
    x, draw = NOISE, generator()
    for t in scheduler.timesteps:
        (eps,) = net(x, t, class_labels=component, return_dict=False)
        x = scheduler.step(eps, t, x, eta=1.0, generator=draw).prev_sample
    torch.testing.assert_close(got, x, atol=1e-6, rtol=0)
    assert float((got - sample_with(scheduler, ORACLE, NOISE, STEPS)).abs().max()) > 0.1


def watching(denoise: Denoise, seen: list[tuple[Level, Tensor | None, Tensor]]) -> Denoise:
    def watched(
        x_t: Tensor,
        level: Level,
        condition: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> Tensor:
        x0_hat = denoise(x_t, level, condition)
        seen.append((level, previous, x0_hat))
        return x0_hat

    return watched


def test_denoiser_hears_its_last_estimate_and_a_state_of_unit_variance():
    """Euler's own state is x_t / alpha, up to 157 here."""
    seen: list[tuple[Level, Tensor | None, Tensor]] = []
    sample_with(EulerDiscreteScheduler(), watching(ORACLE, seen), NOISE, 4)
    assert seen[0][1] is None
    for (_, _, before), (level, previous, _) in itertools.pairwise(seen):
        assert previous is before
        assert float(level.alpha**2 + level.sigma**2) == pytest.approx(1)


def test_scheduler_is_left_alone_and_gives_the_same_twice():
    scheduler = scheduling_unipc_multistep.UniPCMultistepScheduler()
    scheduler.set_timesteps(6)
    first = sample_with(scheduler, ORACLE, NOISE)
    assert scheduler.step_index is None
    torch.testing.assert_close(sample_with(scheduler, ORACLE, NOISE), first, atol=0, rtol=0)
    torch.testing.assert_close(sample_with(scheduler, ORACLE, NOISE, 6), first, atol=0, rtol=0)


def test_scheduler_whose_levels_are_not_known_is_refused():
    """KDPM2 asks between its sigmas."""
    with pytest.raises(ValueError, match="KDPM2DiscreteScheduler: its levels are not known"):
        sample_with(KDPM2DiscreteScheduler(), ORACLE, NOISE, 4)


class Renamed(DDPMScheduler):
    """A scheduler that someone has extended."""


def test_subclass_of_a_known_scheduler_is_known():
    got = sample_with(Renamed(clip_sample=False), ORACLE, NOISE, 4, generator=generator())
    expected = sample_with(DDPMScheduler(clip_sample=False), ORACLE, NOISE, 4, None, generator())
    torch.testing.assert_close(got, expected, atol=0, rtol=0)
