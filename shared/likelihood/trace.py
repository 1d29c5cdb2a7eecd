"""The value of a function of (B, ...) and the trace of each sample's Jacobian, from one graph.

Samples do not see each other, so one gradient serves the whole batch. The probe is noise of
variance one and mean zero: Rademacher's +-1 makes the estimate exact on a diagonal Jacobian, and of
all such probes the one of least variance (Hutchinson 1989).
"""

from collections.abc import Callable
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

Function: TypeAlias = Callable[[Tensor], Tensor]


class Trace(Protocol):
    """function, x (B, ...), probe (B, ...) of +-1 -> function(x) (B, ...) and traces (B,)."""

    def __call__(self, function: Function, x: Tensor, probe: Tensor) -> tuple[Tensor, Tensor]: ...


def hutchinson(function: Function, x: Tensor, probe: Tensor) -> tuple[Tensor, Tensor]:
    """An unbiased estimate, probe^T J probe: one backward pass."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = _with_graph(function(x))
        (pulled,) = torch.autograd.grad(value, x, probe)
    return value.detach(), (pulled * probe).flatten(1).sum(1)


def exact(function: Function, x: Tensor, probe: Tensor) -> tuple[Tensor, Tensor]:
    """The trace itself, whatever the probe: as many backward passes as a sample has elements."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = _with_graph(function(x))
        total = x.new_zeros(len(x))
        for i in range(x[0].numel()):
            unit = torch.zeros_like(x)
            unit.flatten(1)[:, i] = 1
            (row,) = torch.autograd.grad(value, x, unit, retain_graph=True)
            total = total + row.flatten(1)[:, i]
    return value.detach(), total


def _with_graph(value: Tensor) -> Tensor:
    if not value.requires_grad:
        raise ValueError(
            "denoise: its estimate carries no gradient in x_t, which the trace of its Jacobian "
            "needs; is it computed under no_grad, or detached?"
        )
    return value
