"""A joint diffusion model of pictures and their sentences: train it, sample it, measure it.

Exit codes are those of `diptych`.
"""

import json as formats
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import tyro
from torch import Tensor

from examples.joint.choice import Best, ChosenRequest
from examples.joint.config import JointConfig
from examples.joint.data import read_pairs, write_pairs
from examples.joint.evaluation import JointEvaluation
from examples.joint.evaluation import evaluate as measure
from examples.joint.panel import PANEL
from examples.joint.pipeline import JointPipeline
from image.grid import save_npz, save_png, tile
from shared import pictures
from shared.cli import Assignments, Config, Json, RunFolder, run_verbs
from shared.errors import ConfigError, DataError
from shared.files import write_text
from shared.provenance import provenance
from shared.ranks import on_rank_zero, together
from shared.schema import override, read_yaml, validate
from shared.telling import tell

# pictures, sentences, and what is told of the choice among candidates; what there is of them
Drawn: TypeAlias = tuple[Tensor | None, list[str] | None, dict[str, Any] | None]


@dataclass(frozen=True, kw_only=True)
class JointSample(ChosenRequest):
    """What to sample.

    Attributes:
        n: How many samples.
        prompt: Draw pictures of this sentence.
        picture: Write sentences of this picture (a file of the model's size).
        only: images or texts: only one of the two, from nothing.
        vary: With --prompt or --picture: more of the same kind near it, not its other side.
        strength: Of --vary: the time it is noised to, in (0, 1]; the later, the less stays.
    """

    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 16
    solver: str = "ancestral"
    steps: int = 64
    prompt: str | None = None
    picture: Path | None = None
    only: str | None = None
    vary: bool = False
    strength: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        asked = [name for name in ("prompt", "picture", "only") if getattr(self, name) is not None]
        if len(asked) > 1:
            raise ConfigError(f"{', '.join(asked)}: each is a way to sample; give one of them")
        if self.only not in (None, "images", "texts"):
            raise ConfigError(f"only = {self.only!r}: expected images or texts")
        if self.vary and asked not in (["prompt"], ["picture"]):
            raise ConfigError("vary: of what? Give --prompt or --picture")
        if self.strength != JointSample.strength and not self.vary:
            raise ConfigError(
                f"strength = {self.strength}: of --vary; give it, too, or leave it out"
            )
        if self.clip is not None and (self.vary or self.only is not None):
            raise ConfigError(
                f"clip = {self.clip}: compares pictures with sentences, and only and vary draw one "
                "of them; leave it out"
            )


def train(
    config: Config, assignments: Assignments = (), /, quiet: bool = False, json: Json = False
) -> None:
    """Train CONFIG, or go on with it where it stopped.

    Args:
        config: A YAML file such as examples/joint/scene.yaml.
        assignments: key=value overrides such as train.steps=200; run=FOLDER says where (default
            runs/joint-NAME).
        quiet: No progress.
    """
    from shared.train.loop import train as run_training

    folders = [a.removeprefix("run=") for a in assignments if a.startswith("run=")]
    values = _configured(config, [a for a in assignments if not a.startswith("run=")])
    run = Path(folders[-1]) if folders else Path("runs") / f"joint-{Path(config).stem}"
    result = run_training(values, run, PANEL, quiet=quiet)
    tell(result, json, f"{result['run']}: step {result['step']}, loss {result['loss']:.4f}")


def pairs(
    config: Config, folder: Path, assignments: Assignments = (), /, json: Json = False
) -> None:
    """Write the pictures and sentences that CONFIG learns from into a new FOLDER, which both panels
    read: a dual encoder (`diptych train image/clip_scene`) learns to judge pairs from them.

    Args:
        config: A YAML file such as examples/joint/scene.yaml.
        folder: Where to write 00000.png and on, and metadata.jsonl.
        assignments: key=value overrides such as data.split=test data.limit=4000.
    """
    read = read_pairs(_configured(config, assignments).data)
    write_pairs(read, folder)
    found = {"folder": str(folder), "n": len(read.sentences)}
    tell(found, json, f"{folder}: {len(read.sentences):,} pairs")


def _configured(config: str, assignments: Sequence[str]) -> JointConfig:
    return validate(JointConfig, override(read_yaml(Path(config)), list(assignments)), config)


def sample(
    run: RunFolder,
    /,
    request: tyro.conf.OmitArgPrefixes[JointSample],
    out: Path | None = None,
    json: Json = False,
) -> None:
    """Sample pairs from RUN, or one side given the other: grid.png, images.npz, samples.txt and
    samples.json in RUN/samples or --out.

    Args:
        run: The folder that `train` wrote.
        out: Where to write instead.
    """
    tell(together(lambda: _sample(run, request, out or run / "samples")), json)


def _sample(run: Path, request: JointSample, folder: Path) -> dict[str, Any]:
    """Drawn and written."""
    pipeline = JointPipeline.from_pretrained(run, request.weights)
    drawn = _draw(Best.of(pipeline, request), request)
    return on_rank_zero(lambda: _save(drawn, request, folder))


def _save(drawn: Drawn, request: JointSample, folder: Path) -> dict[str, Any]:
    """Write it; what is told of it."""
    images, texts, chosen = drawn
    told: dict[str, Any] = {"n": request.n}
    if images is not None:
        save_png(tile(images), folder / "grid.png")
        save_npz(folder / "images.npz", {"images": images.numpy()})
        told["grid"] = str(folder / "grid.png")
    if texts is not None:
        write_text(folder / "samples.txt", "".join(text + "\n" for text in texts))
        told |= {f"sentence {i}": text for i, text in enumerate(texts[:8])}
    picture = None if request.picture is None else str(request.picture)
    settings = request.settings() | {"prompt": request.prompt, "picture": picture}
    settings |= {"only": request.only, "vary": request.vary, "strength": request.strength}
    written: dict[str, Any] = {"settings": settings, "seeds": list(request.seeds), "texts": texts}
    if chosen is not None:
        settings |= {"clip": request.clip, "candidates": request.candidates}
        written["clip"] = chosen
    write_text(folder / "samples.json", formats.dumps(written, indent=1))
    return told


def _draw(best: Best, request: JointSample) -> Drawn:
    """The pictures and the sentences that are asked for."""
    seeds, n, pipeline = request.seeds, request.n, best.pipeline
    if request.prompt is not None:
        texts = [request.prompt] * n
        if request.vary:
            return None, pipeline.texts(seeds, request, vary=texts, strength=request.strength), None
        drawn = best.images(seeds, request, texts)
        return drawn.images, None, drawn.report
    if request.picture is not None:
        images = _read_picture(request.picture, pipeline.config.data.size).expand(n, -1, -1, -1)
        if request.vary:
            near = pipeline.images(seeds, request, vary=images, strength=request.strength)
            return near, None, None
        written = best.texts(seeds, request, images)
        return None, written.texts, written.report
    if request.only == "images":
        return pipeline.images(seeds, request), None, None
    if request.only == "texts":
        return None, pipeline.texts(seeds, request), None
    return best.pairs(seeds, request)


def _read_picture(path: Path, size: int) -> Tensor:
    """A file -> (1, 3, size, size), uint8. DataError when it is none, or of another size."""
    where = f"picture = {path}"
    picture = pictures.read(path, where)
    if picture.size != (size, size):
        raise DataError(
            f"{where} is {picture.height} x {picture.width} pixels, expected {size} x {size}"
        )
    return pictures.stack([pictures.fit(picture, 3, None)])


def evaluate(
    run: RunFolder, /, request: tyro.conf.OmitArgPrefixes[JointEvaluation], json: Json = False
) -> None:
    """Measure RUN with the readers of both panels and write RUN/evaluation.json, or with --shuffle
    RUN/evaluation_shuffled.json.

    Args:
        run: The folder that `train` wrote.
    """
    tell(together(lambda: _evaluation(run, request)), json)


def _evaluation(run: Path, request: JointEvaluation) -> dict[str, Any]:
    """Measured and written."""
    pipeline = JointPipeline.from_pretrained(run, request.weights)
    held_out = read_pairs(pipeline.config.data, held_out=True)
    result = measure(pipeline, held_out, request)
    settings = request.settings() | {"seed": request.seed, "weights": request.weights}
    result["settings"] = settings | {"clip": request.clip, "candidates": request.candidates}
    result["provenance"] = provenance()
    name = "evaluation_shuffled.json" if request.shuffle else "evaluation.json"
    on_rank_zero(lambda: write_text(run / name, formats.dumps(result, indent=2)))
    return result


VERBS = {"train": train, "pairs": pairs, "sample": sample, "evaluate": evaluate}


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    return run_verbs(VERBS, "python -m examples.joint", __doc__ or "", arguments)


if __name__ == "__main__":
    sys.exit(main())
