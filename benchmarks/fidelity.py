"""torch-fidelity, torchmetrics and denoising-diffusion-pytorch, without the torchvision that parts
of them import."""

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

TORCHVISION = ("datasets", "transforms", "transforms.functional", "utils")
UNET = "denoising_diffusion_pytorch"


def fidelity(module: str) -> Any:
    """`torch_fidelity.<module>`, or None where torch-fidelity is not installed.

    `pip install --no-deps torch-fidelity` is enough.
    """
    if importlib.util.find_spec("torch_fidelity") is None:
        return None
    with _without_torchvision():
        return importlib.import_module(f"torch_fidelity.{module}")


def torchmetrics(module: str) -> Any:
    """`torchmetrics.<module>`, or None where it or torch-fidelity, which it imports, is not there.

    `pip install --no-deps torchmetrics lightning-utilities torch-fidelity` is enough.
    """
    if importlib.util.find_spec("torchmetrics") is None or fidelity("helpers") is None:
        return None
    return importlib.import_module(f"torchmetrics.{module}")


def denoising_diffusion() -> Any:
    """The module of denoising-diffusion-pytorch with its Unet, GaussianDiffusion and EMA, without
    progress bars, or None where it or what it imports is not installed.

    `pip install --no-deps denoising-diffusion-pytorch ema-pytorch pytorch-fid accelerate einops` is
    enough.
    """
    needed = (UNET, "ema_pytorch", "pytorch_fid", "accelerate", "einops", "scipy", "tqdm")
    if any(importlib.util.find_spec(name) is None for name in needed):
        return None
    with _without_torchvision():
        module: Any = importlib.import_module(f"{UNET}.{UNET}")
    module.tqdm = lambda steps, **_: steps
    return module


@contextmanager
def _without_torchvision() -> Iterator[None]:
    """Empty modules in the place of torchvision while a package is imported, where it is missing;
    none stays behind, since others ask whether torchvision is there."""
    if "torchvision" in sys.modules or importlib.util.find_spec("torchvision") is not None:
        yield
        return
    root: Any = ModuleType("torchvision")
    stubs: dict[str, Any] = {"torchvision": root}
    for name in TORCHVISION:
        stubs[f"torchvision.{name}"] = ModuleType(f"torchvision.{name}")
    root.datasets, root.transforms = stubs["torchvision.datasets"], stubs["torchvision.transforms"]
    root.transforms.functional = stubs["torchvision.transforms.functional"]
    root.utils = stubs["torchvision.utils"]
    for name in ("CIFAR10", "CIFAR100", "STL10"):
        setattr(root.datasets, name, object)
    sys.modules |= stubs
    try:
        yield
    finally:
        for name in stubs:
            del sys.modules[name]
