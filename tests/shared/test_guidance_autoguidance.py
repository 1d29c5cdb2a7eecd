"""Autoguidance: the model's estimate, away from a weaker one's, and what it costs."""

import math

import pytest
import torch
from torch import Tensor

from shared.guidance import autoguidance, count_evaluations
from shared.oracle import GaussianMixture
from shared.schedule import Level
from tests.guided import f64, flow_level, normals
from tests.levels import level_at, solved_flow

LEVELS = flow_level(0.2, 0.4, 0.6, 0.8)  # logsnr 2.8, 0.8, -0.8, -2.8: four samples
X, PREVIOUS = normals(4, 2), normals(4, 2, seed=1)
CLASSES = torch.tensor([[0], [1], [2], [1]])


def strong(
    x_t: Tensor, level: Level, condition: Tensor | None = None, previous: Tensor | None = None
) -> Tensor:
    """Depends on all that it is told."""
    assert condition is not None
    assert previous is not None
    return x_t * level.widen(2).alpha + condition + 0.1 * previous


def weak(
    x_t: Tensor, level: Level, condition: Tensor | None = None, previous: Tensor | None = None
) -> Tensor:
    return 0.5 * strong(x_t, level, condition, previous) + x_t


def test_both_models_are_told_the_same_and_extrapolated():
    told = (X, LEVELS, CLASSES, PREVIOUS)
    a, b = strong(*told), weak(*told)
    torch.testing.assert_close(autoguidance(strong, weak, 2.5)(*told), b + 2.5 * (a - b))
    torch.testing.assert_close(autoguidance(strong, weak, 0.0)(*told), b)


def test_at_scale_1_the_guide_is_not_asked():
    counted = count_evaluations(weak)
    got = autoguidance(strong, counted, 1.0)(X, LEVELS, CLASSES, PREVIOUS)
    torch.testing.assert_close(got, strong(X, LEVELS, CLASSES, PREVIOUS))
    assert counted.calls == 0


def test_outside_the_interval_samples_are_the_models():
    counted = count_evaluations(weak)
    guided = autoguidance(strong, counted, 3.0, interval=(-1.0, 1.0))
    got = guided(X, LEVELS, CLASSES, PREVIOUS)
    everywhere = autoguidance(strong, weak, 3.0)(X, LEVELS, CLASSES, PREVIOUS)
    alone = strong(X, LEVELS, CLASSES, PREVIOUS)
    torch.testing.assert_close(got[1:3], everywhere[1:3])
    torch.testing.assert_close(got[[0, 3]], alone[[0, 3]])
    cleaner = flow_level(0.1, 0.1, 0.1, 0.1)
    counted.calls = 0
    assert torch.equal(guided(X, cleaner, CLASSES, PREVIOUS), strong(X, cleaner, CLASSES, PREVIOUS))
    assert counted.calls == 0


@pytest.mark.parametrize("family", ["vp", "flow"])
def test_a_guide_that_is_too_broad_makes_samples_narrower_by_the_closed_form(family: str):
    """A model of N(0, v), a guide of N(0, V): with u = x / alpha and s = sigma / alpha the guided
    flow is d ln u / d ln s = w s^2 / (v + s^2) + (1 - w) s^2 / (V + s^2), which integrates to
    u ~ (v + s^2)^(w / 2) (V + s^2)^((1 - w) / 2)."""
    v, V, w, noisy, clean = 0.25, 1.5, 1.7, -5.0, 7.0
    model, guide = (GaussianMixture(f64(1.0), f64([0.0]), f64([part])) for part in (v, V))
    start = f64([0.7], [-1.3])
    got = solved_flow(autoguidance(model.denoise, guide.denoise, w), start, family, noisy, clean)

    def size(logsnr: float) -> float:
        s2 = math.exp(-logsnr)
        return (v + s2) ** (w / 2) * (V + s2) ** ((1 - w) / 2)

    ends = level_at(family, noisy), level_at(family, clean)
    expected = start / ends[0].alpha * size(clean) / size(noisy) * ends[1].alpha
    torch.testing.assert_close(got, expected, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("scale", [math.nan, math.inf])
def test_scale_that_is_not_finite_is_refused(scale: float):
    with pytest.raises(ValueError, match="expected a finite number"):
        autoguidance(strong, weak, scale)


def test_interval_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"interval = \(2, 2\): expected \(low, high\)"):
        autoguidance(strong, weak, 2.0, interval=(2, 2))
