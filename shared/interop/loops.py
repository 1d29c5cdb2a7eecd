"""A diffusers scheduler's own loop around a Denoise, and its own times for one of our loops."""

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor

from shared.denoiser import Denoise
from shared.interop.convention import convention_of, settings_of
from shared.interop.settings import keys_of
from shared.prediction import from_x0
from shared.schedule import Level, straight_flow, variance_preserving

# Schedulers whose `step` i stands at alphas_cumprod[timesteps[i]], and at sigmas[i].
BY_TIMESTEP = ("DDPMScheduler", "DDIMScheduler")
BY_SIGMA = (
    "DPMSolverMultistepScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "UniPCMultistepScheduler",
    "DEISMultistepScheduler",
    "FlowMatchEulerDiscreteScheduler",
)
_LOWEST = -60.0  # logsnr of flow's pure noise, sigma = 1


@torch.no_grad()
def sample_with(
    scheduler: SchedulerMixin,
    denoise: Denoise,
    noise: Tensor,
    steps: int | None = None,
    condition: Tensor | None = None,
    generator: torch.Generator | list[torch.Generator] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Tensor:
    """Unit noise (B, ...) -> the scheduler's sample (B, ...), of the denoiser's x0.

    The scheduler keeps its grid, prediction, clipping and arithmetic (most compute in float32) and
    is left as it was. steps = None: the timesteps that it has been given already. The denoiser is
    asked at the scheduler's own levels, VP or flow, and gets its last estimate as `previous`.
    Flow schedulers begin at sigma = 1, told as logsnr = -60: a network that does not reach so far
    wants timesteps of its own. `generator` as in diffusers (None: torch's global one), `options`
    further arguments of scheduler.step, such as DDIM's eta.

    NFE: one a timestep (Heun's are doubled). ValueError for a scheduler that is not listed here.
    """
    kinds = _kinds(scheduler)
    if not any(kind in BY_TIMESTEP + BY_SIGMA for kind in kinds):
        raise ValueError(
            f"scheduler = {kinds[0]}: its levels are not known here; expected one of "
            f"{', '.join(BY_TIMESTEP + BY_SIGMA)}"
        )
    theirs: Any = copy.deepcopy(scheduler)
    if steps is not None:
        theirs.set_timesteps(steps, device=noise.device)
    given = dict(options or {})
    if "generator" in inspect.signature(theirs.step).parameters:
        given["generator"] = generator
    convention = convention_of(theirs)
    flow = convention.lag == 0
    levels = _levels(theirs, flow)
    x, x0_hat = noise if flow else noise * theirs.init_noise_sigma, None
    for i, t in enumerate(theirs.timesteps):
        level = Level(levels.logsnr[i], levels.alpha[i], levels.sigma[i]).to(noise)
        seen = x if flow else theirs.scale_model_input(x, t)
        x0_hat = denoise(seen, level, condition, x0_hat)
        output = from_x0(convention.prediction, x0_hat, seen, level)
        x = theirs.step(output, t, x, **given).prev_sample
    return x


def own_times(scheduler: SchedulerMixin, steps: int) -> tuple[Tensor, bool]:
    """The times of the network's schedule (`convention_of(scheduler).schedule`) that its pipeline
    asks at in so many steps, and where it ends: times (n + 1,), falling, float64, for `prepare`'s
    grid, and end_clean.

    The end is clean, or the first step of the chain where the scheduler says so (set_alpha_to_one
    = False of DDIM and PNDM, final_sigmas_type = "sigma_min"). Timesteps that come twice (Heun's,
    PNDM's) are one time. ValueError when it has not so many steps.
    """
    theirs: Any = copy.deepcopy(scheduler)
    theirs.set_timesteps(steps)
    convention, own = convention_of(theirs), keys_of(type(theirs))
    settings = {key: x for key, x in settings_of(theirs).items() if key in own}  # not of others
    told = torch.unique_consecutive(theirs.timesteps.double().cpu())
    times = convention.schedule.time(convention.level(told).logsnr).clamp(0, 1)
    noisy = settings.get("set_alpha_to_one") is False
    noisy |= settings.get("final_sigmas_type") == "sigma_min"
    end = times.new_zeros(1)
    if noisy and len(times) > 1 and float(times[-1]) < 1e-9:
        return torch.cat([times[:-1], end]), False  # it is there already
    return torch.cat([times, end]), not noisy


def _levels(scheduler: Any, flow: bool) -> Level:
    """The level of every timestep, from the numbers that the scheduler itself computes with."""
    if any(kind in BY_TIMESTEP for kind in _kinds(scheduler)):
        alpha2 = scheduler.alphas_cumprod.double()[scheduler.timesteps.long().cpu()]
        return Level(torch.logit(alpha2), alpha2.sqrt(), (1 - alpha2).sqrt())
    sigma = scheduler.sigmas.double()[: len(scheduler.timesteps)]
    if flow:
        logsnr = 2 * (torch.log1p(-sigma) - sigma.log())
        return straight_flow(logsnr.clamp(min=_LOWEST))
    return variance_preserving(-2 * sigma.log())


def _kinds(scheduler: SchedulerMixin) -> list[str]:
    """The names of its class and of those it extends."""
    return [base.__name__ for base in type(scheduler).__mro__]
