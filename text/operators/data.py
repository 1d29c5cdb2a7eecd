"""Sentences with a label each, as an operator learns from them; all training data as latents."""

import dataclasses
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from shared.errors import CheckpointError, ConfigError
from shared.files import write_text
from shared.scene import Scene
from shared.schema import one_of
from shared.tokenizer import FILE, load_tokenizer
from text.autoencoder.codec import SentenceCodec
from text.captions import SourcePictures
from text.config import DataConfig
from text.data import Corpus, Rows, read_labels, scene_pairs, to_rows
from text.operators.attributes import ATTRIBUTES, attribute

LABELS = "labels.json"  # in the run folder
MOST = 100  # classes


@dataclass(frozen=True)
class LatentRows:
    """Training data as `shared.task.Examples`: x0 (N, latents, dim), float32, and conditions, ids
    (N, M) or pictures or None."""

    x0: Tensor
    condition: Tensor | SourcePictures | None

    def __len__(self) -> int:
        return len(self.x0)

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """rows (B,) -> x0 (B, latents, dim), and condition (B, M) or (B, M, D) if there is one."""
        return self.x0[rows], None if self.condition is None else self.condition[rows]


def latent_rows(codec: SentenceCodec, rows: Rows) -> LatentRows:
    """Encode all rows, once."""
    device = codec.shift.device
    parts = [codec.encode(part.to(device)).cpu() for part in rows.ids.split(512)]
    return LatentRows(torch.cat(parts), rows.sources)


def read_labelled(config: DataConfig, held_out: bool = False) -> tuple[list[str], list[str]]:
    """Sentences of a split and the label of each. Errors as `text.data.read_corpus`."""
    assert config.label_column is not None
    if config.name != "scene":
        return read_labels(config, held_out)
    try:
        one_of("data.label_column", config.label_column, list(ATTRIBUTES))
    except ValueError as error:
        raise ConfigError(f"{error}; those are the scene world's") from None
    told = scene_pairs(config, held_out)
    labels = [_label(config.label_column, seen, sentence) for seen, sentence in told]
    return [sentence for _, sentence in told], labels


def _label(name: str, seen: Scene, sentence: str) -> str:
    """As `attribute`; a scene knows all of it but what is told of it first."""
    if name == "colour":
        from text.reader import read

        facts = read(sentence)
        assert facts is not None  # the teller wrote it
        return attribute(name, facts)
    known = {"tone": seen.tone, "audience": seen.audience, "count": str(len(seen.things))}
    return known[name]


def labelled_rows(
    config: DataConfig, run: Path, classes: list[str], held_out: bool = False
) -> Rows:
    """Rows of ids and of class ids (N, 1), from 1 on; a label that is none of the classes is
    dropped."""
    pairs = [
        (sentence, label)
        for sentence, label in zip(*read_labelled(config, held_out), strict=True)
        if label in classes
    ]
    tokenizer = load_tokenizer(run / FILE)
    plain = dataclasses.replace(config, source=None)
    rows = to_rows(Corpus([sentence for sentence, _ in pairs]), tokenizer, plain)
    ids = torch.tensor([[1 + classes.index(label)] for _, label in pairs])
    return Rows(rows.ids, ids[list(rows.kept)], rows.dropped)


def write_classes(config: DataConfig, run: Path) -> None:
    """Write labels.json: the column, its classes, how often each is there. ConfigError for fewer
    than two classes, or so many that they are no classes."""
    _, labels = read_labelled(config)
    counts = dict(sorted(Counter(labels).items()))
    if not 2 <= len(counts) <= MOST:
        raise ConfigError(
            f"data.label_column = {config.label_column!r}: {len(counts):,} different labels in "
            f"{len(labels):,} sentences; an operator tells 2 to {MOST} classes apart"
        )
    facts = {"column": config.label_column, "counts": counts}
    write_text(run / LABELS, json.dumps(facts, indent=1, ensure_ascii=False))


def read_classes(run: Path) -> list[str]:
    """The classes of an operator's run. CheckpointError when they are missing or damaged."""
    try:
        return list(json.loads((run / LABELS).read_text(encoding="utf-8"))["counts"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{run / LABELS}: missing or damaged ({error})") from None
