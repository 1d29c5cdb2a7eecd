"""What a scheduler's configuration says: levels, timesteps and predictions as in diffusers."""

from typing import Any

import pytest
import torch
from diffusers.schedulers import scheduling_ddpm
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_edm_euler import EDMEulerScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.schedulers.scheduling_heun_discrete import HeunDiscreteScheduler
from diffusers.schedulers.scheduling_sde_ve import ScoreSdeVeScheduler
from torch import Tensor

from shared.interop import convention_of
from shared.schedule import Cosine, Level, linear_betas, variance_exploding, variance_preserving
from tests.borders import in_float64, normals


def same_level(level: Level, expected: Level) -> None:
    for name in ("logsnr", "alpha", "sigma"):
        torch.testing.assert_close(getattr(level, name), getattr(expected, name))


CHAINS: list[dict[str, Any]] = [
    {"beta_start": 2e-4, "beta_end": 0.03},
    {"beta_schedule": "scaled_linear", "beta_start": 8.5e-4, "beta_end": 0.012},
    {"beta_schedule": "squaredcos_cap_v2"},
    {"beta_schedule": "sigmoid", "num_train_timesteps": 300},
    {"trained_betas": [0.1, 0.3, 0.2, 0.6], "num_train_timesteps": 4},
]


@pytest.mark.parametrize("config", CHAINS)
def test_levels_of_a_chain_are_theirs_in_float64(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    in_float64(monkeypatch, scheduling_ddpm)
    theirs = DDPMScheduler(**config)
    level = convention_of(theirs).level(torch.arange(len(theirs.betas)))
    near = 1e-6 if config.get("beta_schedule") == "sigmoid" else 1e-9  # a float32 ramp without name
    alpha2 = theirs.alphas_cumprod.double()
    torch.testing.assert_close(level.alpha**2, alpha2, atol=0, rtol=near)
    torch.testing.assert_close(level.sigma**2, 1 - alpha2, atol=near / 10, rtol=near)


def test_zero_terminal_snr_is_theirs_and_falls_to_a_finite_end(monkeypatch: pytest.MonkeyPatch):
    in_float64(monkeypatch, scheduling_ddpm)
    theirs = DDPMScheduler(rescale_betas_zero_snr=True)
    level = convention_of(theirs).level(torch.arange(1000))
    alpha2 = level.alpha**2
    torch.testing.assert_close(alpha2[:-1], theirs.alphas_cumprod[:-1], atol=0, rtol=1e-6)
    assert float(theirs.alphas_cumprod[-1]) == 0
    assert 0 < float(alpha2[-1]) < 1e-15
    assert bool((level.logsnr.diff() < 0).all())
    solver = DPMSolverMultistepScheduler(rescale_betas_zero_snr=True)
    assert bool(solver.alphas_cumprod[-1] > solver.alphas_cumprod[-2])  # why ours is not theirs


def test_known_schedule_runs_from_the_first_step_to_the_last():
    convention = convention_of(DDPMScheduler(num_train_timesteps=50))
    t = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64)
    got = convention.schedule(t)
    torch.testing.assert_close(
        convention.timestep(got.logsnr), torch.tensor([0.0, 12.25, 49.0]).double()
    )
    same_level(got, convention.level(torch.tensor([0.0, 12.25, 49.0])))
    torch.testing.assert_close(convention.schedule.time(got.logsnr), t)


def test_timestep_of_a_float32_level_is_the_whole_step():
    """A float32 logsnr is up to 5e-4 of a step away from it, and networks know whole steps."""
    convention = convention_of(DDPMScheduler())
    steps = torch.arange(1000)
    told = convention.timestep(convention.level(steps).logsnr.float())
    assert torch.equal(told, steps.double())
    between = convention.timestep(convention.level(torch.tensor([3.4])).logsnr)
    assert float(between) == pytest.approx(3.4, abs=1e-6)


def test_beyond_its_steps_a_network_is_told_the_nearest():
    convention = convention_of(DDPMScheduler())
    told = convention.timestep(torch.tensor([40.0, -40.0]))
    assert told.tolist() == [0.0, 999.0]


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_levels_and_timesteps_are_flow_matchs(shift: float):
    theirs: Any = FlowMatchEulerDiscreteScheduler(shift=shift, num_train_timesteps=40)
    convention = convention_of(theirs)
    times = torch.linspace(1, 0, 40, dtype=torch.float64)
    level = convention.schedule(times)
    torch.testing.assert_close(level.sigma, theirs.sigmas.double(), atol=2e-7, rtol=0)
    torch.testing.assert_close(level.alpha, 1 - theirs.sigmas.double(), atol=2e-7, rtol=0)
    told = convention.timestep(level.logsnr)
    expected = (40 * level.sigma).clamp(min=1.0)  # cleaner than its first step: the first
    torch.testing.assert_close(told, expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(convention.level(torch.tensor([10.0])).sigma.item(), 0.25)
    assert convention.prediction == "velocity"


def test_dpm_solvers_flow_sigmas_are_flow_too():
    theirs = DPMSolverMultistepScheduler(
        use_flow_sigmas=True, flow_shift=2.0, prediction_type="flow_prediction"
    )
    convention = convention_of(theirs)
    half = convention.schedule.family(torch.zeros(1))
    assert float(half.alpha) == 0.5
    # sigma / (1 - sigma) is doubled
    t = torch.tensor([500 / 999 - 1 / 999], dtype=torch.float64)
    sigma = float(convention.schedule(t).sigma)
    assert sigma == pytest.approx(2 / 3, abs=1e-3)


def test_missing_keys_have_the_defaults_of_the_class():
    """Heun's betas are others than DDPM's."""
    got = convention_of({"_class_name": "HeunDiscreteScheduler", "num_train_timesteps": 1000})
    expected = convention_of(HeunDiscreteScheduler())
    assert got == expected
    assert got != convention_of({"_class_name": "DDPMScheduler"})


def test_named_schedules_stand_at_their_own_times():
    config = {
        "num_train_timesteps": 8,
        "prediction_type": "v_prediction",
        "schedule": "cosine",
        "schedule_options": {"logsnr_max": 9.0},
    }
    level = convention_of(config).level(torch.tensor([0, 3, 7]))
    expected = Cosine(logsnr_max=9.0)(torch.tensor([1 / 8, 4 / 8, 1.0], dtype=torch.float64))
    same_level(level, expected)


def as_level(logsnr: Tensor, alpha: Tensor, sigma: Tensor) -> Level:
    return Level(logsnr.reshape(-1, 1), alpha.reshape(-1, 1), sigma.reshape(-1, 1))


def test_a_chains_network_sees_unit_variance_whatever_the_family():
    logsnr = torch.tensor([-1.3, 2.1], dtype=torch.float64)
    vp, ve = variance_preserving(logsnr), variance_exploding(logsnr)
    x = normals(2, 3)
    convention = convention_of(DDPMScheduler())
    seen, level = convention.seen(x / vp.alpha[:, None], as_level(ve.logsnr, ve.alpha, ve.sigma))
    torch.testing.assert_close(seen, x)
    same_level(level, as_level(vp.logsnr, vp.alpha, vp.sigma))


def test_a_flow_network_sees_alpha_plus_sigma_1():
    logsnr = torch.tensor([-1.3, 2.1], dtype=torch.float64)
    vp = variance_preserving(logsnr)
    convention = convention_of(FlowMatchEulerDiscreteScheduler())
    flow = convention.whole.family(logsnr)
    x = normals(2, 3)
    scaled = x * (vp.alpha / flow.alpha)[:, None]
    seen, level = convention.seen(scaled, as_level(vp.logsnr, vp.alpha, vp.sigma))
    torch.testing.assert_close(seen, x)
    torch.testing.assert_close(level.alpha + level.sigma, torch.ones(2, 1).double())


REFUSED: list[tuple[Any, str]] = [
    (EDMEulerScheduler(), "sigma_data = 0.5 is refused: EDM's network"),
    (ScoreSdeVeScheduler(), "told sigma"),
    (DDPMScheduler(thresholding=True), "thresholding = True is refused"),
    (FlowMatchEulerDiscreteScheduler(invert_sigmas=True), "invert_sigmas = True is refused"),
    (FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), "size of the picture"),
    ({"num_train_timesteps": 1000}, "has no prediction_type"),
    ({"_class_name": "DDPMScheduler", "prediction_type": "edm"}, "'edm' is refused: EDM's"),
    ({"_class_name": "DDPMScheduler", "prediction_type": "noise"}, "expected one of epsilon"),
    ({"_class_name": "DDPMScheduler", "beta_schedule": "laplace"}, "give others as trained_betas"),
    ({"_class_name": "DDPMScheduler", "trained_betas": [0.1, 0.2]}, "expected one for each of"),
    ({"_class_name": "DDPMScheduler", "num_train_timesteps": 1}, "expected 2 or more"),
    ({"_class_name": "DDPMScheduler", "schedule": "sub_vp"}, "'sub_vp' is refused"),
    ({"_class_name": "DDPMScheduler", "schedule": "cosin"}, "did you mean cosine"),
]


@pytest.mark.parametrize(("scheduler", "words"), REFUSED)
def test_what_the_format_cannot_say_is_refused_with_the_reason(scheduler: Any, words: str):
    with pytest.raises(ValueError, match=words):
        convention_of(scheduler)


def test_clip_is_read_only_where_it_is_switched_on():
    assert convention_of(DDPMScheduler(clip_sample_range=0.7)).clip == 0.7
    assert convention_of(DDPMScheduler(clip_sample=False)).clip == float("inf")


def test_linear_betas_are_the_default_of_ddpm():
    level = convention_of({"_class_name": "DDPMScheduler"}).level(torch.tensor([0]))
    assert float(level.sigma**2) == pytest.approx(float(linear_betas()[0]))
