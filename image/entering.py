"""From an edit to what `shared.drawing.draw` is given: see `image.edits` for what each means.

Pixels are measured as they are, latents of an autoencoder through its decoder; masks of pictures
become masks of latents, in which a place is known when all of its pixels are.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from image.beside import Beside, BesidePictures
from image.codec import Pixels
from image.data import DataFacts
from image.edits import (
    NOISELESS,
    Colourise,
    Edit,
    Entry,
    Inpaint,
    Interpolate,
    Invert,
    Measured,
    Posterior,
    Upscale,
    Vary,
    Way,
)
from image.masked import Masked
from image.measurements import Measurement, block_means, luma
from image.opening import PictureLike, open_picture, to_levels
from shared import noise
from shared.codec import Codec
from shared.drawing import Model, invert
from shared.errors import ConfigError
from shared.guidance import linear_inverse, repaint, repaint_measured
from shared.interpolation import lerp, slerp
from shared.levels import BYTES, nearest, signed
from shared.pictures import fit
from shared.sampling import Sampling, Start, check_strength
from shared.solver.plan import SOLVERS

BOX = Image.Resampling.BOX  # means of blocks


@torch.no_grad()
def enter(
    edit: Edit,
    learner: Model,
    facts: DataFacts,
    seeds: Sequence[int],
    how: Sampling,
    condition: Tensor | None = None,
    source: Tensor | None = None,
    beside: Beside | None = None,
) -> Entry:
    """Where and how n = len(seeds) samples of a model are drawn for an edit. condition (n, ...) is
    what they are drawn under, source (1, ...) what a picture is inverted under, `beside` what the
    model reads beside the noisy picture. DataError for a bad file, ConfigError for what does not
    fit the model or the settings."""
    if beside is not None:
        return _filled(edit, beside, learner.codec, facts)
    if isinstance(edit, Inpaint):
        return _inpaint(edit, learner, facts, how)
    if isinstance(edit, Vary):
        shown = _levels(edit.image, "image", facts)
        x0 = _encoded(learner, shown)
        return Entry(shown, Start(_repeated(x0, len(seeds)), edit.strength))
    if isinstance(edit, Invert):
        check_strength(edit.strength)  # before it is inverted
        _check_deterministic(how)
        shown = _levels(edit.image, "image", facts)
        drawn = invert(learner, _encoded(learner, shown), how, source, edit.strength)
        start = Start(None, edit.strength, _repeated(drawn, len(seeds)), inverted=True)
        return Entry(shown, start)
    if isinstance(edit, Interpolate):
        return _interpolate(edit, learner, facts, seeds, how, condition)
    return _restore(_measured(edit, facts), learner, facts, how)


def _measured(edit: Colourise | Upscale | Measured, facts: DataFacts) -> Measured:
    C, H, W = facts.shape
    if isinstance(edit, Measured):
        return edit
    if isinstance(edit, Colourise):
        if C != 3:
            raise ConfigError("grey: this model draws grey pictures; colours need one of RGB")
        return Measured(_signal(edit.image, 1, (H, W)), luma, edit.by)
    factor = edit.factor
    if factor < 2 or H % factor or W % factor:
        raise ConfigError(
            f"downscale = {factor}: expected 2 or more, a divisor of the model's {H} x {W} pixels"
        )
    y = _signal(edit.image, C, (H // factor, W // factor))
    return Measured(y, block_means(factor), edit.by)


def _restore(edit: Measured, learner: Model, facts: DataFacts, how: Sampling) -> Entry:
    codec, look = learner.codec, _looking(learner.codec)
    if not isinstance(edit.by, Posterior) and not isinstance(codec, Pixels):
        raise ConfigError(
            "repaint: what a decoder makes of latents is no linear measurement; leave it out"
        )
    device = _device(learner)

    def operator(x0: Tensor) -> Tensor:
        return edit.operator(look(x0))

    y = edit.y.to(device, torch.float32)
    seen = operator(torch.zeros(1, *codec.latent_shape, device=device)).shape
    if y.shape[1:] != seen[1:]:
        raise ConfigError(
            f"measured {tuple(y.shape[1:])}: of this model's pictures the operator gives "
            f"{tuple(seen[1:])}"
        )
    return replace(_met(edit.by, operator, y, how), shown=_shown(y, facts))


def _given(edit: Inpaint, codec: Codec, facts: DataFacts) -> tuple[Tensor, Tensor]:
    """The picture (1, C, H, W) of levels, and where its mask keeps it, bool (1, 1, H, W)."""
    C, H, W = facts.shape
    picture, mask = open_picture(edit.image, "image"), open_picture(edit.mask_image, "mask_image")
    if picture.size != mask.size:
        raise ConfigError(
            f"mask_image: {mask.height} x {mask.width} pixels, the picture has {picture.height} x "
            f"{picture.width}: expected the same"
        )
    shown = to_levels(fit(picture, C, (H, W)), facts.levels)[None]
    kept = to_levels(fit(mask, 1, (H, W), BOX), BYTES)[None] < 128
    known = _known(kept, codec)
    if not bool(known.any()) or bool(known.all()):
        share = float(kept.double().mean())
        raise ConfigError(
            f"mask_image: {share:.0%} of the picture is black, which keeps it: expected a part "
            "drawn anew, white, and a part that stays, at least one latent's place large"
        )
    return shown, kept


def _filled(edit: Edit, beside: Beside, codec: Codec, facts: DataFacts) -> Entry:
    """Inpainting by a model of masked pictures, which is shown what is known."""
    if not (isinstance(beside, Masked) and isinstance(edit, Inpaint)):
        takes = "a mask" if isinstance(beside, Masked) else "none"
        raise ConfigError(
            f"edit: this model {beside.task} and takes {takes} of these edits; edit with one that "
            "reads no picture beside the noisy one"
        )
    if edit.by != NOISELESS:
        raise ConfigError("noise_std, repaint: this model is shown what is known; leave them out")
    shown, kept = _given(edit, codec, facts)
    pictures = BesidePictures(beside.kept(shown, kept), 0.0)
    return Entry(
        shown, beside=pictures, finish=lambda images: beside.finish(images, pictures.pictures)
    )


def _inpaint(edit: Inpaint, learner: Model, facts: DataFacts, how: Sampling) -> Entry:
    codec, device = learner.codec, _device(learner)
    shown, kept = _given(edit, codec, facts)
    x0, known = _encoded(learner, shown).to(device), _known(kept, codec).to(device)
    if isinstance(edit.by, Posterior):
        places = known.expand(1, *codec.latent_shape).flatten().nonzero().flatten()
        look = codec.pictures if isinstance(codec, Pixels) else _same

        def operator(x: Tensor) -> Tensor:
            return look(x).flatten(1)[:, places]

        entry = _met(edit.by, operator, operator(x0), how)
        if edit.by.noise_std:
            return replace(entry, shown=shown)
    else:
        entry = Entry(hooks=lambda _: [repaint(x0, known)], travel=_travel(edit.by))
    return replace(entry, shown=shown, finish=lambda images: torch.where(kept, shown, images))


def _met(by: Way, operator: Measurement, y: Tensor, how: Sampling) -> Entry:
    """Samples whose operator(x0) is y (1 or n, ...)."""

    def rows_of(rows: slice) -> Tensor:
        return y.expand(rows.stop - rows.start, *y.shape[1:]) if len(y) == 1 else y[rows]

    @torch.no_grad()
    def misfit(x0: Tensor) -> Tensor:
        return (operator(x0.to(y.device)) - y).square().flatten(1).mean(1).sqrt().cpu()

    if not isinstance(by, Posterior):
        return Entry(
            hooks=lambda r: [repaint_measured(operator, rows_of(r))],
            travel=_travel(by),
            misfit=misfit,
        )
    if how.clamp:
        raise ConfigError("clamp: leaves no gradient for what is known to guide by; leave it out")
    std, iterations = by.noise_std, by.iterations
    return Entry(
        wrap=lambda d, r: linear_inverse(d, operator, rows_of(r), std, iterations), misfit=misfit
    )


def _interpolate(
    edit: Interpolate,
    learner: Model,
    facts: DataFacts,
    seeds: Sequence[int],
    how: Sampling,
    condition: Tensor | None,
) -> Entry:
    n, shape = len(seeds), learner.codec.latent_shape
    share = torch.linspace(0, 1, n, dtype=torch.float64) if n > 1 else torch.tensor([0.5]).double()
    ends = (edit.first, edit.second)
    pictures = [_levels(end, "interpolate", facts) for end in ends if not isinstance(end, int)]
    shown = torch.cat(pictures) if pictures else None
    if edit.strength is not None:
        if len(pictures) < 2:
            raise ConfigError("strength: of a path between two pictures; leave it out for seeds")
        a, b = _encoded(learner, torch.cat(pictures)).split(1)
        same = _repeated(noise.normal(seeds[:1], 0, shape), n)
        return Entry(shown, Start(lerp(a, b, share.to(a)), edit.strength, same))
    _check_deterministic(how)
    rows = (None, None) if condition is None else (condition[:1], condition[-1:])
    a, b = (
        noise.normal([end], 0, shape)
        if isinstance(end, int)
        else invert(learner, _encoded(learner, _levels(end, "interpolate", facts)), how, row)
        for end, row in zip(ends, rows, strict=True)
    )
    start = Start(None, 1.0, slerp(a, b, share), inverted=bool(pictures))
    return Entry(shown, start)


def _levels(picture: PictureLike, where: str, facts: DataFacts) -> Tensor:
    """A picture as the model's data are, (1, C, H, W) of its levels."""
    C, H, W = facts.shape
    return to_levels(fit(open_picture(picture, where), C, (H, W)), facts.levels)[None]


def _signal(picture: PictureLike, channels: int, size: tuple[int, int]) -> Tensor:
    """A picture as a measurement (1, C, h, w) in [-1, 1]."""
    fitted = fit(open_picture(picture, "image"), channels, size, BOX)
    return signed(to_levels(fitted, BYTES)[None])


def _shown(y: Tensor, facts: DataFacts) -> Tensor | None:
    """A measurement that is a smaller or a grey picture, as levels (1, C, H, W)."""
    C, H, W = facts.shape
    if y.ndim != 4 or y.shape[1] not in (1, C) or H % y.shape[2] or W % y.shape[3]:
        return None
    large = F.interpolate(y.cpu(), (H, W)).expand(-1, C, -1, -1)
    return nearest(large, facts.levels)


def _encoded(learner: Model, levels: Tensor) -> Tensor:
    return learner.codec.encode(levels.to(_device(learner))).cpu()


def _known(kept: Tensor, codec: Codec) -> Tensor:
    """kept (1, 1, H, W) of pixels -> of latents, (1, 1, h, w) or (1, 1, h, w, 1)."""
    side = kept.shape[2] // codec.latent_shape[1]
    free = F.max_pool2d((~kept).float(), side) > 0
    return ~free.view(*free.shape, *[1] * (len(codec.latent_shape) - 3))


def _looking(codec: Codec) -> Callable[[Tensor], Tensor]:
    """x0 -> the picture in [-1, 1] that it stands for, with derivatives."""
    look = getattr(codec, "pictures", None)
    if look is None or not getattr(codec, "smooth", True):
        raise ConfigError(
            f"grey, downscale: the pictures of a {type(codec).__name__} codec are no smooth "
            "function of its latents; expected pixels, or an autoencoder without a table of codes"
        )
    return look


def _same(x: Tensor) -> Tensor:
    return x


def _repeated(x: Tensor, n: int) -> Tensor:
    return x.expand(n, *x.shape[1:])


def _travel(by: Way) -> tuple[int, int] | None:
    assert not isinstance(by, Posterior)
    return (by.jump, by.resamplings) if by.resamplings > 1 else None


def _check_deterministic(how: Sampling) -> None:
    if SOLVERS[how.solver].stochastic:
        known = ", ".join(name for name, solver in SOLVERS.items() if not solver.stochastic)
        raise ConfigError(
            f"solver = {how.solver!r}: draws noise, and only without it is there a way back to the "
            f"noise of a picture: expected one of {known}"
        )


def _device(learner: Model) -> torch.device:
    return next(learner.parameters()).device
