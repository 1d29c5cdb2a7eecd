"""Our schedules and solvers inside diffusers' pipelines: pictures, protocol, configuration."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_edm_euler import EDMEulerScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from shared.interop import DiffusersDenoiser, DiptychModel, DiptychScheduler
from shared.schedule import SCHEDULES, Cosine, to_betas
from shared.solver import SOLVERS, sample
from shared.solver.ddim import Ddim
from tests.borders import B, C, H, W, drive, normals, of_pictures, picture_mixture, tiny_unet

ORACLE = of_pictures(picture_mixture())
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-6}
# asks more than twice a step, at states of its own, or re-noises first
REFUSED = {"euler_churn", "heun_churn", "predictor_corrector", "langevin", "ode"}
STOCHASTIC = {name for name, solver in SOLVERS.items() if solver.stochastic}


def pictures(scheduler: Any, unet: Any, steps: int, seed: int = 4, batch: int = 2) -> Tensor:
    """x0 of a DDPMPipeline, which shows (x0 / 2 + 1 / 2) within [0, 1]."""
    pipeline: Any = DDPMPipeline(unet, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    made = pipeline(
        batch, torch.Generator().manual_seed(seed), num_inference_steps=steps, output_type="pt"
    )
    return made.images


def shown(x0: Tensor) -> Tensor:
    return (x0 / 2 + 0.5).clamp(0, 1)


# -- pictures ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("solver", sorted(SOLVERS.keys() - REFUSED - STOCHASTIC))
def test_ddpm_pipeline_on_our_scheduler_gives_the_pictures_of_our_loop(
    solver: str, dtype: torch.dtype
):
    unet = tiny_unet(dtype)
    scheduler: Any = DiptychScheduler(solver=solver, prediction_type="v_prediction", grid="trig")
    denoiser = DiffusersDenoiser(unet, scheduler)
    noise = normals(2, 3, 8, 8, seed=4, dtype=dtype)
    with torch.no_grad():
        x0 = sample(denoiser, noise, denoiser.schedule, solver, 6, grid="trig")
    got = pictures(scheduler, unet, 6)
    inside = (got > 0) & (got < 1)
    assert float(inside.float().mean()) > 0.4
    torch.testing.assert_close(got, shown(x0), atol=TOLERANCE[dtype], rtol=0)


@pytest.mark.parametrize(
    ("variance", "solver"), [("fixed_small", "ancestral"), ("fixed_large", "ancestral_large")]
)
def test_ancestral_pictures_are_those_of_ddpm_from_the_same_generator(variance: Any, solver: str):
    """To their float32 tables. Both end at timestep 0: where the last is another, theirs adds the
    larger variance's noise to the result, and ours does not."""
    theirs = DDPMScheduler(variance_type=variance, timestep_spacing="leading")
    mine: Any = DiptychScheduler.from_config(theirs.config, solver=solver)
    unet = tiny_unet(torch.float64)
    got, expected = (pictures(scheduler, unet, 10) for scheduler in (mine, theirs))
    torch.testing.assert_close(got, expected, atol=2e-5, rtol=0)
    assert float(got.std()) > 0.1


def test_learned_variance_is_ddpms_learned_range():
    unet = tiny_unet(torch.float64, out_channels=6)
    theirs = DDPMScheduler(variance_type="learned_range", timestep_spacing="leading")
    mine: Any = DiptychScheduler.from_config(theirs.config, solver="ancestral_learned")
    got, expected = (pictures(scheduler, unet, 10) for scheduler in (mine, theirs))
    torch.testing.assert_close(got, expected, atol=2e-5, rtol=0)
    plain = DiptychScheduler.from_config(theirs.config, solver="ancestral")
    assert float((pictures(plain, unet, 10) - got).abs().max()) > 1e-3


def test_learned_variance_wants_twice_the_channels():
    scheduler: Any = DiptychScheduler(solver="ancestral_learned")
    scheduler.set_timesteps(3)
    x = normals(2, 3, 4, 4)
    with pytest.raises(ValueError, match="twice the channels"):
        scheduler.step(x, scheduler.timesteps[0], x)


def test_eta_is_a_solver_option():
    """Noise of the same generator as DDIM's own."""
    theirs = DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
    mine: Any = DiptychScheduler.from_config(
        theirs.config, solver="ddim", solver_options={"eta": 0.6}
    )
    out = []
    for scheduler, more in ((theirs, {"eta": 0.6}), (mine, {})):
        scheduler.set_timesteps(10)
        net = DiptychModel(ORACLE, scheduler, (C, H, W))
        generator = torch.Generator().manual_seed(2)
        out.append(drive(scheduler, net, normals(B, C, H, W), generator=generator, **more))
    torch.testing.assert_close(out[0], out[1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("solver", ["dpmpp_2m", "auto", "heun", "ancestral"])
def test_pictures_with_their_channels_last_are_stepped_to_the_same_states(solver: str):
    scheduler: Any = DiptychScheduler(solver=solver, prediction_type="sample")
    made: list[Tensor] = []
    for layout in (torch.contiguous_format, torch.channels_last):
        scheduler.set_timesteps(4)
        x = normals(B, 3, H, W)
        for i, t in enumerate(scheduler.timesteps):
            output = normals(B, 3, H, W, seed=i + 1).to(memory_format=layout)
            generator = torch.Generator().manual_seed(i)
            x = scheduler.step(output, t, x.to(memory_format=layout), generator).prev_sample
        made.append(x)
    torch.testing.assert_close(made[1], made[0])


def test_noise_has_the_std_of_the_step():
    """The first ancestral step against the loop's numbers, with the generator's noise."""
    scheduler: Any = DiptychScheduler(solver="ancestral", prediction_type="sample")
    scheduler.set_timesteps(5)
    x, x0_hat, t = normals(B, C, H, W), normals(B, C, H, W, seed=1), scheduler.timesteps[0]
    got = scheduler.step(x0_hat, t, x, generator=torch.Generator().manual_seed(8))
    noise = randn_tensor(x.shape, torch.Generator().manual_seed(8), dtype=x.dtype)
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    a_t, a_s = (1 - betas).cumprod(0)[[999, 799]].tolist()
    mean = a_s**0.5 * (1 - a_t / a_s) / (1 - a_t) * x0_hat
    mean = mean + (a_t / a_s) ** 0.5 * (1 - a_s) / (1 - a_t) * x
    std = ((1 - a_s) / (1 - a_t) * (1 - a_t / a_s)) ** 0.5  # Ho et al. 2020, eq. 7
    torch.testing.assert_close(got.prev_sample, mean + std * noise)
    torch.testing.assert_close(got.pred_original_sample, x0_hat)


# -- levels ------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["ve", "edm"])
def test_a_ve_schedule_scales_its_states_for_the_network(schedule: str):
    scheduler: Any = DiptychScheduler(
        schedule=schedule, solver="heun", grid="karras", prediction_type="epsilon"
    )
    scheduler.set_timesteps(7)
    net = DiptychModel(ORACLE, scheduler, (C, H, W))
    got = drive(scheduler, net, normals(B, C, H, W))
    known = scheduler._convention.schedule
    expected = sample(ORACLE, normals(B, C, H, W), known, "heun", 7, grid="karras")
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)  # timesteps are float32
    sigma = float(SCHEDULES[schedule]()(torch.tensor(1.0).double()).sigma)
    assert scheduler.init_noise_sigma == pytest.approx((1 + sigma**2) ** 0.5)
    scheduler.set_timesteps(7)
    seen = scheduler.scale_model_input(torch.ones(1), scheduler.timesteps[0])
    assert float(seen) == pytest.approx((1 + sigma**2) ** -0.5)


def test_flow_schedule_is_shifted_and_told_1000_sigma():
    scheduler: Any = DiptychScheduler(
        schedule="flow", prediction_type="flow_prediction", shift=3.0, solver="dpmpp_2m"
    )
    scheduler.set_timesteps(4)
    t = torch.tensor([1.0, 0.75, 0.5, 0.25])
    torch.testing.assert_close(scheduler.timesteps, 1000 * 3 * t / (1 + 2 * t))
    assert scheduler.init_noise_sigma == pytest.approx(1)
    x = torch.ones(2, 3)
    assert scheduler.scale_model_input(x, scheduler.timesteps[0]) is x


def test_any_vp_schedule_goes_in_as_its_betas():
    schedule = Cosine(-8, 9)
    betas = to_betas(schedule, 100)
    scheduler: Any = DiptychScheduler(
        100, trained_betas=betas.tolist(), prediction_type="sample", solver="ddim"
    )
    scheduler.set_timesteps(10)
    net = DiptychModel(ORACLE, scheduler, (C, H, W))
    times = torch.cat([torch.arange(10, 0, -1) / 10, torch.zeros(1)])
    expected = sample(ORACLE, normals(B, C, H, W), schedule, "ddim", grid=times)
    torch.testing.assert_close(drive(scheduler, net, normals(B, C, H, W)), expected)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("count", [1, 3, 7, 10, 50])
def test_integer_spacings_are_ddpms(spacing: Any, count: int):
    theirs = DDPMScheduler(50, timestep_spacing=spacing)
    mine = DiptychScheduler(50, timestep_spacing=spacing)
    theirs.set_timesteps(count)
    mine.set_timesteps(count)
    if (spacing, count) == ("linspace", 1):
        assert theirs.timesteps.tolist() == [0]  # nothing is left to do there
        assert mine.timesteps.tolist() == [49]
    else:
        assert mine.timesteps.tolist() == theirs.timesteps.tolist()


def test_steps_offset_is_ddims():
    theirs = DDIMScheduler(50, steps_offset=1)
    mine = DiptychScheduler(50, timestep_spacing="leading", steps_offset=1)
    theirs.set_timesteps(7)
    mine.set_timesteps(7)
    assert mine.timesteps.tolist() == theirs.timesteps.tolist()
    with pytest.raises(ValueError, match="steps_offset = 1: step 50 is beyond the last, 49"):
        mine.set_timesteps(50)


def test_a_grid_by_name_is_over_the_levels_the_network_knows():
    scheduler: Any = DiptychScheduler(50, grid="karras")
    scheduler.set_timesteps(6)
    assert scheduler.timesteps[0] == 49
    assert scheduler.timesteps[-1] == 0
    level = scheduler._convention.level(scheduler.timesteps)
    roots = (level.sigma / level.alpha) ** (1 / 7)
    torch.testing.assert_close(roots.diff(), roots.diff().mean().expand(5), atol=1e-5, rtol=0)


def test_given_timesteps_may_be_fractions():
    scheduler: Any = DiptychScheduler(50, solver="ddim", prediction_type="sample")
    scheduler.set_timesteps(timesteps=[49, 20.5, 3])
    assert scheduler.timesteps.tolist() == [49, 20.5, 3]
    assert scheduler.num_inference_steps == 3
    for bad in ([50, 3], [20, -1], [3, 20], [20, 20]):
        with pytest.raises(ValueError, match="expected falling numbers from 49 to 0"):
            scheduler.set_timesteps(timesteps=bad)


def test_add_noise_is_ddpms():
    """To their float32 tables."""
    theirs: Any = DDPMScheduler()
    mine = DiptychScheduler()
    x0, noise = normals(3, 1, 2, 4), normals(3, 1, 2, 4, seed=1)
    timesteps = torch.tensor([0, 300, 999])
    got = mine.add_noise(x0, noise, timesteps)
    torch.testing.assert_close(got, theirs.add_noise(x0, noise, timesteps), atol=1e-5, rtol=0)
    assert got.dtype == torch.float64
    assert len(mine) == 1000


def test_add_noise_is_flow_matchs():
    theirs: Any = FlowMatchEulerDiscreteScheduler()
    mine = DiptychScheduler(schedule="flow", prediction_type="flow_prediction")
    x0, noise = normals(3, 1, 2, 4), normals(3, 1, 2, 4, seed=1)
    timesteps = torch.tensor([1.0, 300.0, 1000.0])
    expected = theirs.scale_noise(x0, timesteps, noise)
    torch.testing.assert_close(mine.add_noise(x0, noise, timesteps), expected, atol=1e-6, rtol=0)


# -- the protocol ------------------------------------------------------------------------------


def test_two_stage_steps_take_two_timesteps_as_heuns_do():
    scheduler: Any = DiptychScheduler(solver="heun")
    scheduler.set_timesteps(4)
    assert scheduler.order == 2
    assert scheduler.timesteps.tolist() == [999, 749, 749, 499, 499, 249, 249]
    middle = DiptychScheduler(solver="dpmpp_2s")
    middle.set_timesteps(2)
    asked = middle._convention.level(middle.timesteps).logsnr
    assert float(asked[1]) == pytest.approx(float(asked[0] + asked[2]) / 2, abs=1e-4)


@pytest.mark.parametrize("solver", ["dpmpp_2m", "heun", "unipc3"])
def test_a_run_begun_in_the_middle_is_a_run_of_the_rest_with_an_empty_history(solver: str):
    scheduler: Any = DiptychScheduler(solver=solver, prediction_type="sample")
    net = DiptychModel(ORACLE, scheduler, (C, H, W))
    scheduler.set_timesteps(8)
    x0, noise = normals(B, C, H, W, seed=3), normals(B, C, H, W)
    begin = 3 * scheduler.order
    left = scheduler.timesteps[begin:]
    start = scheduler.add_noise(x0, noise, left[:1].expand(B))
    rest: Any = DiptychScheduler(solver=solver, prediction_type="sample")
    rest.set_timesteps(timesteps=[624, 499, 374, 249, 124])
    assert rest.timesteps.tolist() == left.tolist()
    out = []
    for run, say in ((scheduler, True), (rest, False)):
        if say:
            run.set_begin_index(begin)
            assert run.begin_index == begin
        x = start
        for t in left:
            x = run.step(net(x, t, return_dict=False)[0], t, x).prev_sample
        out.append(x)
    torch.testing.assert_close(out[0], out[1], atol=1e-9, rtol=0)
    # without a word from the pipeline, the first timestep says it
    scheduler.set_timesteps(8)
    x = start
    for t in left:
        x = scheduler.step(net(x, t, return_dict=False)[0], t, x, return_dict=False)[0]
    torch.testing.assert_close(x, out[1], atol=1e-9, rtol=0)


def test_history_is_forgotten_by_set_timesteps():
    scheduler: Any = DiptychScheduler(solver="auto", prediction_type="sample")
    net = DiptychModel(ORACLE, scheduler, (C, H, W))
    out = []
    for _ in range(2):
        scheduler.set_timesteps(6)
        assert scheduler.step_index is None
        out.append(drive(scheduler, net, normals(B, C, H, W)))
        assert scheduler.step_index == 6
    torch.testing.assert_close(out[0], out[1], atol=0, rtol=0)


def test_a_timestep_out_of_turn_is_refused():
    scheduler, x = DiptychScheduler(), normals(2, 1, 2, 3)
    scheduler.set_timesteps(3)
    first, second, last = scheduler.timesteps
    with pytest.raises(ValueError, match="timestep = 5 is not one of timesteps"):
        scheduler.step(x, 5, x)
    scheduler.step(x, first, x)
    with pytest.raises(ValueError, match="timestep = 332: this run is at 666"):
        scheduler.step(x, last, x)
    scheduler.step(x, second, x)
    scheduler.step(x, int(last), x)
    with pytest.raises(ValueError, match="this run is over"):
        scheduler.step(x, last, x)


def test_no_run_begins_within_a_two_stage_step():
    scheduler, x = DiptychScheduler(solver="heun"), normals(2, 1, 2, 3)
    scheduler.set_timesteps(4)
    scheduler.set_begin_index(1)
    with pytest.raises(ValueError, match="begin_index = 1: a two-stage step is under way"):
        scheduler.step(x, scheduler.timesteps[1], x)


@pytest.mark.parametrize("given", [{}, {"num_inference_steps": 3, "timesteps": [9, 3]}])
def test_steps_and_timesteps_exclude_each_other(given: dict[str, Any]):
    with pytest.raises(ValueError, match="give one of them"):
        DiptychScheduler().set_timesteps(**given)


def test_the_pipelines_tensors_are_left_as_they_were():
    scheduler: Any = DiptychScheduler(solver="heun", prediction_type="sample")
    scheduler.set_timesteps(3)
    x, output = normals(2, 1, 2, 3), normals(2, 1, 2, 3, seed=1)
    before = x.clone(), output.clone()
    for t in scheduler.timesteps:
        scheduler.step(output, t, x)
    torch.testing.assert_close((x, output), before, atol=0, rtol=0)


def test_half_precision_is_stepped_in_float32():
    scheduler: Any = DiptychScheduler(solver="dpmpp_2m", prediction_type="sample")
    scheduler.set_timesteps(3)
    x, output = (normals(2, 1, 2, 3, seed=s).to(torch.bfloat16) for s in (0, 1))
    got = scheduler.step(output, scheduler.timesteps[0], x)
    scheduler.set_timesteps(3)
    wide = scheduler.step(output.float(), scheduler.timesteps[0], x.float())
    assert got.prev_sample.dtype == torch.bfloat16
    assert got.pred_original_sample.dtype == torch.float32
    torch.testing.assert_close(got.prev_sample, wide.prev_sample.to(torch.bfloat16))


def test_estimate_is_clipped_as_the_configuration_says():
    scheduler: Any = DiptychScheduler(
        clip_sample=True, clip_sample_range=0.2, prediction_type="sample"
    )
    scheduler.set_timesteps(1)
    x = normals(2, 1, 2, 3)
    got = scheduler.step(x, scheduler.timesteps[0], x).prev_sample
    torch.testing.assert_close(got, x.clamp(-0.2, 0.2))


# -- configuration -----------------------------------------------------------------------------


def test_configuration_survives_a_folder(tmp_path: Path):
    settings: dict[str, Any] = {
        "num_train_timesteps": 60,
        "schedule": "cosine",
        "schedule_options": {"logsnr_max": 9.0},
        "solver": "trig2",
        "solver_options": {"data_std": 0.5},
        "grid": "trig",
        "prediction_type": "v_prediction",
        "clip_sample": True,
    }
    scheduler: Any = DiptychScheduler(**settings)
    scheduler.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "scheduler_config.json").read_text())
    assert {key: written[key] for key in settings} == settings
    assert written["_class_name"] == "DiptychScheduler"
    again: Any = DiptychScheduler.from_pretrained(tmp_path)
    assert again._convention == scheduler._convention
    assert again._solver == scheduler._solver
    for one in (scheduler, again):
        one.set_timesteps(5)
    assert again.timesteps.tolist() == scheduler.timesteps.tolist()


def test_betas_of_an_array_survive_a_folder(tmp_path: Path):
    betas = to_betas(Cosine(-8, 9), 30)
    array: Any = betas.numpy()
    DiptychScheduler(30, trained_betas=array).save_pretrained(tmp_path)
    again: Any = DiptychScheduler.from_pretrained(tmp_path)
    assert again.config.trained_betas == betas.tolist()


def test_a_pipeline_is_saved_and_loaded_with_our_scheduler(tmp_path: Path):
    unet = tiny_unet()
    scheduler: Any = DiptychScheduler(solver="unipc2", prediction_type="sample")
    DDPMPipeline(unet, scheduler).save_pretrained(tmp_path)  # type: ignore[arg-type]
    loaded = DDPMPipeline.from_pretrained(tmp_path, local_files_only=True)
    assert type(loaded.scheduler) is DiptychScheduler
    expected = pictures(scheduler, unet, 4)
    got = pictures(loaded.scheduler, loaded.unet.eval(), 4)
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)


def test_shared_keys_pass_to_other_schedulers_and_back():
    mine = DiptychScheduler(
        200, 2e-4, 0.03, "scaled_linear", prediction_type="v_prediction", timestep_spacing="leading"
    )
    theirs: Any = DDIMScheduler.from_config(mine.config)
    assert theirs.config.clip_sample is False  # DDIM's own default is True
    theirs.set_timesteps(10)
    mine = DiptychScheduler.from_config(theirs.config, solver="ddim")
    mine.set_timesteps(10)
    assert mine.timesteps.tolist() == theirs.timesteps.tolist()
    out = []
    for scheduler in (mine, theirs):
        net = DiptychModel(ORACLE, scheduler, (C, H, W))
        out.append(drive(scheduler, net, normals(B, C, H, W)))
    torch.testing.assert_close(out[0], out[1], atol=1e-5, rtol=0)
    back: Any = DPMSolverMultistepScheduler.from_config(mine.config)
    assert back.config.beta_schedule == "scaled_linear"
    assert back.config.prediction_type == "v_prediction"


def test_what_other_schedulers_say_besides_is_kept_for_them():
    theirs = DPMSolverMultistepScheduler(solver_order=3, use_karras_sigmas=True)
    mine: Any = DiptychScheduler.from_config(theirs.config, grid="karras")
    again: Any = DPMSolverMultistepScheduler.from_config(mine.config)
    assert again.config.solver_order == 3
    assert again.config.use_karras_sigmas is True


def test_unknown_keys_are_errors_with_the_nearest(tmp_path: Path):
    config = dict(DDPMScheduler().config)
    with pytest.raises(ValueError, match=r"solvr is no setting; .*did you mean solver\?"):
        DiptychScheduler.from_config(config, solvr="auto")
    with pytest.raises(ValueError, match="beta_strat is no setting"):
        DiptychScheduler.from_config({**config, "beta_strat": 0.1})
    DiptychScheduler().save_pretrained(tmp_path)
    path = tmp_path / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "gird": "trig"}))
    with pytest.raises(ValueError, match=r"gird is no setting; .*did you mean grid\?"):
        DiptychScheduler.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        (DDPMScheduler(thresholding=True), "thresholding = True is refused"),
        (EDMEulerScheduler(), "sigma_data = 0.5 is refused: EDM's network"),
        (DPMSolverMultistepScheduler(use_flow_sigmas=True), "give schedule = 'flow'"),
    ],
)
def test_settings_of_theirs_that_we_would_ignore_are_refused(theirs: Any, words: str):
    with pytest.raises(ValueError, match=words):
        DiptychScheduler.from_config(theirs.config)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"solver": "dpmpp"}, "solver = 'dpmpp': expected one of"),
        ({"solver_options": {"eta": 1.0}}, r"dpmpp_2m has no eta; expected one of \(it has none\)"),
        (
            {"solver": "ddim", "solver_options": {"eat": 1.0}},
            "ddim has no eat; expected one of eta",
        ),
        ({"grid": "tirg"}, "grid = 'tirg': expected one of"),
        ({"timestep_spacing": "even"}, "timestep_spacing = 'even': expected one of"),
        ({"schedule": "sub_vp"}, "'sub_vp' is refused"),
        ({"prediction_type": "edm"}, "'edm' is refused: EDM's network"),
        (
            {"schedule": "cosine", "schedule_options": {"s_": 1.0}},
            "cosine has no option s_: .*mean s",
        ),
    ],
)
def test_settings_that_cannot_run_are_refused_when_made(settings: dict[str, Any], words: str):
    with pytest.raises(ValueError, match=words):
        DiptychScheduler(**settings)


def test_more_steps_than_the_chain_has_need_a_grid():
    with pytest.raises(ValueError, match=r"num_inference_steps = 51: expected 1 to .* = 50"):
        DiptychScheduler(50).set_timesteps(51)
    fine = DiptychScheduler(50, grid="time")
    fine.set_timesteps(80)
    assert len(fine.timesteps) == 80


@pytest.mark.parametrize("solver", sorted(REFUSED))
def test_solvers_that_must_ask_the_network_themselves_are_refused(solver: str):
    with pytest.raises(ValueError, match=r"cannot run inside a diffusers pipeline.*Use a solver"):
        DiptychScheduler(solver=solver)


def test_a_runge_kutta_start_is_refused_too():
    with pytest.raises(ValueError, match="its Kutta cannot run"):
        DiptychScheduler(solver="lms3", solver_options={"start": "kutta"}, grid="time")


def test_every_other_solver_is_taken():
    for name in SOLVERS.keys() - REFUSED:
        assert DiptychScheduler(solver=name)._solver == SOLVERS[name]
    assert DiptychScheduler(solver="ddim", solver_options={"eta": 0.3})._solver == Ddim(0.3)
