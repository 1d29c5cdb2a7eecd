"""Pictures beside a training split, in the features of one network: distances, fidelity, variety.

Every number has that of the held-out split beside it, with as many pictures (a Frechet distance
between samples shrinks as they grow). Of every split each class is taken by its share: classes that
come more or less often by chance would be part of a Frechet distance, and no fault of a model. FID,
KID and the inception score proper are in the features of the Inception network of their papers; in
other features they carry the name of their network.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from image.data import Pictures
from image.features import FeatureNetwork
from image.metrics import coverage, inception_score, kernel, recall, statistics
from image.metrics.moments import moments
from image.metrics.statistics import Statistics
from shared import noise
from shared.ranks import on_rank_zero, share_out

K = 3  # nearest neighbours of precision and recall, as in the paper
K_COVERAGE = 5  # of density and coverage, as in theirs
SUBSET = 1000  # rows of features at most in a subset of the kernel distance, as in the paper
SPLITS = 10  # of the inception score, as in the paper
ROWS = 1  # stream of `noise` that picks conditions and references


def compare(
    network: FeatureNetwork,
    images: Tensor,
    training: Pictures,
    held_out: Pictures,
    seed: int,
    reference: Path | None = None,
) -> dict[str, Any]:
    """Frechet and kernel distance, precision, recall, density, coverage and inception score of
    images (n, C, H, W). Frechet distances are to all of the training split, or to the statistics of
    the file `reference`; the rest sees as many training pictures as there are samples, 1,000 at
    least, where there are as many. DataError for statistics of another network or resize."""
    n, m = len(images), min(len(images), len(held_out))
    ours = _features(network, images)
    own = some_rows(len(held_out), m, seed, held_out.labels)
    floor = _features(network, held_out.take(own)[0])
    count = min(max(n, SUBSET), len(training))
    rows = some_rows(len(training), count, seed, training.labels)
    data = _features(network, training.take(rows)[0])
    if reference is None:
        whole, reference = statistics.cached(network, training.images, "training split")
    else:
        whole = statistics.load(reference)
    return on_rank_zero(
        lambda: {
            **_frechet_distances(network, ours, floor, whole, reference.name),
            **_kernel_distances(network, ours, floor, data, seed),
            **_neighbours(ours, floor, data[:n]),
            **_scores(network, ours, floor),
        }
    )


def _features(network: FeatureNetwork, images: Tensor) -> Tensor:
    """Of images (N, C, H, W), of which each process of a launch sees its part."""
    return torch.cat(share_out(len(images), lambda rows: network.features(images[rows])))


def some_rows(size: int, n: int, seed: int, labels: Tensor | None = None) -> Tensor:
    """n of `size` rows in a random order, each as often as the others up to one. With labels
    (size,), every class is spread evenly: any n rows hold about its share of it."""
    parts = [noise.uniform([seed], ROWS + i, (size,))[0].argsort() for i in range(-(-n // size))]
    if labels is not None:
        parts = [order[_interleaved(labels[order])] for order in parts]
    return torch.cat(parts)[:n]


def _interleaved(labels: Tensor) -> Tensor:
    """Labels (N,) -> an order of them that spreads every class evenly: the k-th of a class of c
    stands at (k + 1/2) / c of the way. Those of one class keep their order."""
    sorted_by_class = labels.argsort(stable=True)
    _, counts = labels[sorted_by_class].unique_consecutive(return_counts=True)
    places = torch.cat([(torch.arange(int(c)) + 0.5) / c for c in counts])
    at = torch.empty_like(places)
    at[sorted_by_class] = places
    return at.argsort(stable=True)


def _frechet_distances(
    network: FeatureNetwork, ours: Tensor, floor: Tensor, data: Statistics, file: str
) -> dict[str, Any]:
    """To the data's statistics, of the name `file`: of all samples, of the held-out pictures, and
    their ratio at equal counts."""

    def distance(features: Tensor, what: str) -> float:
        own = Statistics(moments(features), network.name, network.resize, what)
        return statistics.distance(own, data)

    n, m = len(ours), len(floor)
    found, least = distance(ours, "samples"), distance(floor, "held-out split")
    alike = found if m == n else distance(ours[:m], "samples")
    return {
        "frechet_distance": found,
        "frechet_floor": least,
        "frechet_ratio": alike / least,
        "frechet": {
            "features": network.name,
            "resize": network.resize,
            "reference": data.data,
            "reference_images": data.moments.count,
            "statistics": file,
            "floor": "held-out split",
            "floor_images": m,
            "ratio_images": m,
        },
    }


def _kernel_distances(
    network: FeatureNetwork, ours: Tensor, floor: Tensor, data: Tensor, seed: int
) -> dict[str, Any]:
    """Kernel distances of features to the training split's, ours and the held-out ones. There is no
    ratio: the floor of a perfect split is 0 in expectation."""
    size = min(len(ours), len(floor), len(data), SUBSET)
    generator = torch.Generator().manual_seed(seed)
    here, least = (kernel.compute(x, data, size, generator) for x in (ours, floor))
    return {
        "kernel_distance": here["kernel_distance"],
        "kernel_floor": least["kernel_distance"],
        "kernel": {
            "features": network.name,
            "reference": "training split",
            "reference_images": len(data),
            "floor": "held-out split",
            "subset_images": size,
            "std_over_subsets": here["kernel_std"],
            "floor_std_over_subsets": least["kernel_std"],
        },
    }


def _neighbours(ours: Tensor, floor: Tensor, some: Tensor) -> dict[str, Any]:
    """Shares of samples among the data and of data among the samples; the same of held-out data."""
    real = recall.compute(floor, some[: len(floor)], K)
    found = recall.compute(ours, some, K)
    found |= {f"{name}_held_out": value for name, value in real.items()}
    if len(some) > K_COVERAGE:
        found |= coverage.compute(ours, some, K_COVERAGE)
        if len(floor) > K_COVERAGE:
            real = coverage.compute(floor, some[: len(floor)], K_COVERAGE)
            found |= {f"{name}_held_out": value for name, value in real.items()}
    return found | {
        "recall_k": K,
        "coverage_k": K_COVERAGE,
        "recall_references": len(some),
    }


def _scores(network: FeatureNetwork, ours: Tensor, floor: Tensor) -> dict[str, Any]:
    """The inception score, and that of held-out pictures."""
    logits, real = network.logits(ours), network.logits(floor)
    if logits is None or real is None:
        return {}
    splits = max(1, min(SPLITS, len(floor) // 2))
    found = inception_score.compute(logits, splits)
    held_out = inception_score.compute(real, splits)
    found["inception_score_held_out"] = held_out["inception_score"]
    return found | {"inception_score_splits": splits}
