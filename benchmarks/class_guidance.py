"""Class agreement beside variety over the scale of guidance: `python -m benchmarks.class_guidance
RUN --judge JUDGE --classifier CLASSIFIER --json FILE`.

Pictures are drawn for classes, each by its share of the training split, by classifier-free guidance
and towards a classifier of noisy pictures, and judged by a third model: the run of a classifier,
trained on pictures that neither of the guides has seen, with another seed and width. The noise is
the same for all scales.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import tyro
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.command import command
from benchmarks.tables import Column, Table
from image.agreement import class_agreement
from image.comparison import compare, some_rows
from image.data import Pictures, load_pictures
from image.evaluation import draw_rows
from image.judge import Judge, open_judge
from image.pipeline import Pipeline
from shared.errors import ConfigError
from shared.files import write_atomic
from shared.provenance import provenance
from shared.requests import EvaluateRequest
from shared.runs import open_run

FREE, TOWARDS = "classifier-free", "classifier"
KEPT = ("frechet_ratio", "precision", "recall", "kernel_distance")


def rows(
    pipeline: Pipeline,
    judge: Judge,
    splits: tuple[Pictures, Pictures],
    ways: list[tuple[str, float, EvaluateRequest]],
) -> Iterator[dict[str, Any]]:
    """What the judge says of the pictures of each way of guidance (its name, its scale, settings);
    splits are the training and the held-out one."""
    training, held_out = splits
    for name, scale, how in ways:
        chosen = some_rows(len(training), how.n, how.seed, training.labels)
        images = draw_rows(pipeline, how, training, chosen)
        found = compare(judge, images, training, held_out, how.seed)
        agreement = class_agreement(judge, images, _classes(training)[chosen])
        yield {"guided": name, "scale": scale, **agreement, **{key: found[key] for key in KEPT}}


def _ways(
    base: EvaluateRequest,
    free: tuple[float, ...],
    classifier: Path | None,
    scales: tuple[float, ...],
    interval: tuple[float, float],
) -> list[tuple[str, float, EvaluateRequest]]:
    within: dict[str, Any] = {"guidance_interval": interval}
    ways = [
        (FREE, scale, base if scale == 1 else replace(base, guidance=scale, **within))
        for scale in free
    ]
    if classifier is None:
        return ways
    towards = replace(base, classifier=str(classifier), **within)  # around the model by itself
    return ways + [(TOWARDS, s, replace(towards, classifier_scale=s)) for s in scales]


def plot(found: list[dict[str, Any]], path: Path) -> None:
    """Agreement, precision and recall over the scale, one panel for each kind of guidance."""
    names = list(dict.fromkeys(row["guided"] for row in found))
    figure = Figure(figsize=(4.2 * len(names), 3.6), layout="constrained")
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        own = [row for row in found if row["guided"] == name]
        for key, label in (
            ("class_agreement", "class agreement"), ("precision", "precision"), ("recall", "recall")
        ):  # fmt: skip
            values = [row[key] for row in own]
            axes.plot([row["scale"] for row in own], values, marker="o", label=label)
        axes.set_title(name)
        axes.set_xlabel("scale")
        axes.grid(alpha=0.2)
    panels[0].legend()
    write_atomic(path, lambda temporary: figure.savefig(temporary, format="png", dpi=144))


def run(
    run: Annotated[Path, tyro.conf.Positional],
    judge: Path,
    classifier: Path | None = None,
    n: int = 1000,
    seed: int = 0,
    steps: int = 20,
    interval: tuple[float, float] = (-3.0, 2.0),
    guidance: tuple[float, ...] = (1.0, 1.5, 2.0, 3.0, 4.0),
    scales: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0),
    json_file: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
) -> None:
    """Measure a run of a model with classes.

    Args:
        run: The trained run.
        judge: The run of a classifier that judges, trained on other pictures.
        classifier: The run of a classifier of noisy pictures; without it, no such guidance.
        n: Pictures of each scale.
        seed: Of the first picture.
        steps: Of dpmpp_2m.
        interval: Where guidance acts, in logsnr.
        guidance: Scales of classifier-free guidance; 1 is the model by itself.
        scales: Scales of the classifier's gradient, added to the model by itself.
        json_file: Write everything here, and the plot beside it.
    """
    config = open_run(run).config
    pipeline, sees = Pipeline.from_pretrained(run), open_judge(judge)
    training = load_pictures(config.data)
    held_out = load_pictures(config.data, held_out=True, classes=training.classes)
    _classes(training)  # before anything is drawn
    base = EvaluateRequest(n=n, seed=seed, steps=steps)
    ways = _ways(base, guidance, classifier, scales, interval)
    found = list(rows(pipeline, sees, (training, held_out), ways))
    real = class_agreement(sees, held_out.images, _classes(held_out))["class_agreement"]
    table = Table(
        "Guidance towards a class",
        f"{n} pictures of each scale, seeds from {seed}, dpmpp_2m, {steps} steps, guided "
        f"between logsnr {interval[0]:g} and {interval[1]:g}. The judge takes {real:.1%} of the "
        f"{len(held_out):,} held-out pictures for their class.",
        (
            Column("guided", "guided by"),
            Column("scale", "scale", "g"),
            Column("class_agreement", "class agreement", ".1%"),
            Column("frechet_ratio", "distance / held-out", ".2f"),
            Column("precision", "precision", ".3f"),
            Column("recall", "recall", ".3f"),
        ),
        found,
    )
    about = {"run": run.name, "judge": judge.name, "held_out_agreement": real, "samples": n}
    about |= {"settings": {"steps": steps, "interval": interval, "seed": seed}}
    table.publish(json_file, about | {"provenance": provenance()})
    if json_file is not None:
        plot(found, json_file.with_suffix(".png"))


def _classes(pictures: Pictures) -> Tensor:
    """Their condition ids (N, 1). ConfigError for data without classes, or with more than one."""
    if pictures.labels is None:
        raise ConfigError("run: expected a model of classes, one a picture")
    return pictures.labels[:, None]


if __name__ == "__main__":
    sys.exit(command(run))
