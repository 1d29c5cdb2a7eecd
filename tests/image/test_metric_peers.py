"""On the same features our measures are those of torch-fidelity and torchmetrics."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks import fidelity as peers
from image.metrics import frechet, inception_score, kernel, recall, reconstruction
from image.metrics.inception import Inception, InceptionFeatures
from shared.errors import DataError

REL = 1e-4


def fidelity(module: str) -> Any:
    found = peers.fidelity(module)
    if found is None:
        pytest.skip("torch-fidelity is not installed: pip install --no-deps torch-fidelity")
    return found


def torchmetrics(module: str) -> Any:
    found = peers.torchmetrics(module)
    if found is None:
        pytest.skip(
            "torchmetrics is not installed: "
            "pip install --no-deps torchmetrics lightning-utilities torch-fidelity"
        )
    return found


class Given(nn.Module):
    """A feature network of torchmetrics that has nothing left to do."""

    num_features = 24

    def forward(self, x: Tensor) -> Tensor:
        return x


def features(n: int, seed: int) -> Tensor:
    """Of a network's last layer: positive, correlated, float32."""
    generator = torch.Generator().manual_seed(8)
    mix = torch.randn(24, 24, generator=generator)
    generator.manual_seed(seed)
    return torch.relu(torch.randn(n, 24, generator=generator) @ mix + 0.3 * seed)


OURS, REAL = features(400, 0), features(360, 1)


def test_frechet_distance():
    found = frechet.compute(OURS, REAL)["frechet_distance"]
    fid = fidelity("metric_fid")
    moments = [fid.fid_features_to_statistics(x) for x in (OURS, REAL)]
    theirs = fid.fid_statistics_to_metric(*moments, False)["frechet_inception_distance"]
    assert found == pytest.approx(theirs, rel=REL)
    metric = torchmetrics("image.fid").FrechetInceptionDistance(Given()).set_dtype(torch.float64)
    metric.update(REAL, real=True)
    metric.update(OURS, real=False)
    assert found == pytest.approx(float(metric.compute()), rel=REL)


def test_kernel_distance_on_the_same_subsets(monkeypatch: pytest.MonkeyPatch):
    """torch-fidelity draws with numpy, torchmetrics with torch's global generator: both are made to
    draw what our generator draws."""

    def drawn() -> Any:
        generator = torch.Generator().manual_seed(5)
        return lambda n, *_, **__: torch.randperm(n, generator=generator)

    found = kernel.compute(OURS, REAL, 50, torch.Generator().manual_seed(5), subsets=20)
    draw = drawn()

    class Rng:
        def __init__(self, _: int) -> None: ...

        def choice(self, n: int, size: int, replace: bool) -> np.ndarray:
            assert not replace
            return draw(n)[:size].numpy()

    kid = fidelity("metric_kid")
    monkeypatch.setattr(kid.np.random, "RandomState", Rng)
    theirs = kid.kid_features_to_metric(
        OURS.double(), REAL.double(), kid_subsets=20, kid_subset_size=50, verbose=False
    )
    monkeypatch.undo()
    assert found["kernel_distance"] == pytest.approx(
        theirs["kernel_inception_distance_mean"], rel=REL
    )
    over = (20 / 19) ** 0.5  # theirs divides by the number of subsets
    assert found["kernel_std"] == pytest.approx(
        theirs["kernel_inception_distance_std"] * over, rel=REL
    )
    metric = torchmetrics("image.kid").KernelInceptionDistance(Given(), subsets=20, subset_size=50)
    # the real features come first there; d^2 is symmetric
    metric.update(OURS.double(), real=True)
    metric.update(REAL.double(), real=False)
    monkeypatch.setattr(torch, "randperm", drawn_once := drawn_torch())
    mean, _ = metric.compute()
    assert drawn_once.calls == 40
    monkeypatch.undo()
    assert found["kernel_distance"] == pytest.approx(float(mean), rel=REL)


def drawn_torch() -> Any:
    """torch.randperm of one seeded generator, which counts its calls."""
    generator, randperm = torch.Generator().manual_seed(5), torch.randperm

    def draw(n: int) -> Tensor:
        draw.calls += 1
        return randperm(n, generator=generator)

    draw.calls = 0
    return draw


def test_inception_score(monkeypatch: pytest.MonkeyPatch):
    logits = 2 * torch.randn(200, 7, generator=torch.Generator().manual_seed(3))
    found = inception_score.compute(logits, splits=10)
    theirs = fidelity("metric_isc").isc_features_to_metric(logits, splits=10, shuffle=False)
    assert found["inception_score"] == pytest.approx(theirs["inception_score_mean"], rel=REL)
    assert found["inception_score_std"] == pytest.approx(theirs["inception_score_std"], rel=REL)
    metric = torchmetrics("image.inception").InceptionScore(Given(), splits=10)
    metric.update(logits)
    monkeypatch.setattr(torch, "randperm", torch.arange)
    mean, std = metric.compute()
    monkeypatch.undo()
    assert found["inception_score"] == pytest.approx(float(mean), rel=REL)
    assert found["inception_score_std"] == pytest.approx(float(std) * 0.9**0.5, rel=REL)


def test_precision_and_recall():
    found = recall.compute(OURS, REAL, k=3)
    theirs = fidelity("metric_prc").prc_features_to_metric(
        OURS.double(), REAL.double(), prc_neighborhood=3, prc_batch_size=100, verbose=False,
        save_cpu_ram=False,
    )  # fmt: skip
    assert 0 < found["recall"] != found["precision"] < 1
    assert found["precision"] == pytest.approx(theirs["precision"], rel=REL)
    assert found["recall"] == pytest.approx(theirs["recall"], rel=REL)


def test_psnr_and_ssim_of_reconstructions():
    generator = torch.Generator().manual_seed(1)
    real = torch.randint(0, 256, (4, 3, 19, 24), generator=generator).float()
    ours = (real + 12 * torch.randn(real.shape, generator=generator)).clamp(0, 255)
    image = torchmetrics("functional.image")
    _, places = image.structural_similarity_index_measure(
        ours, real, data_range=255.0, reduction="none", return_full_image=True
    )
    # theirs also takes places where the window reaches over the edge, into a reflection
    structure = places[..., 5:-5, 5:-5].mean((1, 2, 3))
    for value, expected in zip(reconstruction.ssim(ours, real), structure, strict=True):
        assert float(value) == pytest.approx(float(expected), rel=REL)
    noise = image.peak_signal_noise_ratio(
        ours, real, data_range=255.0, reduction="none", dim=(1, 2, 3)
    )
    for value, expected in zip(reconstruction.psnr(ours, real), noise, strict=True):
        assert float(value) == pytest.approx(float(expected), rel=REL)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of random weights, in the names of the FID paper's network."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = Inception().state_dict()
    generator = torch.Generator().manual_seed(1)
    for name, value in state.items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5, generator=generator)
        if name.endswith(("running_mean", "bn.bias")):
            value.normal_(0, 0.1, generator=generator)
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(state, path)
    return path


@pytest.mark.parametrize("size", [(8, 13), (299, 299), (310, 64)])
def test_features_of_inception_are_those_of_torch_fidelity(weights: Path, size: tuple[int, int]):
    """Smaller pictures, larger ones, and of the network's size; features and unbiased logits."""
    theirs = fidelity("feature_extractor_inceptionv3").FeatureExtractorInceptionV3(
        "theirs", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(weights)
    )
    generator = torch.Generator().manual_seed(2)
    images = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8, generator=generator)
    ours = InceptionFeatures(weights, 256)
    found = ours.features(images)
    features, logits = theirs(images)
    assert float(features.std()) > 0.01
    torch.testing.assert_close(found, features, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.logits(found), logits, rtol=1e-5, atol=1e-5)


def test_grey_pictures_of_few_levels_are_seen_as_grey_bytes(weights: Path):
    levels = torch.randint(0, 17, (1, 1, 8, 8), generator=torch.Generator().manual_seed(4))
    as_bytes = (levels * 255 / 16).round().to(torch.uint8).expand(-1, 3, -1, -1)
    found = InceptionFeatures(weights, 17).features(levels)
    assert torch.equal(found, InceptionFeatures(weights, 256).features(as_bytes))


@pytest.mark.parametrize("content", ["missing", "bytes", "other"])
def test_a_file_of_other_weights_is_named(tmp_path: Path, content: str):
    path = tmp_path / "weights.pth"
    if content == "bytes":
        path.write_bytes(b"no weights")
    if content == "other":
        torch.save(nn.Linear(2, 3).state_dict(), path)
    with pytest.raises(DataError, match=r"features = inception:.*weights\.pth"):
        InceptionFeatures(path, 256)
