"""The image panel as the core sees it: how to prepare, train, sample and evaluate a run."""

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from image.captions import conditioned
from image.clip.choice import Choice, draw_best
from image.codec import build_codec
from image.comparison import some_rows
from image.config import ImageConfig
from image.data import DataFacts, Pictures, load_pictures, measured_std, read_facts, write_facts
from image.editing import edit, low_of
from image.evaluation import evaluate
from image.figures.render import layout_colours
from image.figures.source import from_ids
from image.figures.words import spell
from image.grid import save_npz, save_png, tile, to_bytes, to_pil
from image.layouts import part_colours
from image.learners import build_learner
from image.palette import install_palette
from image.pipeline import Glimpse, Pipeline, is_pipeline
from image.render import render
from image.source import spread
from shared.edits import EditRequest
from shared.errors import ConfigError
from shared.files import write_text
from shared.pictures import first_of
from shared.prompts import one_each
from shared.ranks import on_rank_zero
from shared.requests import (
    ControlRequest,
    EvaluateRequest,
    ExportRequest,
    PairRequest,
    SampleRequest,
    WriteRequest,
)
from shared.runs import load_learner, open_run
from shared.scene import Scene
from shared.task import Examples

STRIP = 8  # levels shown of a denoising
PICTURES = 1024  # drawn at once
OF_DRAWING = ("prompt", "negative_prompt", "clip", "low", "sketch", "guide", "classifier")


class ImagePanel:
    """Pictures."""

    name = "image"
    config_type = ImageConfig

    def prepare(self, config: ImageConfig, run: Path) -> None:
        """Tell what a model must know of the data: shape, levels, classes, spread (data.json)."""
        reader = None
        if config.data.text_encoder is not None:
            from image.text_encoder import install_text_encoder  # seconds of transformers

            reader = install_text_encoder(config.data, run)
        pictures = self._pictures(config, run)
        if config.model == "classifier" and pictures.condition is None:
            raise ConfigError("model = 'classifier' needs classes: set data.label_column")
        if pictures.skipped:
            print(
                f"{config.data.name}: {pictures.skipped:,} pictures are left out: they cannot be "
                f"read, or have no caption of at most data.caption_length tokens"
                + first_of(pictures.left_out),
                file=sys.stderr,
            )
        if config.codec.kind == "autoencoder":
            from image.autoencoder.install import install  # seconds of diffusers

            install(config.codec, pictures, run)
            data_std = config.codec.scale  # as it is measured there
        else:
            if config.codec.kind == "palette":
                install_palette(pictures.some(), config.codec.colours, run)
            codec = build_codec(config.codec, pictures.levels, pictures.shape, run)
            data_std = measured_std(codec, pictures)
        facts = DataFacts(
            images=len(pictures),
            shape=pictures.shape,
            levels=pictures.levels,
            classes=pictures.classes,
            conditions=pictures.conditions,
            data_std=data_std,
            skipped=pictures.skipped,
            text_encoder=reader,
        )
        write_facts(facts, run)
        if config.model == "autoencoder":
            from image.autoencoder.perceptual import install_perceptual

            install_perceptual(config.autoencoder.perceptual, facts, run)

    def examples(self, config: ImageConfig, run: Path) -> Examples:
        """The pictures of the training split, or their latents; with what they are told."""
        examples = self._data(config, run)
        if config.data.text_encoder is None:
            return examples
        from image.text_encoder import caption_states

        def load() -> Pictures:
            return examples if isinstance(examples, Pictures) else self._pictures(config, run)

        return caption_states(examples, load, config.data, run)

    def _data(self, config: ImageConfig, run: Path) -> Examples:
        if config.codec.cache_latents and config.model == "diffusion":
            from image.autoencoder.cache import cached_latents
            from image.autoencoder.codec import load_codec

            facts = read_facts(run)
            codec = load_codec(config.codec, facts.levels, facts.shape, run)
            flip = config.data.flip
            return cached_latents(
                codec, lambda: self._pictures(config, run), facts.images, run, flip
            )
        return conditioned(load_pictures(config.data.larger()), config, run)

    def _pictures(self, config: ImageConfig, run: Path) -> Pictures:
        return conditioned(load_pictures(config.data), config, run)

    def learner(self, config: ImageConfig, run: Path) -> nn.Module:
        """A fresh diffusion model, classifier, autoencoder or dual encoder."""
        return build_learner(config, read_facts(run), run)

    def sample(self, run: Path, request: SampleRequest, out: Path) -> dict[str, Any]:
        """grid.png; samples.npz (images as bytes, seeds, condition); samples.json with seeds and
        settings; of models that read layouts layouts.png, what was asked for; on request the
        denoising of the first picture as trajectory.png (the noisy state above, the estimate below)
        and trajectory.json. With a dual encoder, the best candidates and the scores of all."""
        _refuse_words(request)
        if not is_pipeline(run) and open_run(run).config.model == "autoencoder":
            return on_rank_zero(lambda: self._reconstruct(run, request, out))
        pipeline = Pipeline.from_pretrained(run, request.weights)
        led = request.clip is not None and pipeline.texts is None  # the prompt is for it alone
        prompts = one_each(request.prompt, request.n)
        condition, target = pipeline.asked(
            request.condition,
            None if led else prompts,
            request.n,
            request.classifier,
            request.layout or None,
        )
        negative = pipeline.words(request.negative_prompt, request.n, "negative_prompt")
        low = low_of(pipeline, request)
        glimpses: list[Glimpse] = []
        watch = glimpses.append if request.trajectory else None
        choice = None if request.clip is None else Choice.of(request, pipeline.facts.shape)
        images, scores = draw_best(
            pipeline, request, choice, condition, negative, target, watch, low
        )
        ids = target.ids if condition is None and target is not None else condition
        ids = None if ids is None or ids.is_floating_point() else ids
        drawn = _Drawn(images, ids, prompts, choice, scores, glimpses)
        return on_rank_zero(lambda: _save(drawn, pipeline, request, out))

    def _reconstruct(self, run: Path, request: SampleRequest, out: Path) -> dict[str, Any]:
        """reconstructions.png, held-out pictures each with its reconstruction to the right of it,
        and reconstructions.npz (originals and reconstructions as bytes, their rows)."""
        from image.autoencoder.evaluation import reconstruct
        from image.autoencoder.learner import AutoencoderLearner

        asked = {name: getattr(request, name) is not None for name in OF_DRAWING}
        asked |= {"class": request.condition is not None, "guidance": request.guided}
        asked |= {"layout": bool(request.layout), "trajectory": request.trajectory}
        for name, given in asked.items():
            if given:
                raise ConfigError(
                    f"{name}: an autoencoder draws nothing, it gives held-out pictures back; "
                    "leave it out"
                )
        learner = load_learner(run, request.weights)
        assert isinstance(learner, AutoencoderLearner)
        config = open_run(run).config
        held_out = load_pictures(config.data, held_out=True, classes=read_facts(run).classes)
        rows = some_rows(len(held_out), request.n, request.seed)
        images, levels = held_out.take(rows)[0], held_out.levels
        pair = [to_bytes(each, levels) for each in (images, reconstruct(learner, images))]
        both = torch.stack(pair, 1).flatten(0, 1)
        save_png(tile(both, 2 * math.ceil(math.sqrt(request.n / 2))), out / "reconstructions.png")
        named = {"originals": pair[0], "reconstructions": pair[1], "rows": rows}
        save_npz(out / "reconstructions.npz", {key: x.numpy() for key, x in named.items()})
        return {
            "n": request.n,
            "grid": str(out / "reconstructions.png"),
            "images": str(out / "reconstructions.npz"),
        }

    def edit(self, run: Path, request: EditRequest, out: Path) -> dict[str, Any]:
        """edited.png, what was given and what it became; see `image.editing`."""
        return edit(Pipeline.from_pretrained(run, request.weights), request, out)

    def control(
        self, run: Path, controls: Sequence[str], request: ControlRequest, out: Path
    ) -> dict[str, Any]:
        """ConfigError: pictures are asked for by class and guidance."""
        raise ConfigError("control: for runs of the text panel; pictures take --class, --guidance")

    def export(self, run: Path, request: ExportRequest, out: Path) -> dict[str, Any]:
        """A folder for `diffusers.DiffusionPipeline.from_pretrained`; see `image.export`."""
        pipeline = Pipeline.from_pretrained(run, request.weights)
        name = pipeline.save_pretrained(out, timesteps=request.timesteps)
        return {"folder": str(out), "pipeline": name}

    def reads(self, folder: Path) -> bool:
        return is_pipeline(folder)

    def write(self, run: Path, request: WriteRequest, out: Path) -> dict[str, Any]:
        """ConfigError: it writes sentences."""
        raise ConfigError("write: for runs of the text panel")

    def evaluate(self, run: Path, request: EvaluateRequest) -> dict[str, Any]:
        """Frechet and kernel distance, precision, recall, agreement with the condition; see
        `image.evaluation`."""
        return evaluate(open_run(run), request, self)

    def frontier(self, run: Path, request: EvaluateRequest) -> dict[str, Any]:
        raise ConfigError("frontier: the image panel does not measure one yet; leave it out")

    def express(
        self, scenes: Sequence[Scene], request: PairRequest, folder: Path
    ) -> list[dict[str, str]]:
        """00000.png and on, one picture a scene."""
        names = [f"{i:05d}.png" for i in range(len(scenes))]
        for start in range(0, len(scenes), PICTURES):
            some = slice(start, start + PICTURES)
            drawn = render(scenes[some], request.size)
            for name, picture in zip(names[some], drawn, strict=True):
                to_pil(picture).save(folder / name)
        return [{"file_name": name} for name in names]

    def datasets(self) -> dict[str, str]:
        return {
            "digits": "1,797 scans of handwritten digits, 8 x 8, 17 levels, 10 classes",
            "scene": "small scenes drawn at 32 x 32 or more, with every attribute known",
            "figures": "dressed figures drawn at 32 x 32 or more from a layout and textures",
        }


class _Drawn(NamedTuple):
    """Pictures, levels (n, C, H, W), the ids (n, M) or prompts they were drawn for, what chose them
    with the scores of all candidates (n, candidates), and how the first one became clean."""

    images: Tensor
    ids: Tensor | None
    prompts: Sequence[str] | None
    choice: Choice | None
    scores: Tensor | None
    glimpses: list[Glimpse]


def _save(drawn: _Drawn, pipeline: Pipeline, request: SampleRequest, out: Path) -> dict[str, Any]:
    """Write what `ImagePanel.sample` tells; returns where it is."""
    facts, ids, seeds = pipeline.facts, drawn.ids, list(request.seeds)
    images = to_bytes(drawn.images, facts.levels)
    columns = len(facts.classes) if request.condition == "all" and facts.classes else None
    save_png(tile(images, columns), out / "grid.png")
    _save_arrays(out / "samples.npz", images, seeds, ids)
    settings = _settings(request)
    written = {
        "settings": settings,
        "seeds": seeds,
        "condition": None if ids is None else _told(pipeline, ids, out),
        "prompts": drawn.prompts,
        "classes": list(facts.classes),
    }
    result = {"n": request.n, "grid": str(out / "grid.png"), "images": str(out / "samples.npz")}
    if drawn.choice is not None and drawn.scores is not None:
        asked = {"clip": request.clip, "clip_scale": request.clip_scale}
        settings |= asked | {"candidates": request.candidates}
        written["clip"] = drawn.choice.report(drawn.scores)
        result["clip_score"] = float(drawn.scores.amax(1).mean())
    write_text(out / "samples.json", json.dumps(written, indent=1))
    if request.trajectory:
        _save_trajectory(drawn.glimpses, images[0], out)
        result["trajectory"] = str(out / "trajectory.png")
    return result


def _settings(request: SampleRequest) -> dict[str, Any]:
    """How samples were asked for, for samples.json."""
    settings = {"class": request.condition, **request.settings(), "weights": request.weights}
    settings |= {"prompt": request.prompt, "negative_prompt": request.negative_prompt}
    if request.layout:
        settings |= {"layout": [str(file) for file in request.layout]}
    if request.sketch is not None:
        settings |= {"sketch": str(request.sketch)}
    elif request.low is not None:
        settings |= {"low": str(request.low), "low_noise": request.low_noise}
    return settings


def _refuse_words(request: SampleRequest) -> None:
    """ConfigError for what is asked of sentences alone."""
    if request.given is not None:
        raise ConfigError("given: the image panel cannot infill yet; leave it out")
    if request.length is not None:
        raise ConfigError("length: of sentences; pictures have one size, leave it out")
    if (request.mbr, request.surest, request.n_best) != (1, 1, 1):
        raise ConfigError(
            "mbr, surest, n_best: the image panel compares no candidates; leave them out"
        )
    if request.image:
        raise ConfigError("image: the image panel draws from words; leave it out")


def _told(pipeline: Pipeline, ids: Tensor, out: Path) -> list[Any]:
    """Condition ids (n, M) for samples.json; of figures the outfits in words. Of layouts there is
    layouts.png, and here what stands behind them."""
    size = None if pipeline.config is None else pipeline.config.data.layout_size()
    if pipeline.config is None or size is None:
        return ids.tolist()
    if not pipeline.draws_figures:
        shown, classes = ids[:, : size[0] * size[1]], ids[:, size[0] * size[1] :]
        parts = len(pipeline.config.data.parts())
        save_png(tile(part_colours(shown.view(-1, *size), parts)), out / "layouts.png")
        return classes.tolist()
    layouts, textures = from_ids(ids)
    save_png(tile(layout_colours(layouts)), out / "layouts.png")
    return [spell(row) for row in textures.tolist()]


def _save_arrays(path: Path, images: Tensor, seeds: list[int], condition: Tensor | None) -> None:
    arrays: dict[str, Any] = {"images": images.numpy(), "seeds": np.array(seeds)}
    if condition is not None:
        arrays["condition"] = condition.numpy()
    save_npz(path, arrays)


def _save_trajectory(glimpses: list[Glimpse], last: Tensor, out: Path) -> None:
    """About STRIP of the steps, and the picture they end at."""
    shown = [glimpses[i] for i in spread(len(glimpses), STRIP - 1).tolist()]
    states = [glimpse.state for glimpse in shown] + [last]
    estimates = [glimpse.estimate for glimpse in shown] + [last]
    save_png(tile(torch.stack(states + estimates), len(states)), out / "trajectory.png")
    steps = [{"step": glimpse.step, "logsnr": glimpse.logsnr} for glimpse in shown]
    write_text(out / "trajectory.json", json.dumps(steps, indent=1))


PANEL = ImagePanel()
