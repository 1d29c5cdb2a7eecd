"""Training pictures with their conditions: digits, scenes, figures, or whatever `image.source` can
read.

Pictures are uint8 (N, C, H, W), integers in [0, levels). A class is a condition of one id, its
label + 1, so that 0 stays "none"; a scene is one of ID_COUNT ids (`shared.scene.ids`), a figure one
of a layout and textures (`image.figures.source.ids`). Of files with layouts it is the numbers of
the parts, row by row, and behind them the class, 0 without, or the caption (`layout_rows`).
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from image.data_config import DRAWN_SIZE, DataConfig
from image.figures import source as figures
from image.figures.world import Figures, unseen
from image.render import pictures as render_split
from image.source import read_source, spread
from shared import scene
from shared.codec import Codec
from shared.errors import CheckpointError, ConfigError, DataError
from shared.files import write_text
from shared.levels import BYTES
from shared.scene import Scene

FACTS = "data.json"
MEASURED = 4096  # pictures that codecs and the standard deviation of x0 are measured on
SCENES = 20_000  # of the endless worlds of scenes and figures when data.limit is not set
HELD_OUT_SCENES = 2_000
DIGIT_LEVELS = 17  # each is the number of dark pixels in a block of 4 x 4
HOLD_OUT_DIGIT = 5  # every fifth picture of each class is the test split


@dataclass(frozen=True)
class Pictures:
    """Training data as `shared.task.Examples`: N pictures (C, H, W), condition (N, M) or None.

    They are the `rows` (N,) of what is stored, (S, C, H, W), or all of it; what is stored may be
    the map of a file (`image.decoding`), of which `take` reads what is asked for.
    """

    stored: Tensor
    condition: Tensor | None
    levels: int
    classes: tuple[str, ...]  # names by label; empty without classes
    conditions: int  # ids that a condition may hold, 0 included; 0 without conditions
    captions: tuple[str, ...] | None = None  # N texts, of which `image.captions` makes conditions
    # class or scene of each, (N, M), where the condition is another one: captions, layouts; of
    # layouts with captions alone the words
    shows: Tensor | None = None
    laid_out: bool = False  # whether files have layouts, which a judge is not told
    left_out: tuple[str, ...] = ()  # why each bad one was left out
    divided: bool = True  # whether the source has splits; without, a part is held out
    rows: Tensor | None = None

    def __len__(self) -> int:
        return len(self.stored if self.rows is None else self.rows)

    @property
    def shape(self) -> tuple[int, int, int]:
        """C, H, W."""
        C, H, W = self.stored.shape[1:]
        return C, H, W

    @property
    def images(self) -> Tensor:
        """All of them, (N, C, H, W): a copy where they are some of what is stored."""
        return self.stored if self.rows is None else self.stored[self.rows]

    @property
    def skipped(self) -> int:
        """How many bad ones were left out."""
        return len(self.left_out)

    @property
    def labels(self) -> Tensor | None:
        """The class of each (N,), where a class is all that they are conditioned on."""
        ids = self.condition
        return ids[:, 0] if ids is not None and ids.ndim == 2 and ids.shape[1] == 1 else None

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """rows (B,) -> images (B, C, H, W), condition (B, M) or None."""
        places = rows if self.rows is None else self.rows[rows]
        return self.stored[places], None if self.condition is None else self.condition[rows]

    def some(self) -> Tensor:
        """MEASURED of the images at most, spread over all: what codecs are made of."""
        return self.take(spread(len(self), MEASURED))[0]


@dataclass(frozen=True)
class DataFacts:
    """What a model must know of its data; kept in the run folder: sampling needs no data."""

    images: int
    shape: tuple[int, int, int]  # C, H, W
    levels: int
    classes: tuple[str, ...]
    conditions: int
    data_std: float  # root mean square of x0
    skipped: int = 0  # bad pictures, and captions that are too long
    text_encoder: str | None = None  # the digest of the one that reads captions


def load_pictures(
    config: DataConfig, held_out: bool = False, classes: Sequence[str] | None = None
) -> Pictures:
    """The training split, or the held-out one; `classes` are names already fixed by another split.

    ConfigError for a split or size that an embedded data set does not have; DataError for data that
    is missing, unreadable or badly labelled.
    """
    split = config.held_out if held_out else config.split
    if config.name == "digits":
        return _digits(config, split)
    if config.name == "scene":
        return _scenes(config, split, held_out)
    if config.name == "figures":
        return _figures(config, split, held_out)
    read = read_source(config, held_out, classes)
    classed = None if read.labels is None else read.labels[:, None] + 1
    condition, conditions = classed, 0 if classed is None else len(read.classes) + 1
    if read.layouts is not None:
        none = torch.zeros(len(read.layouts), 1, dtype=torch.int64)
        condition = layout_rows(read.layouts, none if classed is None else classed)
        conditions = max(conditions, len(config.parts()))
    return Pictures(
        read.images,
        condition,
        BYTES,
        read.classes,
        conditions,
        read.captions,
        shows=None if read.layouts is None else classed,
        laid_out=read.layouts is not None,
        left_out=read.left_out,
        divided=read.divided,
    )


def layout_rows(layouts: Tensor, ids: Tensor) -> Tensor:
    """Numbers of parts (n, H, W) and ids (n, M), of classes or captions -> condition ids
    (n, H W + M), int64. They share the numbers: networks read layouts through a table of their own
    (`image.layout_reader`)."""
    return torch.cat([layouts.flatten(1).long(), ids], 1)


def measured_std(codec: Codec, pictures: Pictures) -> float:
    """The root mean square of x0, on some of the pictures."""
    return float(codec.encode(pictures.some()).double().square().mean().sqrt())


def write_facts(facts: DataFacts, run: Path) -> None:
    """Write data.json, or check that it says the same as when the run began (DataError)."""
    path = run / FACTS
    if path.is_file():
        before, now = asdict(read_facts(run)), asdict(facts)
        # the last bits of the measured std depend on the number of threads
        changed = [key for key in now if key != "data_std" and before[key] != now[key]]
        if changed:
            raise DataError(
                f"{run}: the data has changed since the run began: {changed[0]} was "
                f"{before[changed[0]]}, now {now[changed[0]]}; train in another folder: run=FOLDER"
            )
    else:
        write_text(path, json.dumps(asdict(facts), indent=2))


def read_facts(run: Path) -> DataFacts:
    """The facts of a run. CheckpointError when they are missing or damaged."""
    try:
        values = json.loads((run / FACTS).read_text(encoding="utf-8"))
        C, H, W = values.pop("shape")
        return DataFacts(shape=(C, H, W), classes=tuple(values.pop("classes")), **values)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{run / FACTS}: missing or damaged ({error})") from None


def _digits(config: DataConfig, split: str) -> Pictures:
    """8 x 8 scans of handwritten digits (Alpaydin & Kaynak 1998), 1,797 of them."""
    from sklearn.datasets import load_digits

    _check_split(config, split, ("train", "test"))
    if config.size not in (None, 8) or config.channels not in (None, 1):
        raise ConfigError(
            f"data.size = {config.size}, data.channels = {config.channels}: digits are 8 x 8 and "
            "grey; leave both out"
        )
    found: Any = load_digits()
    labels = torch.from_numpy(found.target).long()
    images = torch.from_numpy(found.images).to(torch.uint8).unsqueeze(1)
    order = torch.stack([labels[:i].eq(labels[i]).sum() for i in range(len(labels))])
    tested = order % HOLD_OUT_DIGIT == 0
    rows = (tested if split == "test" else ~tested).nonzero().flatten()
    rows = rows[spread(len(rows), config.limit)]
    if config.label_column is None:
        return Pictures(images[rows], None, DIGIT_LEVELS, (), 0)
    names = tuple(str(name) for name in found.target_names)
    return Pictures(images[rows], labels[rows, None] + 1, DIGIT_LEVELS, names, len(names) + 1)


def _scenes(config: DataConfig, split: str, held_out: bool) -> Pictures:
    size, count = _check_drawn(config, split, held_out)
    if config.compositional:
        images, scenes = render_split(split, count, size, keep=lambda s: not has_unseen(s))
    else:
        images, scenes = render_split(split, count, size)
    return of_scenes(config, images, scenes)


def _figures(config: DataConfig, split: str, held_out: bool) -> Pictures:
    size, count = _check_drawn(config, split, held_out)
    return _drawn_figures(split, count, size, config.compositional)


@lru_cache(maxsize=2)  # a run asks for its data twice: for what it is like, and to learn from it
def _drawn_figures(split: str, count: int, size: int, compositional: bool) -> Pictures:
    if not compositional:
        return _of_figures(figures.draw(split, count), size)
    return _of_figures(figures.draw(split, count, keep=lambda f: ~unseen(f.textures)), size)


def _of_figures(drawn: Figures, size: int) -> Pictures:
    images, condition = figures.pictures(drawn, size)
    return Pictures(images, condition, BYTES, (), figures.NUM_IDS)


def _check_drawn(config: DataConfig, split: str, held_out: bool) -> tuple[int, int]:
    """Pixels along a side, and how many pictures."""
    _check_split(config, split, scene.SPLITS)
    size = config.size or DRAWN_SIZE
    if size % 32 or config.channels not in (None, 3):
        raise ConfigError(
            f"data.size = {config.size}, data.channels = {config.channels}: {config.name}: drawn "
            "at a multiple of 32 pixels and in colour"
        )
    count = config.limit or SCENES
    return size, min(count, HELD_OUT_SCENES) if held_out else count


def unseen_pictures(config: DataConfig, n: int) -> Pictures:
    """n pictures, each with something that `data.compositional` keeps out of training."""
    size = config.size or DRAWN_SIZE
    if config.name == "figures":
        drawn = figures.draw(config.held_out, n, keep=lambda f: unseen(f.textures))
        return _of_figures(drawn, size)
    images, scenes = render_split(config.held_out, n, size, keep=has_unseen)
    return of_scenes(config, images, scenes)


def has_unseen(drawn: Scene) -> bool:
    """Whether a scene has a thing in a shape and colour of no training scene."""
    return any(map(scene.unseen, drawn.things))


def of_scenes(config: DataConfig, images: Tensor, scenes: Sequence[Scene]) -> Pictures:
    """Scenes with their ids, and their own words where captions are asked for."""
    condition = torch.tensor([scene.ids(each) for each in scenes])
    captions = None
    if config.caption_column is not None:  # the manner of telling cannot be seen
        captions = tuple(scene.spell(each, manner=False) for each in scenes)
    return Pictures(images, condition, BYTES, (), scene.NUM_IDS, captions)


def _check_split(config: DataConfig, split: str, known: Sequence[str]) -> None:
    if split not in known:
        raise ConfigError(
            f"data.split, data.held_out = {split!r}: {config.name} has {', '.join(known)}"
        )
