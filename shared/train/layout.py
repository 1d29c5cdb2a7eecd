"""Memory layout of convolutions: channels innermost (N, H, W, C), in which some machines compute
them faster, instead of the usual (N, C, H, W). Shapes and names stay, and so do results but for
rounding; files hold the usual layout.
"""

import torch
from torch import nn

from shared.errors import ConfigError


def convolutions(module: nn.Module) -> list[nn.Conv2d]:
    """Those of a module. ConfigError when there are none to lay out."""
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    if not layers:
        raise ConfigError(
            "train.channels_last = true: this model has no convolutions; leave it out, or train a "
            "U-Net, an autoencoder or a classifier"
        )
    return layers


def channels_last(module: nn.Module) -> None:
    """Lay the kernels of convolutions out so, in place: what they give is then laid out so too."""
    for layer in convolutions(module):
        kernel = layer.weight.data
        layer.weight.data = kernel.contiguous(memory_format=torch.channels_last)
