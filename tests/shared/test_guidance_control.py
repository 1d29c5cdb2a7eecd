"""Gradient control: the updates of Diffusion-LM's code, step by step."""

import math

import pytest
import torch
from torch import Tensor

from shared.guidance import Quadratic, gradient_control, log_factor
from shared.guidance.control import along
from shared.schedule import Level
from shared.solver.step import CLEAN, Point
from tests.guided import f64, flow_level, normals, taken_at

AT, TO = (Point(*(float(x) for x in vars(flow_level(t)).values())) for t in (0.6, 0.4))
CONDITION = torch.tensor([[2], [0], [-1], [1]])


def likes(x: Tensor, level: Level, condition: Tensor | None) -> Tensor:
    """-|x - condition|^2 / 2 times sigma: it must be asked at the level the step arrived at."""
    assert condition is not None
    return -((x - condition) ** 2).flatten(1).sum(1) / 2 * level.sigma


def gradient_at(x: Tensor, mean: Tensor, fluency: float, std: float | Tensor) -> Tensor:
    return TO.sigma * (x - CONDITION) + fluency * 2 * (x - mean) / std


@pytest.mark.parametrize("std", [0.3, f64(0.3, 0.7, 0.2)])
@torch.no_grad()
def test_updates_descend_the_objective_along_the_gradient(std: float | Tensor):
    x, mean = normals(4, 3), normals(4, 3, seed=1)
    hook = gradient_control(likes, TO.logsnr, 0.4, updates=3, size=0.05, direction=along)
    expected = x
    for _ in range(3):
        expected = expected - 0.05 * gradient_at(expected, mean, 0.4, std)
    torch.testing.assert_close(hook(x, taken_at(AT, TO, mean, std, CONDITION)), expected)


def test_three_updates_of_a_tenth_are_what_adagrad_made_anew_does():
    """The authors' loop: a new Adagrad for every update; its first step is lr g / (|g| + 1e-10)."""
    x, mean, std = normals(4, 3), normals(4, 3, seed=1), 0.3
    state = x
    for _ in range(3):
        moved = torch.nn.Parameter(state.clone())
        optimizer = torch.optim.Adagrad([moved], lr=0.1)
        nll = -likes(moved, Level(*f64(TO.logsnr, TO.alpha, TO.sigma)), CONDITION).mean()
        (nll + 0.01 * ((mean - moved) ** 2 / std).mean(0).sum()).backward()
        optimizer.step()
        state = moved.detach()
    hook = gradient_control(likes, TO.logsnr)
    got = hook(x, taken_at(AT, TO, mean, std, CONDITION))
    torch.testing.assert_close(got, state, atol=1e-8, rtol=0)
    assert float((got - x).abs().max()) == pytest.approx(0.3)


def test_a_deterministic_step_counts_as_std_1():
    x, mean = normals(4, 3), normals(4, 3, seed=1)
    hook = gradient_control(likes, TO.logsnr, 0.4, updates=1, size=0.05, direction=along)
    got = hook(x, taken_at(AT, TO, mean, 0.0, CONDITION))
    torch.testing.assert_close(got, x - 0.05 * gradient_at(x, mean, 0.4, 1.0))


def test_control_stops_after_its_level():
    x = normals(4, 3)
    hook = gradient_control(likes, TO.logsnr)
    assert not torch.equal(hook(x, taken_at(AT, TO, x, 0.3, CONDITION)), x)
    beyond = Point(TO.logsnr + 1e-6, TO.alpha, TO.sigma)
    for taken in (
        taken_at(AT, beyond, x, 0.3, CONDITION),
        taken_at(AT, CLEAN, x, 0.0, CONDITION),
    ):
        assert torch.equal(hook(x, taken), x)


def test_several_controls_add_up():
    x, mean, std = normals(4, 3), normals(4, 3, seed=1), 0.3
    energies = [Quadratic(normals(2, 3, seed=k), f64(0.1, -0.7), f64(0.5, 0.9)) for k in (2, 3)]
    hook = gradient_control(log_factor(energies, [1.0, 0.5]), 99.0, 0.0, 1, 0.05, along)
    shifts = [
        gradient_control(log_factor([one], [w]), 99.0, 0.0, 1, 0.05, along)(
            x, taken_at(AT, TO, mean, std)
        )
        - x
        for one, w in zip(energies, (1.0, 0.5), strict=True)
    ]
    got = hook(x, taken_at(AT, TO, mean, std))
    torch.testing.assert_close(got, x + shifts[0] + shifts[1])


def test_settings_that_control_nothing_are_refused():
    for until in (math.inf, math.nan):
        with pytest.raises(ValueError, match=r"until = .*finite logsnr"):
            gradient_control(likes, until)
    for fluency, updates, size in ((-0.1, 3, 0.1), (0.0, 0, 0.1), (0.0, 3, 0.0)):
        with pytest.raises(ValueError, match="expected updates of 1 or more"):
            gradient_control(likes, 1.0, fluency, updates, size)
