"""What steers by a gradient: a log-probability of the state at a noise level, differentiated."""

from typing import Protocol

import torch
from torch import Tensor

from shared.schedule import Level
from shared.solver.step import Point


class LogProb(Protocol):
    """log p(y | x_t), nats, up to a constant: x_t (B, ...), its level, condition -> (B,).

    Differentiable in x_t; sample i's value may depend on sample i only.
    """

    def __call__(self, x_t: Tensor, level: Level, condition: Tensor | None, /) -> Tensor: ...


def gradient(log_prob: LogProb, x: Tensor, level: Level, condition: Tensor | None) -> Tensor:
    """grad_x log_prob, as x; also under no_grad. ValueError unless log_prob gives (B,)."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return slope_of(log_prob(x, level, condition), x)


def slope_of(values: Tensor, x: Tensor) -> Tensor:
    """The gradient of each sample's value (B,) by x (B, ...), as x. ValueError for other values."""
    if values.shape != x.shape[:1]:
        raise ValueError(
            f"log_prob gave {tuple(values.shape)}: expected one value per sample, ({len(x)},); sum "
            "over the elements of each"
        )
    return torch.autograd.grad(values.sum(), x)[0]


def level_at(point: Point, like: Tensor) -> Level:
    """A level of the loop as scalar tensors, on the device and in the dtype of `like`."""
    return Level(*(like.new_tensor(value) for value in (point.logsnr, point.alpha, point.sigma)))
