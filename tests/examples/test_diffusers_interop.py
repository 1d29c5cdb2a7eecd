"""The example that a reader copies runs, and says the truth."""

from pathlib import Path

import torch
from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

from examples.diffusers_interop import both_ways
from tests.borders import tiny_unet


def test_both_ways_give_the_same_pictures(tmp_path: Path):
    scheduler = DDPMScheduler(prediction_type="v_prediction")
    DDPMPipeline(tiny_unet(), scheduler).save_pretrained(tmp_path)  # type: ignore[arg-type]
    inside, ours = both_ways(str(tmp_path), steps=5)
    assert inside.shape == (2, 3, 8, 8)
    assert float(inside.std()) > 0.1
    torch.testing.assert_close(inside, ours, atol=1e-4, rtol=0)
