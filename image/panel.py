"""The image panel as the core sees it: how to prepare, train, sample and evaluate a run."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from image.captions import captioned, prepare_tokenizer
from image.classifier import Classifier
from image.codec import build_codec
from image.config import ImageConfig
from image.data import Facts, Pictures, load_pictures, read_facts, spread, write_facts
from image.evaluation import evaluate
from image.grid import save_png, tile, to_bytes, to_pil
from image.net import build_net
from image.pipeline import Glimpse, Pipeline
from image.render import render
from shared.errors import ConfigError
from shared.files import write_atomic, write_text
from shared.learner import DiffusionLearner
from shared.runs import open_run
from shared.scene import Scene
from shared.task import ControlRequest, EvaluateRequest, PairRequest, SampleRequest

MEASURED = 4096  # pictures that the standard deviation of x0 is measured on
STRIP = 8  # levels shown of a denoising
PICTURES = 1024  # drawn at once


class ImagePanel:
    """Pictures."""

    name = "image"
    config_type = ImageConfig

    def prepare(self, config: ImageConfig, run: Path) -> None:
        """Tell what a model must know of the data: shape, levels, classes, spread (data.json)."""
        pictures = self.examples(config, run)
        if config.model == "classifier" and pictures.condition is None:
            raise ConfigError("model = 'classifier' needs classes: set data.label_column")
        if pictures.skipped:
            print(
                f"{config.data.name}: {pictures.skipped:,} pictures are left out: they cannot be "
                f"read, or have no caption of at most data.caption_length tokens",
                file=sys.stderr,
            )
        C, H, W = pictures.images.shape[1:]
        codec = build_codec(config.codec, pictures.levels, (C, H, W))
        x0 = codec.encode(pictures.images[spread(len(pictures), MEASURED)])
        facts = Facts(
            images=len(pictures),
            shape=(C, H, W),
            levels=pictures.levels,
            classes=pictures.classes,
            conditions=pictures.conditions,
            data_std=float(x0.double().square().mean().sqrt()),
            skipped=pictures.skipped,
        )
        write_facts(facts, run)

    def examples(self, config: ImageConfig, run: Path) -> Pictures:
        """The pictures of the training split, with their captions as conditions where they are to
        be drawn from them. A classifier learns captions where it has no classes."""
        pictures = load_pictures(config.data)
        classes = config.model == "classifier" and pictures.condition is not None
        if pictures.captions is None or classes:
            return pictures
        tokenizer = prepare_tokenizer(pictures, config.data, run)
        return captioned(pictures, tokenizer, config.data)

    def learner(self, config: ImageConfig, run: Path) -> nn.Module:
        """A fresh diffusion model, or the classifier."""
        facts = read_facts(run)
        autocast = torch.bfloat16 if config.train.precision == "bf16" else None
        if config.model == "classifier":
            return Classifier(
                facts.shape,
                facts.levels,
                facts.conditions,
                several=not facts.classes,
                width=config.judge.width,
                dropout=config.judge.dropout,
                autocast=autocast,
            )
        codec = build_codec(config.codec, facts.levels, facts.shape)
        net = build_net(config, codec.latent_shape, facts.conditions)
        groups = config.data.condition_groups()
        return DiffusionLearner(net, codec, config.diffusion, facts.data_std, autocast, groups)

    def sample(self, run: Path, request: SampleRequest, out: Path) -> dict[str, Any]:
        """grid.png; samples.npz (images as bytes, seeds, condition); samples.json with seeds and
        settings; on request the denoising of the first picture as trajectory.png (the noisy state
        above, the estimate below) and trajectory.json."""
        if request.given is not None:
            raise ConfigError("given: the image panel cannot infill yet; leave it out")
        if (request.mbr, request.n_best) != (1, 1):
            raise ConfigError("mbr, n_best: the image panel compares no candidates; leave them out")
        pipeline = Pipeline.from_pretrained(run, request.weights)
        seeds = list(request.seeds)
        condition = pipeline.asked(request.condition, request.prompt, request.n)
        negative = pipeline.negative(request.negative)
        glimpses: list[Glimpse] = []
        watch = glimpses.append if request.trajectory else None
        x0 = pipeline.latents(seeds, condition, request, watch, True, negative)
        facts = pipeline.facts
        images = to_bytes(pipeline.decode(x0), facts.levels)
        columns = len(facts.classes) if request.condition == "all" and facts.classes else None
        save_png(tile(images, columns), out / "grid.png")
        _save_arrays(out / "samples.npz", images, seeds, condition)
        asked = {"class": request.condition, "prompt": request.prompt, "negative": request.negative}
        settings = {**asked, **request.settings(), "weights": request.weights}
        written = {
            "settings": settings,
            "seeds": seeds,
            "condition": None if condition is None else condition.tolist(),
            "classes": list(facts.classes),
        }
        write_text(out / "samples.json", json.dumps(written, indent=1))
        result = {"n": request.n, "grid": str(out / "grid.png"), "images": str(out / "samples.npz")}
        if request.trajectory:
            _save_trajectory(glimpses, images[0], out)
            result["trajectory"] = str(out / "trajectory.png")
        return result

    def control(
        self, run: Path, controls: Sequence[str], request: ControlRequest, out: Path
    ) -> dict[str, Any]:
        """ConfigError: pictures are asked for by class and guidance."""
        raise ConfigError("control: for runs of the text panel; pictures take --class, --guidance")

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
        }


def _save_arrays(path: Path, images: Tensor, seeds: list[int], condition: Tensor | None) -> None:
    arrays: dict[str, Any] = {"images": images.numpy(), "seeds": np.array(seeds)}
    if condition is not None:
        arrays["condition"] = condition.numpy()

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:  # given a name, numpy would add a suffix to it
            np.savez_compressed(file, **arrays)

    write_atomic(path, write)


def _save_trajectory(glimpses: list[Glimpse], last: Tensor, out: Path) -> None:
    """About STRIP of the steps, and the picture they end at."""
    shown = [glimpses[i] for i in spread(len(glimpses), STRIP - 1).tolist()]
    states = [glimpse.state for glimpse in shown] + [last]
    estimates = [glimpse.estimate for glimpse in shown] + [last]
    save_png(tile(torch.stack(states + estimates), len(states)), out / "trajectory.png")
    steps = [{"step": glimpse.step, "logsnr": glimpse.logsnr} for glimpse in shown]
    write_text(out / "trajectory.json", json.dumps(steps, indent=1))


PANEL = ImagePanel()
