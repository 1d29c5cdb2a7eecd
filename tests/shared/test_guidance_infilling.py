"""What is given: RePaint's known part against exact moments, clamping to codewords, their order."""

import functools
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from shared.codec import Bits
from shared.guidance import clamp, classifier_free, infill, repaint
from shared.oracle import GaussianMixture
from shared.schedule import Level, Linear, Schedule
from shared.solver import sample, time_grid
from shared.solver.grid import points_of, time_travel
from shared.solver.step import CLEAN, Point
from tests.guided import affine, f64, flow_level, move, normals, taken_at

AT, TO = (Point(*(float(x) for x in vars(flow_level(t)).values())) for t in (0.6, 0.4))
MASK = torch.tensor([True, False, True])


def test_known_part_is_a_draw_at_the_level_reached():
    x_s, known, z = normals(5, 3), normals(5, 3, seed=1), normals(5, 3, seed=2)
    draws = {0: torch.zeros_like(z), 1: z}
    taken = taken_at(AT, TO, x_s + 1, 0.3, draws=draws.__getitem__)
    got = repaint(known, MASK, draw=1)(x_s, taken)
    torch.testing.assert_close(got[:, MASK], (TO.alpha * known + TO.sigma * z)[:, MASK])
    assert torch.equal(got[:, ~MASK], x_s[:, ~MASK])
    torch.testing.assert_close(repaint(known, MASK)(x_s, taken)[:, MASK], TO.alpha * known[:, MASK])
    clean = repaint(known, MASK, draw=1)(x_s, taken_at(AT, CLEAN, x_s, 0.0))
    assert torch.equal(clean, torch.where(MASK, known, x_s))


def test_masks_are_boolean():
    for build in (lambda m: infill(estimate, normals(3), m), lambda m: repaint(normals(3), m)):
        with pytest.raises(ValueError, match=r"mask of torch.int64: expected booleans"):
            build(MASK.long())


RHO, GIVEN = 0.9, 1.5


def oracle() -> GaussianMixture:
    return GaussianMixture(f64(1.0), f64([0.0, 0.0]), f64([[1.0, RHO], [RHO, 1.0]]))


HOOK = repaint(f64(GIVEN, 0.0), torch.tensor([True, False]))


@functools.cache
def affine_move(at: Point, to: Point) -> tuple[np.ndarray, np.ndarray]:
    """(M, b) of one move and hook, affine in (x, noise, the hook's noise), read off at the axes."""

    def f(rows: Tensor) -> Tensor:
        x, noise, drawn = rows.split(2, 1)
        return move(oracle().denoise, x, at, to, noise, [HOOK], lambda k: drawn)

    M, b = affine(f, 6)
    return M.numpy(), b.numpy()


def repainted(schedule: Schedule, steps: int, repeats: int) -> tuple[float, float]:
    """Exact mean and variance of the unknown half of a Gaussian, each step made `repeats` times."""
    times = time_travel(time_grid(steps), 1, repeats)
    points = points_of(schedule, times.tolist())
    points[-1] = CLEAN
    mean, covariance = np.zeros(2), np.eye(2)
    for at, to in pairwise(points):
        M, b = affine_move(at, to)
        mean = M[:, :2] @ mean + b
        covariance = M[:, :2] @ covariance @ M[:, :2].T + M[:, 2:] @ M[:, 2:].T
    assert (mean[0], covariance[0, 0]) == pytest.approx((GIVEN, 0), abs=1e-12)
    return float(mean[1]), float(covariance[1, 1])


def test_repaints_error_falls_as_one_over_the_repeats():
    """Exact conditional: N(1.35, 0.19). The mean converges; the variance of a chain whose steps
    draw with the smaller of DDPM's variances falls below the exact one as steps are repeated."""
    ends = [repainted(Linear(), 250, repeats) for repeats in (1, 5, 10, 20, 100)]
    errors = [RHO * GIVEN - mean for mean, _ in ends]
    assert errors == pytest.approx([0.417, 0.070, 0.032, 0.0154, 0.0034], abs=5e-4)
    assert errors[2] / errors[3] == pytest.approx(2, abs=0.3)
    variances = [variance for _, variance in ends]
    assert variances == pytest.approx([0.300, 0.184, 0.166, 0.152, 0.120], abs=1e-3)


def test_repaint_in_the_loop_has_the_moments_of_its_grid():
    """4,000 seeds; five standard errors of mean and variance: false alarms below 2e-6."""
    schedule, n = Linear(), 4000
    grid = time_travel(time_grid(8), 1, 3)
    noise = normals(n, 2)
    out = sample(
        oracle().denoise, noise, schedule, "ancestral", seeds=range(n), grid=grid, hooks=[HOOK]
    )
    mean, variance = repainted(schedule, 8, 3)
    assert bool((out[:, 0] == GIVEN).all())
    assert float(out[:, 1].mean()) == pytest.approx(mean, abs=5 * (variance / n) ** 0.5)
    assert float(out[:, 1].var()) == pytest.approx(variance, abs=5 * variance * (2 / n) ** 0.5)


CODEC = Bits(7, (2,))  # three bits, and one word of the eight is invalid


def estimate(
    x_t: Tensor, level: Level, condition: Tensor | None = None, previous: Tensor | None = None
) -> Tensor:
    out = x_t if condition is None else x_t + condition.double()[..., None]
    return out if previous is None else out + previous


def test_clamping_gives_the_nearest_codeword_from_its_level_on():
    x = normals(4, 2, 3)
    level = flow_level(0.2, 0.4, 0.6, 0.8)
    words = CODEC.encode(torch.cartesian_prod(torch.arange(7), torch.arange(7))).double()
    nearest = words[((x[:, None] - words) ** 2).sum((2, 3)).argmin(1)]
    got = clamp(estimate, CODEC, float(level.logsnr[1]))(x, level)
    assert torch.equal(got[:2], nearest[:2])
    assert torch.equal(got[2:], x[2:])
    everywhere = clamp(estimate, CODEC)(x, level)
    assert torch.equal(everywhere, nearest)
    assert torch.equal(clamp(clamp(estimate, CODEC), CODEC)(x, level), nearest)
    assert everywhere.dtype == x.dtype


def test_clamping_passes_condition_and_last_estimate():
    x, last = normals(4, 2, 3), normals(4, 2, 3, seed=1)
    condition = torch.tensor([[1, -1], [0, 2], [-2, 1], [1, 1]])
    got = clamp(estimate, CODEC, 1e9)(x, flow_level(0.1, 0.2, 0.3, 0.4), condition, last)
    assert torch.equal(got, estimate(x, flow_level(0.1), condition, last))


def test_clamp_goes_outside_guidance_and_infill_outside_clamp():
    """Guided last, the estimate is off the codewords; the other way it is a codeword. What is given
    stays as given though it is none."""
    x, level = normals(4, 2, 3), flow_level(0.1, 0.2, 0.3, 0.4)
    condition = torch.tensor([[1, -1], [0, 2], [-2, 1], [1, 1]])
    outside = clamp(classifier_free(estimate, 1.7), CODEC)(x, level, condition)
    inside = classifier_free(clamp(estimate, CODEC), 1.7)(x, level, condition)
    assert bool((outside.abs() == 1).all())
    assert not bool((inside.abs() == 1).all())
    known, mask = normals(4, 2, 3, seed=1), torch.tensor([[True], [False]])
    got = infill(clamp(estimate, CODEC), known, mask)(x, level)
    assert torch.equal(got[:, 0], known[:, 0])
    assert torch.equal(got[:, 1], clamp(estimate, CODEC)(x, level)[:, 1])
