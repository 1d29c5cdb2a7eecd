"""Moments of features: any order of merging gives the whole; files and processes keep them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from image.metrics import moments as module
from image.metrics import statistics
from image.metrics.moments import Moments, Stream, empty, merge, moments
from image.metrics.statistics import Statistics
from shared.errors import DataError

ROOT = Path(__file__).resolve().parents[2]


def rows(n: int, dim: int = 5, seed: int = 0, shift: float = 3.0) -> Tensor:
    """Correlated float32 features, far from 0."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(dim, dim, generator=generator)
    return torch.randn(n, dim, generator=generator) @ mix + shift


def assert_of(found: Moments, x: Tensor, rel: float = 1e-12) -> None:
    """Count, mean and covariance are those of the rows x."""
    assert found.count == len(x)
    torch.testing.assert_close(found.mean, x.double().mean(0), rtol=rel, atol=rel)
    expected = np.atleast_2d(np.cov(x.double().numpy(), rowvar=False))
    got = found.covariance()
    scale = float(np.abs(expected).max())
    torch.testing.assert_close(got, torch.from_numpy(expected), rtol=0, atol=rel * scale)
    assert found.trace() == pytest.approx(float(np.trace(expected)), rel=rel)


@pytest.mark.parametrize("n", [2, 4, 5, 6, 7, 40])
def test_moments_are_mean_and_covariance_with_rows_or_without(n: int):
    found = moments(rows(n))
    assert found.has_rows == (n <= 5)
    assert found.body.shape == (min(n - 1, 5) if n <= 5 else 5, 5)
    assert_of(found, rows(n))


@pytest.mark.parametrize("sizes", [(1, 1), (1, 4), (3, 2), (2, 9), (9, 2), (1, 1, 1, 20, 3)])
def test_merged_parts_are_the_whole(sizes: tuple[int, ...]):
    x = rows(sum(sizes))
    total = empty(5)
    for part in x.split(sizes):
        total = merge(total, moments(part))
    assert_of(total, x)
    backwards = empty(5)
    for part in reversed(x.split(sizes)):
        backwards = merge(moments(part), backwards)
    assert_of(backwards, x)


@pytest.mark.parametrize("block", [1, 4, 7, 64])
def test_a_stream_in_uneven_batches_is_the_whole(monkeypatch: pytest.MonkeyPatch, block: int):
    monkeypatch.setattr(module, "BLOCK", block)
    x, stream = rows(61), Stream()
    for part in x.split([1, 2, 30, 8, 20]):
        stream.add(part)
    assert_of(stream.moments(), x)
    before = stream.moments()
    stream.add(rows(9, seed=1))
    assert_of(before, x)  # what was read does not change when more comes
    assert_of(stream.moments(), torch.cat([x, rows(9, seed=1)]))


def test_what_is_small_beside_the_mean_is_kept():
    """Raw sums of squares would leave 16 - 2 * 8 digits of a spread 1e-8 of the mean."""
    x = rows(200).double() * 1e-8 + 1.0
    assert_of(moments(x), x, rel=1e-6)


def test_batches_far_apart_merge():
    """The rows between means: two tight clusters, 1e4 standard deviations apart."""
    x = torch.cat([rows(30, shift=0.0), rows(50, seed=1, shift=1e4)]).double()
    assert_of(merge(moments(x[:30]), moments(x[30:])), x)


def test_stream_refuses_other_features_nothing_and_nan():
    stream = Stream()
    with pytest.raises(ValueError, match="one batch or more"):
        stream.moments()
    stream.add(torch.zeros(3, 4))
    with pytest.raises(ValueError, match=r"\(B, 5\) after \(B, 4\)"):
        stream.add(torch.zeros(3, 5))
    stream.add(torch.full((1, 4), float("nan")))
    with pytest.raises(ValueError, match="NaN"):
        stream.moments()
    with pytest.raises(ValueError, match="4 and 5 features"):
        merge(moments(torch.zeros(2, 4)), moments(torch.zeros(2, 5)))
    with pytest.raises(ValueError, match="of 1 sample"):
        moments(torch.zeros(1, 4)).covariance()


class Means:
    """A feature network that can be followed by hand: the mean and the largest level."""

    name, resize, facts = "means", "none", {}

    def __init__(self) -> None:
        self.seen: list[int] = []

    def features(self, images: Tensor) -> Tensor:
        self.seen.append(len(images))
        flat = images.flatten(1).float()
        return torch.stack([flat.mean(1), flat.amax(1)], 1)

    def logits(self, features: Tensor) -> Tensor | None:
        return None


def pictures(n: int) -> Tensor:
    generator = torch.Generator().manual_seed(n)
    return torch.randint(0, 256, (n, 1, 3, 2), dtype=torch.uint8, generator=generator)


def test_statistics_are_those_of_features_in_batches_and_come_back_from_their_file(tmp_path: Path):
    images = pictures(23)
    found = statistics.of(Means(), images.split(5), "some")
    assert_of(found.moments, Means().features(images))
    for kept in (found, statistics.of(Means(), images[:2].split(1), "two")):
        kept.save(tmp_path / "file")
        back = statistics.load(tmp_path / "file")
        assert (back.features, back.resize, back.data) == ("means", "none", kept.data)
        assert back.moments.count == kept.moments.count
        assert torch.equal(back.moments.mean, kept.moments.mean)
        assert torch.equal(back.moments.body, kept.moments.body)


def test_statistics_are_computed_once_for_the_same_pictures(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path))
    monkeypatch.setattr(statistics, "BATCH", 4)
    network = Means()
    first, path = statistics.cached(network, pictures(10), "a")
    assert network.seen == [4, 4, 2]  # never all of them
    again, same = statistics.cached(network, pictures(10), "a")
    assert network.seen == [4, 4, 2]
    assert path == same
    assert torch.equal(first.moments.body, again.moments.body)
    changed = pictures(10)
    changed[7, 0, 0, 0] ^= 1
    others = [statistics.cached(network, changed, "a")[1]]
    network.resize = "another"
    others.append(statistics.cached(network, pictures(10), "a")[1])
    network.name = "others"
    others.append(statistics.cached(network, pictures(10), "a")[1])
    assert len({path, *others}) == 4


def test_statistics_of_another_network_resize_or_too_few_samples_are_refused(tmp_path: Path):
    def named(features: str, resize: str, dim: int = 3) -> Statistics:
        return Statistics(moments(rows(9, dim)), features, resize, f"{features} {resize}")

    with pytest.raises(DataError, match="features of a none: 'a', of b none: 'b'"):
        statistics.distance(named("a", "none"), named("b", "none"))
    with pytest.raises(DataError, match="resize of a none: 'none', of a 299: '299'"):
        statistics.distance(named("a", "none"), named("a", "299"))
    with pytest.raises(DataError, match="3 and 4 features"):
        statistics.distance(named("a", "none"), named("a", "none", 4))
    with pytest.raises(DataError, match=r"one: 1 sample\(s\); a covariance needs 2"):
        statistics.of(Means(), [pictures(1)], "one")
    with pytest.raises(DataError, match=r"0 sample\(s\)"):
        Statistics(empty(3), "a", "none", "nothing").save(tmp_path / "file")


@pytest.mark.parametrize("damage", ["missing", "cut", "foreign", "count", "shape"])
def test_damaged_or_foreign_files_of_statistics_are_named(tmp_path: Path, damage: str):
    path = tmp_path / "statistics.safetensors"
    body: dict[str, Any] = {"mean": torch.zeros(3), "body": torch.eye(3)}
    told = {"format": statistics.FORMAT, "features": "a", "resize": "b", "data": "c", "count": "9"}
    if damage == "foreign":
        told = {"format": "pt"}
    if damage == "count":
        told["count"] = "1"
    if damage == "shape":
        told["count"] = "3"  # two rows, not three
    if damage != "missing":
        save_file(body, path, told)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(DataError, match=r"statistics\.safetensors: "):
        statistics.load(path)


SHARED = """
import sys, torch, torch.distributed as dist
from image.metrics import statistics
from image.metrics.moments import moments
from tests.image.test_moments import Means, pictures
rank, meeting = int(sys.argv[1]), "file://" + sys.argv[2]
dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=3)
cases = ((9, 2, ([2, 2], [2, 2], [1])), (4, 3, ([3], [1], [])), (2, 1, ([1], [1], [])))
for n, size, parts in cases:
    network = Means()
    whole = statistics.of(network, pictures(n).split(size), "some").moments
    assert network.seen == parts[rank], network.seen
    expected = moments(Means().features(pictures(n)))
    assert whole.count == n, whole.count
    torch.testing.assert_close(whole.mean, expected.mean)
    torch.testing.assert_close(whole.covariance(), expected.covariance())
dist.destroy_process_group()  # or gloo's threads may outlive the interpreter, which then aborts
"""


def test_processes_share_batches_and_each_has_the_statistics_of_all(tmp_path: Path):
    """Of three processes each sees its batches alone, and one may have none."""
    meeting = str(tmp_path / "meeting")
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", SHARED, str(rank), meeting],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(3)
    ]
    errors = [each.communicate(timeout=300)[1] for each in ranks]
    assert [each.returncode for each in ranks] == [0, 0, 0], errors
