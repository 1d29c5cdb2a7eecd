"""Moments of features with what they are of: the network, the resize and the data, in one file.

The file is safetensors: `mean` and `body` as `image.metrics.moments.Moments` has them, float64, and
the names as its metadata. Moments of different networks or resizes look alike and give distances
that mean nothing; here they are refused.
"""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from image.features import FeatureNetwork
from image.metrics import frechet
from image.metrics.moments import Moments, merge, moments
from shared.errors import DataError
from shared.files import cache_dir, write_atomic
from shared.ranks import on_rank_zero, share_out

FORMAT = "diptych feature statistics 1"
BATCH = 1024  # pictures whose features are held at once


@dataclass(frozen=True)
class Statistics:
    """Moments, and the names of the feature network, of its resize, and of the data."""

    moments: Moments
    features: str
    resize: str
    data: str

    def save(self, path: Path) -> None:
        """Write atomically. DataError for fewer than two samples."""
        _at_least_two(self.moments.count, str(path))
        tensors = {
            "mean": self.moments.mean.cpu().contiguous(),
            "body": self.moments.body.cpu().contiguous(),
        }
        names = {name: getattr(self, name) for name in ("features", "resize", "data")}
        told = {"format": FORMAT, "count": str(self.moments.count)} | names
        write_atomic(path, lambda temporary: save_file(tensors, temporary, told))


def load(path: Path) -> Statistics:
    """A file of `Statistics.save`. DataError when it is missing or damaged, or holds something
    else, or fewer than two samples."""
    try:
        with safe_open(path, "pt") as file:
            told = file.metadata() or {}
            if told.get("format") != FORMAT:
                raise DataError(f"{path}: no feature statistics of `diptych evaluate`")
            mean, body = file.get_tensor("mean"), file.get_tensor("body")
        count = int(told["count"])
        names = {name: told[name] for name in ("features", "resize", "data")}
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise DataError(f"{path}: missing or damaged statistics ({error})") from None
    _at_least_two(count, str(path))
    D = mean.numel()
    if body.shape != (count - 1 if count <= D else D, D) or not body.isfinite().all():
        raise DataError(f"{path}: damaged: {tuple(body.shape)} for {count} samples of {D} features")
    return Statistics(Moments(count, mean, body), **names)


def of(network: FeatureNetwork, batches: Sequence[Tensor], data: str) -> Statistics:
    """Of pictures in batches (B, C, H, W), which the processes of a launch share; `data` names
    them. Each holds the features of one batch at a time. DataError for fewer than two pictures."""
    _at_least_two(sum(map(len, batches)), data)

    def streamed(some: slice) -> Moments:
        return moments(network.features(images) for images in batches[some])

    whole = functools.reduce(merge, share_out(len(batches), streamed))
    return Statistics(whole, network.name, network.resize, data)


def cached(network: FeatureNetwork, images: Tensor, data: str) -> tuple[Statistics, Path]:
    """Statistics of images (N, C, H, W) and their file, which lies in the cache under the digest of
    the pixels, the network and the resize; they are computed where it is missing."""
    key = f"{FORMAT}\n{network.name}\n{network.resize}\n{images.dtype} {tuple(images.shape)}\n"
    digest = hashlib.sha256(key.encode())
    for part in images.split(BATCH):
        digest.update(part.contiguous().cpu().view(torch.uint8).numpy().data)
    path = cache_dir() / "statistics" / f"{digest.hexdigest()[:24]}.safetensors"
    found = on_rank_zero(lambda: load(path) if path.is_file() else None)
    if found is None:
        found = of(network, images.split(BATCH), data)
        on_rank_zero(lambda: found.save(path))
    return found, path


def check_alike(features: str, resize: str, data: str, other: Statistics) -> None:
    """DataError unless statistics are of the network and resize in which `data` are seen."""
    for name, ours in (("features", features), ("resize", resize)):
        theirs = getattr(other, name)
        if ours != theirs:
            raise DataError(
                f"{name} of {data}: {ours!r}, of {other.data}: {theirs!r}; distances need "
                "statistics of the same network and resize: make them again with one of them"
            )


def distance(a: Statistics, b: Statistics) -> float:
    """The Frechet distance. DataError for another network, resize or number of features."""
    check_alike(a.features, a.resize, a.data, b)
    try:
        return frechet.distance(a.moments, b.moments)
    except ValueError as error:
        raise DataError(f"{a.data}, {b.data}: {error}") from None


def _at_least_two(count: int, what: str) -> None:
    if count < 2:
        raise DataError(f"{what}: {count} sample(s); a covariance needs 2 or more")
