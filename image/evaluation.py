"""`diptych evaluate` for pictures: distance, fidelity and variety in the features of a judge, and
whether pictures show what was asked for.

Every distance has its floor beside it: what the held-out split scores against the training split,
with as many pictures (a Frechet distance between samples shrinks as they grow). FID and KID proper
need the Inception network of their papers; a distance in other features carries their name. On
request, the likelihood of held-out pictures: an upper bound on -log p given their conditions.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from image.classifier import Classifier
from image.config import ImageConfig
from image.data import Pictures, load_pictures
from image.judge import Judge, find_judge
from image.metrics import frechet, kernel, recall
from image.pipeline import Pipeline
from image.reader import read
from shared import noise
from shared.errors import ConfigError, DataError
from shared.provenance import provenance
from shared.runs import Run, load_learner
from shared.scene import ATTRIBUTES, from_ids
from shared.scoring import BOUND, TRIED, UNDEFINED, Split, measured, score, told
from shared.task import EvaluateRequest, Panel

K = 3  # nearest neighbours of precision and recall, as in the paper
SUBSET = 1000  # rows of features at most in a subset of the kernel distance, as in the paper
ROWS = 1  # stream of `noise` that picks conditions and references


def evaluate(run: Run, request: EvaluateRequest, panel: Panel) -> dict[str, Any]:
    """Measure request.n pictures drawn from a run, or the accuracy of a classifier."""
    config: ImageConfig = run.config
    if request.prompt is not None or request.mbr != 1:
        raise ConfigError("prompt, mbr: for runs of the text panel; leave them out")
    split = request.split or config.data.held_out
    training = load_pictures(config.data)
    measured = replace(config.data, held_out=split)
    held_out = load_pictures(measured, held_out=True, classes=training.classes)
    if training.condition is None:
        raise ConfigError(
            "data.label_column = null: pictures are judged by a classifier, which needs classes"
        )
    if config.model == "classifier":
        model = load_learner(run.folder, request.weights)
        assert isinstance(model, Classifier)
        model.autocast = None
        judge = Judge(model, run.folder.name, {})
        if request.likelihood:
            raise ConfigError("likelihood: a classifier has none of pictures; leave it out")
        return _accuracy(judge, held_out) | {"provenance": provenance()}
    if request.n <= K:
        raise ConfigError(f"n = {request.n}: expected more than {K} pictures to measure")
    if len(held_out) <= K:
        raise DataError(
            f"data.held_out = {split!r}: {len(held_out)} pictures; expected more "
            f"than {K} to measure against"
        )
    pipeline = Pipeline.from_pretrained(run.folder, request.weights)
    judge = find_judge(config, training, panel)
    condition = _conditions(config, training, held_out, request)
    images = _draw(pipeline, request, condition)
    return {
        "samples": request.n,
        **_distances(judge, images, training, held_out, request.seed),
        **_agreement(config, judge, images, condition),
        **(_likelihood(pipeline, training, held_out, request) if request.likelihood else {}),
        "judge": judge.facts | _accuracy(judge, held_out),
        "settings": {
            **request.settings(),
            "split": split,
            "seed": request.seed,
            "weights": request.weights,
            "precision": "fp32",
        },
        "provenance": provenance(),
    }


def _conditions(
    config: ImageConfig, training: Pictures, held_out: Pictures, request: EvaluateRequest
) -> Tensor:
    """Condition ids (n, M): classes as often as in the training split; scenes never trained on."""
    source = held_out if config.data.name == "scene" else training
    assert source.condition is not None
    return source.condition[_some_rows(len(source), request.n, request.seed)]


def _some_rows(size: int, n: int, seed: int) -> Tensor:
    """n of `size` rows in a random order, each as often as the others up to one."""
    parts = [noise.uniform([seed], ROWS + i, (size,))[0].argsort() for i in range(-(-n // size))]
    return torch.cat(parts)[:n]


def _draw(pipeline: Pipeline, request: EvaluateRequest, condition: Tensor) -> Tensor:
    """Levels (n, C, H, W)."""
    latents = pipeline.latents(request.seeds, condition, request, progress=True)
    return pipeline.decode(latents)


def _distances(
    judge: Judge, images: Tensor, training: Pictures, held_out: Pictures, seed: int
) -> dict[str, Any]:
    """Frechet and kernel distance to the training split, precision and recall, and what held-out
    data gets."""
    n, m = len(images), min(len(images), len(held_out))
    ours, data = judge.features(images), judge.features(training.images)
    floor = judge.features(held_out.images[_some_rows(len(held_out), m, seed)])
    some = data[_some_rows(len(data), min(n, len(data)), seed)]
    least = frechet.compute(floor, data)["frechet_distance"]
    alike = frechet.compute(ours[:m], data)["frechet_distance"]
    real = recall.compute(floor, some[:m], K)
    return {
        "frechet_distance": frechet.compute(ours, data)["frechet_distance"],
        "frechet_floor": least,
        "frechet_ratio": alike / least,
        "frechet": {
            "features": judge.name,
            "reference": "training split",
            "reference_images": len(data),
            "floor": "held-out split",
            "floor_images": m,
            "ratio_images": m,
        },
        **_kernel_distances(judge, ours, floor, data, seed),
        **recall.compute(ours, some, K),
        "precision_held_out": real["precision"],
        "recall_held_out": real["recall"],
        "recall_k": K,
        "recall_references": len(some),
    }


def _kernel_distances(
    judge: Judge, ours: Tensor, floor: Tensor, data: Tensor, seed: int
) -> dict[str, Any]:
    """Kernel distances of features to the training split's, ours and the held-out ones. There is no
    ratio: the floor of a perfect split is 0 in expectation."""
    size = min(len(ours), len(floor), len(data), SUBSET)
    generator = torch.Generator().manual_seed(seed)
    here, least = (kernel.compute(x, data, size, generator) for x in (ours, floor))
    return {
        "kernel_distance": here["kernel_distance"],
        "kernel_floor": least["kernel_distance"],
        "kernel": {
            "features": judge.name,
            "reference": "training split",
            "floor": "held-out split",
            "subset_images": size,
            "std_over_subsets": here["kernel_std"],
            "floor_std_over_subsets": least["kernel_std"],
        },
    }


def _agreement(
    config: ImageConfig, judge: Judge, images: Tensor, condition: Tensor
) -> dict[str, Any]:
    """Whether pictures show what was asked for: under the judge, or as scenes are read."""
    if config.data.name != "scene":
        found = judge.labels(judge.features(images))
        return {"class_agreement": float((found == condition[:, 0]).double().mean())}
    readings = read(images.to(torch.uint8))
    asked = [from_ids(row).things for row in condition.tolist()]
    pairs = [
        (thing, {found.place: found for found in things or ()}.get(thing.place))
        for wanted, things in zip(asked, readings, strict=True)
        for thing in wanted
    ]
    shares = {
        f"{name}_agreement": sum(
            found is not None and getattr(found, name) == getattr(thing, name)
            for thing, found in pairs
        )
        / len(pairs)
        for name in ATTRIBUTES
    }
    exact = sum(a == b for a, b in zip(asked, readings, strict=True)) / len(asked)
    readable = sum(things is not None for things in readings) / len(readings)
    return {"readable": readable, "scene_agreement": exact, **shares}


def _likelihood(
    pipeline: Pipeline, training: Pictures, held_out: Pictures, request: EvaluateRequest
) -> dict[str, dict[str, Any]]:
    """The bound on request.n held-out pictures, or all there are, given their conditions."""
    measure, choose = (
        Split(*some.take(_some_rows(len(some), min(n, len(some)), request.seed)))
        for some, n in ((held_out, request.n), (training, TRIED))
    )
    scored = score(pipeline.learner, measure, choose, request.draws, request.seed)
    if scored is None:
        return {"likelihood": {"what": UNDEFINED}}
    found = scored.likelihood
    facts = told(found, BOUND, "picture") | measured("bits_per_dim", found.bits_per_dim)
    facts |= {"dims": found.dims, "split": request.split or pipeline.config.data.held_out}
    facts["cleanest_logsnr"] = scored.cleanest_logsnr
    if pipeline.config.data.name == "scene":  # a picture is a function of its scene
        facts["nats_per_picture_floor"] = 0.0
    return {"likelihood": facts}


def _accuracy(judge: Judge, held_out: Pictures) -> dict[str, Any]:
    """Of a classifier on the held-out split. A model of several ids has its mean loss instead."""
    condition = held_out.condition
    assert condition is not None
    facts: dict[str, Any] = {"held_out_images": len(held_out)}
    if condition.shape[1] == 1:
        found = judge.labels(judge.features(held_out.images))
        return facts | {"accuracy": float((found == condition[:, 0]).double().mean())}
    device = next(judge.model.parameters()).device
    losses = [
        judge.model(held_out.images[rows].to(device), condition[rows].to(device), rows, rows)[0]
        for rows in torch.arange(len(held_out)).split(256)
    ]
    return facts | {"loss_nats": float(torch.cat(losses).detach().mean())}
