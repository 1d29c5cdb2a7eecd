"""Classifier-free guidance: several conditions, negative ones, an interval; evaluations counted."""

import math

import pytest
import torch
from torch import Tensor

from shared.codec import Bits
from shared.config import DiffusionConfig, NetConfig
from shared.drawing import draw
from shared.guidance import classifier_free, count_evaluations
from shared.learner import DiffusionLearner
from shared.oracle import GaussianMixture
from shared.sampling import Sampling
from shared.schedule import Cosine, Level
from shared.solver import sample
from tests.guided import f64, flow_level, normals
from tests.toy import LENGTH, SIZE, ToyNet

LEVELS = flow_level(0.2, 0.4, 0.6, 0.8)  # logsnr 2.8, 0.8, -0.8, -2.8: four samples
SCALAR = flow_level(0.4)
ONE = Level(*(part[0] for part in (SCALAR.logsnr, SCALAR.alpha, SCALAR.sigma)))


def toy(
    x_t: Tensor, level: Level, condition: Tensor | None = None, previous: Tensor | None = None
) -> Tensor:
    """Tells samples, levels, conditions (B, 2) and the last estimate apart; x (B, 3)."""
    assert condition is not None
    out = x_t * level.widen(2).alpha + torch.sin(condition @ torch.tensor([1, 10]))[:, None]
    return out if previous is None else out + 0.1 * previous


X, PREVIOUS = normals(4, 3), normals(4, 3, seed=1)
A = torch.tensor([[1, 2], [3, 4], [5, 6], [7, 8]])
B = torch.tensor([[2, 1], [9, 3], [4, 4], [0, 5]])
NEGATIVE = torch.tensor([[6, 6], [5, 1], [2, 2], [1, 9]])
NULL = torch.full((4, 2), -1)


@pytest.mark.parametrize("level", [ONE, LEVELS])
def test_several_conditions_add_their_differences_in_one_call(level: Level):
    counted = count_evaluations(toy)
    guided = classifier_free(counted, (1.5, -0.7), null=-1)
    got = guided(X, level, torch.stack([A, B], 1), PREVIOUS)
    base, a, b = (toy(X, level, condition, PREVIOUS) for condition in (NULL, A, B))
    torch.testing.assert_close(got, base + 1.5 * (a - base) - 0.7 * (b - base))
    assert (counted.calls, counted.rows) == (1, 12)


@pytest.mark.parametrize(
    ("scales", "rows"), [((0.0, 0.0), 4), ((0.0, 2.0), 8), ((0.25, 0.75), 8), ((0.0, 1.0), 4)]
)
def test_estimates_without_weight_are_not_made(scales: tuple[float, float], rows: int):
    counted = count_evaluations(toy)
    got = classifier_free(counted, scales, null=-1)(X, LEVELS, torch.stack([A, B], 1))
    base, a, b = (toy(X, LEVELS, condition) for condition in (NULL, A, B))
    torch.testing.assert_close(got, base + scales[0] * (a - base) + scales[1] * (b - base))
    assert (counted.calls, counted.rows) == (1, rows)


def test_independent_conditions_at_scale_1_combine_by_bayes():
    """Two coordinates, a label for each: the joint estimate is exact. Component 2 i + j of four has
    labels i and j; condition (i, -1) or (-1, j) leaves the other free."""
    weights, means = f64(0.3, 0.7), f64(-1.0, 0.8)
    axis = GaussianMixture(weights, means[:, None], f64([0.3], [0.2]))

    def denoise(
        x_t: Tensor, level: Level, condition: Tensor | None = None, previous: Tensor | None = None
    ) -> Tensor:
        assert condition is not None
        parts = [axis.denoise(x_t[:, i : i + 1], level, condition[:, i]) for i in (0, 1)]
        return torch.cat(parts, 1)

    first = torch.tensor([[0, -1]]).expand(4, 2)
    second = torch.tensor([[-1, 1]]).expand(4, 2)
    both = torch.stack([first, second], 1)
    got = classifier_free(denoise, (1.0, 1.0), null=-1)(X[:, :2], LEVELS, both)
    expected = denoise(X[:, :2], LEVELS, torch.tensor([[0, 1]]).expand(4, 2))
    torch.testing.assert_close(got, expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("negative", [NEGATIVE, NEGATIVE[1]])
def test_negative_takes_the_place_of_no_condition(negative: Tensor):
    counted = count_evaluations(toy)
    guided = classifier_free(counted, 2.5, null=-1, negative=negative)
    base = toy(X, LEVELS, negative.expand(4, 2))
    expected = base + 2.5 * (toy(X, LEVELS, A) - base)
    torch.testing.assert_close(guided(X, LEVELS, A), expected)
    away = base + 2.5 * (toy(X, LEVELS, NULL) - base)
    torch.testing.assert_close(guided(X, LEVELS), away)
    assert (counted.calls, counted.rows) == (2, 16)


def test_scale_is_1_outside_the_interval_with_ends_inside():
    low, high = float(LEVELS.logsnr[2]), float(LEVELS.logsnr[1])
    both = torch.stack([A, B], 1)
    base, a, b = (toy(X, LEVELS, condition, PREVIOUS) for condition in (NULL, A, B))
    scale = f64(1.0, 3.0, 3.0, 1.0)[:, None]
    got = classifier_free(toy, 3.0, null=-1, interval=(low, high))(X, LEVELS, A, PREVIOUS)
    torch.testing.assert_close(got, base + scale * (a - base))
    other = f64(1.0, 0.0, 0.0, 1.0)[:, None]
    got = classifier_free(toy, (3.0, 0.0), null=-1, interval=(low, high))
    expected = base + scale * (a - base) + other * (b - base)
    torch.testing.assert_close(got(X, LEVELS, both, PREVIOUS), expected)


@pytest.mark.parametrize(("interval", "rows"), [((0.5, 1.0), 8), ((1.0, 2.0), 4), ((-3.0, 0.0), 4)])
def test_outside_the_interval_one_estimate_is_enough(interval: tuple[float, float], rows: int):
    counted = count_evaluations(toy)  # logsnr is 0.81
    got = classifier_free(counted, 3.0, null=-1, interval=interval)(X, ONE, A)
    scale = 3.0 if rows == 8 else 1.0
    base = toy(X, ONE, NULL)
    torch.testing.assert_close(got, base + scale * (toy(X, ONE, A) - base))
    assert counted.rows == rows


def test_evaluations_of_a_run_are_counted():
    """12 steps between logsnr -6 and 6, uniform in logsnr from 0: 6 of them in the interval."""
    counted = count_evaluations(toy)
    grid = Cosine(-6, 6).time(torch.linspace(-6, 5, 12, dtype=torch.float64))
    grid = torch.cat([grid, f64(0.0)])
    guided = classifier_free(counted, 2.0, null=-1, interval=(-2.5, 3.5))
    sample(guided, X.float(), Cosine(-6, 6), "ddim", condition=A, grid=grid)
    assert (counted.calls, counted.rows / len(X)) == (12, 18)


def test_what_cannot_be_guided_is_refused():
    for scale in (math.nan, (1.0, math.inf), ()):
        with pytest.raises(ValueError, match=r"scale = .*expected a finite number"):
            classifier_free(toy, scale)
    with pytest.raises(ValueError, match=r"interval = \(2, 1\)"):
        classifier_free(toy, 2.0, interval=(2, 1))
    with pytest.raises(ValueError, match=r"condition \(4, 2\) for 3 scales: expected \(B, 3, M\)"):
        classifier_free(toy, (1, 2, 3))(X, LEVELS, A)
    with pytest.raises(ValueError, match=r"negative \(3,\): expected \(4, 2\) or \(2,\)"):
        classifier_free(toy, 2, negative=torch.zeros(3))(X, LEVELS, A)


@pytest.mark.parametrize(
    ("drop", "scale", "warns"),
    [(0.0, 2.0, True), (0.0, 0.0, True), (0.0, 1.0, False), (0.1, 2.0, False)],
)
def test_a_model_that_never_saw_no_condition_is_guided_with_a_warning(
    drop: float, scale: float, warns: bool, recwarn: pytest.WarningsRecorder
):
    codec = Bits(SIZE, (LENGTH,))
    net = ToyNet(codec.logit_channels, NetConfig(dim=8, depth=1, heads=2))
    learner = DiffusionLearner(net, codec, DiffusionConfig(drop_condition=drop))
    condition = torch.ones(2, 1, dtype=torch.long)
    how = Sampling(steps=1, guidance=scale)
    draw(learner, [1, 2], how, condition, progress=False)
    draw(learner, [1, 2], how, progress=False)  # nothing is guided: no warning
    told = [
        str(one.message)
        for one in recwarn
        if "trained without diffusion.drop_condition" in str(one.message)
    ]
    assert len(told) == warns
