"""diffusers' and k-diffusion's samplers as their users call them, around a Denoise.

Every one begins at sigma noise, with sigma the noise (in units of alpha) of its own first level, so
all can be held against the exact solution of the ODE from there. Their unit noise has the standard
deviation sqrt(sigma^2 + 1) or sigma, as each takes the data to be there or not; here it is sigma.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_deis_multistep import DEISMultistepScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_edm_dpmsolver_multistep import EDMDPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_edm_euler import EDMEulerScheduler
from diffusers.schedulers.scheduling_euler_ancestral_discrete import EulerAncestralDiscreteScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_heun_discrete import HeunDiscreteScheduler
from diffusers.schedulers.scheduling_lms_discrete import LMSDiscreteScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from torch import Tensor

from benchmarks.k_diffusion import k_sampling
from shared.denoiser import Denoise
from shared.interop import sample_with, to_k_diffusion
from shared.prediction import from_x0
from shared.schedule import variance_exploding

SIGMA_MIN, SIGMA_MAX = 0.002, 80.0  # k-diffusion's and EDM's
CHAIN_MAX = 157.4  # of diffusers' default, 1000 linear betas

# (denoise, unit noise (B, ...), steps, seed) -> samples
Draw = Callable[[Denoise, Tensor, int, int], Tensor]


@dataclass(frozen=True)
class Sampler:
    """A way to draw samples. `sigma` is the noise it begins at, `stages` its NFE a step; where
    there are two, the last step takes one."""

    name: str
    sigma: float
    draw: Draw = field(repr=False)
    stages: int = 1
    ours: bool = False

    def __call__(self, denoise: Denoise, noise: Tensor, nfe: int, seed: int = 0) -> Tensor:
        """As many steps as `nfe` evaluations pay for."""
        return self.draw(denoise, noise, (nfe + self.stages - 1) // self.stages, seed)


def deterministic() -> list[Sampler]:
    """Peers that follow the ODE."""
    karras: dict[str, Any] = {"use_karras_sigmas": True}
    lu: dict[str, Any] = {"use_lu_lambdas": True}
    betas: dict[str, Any] = {"beta_start": 1e-4, "beta_end": 0.02}  # Heun's defaults are others
    multistep, unipc = DPMSolverMultistepScheduler, UniPCMultistepScheduler
    found = [
        _chain("DDIM", DDIMScheduler, clip_sample=False),
        _chain("DDIM trailing", DDIMScheduler, clip_sample=False, timestep_spacing="trailing"),
        _chain("Euler karras", EulerDiscreteScheduler, **karras),
        _chain("Heun karras", HeunDiscreteScheduler, stages=2, **karras, **betas),
        _chain("DPM++ 2M", multistep),
        _chain("DPM++ 2M lu", multistep, **lu),
        _chain("DPM++ 2M karras", multistep, **karras),
        _chain("DPM++ 3M karras", multistep, solver_order=3, **karras),
        _chain("UniPC", unipc),
        _chain("UniPC karras", unipc, **karras),
        _chain("UniPC 3 karras", unipc, solver_order=3, **karras),
        _chain("DEIS", DEISMultistepScheduler),
        _chain("DEIS karras", DEISMultistepScheduler, **karras),
        _scaled("LMS karras", LMSDiscreteScheduler(**karras), CHAIN_MAX, "eps"),
        _scaled("EDM Euler", EDMEulerScheduler(), SIGMA_MAX, "edm"),
        _scaled("EDM DPM++ 2M", EDMDPMSolverMultistepScheduler(), SIGMA_MAX, "edm"),
    ]
    if k_sampling() is not None:
        found += [
            _k("euler"),
            _k("heun", stages=2),
            _k("dpm_2", stages=2),
            _k("lms"),
            _k("dpmpp_2m"),
            _k("dpmpp_2m", grid="exponential"),
            _k("dpmpp_2s_ancestral", stages=2, eta=0.0),
            _k("dpmpp_3m_sde", eta=0.0),
            Sampler("k-diffusion dpm_fast", SIGMA_MAX, _dpm_fast),
        ]
    return found


def stochastic() -> list[Sampler]:
    """Peers that draw noise on the way."""
    found = [
        _chain("DDPM", DDPMScheduler, clip_sample=False),
        _chain("Euler ancestral", EulerAncestralDiscreteScheduler),
        _chain(
            "SDE-DPM++ 2M karras",
            DPMSolverMultistepScheduler,
            algorithm_type="sde-dpmsolver++",
            use_karras_sigmas=True,
        ),
    ]
    if k_sampling() is not None:
        found += [
            _k("euler_ancestral", eta=1.0),
            _k("dpmpp_sde", stages=2, eta=1.0),
            _k("dpmpp_2m_sde", eta=1.0),
            _k("dpmpp_3m_sde", eta=1.0),
        ]
    return found


def _chain(name: str, kind: Callable[..., Any], stages: int = 1, **settings: Any) -> Sampler:
    """A scheduler of diffusers on its default chain, in the loop of `shared.interop`."""
    scheduler = kind(prediction_type="epsilon", **settings)

    def draw(denoise: Denoise, noise: Tensor, steps: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        start = copy.deepcopy(scheduler)
        start.set_timesteps(steps)
        # unit noise in a variance-preserving state is hypot(1, sigma) / sigma too wide
        vp = float(start.init_noise_sigma) == 1.0
        scale = CHAIN_MAX / math.hypot(1, CHAIN_MAX) if vp else 1.0
        return sample_with(scheduler, denoise, scale * noise, steps, generator=generator)

    return Sampler(f"diffusers {name}", CHAIN_MAX, draw, stages)


def _scaled(name: str, scheduler: Any, sigma_max: float, prediction: str) -> Sampler:
    """A scheduler whose state is x0 + sigma eps, and that `sample_with` does not know."""

    def draw(denoise: Denoise, noise: Tensor, steps: int, seed: int) -> Tensor:
        theirs = copy.deepcopy(scheduler)
        theirs.set_timesteps(steps)
        x = sigma_max * noise
        for i, t in enumerate(theirs.timesteps):
            level = variance_exploding(-2 * theirs.sigmas[i].double().log())
            theirs.scale_model_input(x, t)  # it counts its steps there
            x0_hat = denoise(x, level)
            sd = float(getattr(theirs.config, "sigma_data", 1.0))
            output = from_x0(prediction, x0_hat, x, level, sd)
            x = theirs.step(output, t, x).prev_sample
        return x

    return Sampler(f"diffusers {name}", sigma_max, draw)


def _k(name: str, stages: int = 1, grid: str = "karras", eta: float | None = None) -> Sampler:
    """sample_NAME of k-diffusion; eta where it takes one, and noise on one Brownian path."""
    sampling = k_sampling()
    assert sampling is not None
    solve, sigmas_of = getattr(sampling, f"sample_{name}"), getattr(sampling, f"get_sigmas_{grid}")

    def draw(denoise: Denoise, noise: Tensor, steps: int, seed: int) -> Tensor:
        x, sigmas = SIGMA_MAX * noise, sigmas_of(steps, SIGMA_MIN, SIGMA_MAX).double()
        more: dict[str, Any] = {}
        if eta is not None:
            more = {"eta": eta, "noise_sampler": lambda *_: 0.0}
        if eta:
            tree = sampling.BrownianTreeNoiseSampler(x, SIGMA_MIN, SIGMA_MAX, seed=seed)
            more["noise_sampler"] = tree
        return solve(_model(denoise), x, sigmas, disable=True, **more)

    suffix = ", eta 0" if eta == 0 else "" if grid == "karras" else f" {grid}"
    return Sampler(f"k-diffusion {name}{suffix}", SIGMA_MAX, draw, stages)


def _dpm_fast(denoise: Denoise, noise: Tensor, steps: int, seed: int) -> Tensor:
    sampling = k_sampling()
    assert sampling is not None
    return sampling.sample_dpm_fast(
        _model(denoise),
        SIGMA_MAX * noise,
        SIGMA_MIN,
        SIGMA_MAX,
        steps,
        disable=True,
        noise_sampler=lambda *_: 0.0,
    )


def _model(denoise: Denoise) -> Callable[..., Tensor]:
    """As they call it; all rows have one sigma, which the faster oracles ask for."""
    model = to_k_diffusion(denoise, variance_exploding)
    return lambda x, sigma: model(x, sigma.flatten()[0])
