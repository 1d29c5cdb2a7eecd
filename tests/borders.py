"""What the tests at the border to diffusers share: tiny networks, an oracle of pictures, their
arithmetic in float64, and the loop of their pipelines."""

from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from torch import Tensor, nn

from shared.denoiser import Denoise
from shared.oracle import GaussianMixture
from shared.schedule import Level

B, C, H, W = 5, 1, 2, 3  # of the oracle's pictures


def normals(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def picture_mixture() -> GaussianMixture:
    """Three correlated components of pictures with H W numbers, no two alike."""
    factors = 0.3 * normals(3, H * W, H * W, seed=1) + 0.4 * torch.eye(H * W).double()
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    return GaussianMixture(weights, 0.8 * normals(3, H * W, seed=2), factors @ factors.mT)


def of_pictures(oracle: GaussianMixture) -> Denoise:
    """The exact denoiser of pictures (B, 1, H, W)."""

    def denoise(
        x_t: Tensor,
        level: Level,
        condition: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> Tensor:
        return oracle.denoise(x_t.flatten(1), level, condition).reshape(x_t.shape)

    return denoise


def tiny_unet(dtype: torch.dtype = torch.float32, **config: Any) -> UNet2DModel:
    """A network of random weights that answers with numbers of the size of its input."""
    torch.manual_seed(0)  # their layers take no generator
    unet = UNet2DModel(
        in_channels=config.pop("in_channels", 3),
        out_channels=config.pop("out_channels", 3),
        sample_size=config.pop("sample_size", 8),
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        add_attention=False,
        **config,
    )
    nn.init.normal_(unet.conv_out.weight, std=0.05)
    for parameter in unet.parameters():  # `.to` of their models warns of a list that is empty
        parameter.data = parameter.data.to(dtype)
    return unet.eval()


class _Wide:
    """A module with float64 where float32 is named."""

    def __init__(self, module: Any) -> None:
        self.module, self.float32 = module, module.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)


def in_float64(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> None:
    """Let a scheduler's module compute in float64: it names float32 for tables and states."""
    monkeypatch.setattr(module, "torch", _Wide(torch))
    if hasattr(module, "np"):
        monkeypatch.setattr(module, "np", _Wide(np))


@torch.no_grad()
def drive(scheduler: Any, net: Any, noise: Tensor, **given: Any) -> Tensor:
    """The loop of diffusers' pipelines after set_timesteps."""
    x = noise * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        seen = scheduler.scale_model_input(x, t)
        output = net(seen, t.expand(len(x)), return_dict=False)[0]
        x = scheduler.step(output, t, x, **given).prev_sample
    return x
