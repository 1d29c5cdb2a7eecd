"""Pictures without conditions beside two peers at equal time: `python -m benchmarks.peers_image`.

A transformer of the suite, denoising-diffusion-pytorch and diffusers' example of unconditional
training learn the same pictures, each with about as many parameters, in turn, until each has had
its seconds. Then each draws samples in its own way, and all are compared with the training split in
the features of the classifier that the suite trains on these data. What of the peers is theirs,
`benchmarks.unconditional_peers` says.
"""

import sys
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from torch import Tensor

from benchmarks.command import command
from benchmarks.contenders import Contender, drawn, train_in_turn
from benchmarks.measure import facts
from benchmarks.tables import Column, Table
from benchmarks.unconditional import Ours
from benchmarks.unconditional_peers import LR, denoising_diffusion_pytorch, diffusers_example
from image.agreement import class_agreement
from image.comparison import compare
from image.config import ImageConfig
from image.data import Pictures, load_pictures
from image.grid import save_png, tile, to_bytes
from image.judge import find_judge
from image.panel import PANEL
from shared.configs import load_config
from shared.errors import ConfigError
from shared.files import write_text
from shared.sampling import Sampling
from shared.schema import one_of

OURS = "diptych"
PEERS = {
    "denoising-diffusion-pytorch": denoising_diffusion_pytorch,
    "diffusers": diffusers_example,
}
BASE = "image/fashion_mnist"  # whose judge, and all that is not said here
DATA = {"fashion_mnist": "$DIPTYCH_DATA/fashion_mnist", "cifar10": "$DIPTYCH_DATA/cifar10_jpeg"}
RECIPE = (
    "net.dim=128", "train.batch=16", "train.warmup=100", "train.ema=0.995", "diffusion.shift=0",
)  # fmt: skip
SHOWN = 40  # samples of a picture, and columns of it
COLUMNS = 20


def run(
    out: Annotated[Path, tyro.conf.Positional],
    data: str = "fashion_mnist",
    seconds: float = 480.0,
    n: int = 1000,
    steps: int = 25,
    methods: tuple[str, ...] = (OURS, *PEERS),
    rates: tuple[float, ...] = (),
    overrides: tuple[str, ...] = (),
    threads: int = 1,
    json_file: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
    markdown: Path | None = None,
) -> None:
    """Train every method for the same time, then measure its samples.

    Args:
        out: Folder of the models and samples; those that are there are gone on with, or taken as
            they are.
        data: fashion_mnist, cifar10 (JPEG copies of a part of it), or what data.name may be.
        seconds: Of training each; with one thread in processor time.
        n: Samples of each, with seeds from 0.
        steps: Of our sampler.
        methods: Which of them.
        rates: Further learning rates to train the peers with, beside their own.
        overrides: key=value for our model and for the judge.
        threads: Of torch.
        json_file: Write all numbers here.
        markdown: Write the table here, and samples of every row beside it.
    """
    torch.set_num_threads(threads)
    about = facts(seconds)
    name = f"data.name={DATA.get(data, data)}"
    judged = load_config(BASE, (name, *overrides))[2]
    config = load_config(BASE, (name, "data.label_column=null", *RECIPE, *overrides))[2]
    training = load_pictures(judged.data)
    held_out = load_pictures(judged.data, held_out=True, classes=training.classes)
    sampling = Sampling(solver="dpmpp_2m", steps=steps)
    contenders = _contenders(out, config, training, sampling, methods, rates)
    train_in_turn(contenders, seconds)
    judge = find_judge(judged, training, PANEL)
    rows: list[dict[str, Any]] = []
    shown: list[Tensor] = []
    for name, contender in contenders.items():
        images, taken = drawn(contender, out / name / "samples", n)
        found = compare(judge, images, training, held_out, seed=0)
        rows.append(_about(name, contender) | {"samples_per_s": n / taken} | found)
        shown.append(images[:SHOWN])
    about |= {"data": data, "pictures": len(training), "held_out": len(held_out), "n": n}
    assert held_out.condition is not None
    found = class_agreement(judge, held_out.images, held_out.condition)
    about |= {"judge": judge.facts | {"accuracy": found["class_agreement"]}}
    table = _table(rows, about, seconds)
    table.publish(json_file, about)
    if markdown is not None:
        save_png(
            tile(to_bytes(torch.cat(shown), training.levels), COLUMNS), markdown.with_suffix(".png")
        )
        write_text(markdown, _page(table, about, markdown.with_suffix(".png").name))


def _contenders(
    out: Path,
    config: ImageConfig,
    training: Pictures,
    sampling: Sampling,
    methods: tuple[str, ...],
    rates: tuple[float, ...],
) -> dict[str, Contender]:
    """Ours first, since the peers are to have as many parameters. ConfigError for an unknown method
    or a peer that is not installed."""
    for method in methods:
        try:
            one_of("methods", method, [OURS, *PEERS])
        except ValueError as error:
            raise ConfigError(str(error)) from None
    ours = Ours(config, out / OURS, sampling)
    found: dict[str, Contender] = {OURS: ours} if OURS in methods else {}
    for method in methods:
        if method == OURS:
            continue
        for lr in (LR, *rates):
            name = method if lr == LR else f"{method}, lr {lr:g}"
            found[name] = PEERS[method](out / name, training, ours.parameters, lr)
    return found


def _about(name: str, contender: Contender) -> dict[str, Any]:
    return {
        "method": name,
        "parameters": contender.parameters,
        "batch": contender.batch,
        "train_steps": contender.step,
        "train_seconds": contender.spent,
        "how": contender.how,
        "evaluations": contender.evaluations,
    }


def _table(rows: list[dict[str, Any]], about: dict[str, Any], seconds: float) -> Table:
    first, n = rows[0], about["n"]
    return Table(
        f"{about['data']} without conditions after {seconds:g} s of training each",
        f"{n:,} samples each, seeds 0 to {n - 1}, one training seed, fp32. Distances are to all "
        f"{about['pictures']:,} training pictures in the features of a classifier with "
        f"{about['judge']['accuracy']:.1%} accuracy on {about['held_out']:,} held-out ones, of "
        f"which {first['frechet']['floor_images']:,} have distance {first['frechet_floor']:.2f} "
        f"(precision {first['precision_held_out']:.3f}, recall {first['recall_held_out']:.3f}).",
        (
            Column("method", "method"),
            Column("parameters", "parameters", ",d"),
            Column("train_steps", "steps trained", ",d"),
            Column("batch", "of", "d"),
            Column("train_seconds", "seconds", ".0f"),
            Column("how", "drawn by"),
            Column("evaluations", "evaluations", "d"),
            Column("frechet_distance", "distance", ".2f"),
            Column("frechet_ratio", "over held-out", ".2f"),
            Column("precision", "precision", ".3f"),
            Column("recall", "recall", ".3f"),
            Column("samples_per_s", "samples/s", ".2f"),
        ),
        rows,
    )


def _page(table: Table, about: dict[str, Any], picture: str) -> str:
    told = ", ".join(f"{key} {value}" for key, value in about.items() if key != "judge")
    names = ", ".join(row["method"] for row in table.rows)
    lines = [
        "# Pictures beside peers",
        "",
        f"Written by `python -m benchmarks.peers_image`. {told}.",
        "",
        table.markdown(),
        f"![Samples]({picture})",
        "",
        f"The first {SHOWN} samples of each, {COLUMNS} a line, from the top: {names}.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(command(run))
