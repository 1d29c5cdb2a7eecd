"""`diptych evaluate` for pictures: distance, fidelity and variety in the features of a judge, and
whether pictures show what was asked for.

Every number has that of the held-out split beside it, see `image.comparison`. On request, the same
in the features of a further network, under its name, and the likelihood of held-out pictures: an
upper bound on -log p given their conditions; with `ode` also that of the flow. Of a run without
conditions, in no given network's features, the likelihood is all that is measured.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from image.agreement import (
    AMONG,
    caption_retrieval,
    class_agreement,
    scene_agreement,
    unseen_agreement,
)
from image.beside import BesidePictures
from image.bound import likelihood
from image.captions import conditioned, shown
from image.clip.encoder import Encoder, RunEncoder, open_encoder
from image.clip.evaluation import pairs, prompted
from image.comparison import K, compare, some_rows
from image.config import ImageConfig
from image.data import Pictures, load_pictures, unseen_pictures
from image.features import JUDGE, FeatureNetwork, build_features
from image.figures.agreement import figure_agreement, unseen_figure_agreement
from image.judge import RESIZE, Judge, find_judge, judge_name, open_judge
from image.metrics import statistics
from image.noisy_classifier import NoisyClassifier, accuracy_by_level
from image.pipeline import Pipeline
from shared.errors import ConfigError, DataError
from shared.provenance import provenance
from shared.ranks import on_rank_zero, share_out
from shared.requests import EvaluateRequest
from shared.runs import Run, load_learner
from shared.tables import check_split
from shared.task import Panel


def evaluate(run: Run, request: EvaluateRequest, panel: Panel) -> dict[str, Any]:
    """Measure request.n pictures drawn from a run, or a classifier, autoencoder or dual encoder."""
    config: ImageConfig = run.config
    if request.prompt is not None or (request.mbr, request.surest) != (1, 1):
        raise ConfigError("prompt, mbr, surest: for runs of the text panel; leave them out")
    split = _split(run, request)
    read = load_pictures(config.data)
    check_split(config.data.name, request.split, read.divided)
    training = _conditioned(run, read)
    measured_split = replace(config.data, held_out=split)
    kept = load_pictures(measured_split, held_out=True, classes=read.classes)
    held_out = _conditioned(run, kept)
    if config.model == "autoencoder":
        return _autoencoder(run, request, training, held_out, panel)
    if config.model == "classifier":
        return _of_classifier(run, request, held_out)
    if config.model == "clip":
        return _of_clip(run, request, held_out)
    encoder = _open_encoder(request, held_out)
    network = build_features(request.features, training.levels)
    # without classes and another network there is nothing to compare in, but there is a likelihood
    judged = shown(training).condition is not None
    compared = judged or network is not None or not request.likelihood
    if compared:
        _check_samples(request, training, held_out, split, network is not None)
        _check_reference(request, config, training, network, panel)
    pipeline = Pipeline.from_pretrained(run.folder, request.weights)
    result: dict[str, Any] = {}
    if compared:
        judge = find_judge(config, shown(training), panel) if judged else None
        data = _Data(read, training, held_out)
        result |= _compared(run, request, pipeline, data, judge, network, encoder)
    if request.likelihood:
        result["likelihood"] = on_rank_zero(
            lambda: likelihood(pipeline, training, held_out, request)
        )
    return result | {
        "settings": {
            **request.settings(),
            "split": split,
            "seed": request.seed,
            "weights": request.weights,
            "precision": "fp32",
        },
        "provenance": provenance(),
    }


@dataclass(frozen=True)
class _Data:
    """The training split as it is, and with the run's conditions; the held-out one with them."""

    read: Pictures
    training: Pictures
    held_out: Pictures


def _compared(
    run: Run,
    request: EvaluateRequest,
    pipeline: Pipeline,
    data: _Data,
    judge: Judge | None,
    network: FeatureNetwork | None,
    encoder: Encoder | None,
) -> dict[str, Any]:
    """Of request.n pictures, drawn for the conditions of data."""
    config, training, held_out = run.config, data.training, data.held_out
    source = _source(config, training, held_out)
    rows = some_rows(len(source), request.n, request.seed, source.labels)
    asked = None if source.condition is None else shown(source).condition
    asked = None if asked is None else asked[rows]
    images = draw_rows(pipeline, request, source, rows)
    result: dict[str, Any] = {"samples": request.n}
    if pipeline.beside is not None:
        result |= pipeline.beside.measure(images, source.take(rows)[0], rows)
    if judge is not None and asked is not None:
        own = request.reference if network is None else None
        result |= compare(judge, images, training, held_out, request.seed, own)
        result |= _agreement(config, judge, images, asked)
        result["judge"] = judge.facts | _accuracy(judge, shown(held_out))
    if encoder is not None:
        result |= _prompted(config, encoder, images, data.read, held_out, request)
    if config.data.compositional:
        result |= _compositional(pipeline, request, run)
    if network is not None:
        found = compare(network, images, training, held_out, request.seed, request.reference)
        result[network.name] = found | {"network": network.facts}
    return result


def _check_samples(
    request: EvaluateRequest, training: Pictures, held_out: Pictures, split: str, features: bool
) -> None:
    """Whether samples can be measured: by a judge or in other `features`, and enough of them."""
    classes = training.condition is not None and training.condition.shape[1] == 1
    if request.classifier is not None and not (classes and training.captions is None):
        raise ConfigError(
            f"classifier = {request.classifier}: towards which class? The data of this run have "
            "none; leave it out"
        )
    if shown(training).condition is None and not features:
        raise ConfigError(
            "data.label_column = null: pictures are judged by a classifier, which needs classes; "
            "without them, compare in the features of a given network: --features inception:FILE"
        )
    if request.n <= K:
        raise ConfigError(f"n = {request.n}: expected more than {K} pictures to measure")
    if len(held_out) <= K:
        raise DataError(
            f"data.held_out = {split!r}: {len(held_out)} pictures; expected more "
            f"than {K} to measure against"
        )


def _check_reference(
    request: EvaluateRequest,
    config: ImageConfig,
    training: Pictures,
    network: FeatureNetwork | None,
    panel: Panel,
) -> None:
    """DataError for statistics that are missing, damaged, or of another network or resize than
    samples will be seen in, before a judge is trained or anything drawn."""
    if request.reference is None:
        return
    if network is None:
        name, resize = judge_name(config, shown(training), panel), RESIZE
    else:
        name, resize = network.name, network.resize
    statistics.check_alike(name, resize, "samples", statistics.load(request.reference))


def _autoencoder(
    run: Run, request: EvaluateRequest, training: Pictures, held_out: Pictures, panel: Panel
) -> dict[str, Any]:
    """Of request.n held-out pictures, or all there are. Without classes there is no judge."""
    from image.autoencoder.evaluation import measure_reconstructions, reconstruction_distance
    from image.autoencoder.learner import AutoencoderLearner

    _refuse_samples(request, "an autoencoder alone draws no pictures")
    learner = load_learner(run.folder, request.weights)
    assert isinstance(learner, AutoencoderLearner)
    rows = _several(held_out, request)
    images = held_out.take(rows)[0]
    facts = {"images": len(images), "split": _split(run, request)}
    facts |= measure_reconstructions(learner, images)
    if training.condition is not None:
        judge = find_judge(run.config, training, panel)
        facts |= reconstruction_distance(learner, judge, images, training)
        facts["judge"] = judge.facts | _accuracy(judge, held_out)
    facts["settings"] = {"seed": request.seed, "weights": request.weights, "precision": "fp32"}
    return facts | {"provenance": provenance()}


def _of_classifier(run: Run, request: EvaluateRequest, held_out: Pictures) -> dict[str, Any]:
    """Its accuracy on the held-out split."""
    _refuse_samples(request, "a classifier draws no pictures")
    facts: dict[str, Any] = {"split": _split(run, request)}
    if run.config.noisy:
        model = load_learner(run.folder, request.weights)
        assert isinstance(model, NoisyClassifier)
        return facts | _by_level(model, held_out)
    facts |= _accuracy(open_judge(run.folder, request.weights), held_out)
    return facts | {"provenance": provenance()}


def _of_clip(run: Run, request: EvaluateRequest, held_out: Pictures) -> dict[str, Any]:
    """Of a dual encoder, on request.n held-out pairs, or all there are."""
    _refuse_samples(request, "a dual encoder draws no pictures")
    rows = _several(held_out, request)
    found = pairs(RunEncoder(run.folder, request.weights), held_out, rows)
    found["split"] = _split(run, request)
    found["settings"] = {"seed": request.seed, "weights": request.weights, "precision": "fp32"}
    return found | {"provenance": provenance()}


def _open_encoder(request: EvaluateRequest, held_out: Pictures) -> Encoder | None:
    """The dual encoder that a request names. ConfigError for a model without captions."""
    if request.clip is None:
        return None
    if held_out.captions is None:
        raise ConfigError(
            f"clip = {request.clip}: compares pictures with the captions they are drawn from, and "
            "this model has none; train with data.caption_column, or leave it out"
        )
    C, H, W = held_out.images.shape[1:]
    return open_encoder(request.clip, (C, H, W))


def _prompted(
    config: ImageConfig,
    encoder: Encoder,
    images: Tensor,
    training: Pictures,
    held_out: Pictures,
    request: EvaluateRequest,
) -> dict[str, Any]:
    """Score and retrieval of pictures under a dual encoder, and how many of their captions it was
    trained on."""
    learned = training.captions
    if encoder.data != config.data:
        learned = None if encoder.data is None else load_pictures(encoder.data).captions
    rows = some_rows(len(held_out), request.n, request.seed)
    return prompted(encoder, images, held_out, rows, learned)


def _split(run: Run, request: EvaluateRequest) -> str:
    """The name of the split that is measured."""
    return request.split or run.config.data.held_out


def _several(held_out: Pictures, request: EvaluateRequest) -> Tensor:
    """request.n of its rows, or all there are. ConfigError and DataError for fewer than two."""
    if request.n < 2:
        raise ConfigError(f"n = {request.n}: expected 2 pictures or more to measure")
    if len(held_out) < 2:
        raise DataError(f"{len(held_out)} held-out pictures: expected 2 or more to measure")
    return some_rows(len(held_out), min(request.n, len(held_out)), request.seed)


def _refuse_samples(request: EvaluateRequest, reason: str) -> None:
    """ConfigError for what is asked of drawn pictures, where none are drawn."""
    asked = {
        "guidance": request.guided,
        "guide": request.guide is not None,
        "classifier": request.classifier is not None,
        "likelihood": request.likelihood,
        "features": request.features != JUDGE,
        "reference": request.reference is not None,
        "clip": request.clip is not None,
    }
    for name, given in asked.items():
        if given:
            raise ConfigError(f"{name}: {reason}; leave it out")


def _source(config: ImageConfig, training: Pictures, held_out: Pictures) -> Pictures:
    """What conditions are of: classes as often as in the training split; scenes, figures, captions,
    layouts and what stands beside never trained on."""
    data = config.data
    new = data.drawn or data.caption_column is not None or data.layout_column is not None
    return held_out if new or config.beside() is not None else training


def draw_rows(
    pipeline: Pipeline, request: EvaluateRequest, source: Pictures, rows: Tensor
) -> Tensor:
    """Levels (n, C, H, W), int64, for the conditions of these rows, beside what is made of them.
    The processes of a launch draw a part of them each."""
    seeds, beside = list(request.seeds), pipeline.beside

    def drawn(part: slice) -> Tensor:
        own = rows[part]
        made = None if beside is None else beside.made(source.take(own)[0], own)
        low = None if made is None else BesidePictures(made, 0.0)
        condition, target = pipeline.conditions_of(source, own), None
        if request.classifier is not None:
            assert condition is not None  # as `_check_samples` has seen
            target = pipeline.target(request.classifier, condition)
        some = seeds[part]
        x0 = pipeline.latents(some, condition, request, progress=True, target=target, low=low)
        images = pipeline.decode(x0)
        if beside is not None and made is not None:
            images = beside.finish(images, made)
        return images.to(torch.uint8)

    return torch.cat(share_out(len(rows), drawn)).long()


def _agreement(config: ImageConfig, judge: Judge, images: Tensor, asked: Tensor) -> dict[str, Any]:
    """Whether pictures show what was asked for: as scenes and figures are read, or under the
    judge."""
    if config.data.name == "scene":
        return scene_agreement(images, asked)
    if config.data.name == "figures":
        return figure_agreement(images, asked)
    if not judge.model.several:
        return class_agreement(judge, images, asked)
    return {
        "caption_retrieval": caption_retrieval(judge, images, asked),
        "caption_retrieval_chance": 1 / min(len(asked), AMONG),
    }


def _compositional(
    pipeline: Pipeline, request: EvaluateRequest, run: Run
) -> dict[str, dict[str, Any]]:
    """Of what was never together in training: a shape in a colour, two textures of a figure."""
    config: ImageConfig = run.config
    unseen = _conditioned(run, unseen_pictures(config.data, request.n))
    rows = torch.arange(len(unseen))[: request.n]
    images, asked = draw_rows(pipeline, request, unseen, rows), shown(unseen).condition
    assert asked is not None
    agreement = unseen_figure_agreement if config.data.name == "figures" else unseen_agreement
    return {"compositional": {"samples": len(rows), **agreement(images, asked)}}


def _conditioned(run: Run, pictures: Pictures) -> Pictures:
    """Pictures with the condition that the run learned."""
    return conditioned(pictures, run.config, run.folder)


def _by_level(model: NoisyClassifier, held_out: Pictures) -> dict[str, Any]:
    """Of a classifier of noisy latents on the held-out split."""
    model.autocast = None
    what = "loss_nats" if model.several else "accuracy"
    facts = {"held_out_images": len(held_out), what: accuracy_by_level(model, held_out)}
    return facts | {"provenance": provenance()}


def _accuracy(judge: Judge, held_out: Pictures) -> dict[str, Any]:
    """Of a classifier on the held-out split. A model of several ids has its mean loss instead, and
    of words also how often it finds a picture's caption."""
    condition = held_out.condition
    assert condition is not None
    facts: dict[str, Any] = {"held_out_images": len(held_out)}
    if not judge.model.several:
        found = class_agreement(judge, held_out.images, condition)
        return facts | {"accuracy": found["class_agreement"]}
    device = next(judge.model.parameters()).device
    losses = [
        judge.model(held_out.take(rows)[0].to(device), condition[rows].to(device), rows, rows)[0]
        for rows in torch.arange(len(held_out)).split(256)
    ]
    facts["loss_nats"] = float(torch.cat(losses).detach().mean())
    if held_out.captions is None or held_out.shows is not None:
        return facts
    return facts | {"caption_retrieval": caption_retrieval(judge, held_out.images, condition)}
