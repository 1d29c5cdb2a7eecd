"""What a pipeline gives back."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from image.grid import to_bytes, to_pil
from shared.errors import ConfigError

OUTPUTS = ("pil", "np", "latent")


@dataclass(frozen=True)
class Output:
    """What a call gives back. `images` is a list of PIL pictures, an array (n, H, W, C) in [0, 1],
    or latents (n, *latent_shape), as `output_type` says."""

    images: Any
    seeds: list[int]


@dataclass(frozen=True)
class Glimpse:
    """The first picture at one step of its denoising: the noisy state x_t and the estimate x0_hat
    there, both (C, H, W), 0 to 255, uint8."""

    step: int
    logsnr: float
    state: Tensor
    estimate: Tensor


def check_output(output_type: str) -> None:
    """ConfigError unless it is one of OUTPUTS."""
    if output_type not in OUTPUTS:
        raise ConfigError(f"output_type = {output_type!r}: expected one of {', '.join(OUTPUTS)}")


def as_asked(images: Tensor, levels: int, output_type: str) -> Any:
    """Levels (n, C, H, W) -> a list of PIL pictures ("pil") or an array ("np")."""
    if output_type == "pil":
        return [to_pil(image) for image in to_bytes(images, levels)]
    return (images.float() / (levels - 1)).movedim(1, -1).numpy()
