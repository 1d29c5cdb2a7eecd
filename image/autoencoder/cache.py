"""Latents of the training data, encoded once: shards of moments in the run folder.

    RUN/latents/00000.safetensors    moments (n, M, h, w), float32; condition (n, M'), if any

With data.flip the mirror image of every picture too, moments (n, 2, M, h, w): the latents of one
are not the mirror image of the other's.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from image.autoencoder.codec import LatentCodec
from image.data import Pictures
from image.shards import Make, shards

FOLDER = "latents"
ROWS = 256  # pictures encoded at once


class Latents:
    """Training data as `shared.task.Examples`: moments (N, M, h, w), or (N, 2, M, h, w) with those
    of mirror images; condition (N, M') or None."""

    def __init__(self, moments: Tensor, condition: Tensor | None) -> None:
        self.moments, self.condition = moments, condition

    def __len__(self) -> int:
        return len(self.moments)

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """rows (B,) -> moments (B, ...), condition (B, M') or None."""
        return self.moments[rows], None if self.condition is None else self.condition[rows]


def cached_latents(
    codec: LatentCodec,
    load: Callable[[], Pictures],
    images: int,
    run: Path,
    mirrored: bool = False,
) -> Latents:
    """The latents of so many pictures, and of their mirror images if asked for; those that are not
    there yet are made of what `load` gives. A collective. DataError when a shard is damaged, or not
    of these pictures."""

    def begin() -> Make:
        pictures, device = load(), torch.device("cuda" if torch.cuda.is_available() else "cpu")
        codec.to(device)

        def encode(images: Tensor) -> Tensor:
            parts = [codec.moments(part.to(device)).cpu() for part in images.split(ROWS)]
            return torch.cat(parts).contiguous()  # convolutions may leave channels last

        def make(rows: Tensor) -> dict[str, Tensor]:
            images, condition = pictures.take(rows)
            told = {} if condition is None else {"condition": condition}
            if not mirrored:
                return {"moments": encode(images)} | told
            return {"moments": torch.stack([encode(images), encode(images.flip(-1))], 1)} | told

        return make

    parts = shards(run / FOLDER, images, begin, "moments")
    condition = [part["condition"] for part in parts if "condition" in part]
    return Latents(
        torch.cat([part["moments"] for part in parts]), torch.cat(condition) if condition else None
    )
