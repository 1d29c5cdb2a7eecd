"""Gradient control: the state itself is improved after every step (Li et al. 2022, sec. 5.1).

A few updates lower   -log p(y | x) + fluency |x - mean|^2 / std,   a classifier's loss and a pull
to where the step went. The authors' code makes an Adagrad anew for each update, whose first step is
the sign of the gradient; along the gradient itself is the other choice. Neither samples p(x | y):
x is moved to where y is likely, as far as the updates reach. `classifier_hook` is the exact one.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from shared.guidance.gradients import LogProb, gradient, level_at
from shared.schedule import Level
from shared.solver.step import StepHook, Taken


def along(slope: Tensor) -> Tensor:
    """The gradient as it is: steepest descent, where `torch.sign` is the authors' code."""
    return slope


def gradient_control(
    log_prob: LogProb,
    until: float,
    fluency: float = 0.01,
    updates: int = 3,
    size: float = 0.1,
    direction: Callable[[Tensor], Tensor] = torch.sign,
) -> StepHook:
    """After each step that arrives at logsnr <= until: `updates` times x - size direction(slope).

    Defaults are Diffusion-LM's for semantic content; it stops for the last 10 of 200 steps, at
    until = schedule.logsnr(0.05). Fluency is 1e-4 for parts of speech, 5e-4 for trees, 0.1 for
    spans, 0.01 for length. A step with std 0 counts as std 1. Several controls: `log_factor`, or
    one log_prob that adds them. Order: before `repaint`. Cost per step: `updates` forward and
    backward passes of the classifier, none after `until`.

    Raises ValueError unless until is finite, size positive, updates 1 or more, fluency 0 or more.
    """
    if not math.isfinite(until):
        raise ValueError(f"until = {until}: expected the finite logsnr of the last update")
    if updates < 1 or not size > 0 or not fluency >= 0:
        raise ValueError(
            f"updates = {updates}, size = {size}, fluency = {fluency}: expected updates of 1 or "
            "more, size above 0, fluency of 0 or more"
        )

    def hook(x_s: Tensor, taken: Taken) -> Tensor:
        if taken.to.logsnr > until:
            return x_s
        std = taken.std if isinstance(taken.std, Tensor) else taken.std or 1.0

        def objective(x: Tensor, level: Level, condition: Tensor | None) -> Tensor:
            away = ((x - taken.mean) ** 2 / std).flatten(1).sum(1)
            return fluency * away - log_prob(x, level, condition)

        level = level_at(taken.to, x_s)
        for _ in range(updates):
            x_s = x_s - size * direction(gradient(objective, x_s, level, taken.condition))
        return x_s

    return hook
