"""A network of diffusers under our loop, and our solver inside its pipeline: the same pictures.

python -m examples.diffusers_interop PIPELINE_FOLDER
"""

import sys
from typing import Any

import torch
from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline

from shared.interop import DiffusersDenoiser, DiptychScheduler
from shared.solver import sample


def both_ways(folder: str, steps: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    """Two pictures of an unconditional pipeline (DDPMPipeline, saved), made in both ways:
    (2, C, H, W) within [0, 1] each."""
    pipeline: Any = DDPMPipeline.from_pretrained(folder, local_files_only=True)

    # ours inside theirs: keep what the network was trained with, change solver and grid
    mine = DiptychScheduler.from_config(pipeline.scheduler.config, solver="auto", grid="trig")
    pipeline.scheduler = mine
    generator = torch.Generator().manual_seed(0)
    inside = pipeline(2, generator, num_inference_steps=steps, output_type="pt").images

    # theirs inside ours: the network is a Denoise, for every solver and every kind of guidance
    denoise = DiffusersDenoiser(pipeline.unet, mine)
    shape = (2, pipeline.unet.config.in_channels, *inside.shape[2:])
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    x0 = sample(denoise, noise, denoise.schedule, solver="auto", grid="trig", steps=steps)
    return inside, (x0 / 2 + 0.5).clamp(0, 1)


if __name__ == "__main__":
    theirs, ours = both_ways(sys.argv[1])
    print(f"largest difference of a pixel: {float((theirs - ours).abs().max()):.1e}")
