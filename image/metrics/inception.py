"""The Inception network of the FID paper, as its reference implementations run it.

Inception v3 (Szegedy et al. 2016) as released for TensorFlow on 2015-12-05, whose last pooled layer
is the feature space of FID, KID and the inception score. It departs from other releases: 1,008
outputs, averages that leave the padding out, and a maximum in the pooling path of the last block.
Parameters have the names of the file that pytorch-fid and torch-fidelity share,
`pt_inception-2015-12-05-6726825d.pth` (the digits begin its SHA-256), which is not shipped here.

Pictures come to 299 x 299 as in TensorFlow 1: place i of the output reads place i * in / out of the
input, without half a pixel's offset and without smoothing.
"""

import hashlib
import io
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from image.grid import to_bytes
from shared.errors import DataError

SIDE = 299
BATCH = 32

Size = int | tuple[int, int]
Layer = tuple[str, int, Size]  # name, channels, kernel
Step = Layer | tuple[Layer, Layer]  # two layers side by side make a fork


class Convolution(nn.Module):
    """Convolution, batch norm, ReLU. Sizes are kept unless it is `valid` or has a stride."""

    def __init__(
        self, channels: int, out: int, kernel: Size, stride: int = 1, valid: bool = False
    ) -> None:
        super().__init__()
        high, wide = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (0, 0) if valid or stride > 1 else (high // 2, wide // 2)
        self.conv = nn.Conv2d(channels, out, (high, wide), stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class Mixed(nn.Module):
    """Paths of convolutions side by side, and a pooling path; their channels one after another.

    With `stride` 2 the last convolution of each path halves the size, and so does a maximum in the
    pooling path; otherwise that path is an average, or with `maximum` a maximum, and a 1 x 1
    convolution to `pooled` channels.
    """

    def __init__(
        self,
        channels: int,
        paths: Sequence[Sequence[Step]],
        pooled: int = 0,
        stride: int = 1,
        maximum: bool = False,
    ) -> None:
        super().__init__()
        self.stride, self.maximum = stride, maximum
        self.paths: list[list[tuple[str, ...]]] = []
        for path in paths:
            width, names = channels, []
            for i, step in enumerate(path):
                layers: Any = step if isinstance(step[0], tuple) else (step,)
                at_end = stride if i == len(path) - 1 else 1
                for name, out, kernel in layers:
                    self.add_module(name, Convolution(width, out, kernel, at_end))
                names.append(tuple(name for name, _, _ in layers))
                width = sum(out for _, out, _ in layers)
            self.paths.append(names)
        if stride == 1:
            self.branch_pool = Convolution(channels, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        found = []
        for path in self.paths:
            h = x
            for names in path:
                h = torch.cat([self.get_submodule(name)(h) for name in names], 1)
            found.append(h)
        return torch.cat([*found, self._pooled(x)], 1)

    def _pooled(self, x: Tensor) -> Tensor:
        if self.stride == 2:
            return F.max_pool2d(x, 3, 2)
        if self.maximum:
            return self.branch_pool(F.max_pool2d(x, 3, 1, 1))
        return self.branch_pool(F.avg_pool2d(x, 3, 1, 1, count_include_pad=False))


def _grid_35(channels: int, pooled: int) -> Mixed:
    paths: list[list[Step]] = [
        [("branch1x1", 64, 1)],
        [("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)],
        [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)],
    ]
    return Mixed(channels, paths, pooled)


def _to_17(channels: int) -> Mixed:
    paths: list[list[Step]] = [
        [("branch3x3", 384, 3)],
        [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)],
    ]
    return Mixed(channels, paths, stride=2)


def _grid_17(width: int) -> Mixed:
    row, column = (1, 7), (7, 1)
    twice: list[Step] = [
        ("branch7x7dbl_1", width, 1),
        ("branch7x7dbl_2", width, column),
        ("branch7x7dbl_3", width, row),
        ("branch7x7dbl_4", width, column),
        ("branch7x7dbl_5", 192, row),
    ]
    once: list[Step] = [
        ("branch7x7_1", width, 1),
        ("branch7x7_2", width, row),
        ("branch7x7_3", 192, column),
    ]
    return Mixed(768, [[("branch1x1", 192, 1)], once, twice], 192)


def _to_8(channels: int) -> Mixed:
    paths: list[list[Step]] = [
        [("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3)],
        [
            ("branch7x7x3_1", 192, 1),
            ("branch7x7x3_2", 192, (1, 7)),
            ("branch7x7x3_3", 192, (7, 1)),
            ("branch7x7x3_4", 192, 3),
        ],
    ]
    return Mixed(channels, paths, stride=2)


def _grid_8(channels: int, maximum: bool = False) -> Mixed:
    def fork(name: str) -> Step:
        return (f"{name}a", 384, (1, 3)), (f"{name}b", 384, (3, 1))

    paths: list[list[Step]] = [
        [("branch1x1", 320, 1)],
        [("branch3x3_1", 384, 1), fork("branch3x3_2")],
        [("branch3x3dbl_1", 448, 1), ("branch3x3dbl_2", 384, 3), fork("branch3x3dbl_3")],
    ]
    return Mixed(channels, paths, 192, maximum=maximum)


class Inception(nn.Module):
    """Pictures (B, 3, H, W), 0 to 255 -> the last pooled layer (B, 2048)."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Convolution(3, 32, 3, 2)
        self.Conv2d_2a_3x3 = Convolution(32, 32, 3, valid=True)
        self.Conv2d_2b_3x3 = Convolution(32, 64, 3)
        self.Conv2d_3b_1x1 = Convolution(64, 80, 1)
        self.Conv2d_4a_3x3 = Convolution(80, 192, 3, valid=True)
        self.Mixed_5b, self.Mixed_5c = _grid_35(192, 32), _grid_35(256, 64)
        self.Mixed_5d, self.Mixed_6a = _grid_35(288, 64), _to_17(288)
        self.Mixed_6b, self.Mixed_6c = _grid_17(128), _grid_17(160)
        self.Mixed_6d, self.Mixed_6e = _grid_17(160), _grid_17(192)
        self.Mixed_7a, self.Mixed_7b = _to_8(768), _grid_8(1280)
        self.Mixed_7c = _grid_8(2048, maximum=True)
        self.fc = nn.Linear(2048, 1008)

    def forward(self, images: Tensor) -> Tensor:
        x = (resized(images.float(), SIDE) - 128) / 128
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(F.max_pool2d(x, 3, 2))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        return self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x))).mean((2, 3))


def resized(images: Tensor, side: int) -> Tensor:
    """images (B, C, H, W), float -> (B, C, side, side): bilinear as in TensorFlow 1."""
    for axis in (-1, -2):  # the reference does the columns first: rounding is the same
        size = images.shape[axis]
        scale = torch.tensor(size / side, dtype=torch.float32, device=images.device)
        places = torch.arange(side, dtype=torch.float32, device=images.device) * scale
        low = places.long()
        share = (places - low).view((-1, 1) if axis == -2 else (-1,))
        near = images.index_select(axis, low)
        far = images.index_select(axis, (low + 1).clamp(max=size - 1))
        images = near + (far - near) * share
    return images


class InceptionFeatures:
    """The network with the weights of a file, as a `image.features.FeatureNetwork`."""

    resize = "bilinear of TensorFlow 1 to 299 x 299"

    def __init__(self, file: Path, levels: int) -> None:
        """`levels` of the pictures that will come. DataError for a file that holds no such
        weights."""
        self.model, self.levels = Inception(), levels
        digest = _load(self.model, file)
        self.name = f"inception-{digest[:8]}"
        self.facts: dict[str, Any] = {
            "kind": "Inception v3 of the FID paper, last pooled layer",
            "weights_sha256": digest,
            "features": 2048,
            "resize": self.resize,
        }
        self.model.eval().to("cuda" if torch.cuda.is_available() else "cpu")

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """images (N, C, H, W) of levels, grey or RGB -> (N, 2048) float32, on the CPU."""
        device = self.model.fc.weight.device
        found = []
        for part in images.split(BATCH):
            pixels = to_bytes(part, self.levels).expand(-1, 3, -1, -1)
            found.append(self.model(pixels.to(device)).cpu())
        return torch.cat(found)

    def logits(self, features: Tensor) -> Tensor:
        """features (N, 2048) -> (N, 1008), without the bias, as the inception score takes them."""
        return features @ self.model.fc.weight.detach().cpu().T


def _load(model: nn.Module, file: Path) -> str:
    """Fill the model from a file; returns its SHA-256."""
    try:
        content = file.read_bytes()
        if file.suffix == ".safetensors":
            weights = load(content)
        else:
            weights = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        model.load_state_dict(weights)
    except OSError as error:
        raise DataError(f"features = inception:{file}: {error.strerror}") from None
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, TypeError, EOFError) as error:
        first = str(error).strip().splitlines()[0]
        raise DataError(
            f"features = inception:{file}: not the weights of this network ({first}); expected "
            "pt_inception-2015-12-05-6726825d.pth of pytorch-fid, or the same names as safetensors"
        ) from None
    return hashlib.sha256(content).hexdigest()
