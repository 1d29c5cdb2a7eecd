"""What is made once of every training picture: shards in a folder of the run.

    RUN/FOLDER/00000.safetensors, 00001.safetensors, ...    of SHARD pictures each

A shard is written whole, so that an interrupted run goes on with the next. Processes share them.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from shared.errors import DataError
from shared.files import write_atomic
from shared.train import engine

SHARD = 4096  # pictures

Make = Callable[[Tensor], dict[str, Tensor]]  # rows (n,) -> what is kept of them


def shards(
    folder: Path, images: int, begin: Callable[[], Make], key: str
) -> list[dict[str, Tensor]]:
    """What is kept of so many pictures, shard by shard. What is not there yet is made by what
    `begin` gives; `key` names the tensor that has one row a picture. A collective. DataError when a
    shard is damaged, or not of these pictures."""
    paths = [folder / f"{i:05d}.safetensors" for i in range(-(-images // SHARD))]
    if not all(path.is_file() for path in paths):
        _write(paths, images, begin())
    if engine.world_size() > 1:  # a process that comes late finds nothing to do, and waits too
        torch.distributed.barrier()
    return [_read(path, min(SHARD, images - i * SHARD), key) for i, path in enumerate(paths)]


def _write(paths: list[Path], images: int, make: Make) -> None:
    for i in range(engine.rank(), len(paths), engine.world_size()):
        if paths[i].is_file():
            continue
        made = make(torch.arange(i * SHARD, min((i + 1) * SHARD, images)))
        write_atomic(paths[i], lambda path, made=made: save_file(made, path))


def _read(path: Path, rows: int, key: str) -> dict[str, Tensor]:
    try:
        found = load_file(path)
        count = len(found[key])
    except (OSError, SafetensorError, KeyError) as error:
        raise DataError(
            f"{path}: damaged ({error}); delete it, and the same command makes it again"
        ) from None
    if count != rows:
        raise DataError(
            f"{path}: {path.parent.name} of {count} pictures, expected {rows}; delete the folder, "
            "and the same command makes it again"
        )
    return found
