"""What a run has to show: the files under RUN/samples, read for a page without knowing the panel.

A panel writes, into RUN/samples or a folder below it (another request), files by these names:

    samples.json                 settings and seeds of the request: its caption
    *.png, *.txt                 shown as a picture, or line by line
    trajectory.{png,txt,json}    how the first sample came out of noise. The JSON is one row a step;
                                 where a picture is beside it, its columns are these rows and the
                                 end, the state x_t above, the estimate x0_hat below
"""

import base64
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from PIL import Image

from shared.errors import CheckpointError

SHOWN = 16  # lines of a file before the rest is folded away
STEPS = 10  # rows of a trajectory
TITLES = {
    "trajectory": "From noise to data: the first sample",
    "grid": "Samples",
    "samples": "Samples",
}


@dataclass(frozen=True)
class Picture:
    """A PNG as a data URI with its size in pixels."""

    title: str
    caption: str
    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Lines:
    """A text file, the first lines and the others."""

    title: str
    first: list[str]
    others: list[str]


@dataclass(frozen=True)
class Steps:
    """Rows of a trajectory. A cell is a list of words, each with whether it is as in the end."""

    title: str
    caption: str
    head: list[str]
    rows: list[list[list[tuple[str, bool]]]]


@dataclass(frozen=True)
class Gallery:
    """The exhibits of one request. `name` is empty for RUN/samples itself."""

    name: str
    caption: str
    exhibits: list[Picture | Lines | Steps]


def galleries(samples: Path) -> list[Gallery]:
    """What lies in a folder of samples and in the folders directly below it, nothing if it is not
    there. CheckpointError names a file that cannot be read."""
    if not samples.is_dir():
        return []
    below = sorted(p for p in samples.iterdir() if p.is_dir() and not p.name.startswith("."))
    found = [_gallery(samples, "")] + [_gallery(folder, spaced(folder.name)) for folder in below]
    return [gallery for gallery in found if gallery.exhibits]


def read_json(path: Path) -> Any:
    """A JSON file; CheckpointError when it does not read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from None


def number(value: Any, key: str = "") -> str:
    """A value for people: four significant digits, thousands apart unless it is a seed."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and "seed" not in key:
        return f"{value:,}"
    return str(value)


def spaced(key: str) -> str:
    """A key as words."""
    return key.replace("_", " ").replace("-", " ").replace(".", " ")


def _gallery(folder: Path, name: str) -> Gallery:
    kinds = (".png", ".txt", ".json")
    files = {p.name: p for p in folder.iterdir() if p.suffix in kinds and p.name[0] != "."}
    request = files.pop("samples.json", None)
    exhibits: list[Picture | Lines | Steps] = []
    for stem in sorted({path.stem for path in files.values()}):
        png, txt, rows = (files.get(stem + kind) for kind in kinds)
        steps = [] if rows is None else _rows(rows)
        title = TITLES.get(stem, spaced(stem))
        if png is not None:
            exhibits.append(_picture(png, title, steps))
        elif steps:
            exhibits.append(_steps(title, steps))
        elif txt is not None:
            exhibits.append(_lines(txt, title))
    return Gallery(name, "" if request is None else _caption(request), exhibits)


def _caption(path: Path) -> str:
    request = read_json(path)
    if not isinstance(request, dict):
        raise CheckpointError(f"{path}: expected an object with settings and seeds")
    stated = cast(dict[str, Any], request)
    seeds = cast(list[int], stated.get("seeds", []))
    settings = cast(dict[str, Any], stated.get("settings", {}))
    parts = [f"{spaced(k)}: {number(v, k)}" for k, v in settings.items() if v is not None]
    if seeds:
        parts.insert(0, f"{len(seeds):,} samples, seeds {seeds[0]} to {seeds[-1]}")
    return " · ".join(parts)


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a table, or none when the file holds something else."""
    read = read_json(path)
    if not isinstance(read, list):
        return []
    rows = [cast(dict[str, Any], r) for r in cast(list[Any], read) if isinstance(r, dict)]
    return [row for row in rows if row.keys() == rows[0].keys()]


def _picture(path: Path, title: str, steps: list[dict[str, Any]]) -> Picture:
    data = path.read_bytes()
    try:
        with Image.open(io.BytesIO(data)) as picture:
            width, height = picture.size
    except OSError as error:
        raise CheckpointError(f"{path}: not a picture: {error}") from None
    caption = ""
    if steps and "logsnr" in steps[0]:
        levels = ", ".join(f"{row['logsnr']:.1f}" for row in steps).replace("-", "−")
        caption = (
            "Above the noisy state, below the model's estimate of the clean sample. From left to "
            f"right the log signal-to-noise ratio is {levels} nats; the last column is the sample."
        )
    uri = "data:image/png;base64," + base64.b64encode(data).decode("ascii")
    return Picture(title, caption, uri, width, height)


def _lines(path: Path, title: str) -> Lines:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: not UTF-8 text: {error}") from None
    return Lines(title, lines[:SHOWN], lines[SHOWN:])


def _steps(title: str, rows: list[dict[str, Any]]) -> Steps:
    """About STEPS of the rows, the last among them, from those that differ from the one before."""
    head = list(rows[0])
    told = [key for key in head if isinstance(rows[0][key], str)]
    news = [
        row
        for before, row in zip([None, *rows], rows, strict=False)
        if before is None or not told or any(before[key] != row[key] for key in told)
    ]
    count = min(STEPS, len(news))
    kept = [news[i * (len(news) - 1) // max(count - 1, 1)] for i in range(count)]
    cells = [[_words(row[key], news[-1][key], key) for key in head] for row in kept]
    caption = (
        f"{len(kept)} of {len(rows)} steps. What is already as in the end stands out."
        if told
        else f"{len(kept)} of {len(rows)} steps."
    )
    return Steps(title, caption, [spaced(key) for key in head], cells)


def _words(value: Any, end: Any, key: str) -> list[tuple[str, bool]]:
    if not isinstance(value, str):
        told = f"{value:.2f}" if isinstance(value, float) else number(value, key)
        return [(told, True)]
    words, last = value.split(), str(end).split()
    return [(word, last[i : i + 1] == [word]) for i, word in enumerate(words)]
