"""Autoguidance: away from what a weaker model says (Karras et al. 2024, "Guiding a diffusion model
with a bad version of itself", eq. 3).

    x0_guide + scale (x0 - x0_guide)

Both are estimates of the same thing from the same x_t, under the same condition. Where the model
errs because it is small or was trained for a short time, the guide errs alike and more, so their
difference points to what a better model would say. Unlike classifier-free guidance this does not
trade variety for agreement with the condition, and it needs no condition.
"""

import math

from torch import Tensor

from shared.denoiser import Denoise
from shared.guidance.interval import Interval, check_interval, limited
from shared.schedule import Level


def autoguidance(
    denoise: Denoise, guide: Denoise, scale: float, interval: Interval = None
) -> Denoise:
    """Guide by `scale` away from the guide: 0 is the guide, 1 the model, 2 as far again beyond it.

    The guide takes the model's x_t, levels, conditions and last estimate; best it is the same
    network, smaller or trained for a shorter time. Outside the `interval` of logsnr, ends included,
    the scale is 1 (asking for it makes the host wait for the level).

    Order: first, around the network, in the place of `classifier_free`, or around that. NFE per
    call: 1 of the model and 1 of the guide; 1 of the model only at scale 1.

    Raises ValueError for a scale that is not finite or an interval that is none.
    """
    if not math.isfinite(scale):
        raise ValueError(f"scale = {scale}: expected a finite number")
    check_interval(interval)

    def guided(
        x_t: Tensor,
        level: Level,
        condition: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> Tensor:
        x0 = denoise(x_t, level, condition, previous)
        (here,) = limited([scale], level, interval, x_t.ndim)
        if not isinstance(here, Tensor) and here == 1:
            return x0
        x0_guide = guide(x_t, level, condition, previous)
        return x0_guide + here * (x0 - x0_guide)

    return guided
