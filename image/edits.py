"""How a given picture enters sampling: one value says what is known of it, and `enter` makes of
that where samples begin, what guides them and what is put back at the end.

    Inpaint        what a mask leaves is kept; a model of masked pictures (`image.masked`) reads it
    Colourise      a grey picture is known
    Upscale        the means of blocks of pixels are known
    Measured       any measurement y = A x + noise is known
    Vary           the picture, noised to a time (Meng et al. 2022, SDEdit)
    Invert         the noise that draws it, found backwards (Song, Meng & Ermon 2021, sec. 4.3)
    Interpolate    two pictures, or two seeds, and the path between them

The four measurements are met by `Posterior`, linear inverse guidance (`shared.guidance.inverse`),
or by `Replace`, which writes what is known into the state after every step and repeats steps
(Lugmayr et al. 2022, RePaint; for other measurements than masks Song et al. 2021, app. I.4).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from image.beside import BesidePictures
from image.conditions import Labels, Words
from image.measurements import Measurement
from image.opening import PictureLike
from shared.drawing import Hooks, Wrap
from shared.errors import ConfigError
from shared.sampling import Start


@dataclass(frozen=True)
class Posterior:
    """Guided by what is measured with noise of this standard deviation, in units where pictures are
    [-1, 1]; iterations of conjugate gradients a step, of which few are stable with a network that
    is trained briefly. See `shared.guidance.linear_inverse`."""

    noise_std: float = 0.0
    iterations: int = 3

    def __post_init__(self) -> None:
        if not self.noise_std >= 0 or self.iterations < 1:
            raise ConfigError(
                f"noise_std = {self.noise_std}, iterations = {self.iterations}: expected 0 or "
                "more, and 1 or more"
            )


@dataclass(frozen=True)
class Replace:
    """What is measured is written into the state; stretches of `jump` steps are made `resamplings`
    times (10 and 10 in RePaint, sec. 5.1): as many times the evaluations."""

    resamplings: int = 10
    jump: int = 1

    def __post_init__(self) -> None:
        if self.resamplings < 1 or self.jump < 1:
            raise ConfigError(
                f"resamplings = {self.resamplings}, jump = {self.jump}: expected 1 or more"
            )


Way: TypeAlias = Posterior | Replace
NOISELESS = Posterior()


@dataclass(frozen=True)
class Inpaint:
    """Draw anew where mask_image is white (128 or more), as in diffusers; keep where it is not."""

    image: PictureLike
    mask_image: PictureLike
    by: Way = NOISELESS


@dataclass(frozen=True)
class Colourise:
    """Colours for a grey picture; of one in colour, its luma is taken."""

    image: PictureLike
    by: Way = NOISELESS


@dataclass(frozen=True)
class Upscale:
    """A picture `factor` times smaller than what the model draws; a larger one is first shrunk to
    that, by means of blocks."""

    image: PictureLike
    factor: int
    by: Way = NOISELESS


@dataclass(frozen=True)
class Measured:
    """y (m, ...) = operator(x) + noise of x (B, C, H, W) in [-1, 1], m = 1 or one for each sample.
    The operator must have derivatives; linear it must be for `Replace`."""

    y: Tensor
    operator: Measurement
    by: Way = NOISELESS


@dataclass(frozen=True)
class Vary:
    """Variations: `strength` in (0, 1] is the time the picture is noised to: 1 leaves nothing."""

    image: PictureLike
    strength: float = 0.6


@dataclass(frozen=True)
class Invert:
    """The picture as the model draws it from its own noise, at time `strength`; under the source's
    class or prompt it is found, under that of the call it is drawn again."""

    image: PictureLike
    source_labels: Labels | None = None
    source_prompt: Words = None
    strength: float = 1.0


@dataclass(frozen=True)
class Interpolate:
    """Pictures on the path from `first` to `second`, ends included: between the noises of two
    seeds, or those two pictures are inverted to; with a `strength` between the latents of two
    pictures, noised to that time, all by the same noise (Ho et al. 2020, sec. 4.3)."""

    first: PictureLike | int
    second: PictureLike | int
    strength: float | None = None


Edit: TypeAlias = Inpaint | Colourise | Upscale | Measured | Vary | Invert | Interpolate


@dataclass(frozen=True)
class Entry:
    """What an edit is to `shared.drawing.draw`, and what is done with the pictures at the end:
    levels (n, C, H, W) -> levels. `shown` is what was given, as the model sees it, levels (m, C, H,
    W), where that is pictures. `misfit` tells of samples x0 (n, ...) how far what is measured of
    them is from what was given, root mean squares (n,) at pictures in [-1, 1]. `beside` is what
    the network is shown of it."""

    shown: Tensor | None = None
    start: Start | None = None
    wrap: Wrap | None = None
    hooks: Hooks | None = None
    travel: tuple[int, int] | None = None
    finish: Callable[[Tensor], Tensor] | None = None
    misfit: Callable[[Tensor], Tensor] | None = None
    beside: BesidePictures | None = None
