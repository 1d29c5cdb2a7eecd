"""Across the border: diffusers' models, schedulers and pipelines, and k-diffusion's models.

    DiffusersDenoiser   their network as our Denoise
    DiptychModel        our Denoise in the place of a pipeline's network
    sample_with         their scheduler's loop around our Denoise
    own_times           the times of that loop, for ours
    DiptychScheduler    our schedule and solver inside their pipelines
    from_k_diffusion, to_k_diffusion

What a format cannot say is refused by name: self-conditioning, EDM's input scale, sub-VP.
"""

from shared.interop.convention import Convention, convention_of
from shared.interop.k_diffusion import from_k_diffusion, to_k_diffusion
from shared.interop.loops import own_times, sample_with
from shared.interop.networks import DiffusersDenoiser, DiptychModel
from shared.interop.scheduler import DiptychScheduler, DiptychSchedulerOutput

__all__ = [
    "Convention",
    "DiffusersDenoiser",
    "DiptychModel",
    "DiptychScheduler",
    "DiptychSchedulerOutput",
    "convention_of",
    "from_k_diffusion",
    "own_times",
    "sample_with",
    "to_k_diffusion",
]
