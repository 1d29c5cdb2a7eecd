"""The slope of a schedule, and its inverse where there is none in closed form."""

from collections.abc import Callable

import torch
from torch import Tensor

from shared.schedule.level import Schedule


def slope(schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
    """logsnr and d logsnr / dt (negative) at t, both of t's shape and without a graph."""
    return derivative(schedule.logsnr, t)


def derivative(
    function: Callable[[Tensor], Tensor], t: Tensor, keep_graph: bool = False
) -> tuple[Tensor, Tensor]:
    """An elementwise function and its derivative at t, exact to rounding, by autograd (forward mode
    would import torch's decompositions, for seconds). With `keep_graph` both can be differentiated
    again, in the function's parameters."""
    with torch.enable_grad():
        t = t.detach().requires_grad_()
        value = function(t)
        (rate,) = torch.autograd.grad(value.sum(), t, create_graph=keep_graph)
    return value if keep_graph else value.detach(), rate


@torch.no_grad()
def rising_root(function: Callable[[Tensor], Tensor], value: Tensor) -> Tensor:
    """x in [0, 1] with function(x) = value, elementwise, for a rising function: bisection, which
    cannot leave the interval. Outside of the function's range the nearer end. float64 inside."""
    wanted = value.double()
    low, high = torch.zeros_like(wanted), torch.ones_like(wanted)
    for _ in range(54):  # one bit each: float64's 53 and one to round by
        middle = (low + high) / 2
        below = function(middle) < wanted
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return ((low + high) / 2).to(value.dtype)
