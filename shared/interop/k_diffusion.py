"""k-diffusion's models: model(x, sigma) -> x0_hat, with x = x0 + sigma eps.

Dividing x_t by alpha takes every family there: x = x_t / alpha, sigma = sigma_t / alpha_t.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from shared.denoiser import Denoise
from shared.interop.networks import refuse_self_conditioning
from shared.schedule import Family, Level, variance_preserving


def from_k_diffusion(model: Callable[..., Tensor], condition_name: str | None = None) -> Denoise:
    """model(x (B, ...), sigma (B,)) -> x0_hat as a Denoise, at levels of any family with alpha > 0.

    A condition is passed as the keyword `condition_name`; ValueError where none is named.
    `previous` is ignored: the format has no place for it.
    """

    def denoise(
        x_t: Tensor,
        level: Level,
        condition: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> Tensor:
        if condition is not None and condition_name is None:
            raise ValueError(
                "condition: name the model's argument for it: from_k_diffusion(model, "
                "condition_name='class_cond')"
            )
        given = {} if condition is None else {str(condition_name): condition}
        level = level.to(x_t)
        sigma = (level.sigma / level.alpha).reshape(-1).expand(len(x_t))
        return model(x_t / level.widen(x_t.ndim).alpha, sigma, **given)

    return denoise


def to_k_diffusion(denoise: Denoise, family: Family = variance_preserving) -> Callable[..., Tensor]:
    """A Denoise as model(x, sigma, condition=None) for k-diffusion's samplers, whose
    `extra_args={"condition": ...}` gives the condition.

    `family` is where the denoiser is asked: the one it was trained in. ValueError for a
    self-conditioned denoiser.
    """
    refuse_self_conditioning(denoise, "model(x, sigma)")

    def model(x: Tensor, sigma: Tensor, condition: Any = None) -> Tensor:
        # float64: -2 ln sigma is exact enough to give sigma back, whatever x is
        level = family(-2 * sigma.double().log()).to(x)
        return denoise(level.widen(x.ndim).alpha * x, level, condition)

    return model
