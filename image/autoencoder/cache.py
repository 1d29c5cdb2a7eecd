"""Latents of the training data, encoded once: shards of moments in the run folder.

    RUN/latents/00000.safetensors    moments (n, M, h, w), float32; condition (n, M'), if any

A shard is written whole, so that an interrupted run goes on with the next. Processes share them.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from image.autoencoder.codec import LatentCodec
from image.data import Pictures
from shared.errors import DataError
from shared.files import write_atomic
from shared.train import engine

FOLDER = "latents"
SHARD = 4096  # pictures


class Latents:
    """Training data as `shared.task.Examples`: moments (N, M, h, w), condition (N, M') or None."""

    def __init__(self, moments: Tensor, condition: Tensor | None) -> None:
        self.moments, self.condition = moments, condition

    def __len__(self) -> int:
        return len(self.moments)

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """rows (B,) -> moments (B, M, h, w), condition (B, M') or None."""
        return self.moments[rows], None if self.condition is None else self.condition[rows]


def cached_latents(
    codec: LatentCodec, load: Callable[[], Pictures], images: int, run: Path
) -> Latents:
    """The latents of so many pictures; those that are not there yet are made of what `load` gives.
    A collective. DataError when a shard is damaged, or not of these pictures."""
    shards = [run / FOLDER / f"{i:05d}.safetensors" for i in range(-(-images // SHARD))]
    if not all(shard.is_file() for shard in shards):
        _write(codec, load(), shards)
    parts = [_read(path, min(SHARD, images - i * SHARD)) for i, path in enumerate(shards)]
    condition = [part["condition"] for part in parts if "condition" in part]
    return Latents(
        torch.cat([part["moments"] for part in parts]), torch.cat(condition) if condition else None
    )


def _write(codec: LatentCodec, pictures: Pictures, shards: list[Path]) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    codec.to(device)
    for i in range(engine.rank(), len(shards), engine.world_size()):
        if shards[i].is_file():
            continue
        images, condition = pictures.take(
            torch.arange(i * SHARD, min((i + 1) * SHARD, len(pictures)))
        )
        parts = [codec.moments(part.to(device)).cpu() for part in images.split(256)]
        tensors = {"moments": torch.cat(parts)}
        if condition is not None:
            tensors["condition"] = condition
        write_atomic(shards[i], lambda path, tensors=tensors: save_file(tensors, path))
    if engine.world_size() > 1:
        torch.distributed.barrier()


def _read(path: Path, rows: int) -> dict[str, Tensor]:
    try:
        found = load_file(path)
        count = len(found["moments"])
    except (OSError, SafetensorError, KeyError) as error:
        raise DataError(
            f"{path}: damaged ({error}); delete it, and the same command makes it again"
        ) from None
    if count != rows:
        raise DataError(
            f"{path}: latents of {count} pictures, expected {rows}; delete the folder, and the "
            "same command makes it again"
        )
    return found
