"""`diptych edit` for pictures: which edit the options ask for, and what is written of it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from image.beside import BesidePictures
from image.clip.choice import draw_best
from image.edits import (
    NOISELESS,
    Colourise,
    Edit,
    Inpaint,
    Interpolate,
    Invert,
    Posterior,
    Replace,
    Upscale,
    Vary,
    Way,
)
from image.grid import save_npz, save_png, tile, to_bytes
from image.pipeline import Pipeline
from shared.edits import EditRequest
from shared.errors import ConfigError
from shared.files import write_text
from shared.levels import signed
from shared.prompts import one_each
from shared.requests import SampleRequest

KINDS = "--mask FILE, --grey, --downscale N, --strength T, --invert, --interpolate A B"


def edit(pipeline: Pipeline, request: EditRequest, out: Path) -> dict[str, Any]:
    """edited.png, what was given before what it became; edited.npz (images as bytes, seeds, given);
    edited.json with seeds and settings, and of a picture known in part how far each sample is from
    what is known. ConfigError for options that do not go together."""
    asked, seeds = asked_edit(request), list(request.seeds)
    prompts = one_each(request.prompt, request.n)
    condition, target = pipeline.asked(request.condition, prompts, request.n, request.classifier)
    negative = pipeline.words(request.negative_prompt, request.n, "negative_prompt")
    entry = pipeline.enter(asked, seeds, request, condition)
    x0 = pipeline.latents(
        seeds, condition, request, progress=True, negative=negative, target=target, entry=entry
    )
    levels = pipeline.decode(x0)
    images = to_bytes(levels if entry.finish is None else entry.finish(levels), _levels(pipeline))
    arrays: dict[str, Any] = {"images": images.numpy(), "seeds": seeds}
    shown = images
    if entry.shown is not None:
        given = to_bytes(entry.shown, _levels(pipeline))
        arrays["given"] = given.numpy()
        shown = torch.cat([given, images])
    save_png(tile(shown), out / "edited.png")
    save_npz(out / "edited.npz", arrays)
    written = {"edit": type(asked).__name__, "settings": request.asked(), "seeds": seeds}
    written["prompts"] = prompts
    told = {"n": request.n, "grid": str(out / "edited.png"), "images": str(out / "edited.npz")}
    if entry.misfit is not None:
        misfit = [round(127.5 * one, 2) for one in entry.misfit(x0).tolist()]
        written["misfit"] = misfit
        told["misfit of 255, worst"] = max(misfit)
    write_text(out / "edited.json", json.dumps(written, indent=1))
    return told


def asked_edit(request: EditRequest) -> Edit:
    """The one edit that the options ask for. ConfigError for none or several."""
    wanted = {
        "mask": request.mask is not None,
        "grey": request.grey,
        "downscale": request.downscale is not None,
        "invert": request.invert,
        "interpolate": request.interpolate is not None,
    }
    chosen = [name for name, there in wanted.items() if there]
    if not chosen and request.strength is not None:
        chosen = ["strength"]
    if len(chosen) != 1:
        named = ", ".join(chosen) or "nothing"
        raise ConfigError(f"edit: asked for {named}; expected one of {KINDS}")
    _check_options(request, chosen[0])
    if request.interpolate is not None:
        first, second = (int(end) if end.isdecimal() else end for end in request.interpolate)
        return Interpolate(first, second, request.strength)
    image, by = request.image, _way(request)
    if image is None:
        raise ConfigError(f"image: name the picture for {chosen[0]}: --image FILE")
    if request.mask is not None:
        return Inpaint(image, request.mask, by)
    if request.grey:
        return Colourise(image, by)
    if request.downscale is not None:
        return Upscale(image, request.downscale, by)
    if request.invert:
        strength = 1.0 if request.strength is None else request.strength
        return Invert(image, request.source_class, request.source_prompt, strength)
    assert request.strength is not None
    return Vary(image, request.strength)


def _check_options(request: EditRequest, chosen: str) -> None:
    """ConfigError for options that the chosen edit does not read."""
    measures, inverts = ("mask", "grey", "downscale"), ("invert",)
    reads = {
        "image": (request.image is not None, (*measures, "invert", "strength")),
        "strength": (request.strength is not None, ("strength", "invert", "interpolate")),
        "source_class": (request.source_class is not None, inverts),
        "source_prompt": (request.source_prompt is not None, inverts),
        "noise_std": (request.noise_std != 0, measures),
        "repaint": (request.repaint is not None, measures),
    }
    for name, (there, readers) in reads.items():
        if there and chosen not in readers:
            raise ConfigError(
                f"{name}: not read by {chosen}, but by {', '.join(readers)}; leave it out"
            )
    if request.repaint is not None and request.noise_std:
        raise ConfigError("repaint, noise_std: repainting takes what is known as exact; leave one")


def _way(request: EditRequest) -> Way:
    if request.repaint is not None:
        return Replace(request.repaint)
    return Posterior(request.noise_std) if request.noise_std else NOISELESS


def low_of(pipeline: Pipeline, request: SampleRequest) -> BesidePictures | None:
    """The sketch that a model is to follow, or what one of a cascade is to enlarge: a picture, or
    what the run of another model draws with the same seeds and settings, class or prompt."""
    if request.sketch is not None:
        return pipeline.to_read(request.sketch, request.n, 0.0, "sketch")
    if request.low is None:
        return None
    if not request.low.is_dir():
        return pipeline.to_read(request.low, request.n, request.low_noise)
    if request.layout:
        raise ConfigError(
            f"low = {request.low}, layout: that run is not told of the layout; draw with it first, "
            "and give low a picture"
        )
    first = Pipeline.from_pretrained(request.low, request.weights)
    led = request.clip is not None and first.texts is None  # the prompt is for that alone
    prompts = None if led else one_each(request.prompt, request.n)
    condition, _ = first.asked(request.condition, prompts, request.n)
    negative = first.words(request.negative_prompt, request.n, "negative_prompt")
    scale = 1.0 if request.guide is not None else request.guidance
    alone = replace(
        request,
        guidance=scale,
        guidance_interval=None if scale == 1 else request.guidance_interval,
        guide=None,
        classifier=None,
        classifier_scale=1.0,
    )
    drawn, _ = draw_best(first, alone, None, condition, negative)
    return BesidePictures(signed(drawn, first.facts.levels), request.low_noise)


def _levels(pipeline: Pipeline) -> int:
    return pipeline.facts.levels
