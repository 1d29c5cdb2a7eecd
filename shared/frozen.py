"""Modules that are not trained: one that goes along to another device, but is neither averaged nor
saved, and digits that name weights."""

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor, nn


class Frozen(nn.Module):
    """Holds `module` in eval mode, without gradients for its weights, out of sight of parameters()
    and state_dict(); gradients of what goes through it are kept."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._held = (module.eval().requires_grad_(False),)  # a tuple is not registered

    @property
    def module(self) -> nn.Module:
        """What is held."""
        return self._held[0]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Frozen":
        """As `to`, `cuda` and their like ask for."""
        self._held[0]._apply(fn, recurse)
        super()._apply(fn, recurse)
        return self


def weights_digest(module: nn.Module) -> str:
    """Twelve digits that tell weights apart."""
    digest = hashlib.sha256()
    for tensor in module.state_dict().values():
        flat = tensor.detach().cpu().contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12]
