"""The learned schedule: monotone whatever its weights, exact at its ends, invertible."""

import math

import pytest
import torch
import torch.nn.functional as F

from shared.schedule import Learned
from shared.schedule.calculus import derivative, rising_root


def wild(seed: int, hidden: int = 13, learn_ends: bool = False) -> Learned:
    """A schedule with random weights, in float64."""
    schedule = Learned(-4.0, 7.0, hidden, learn_ends).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in (schedule.slope, schedule.steepness, schedule.middle, schedule.height):
            p.copy_(3 * torch.randn(p.shape, generator=generator, dtype=torch.float64))
    return schedule


@pytest.mark.parametrize("seed", range(5))
def test_logsnr_falls_between_its_ends_whatever_the_weights(seed: int):
    schedule = wild(seed)
    t = torch.linspace(0, 1, 301, dtype=torch.float64)
    logsnr = schedule.logsnr(t).detach()
    assert float(logsnr[0]) == 7
    assert float(logsnr[-1]) == -4
    assert bool((logsnr.diff() < 0).all())
    torch.testing.assert_close(schedule.time(logsnr), t, atol=1e-11, rtol=0)


def test_share_is_the_papers_monotone_network():
    """g = l1 + l3 sigmoid(l2) with positive weights, normalised; by hand, unit by unit."""
    schedule = wild(3, hidden=3)

    def positive(x: torch.Tensor) -> list[float]:
        return [math.log1p(math.exp(v)) for v in x.detach().flatten().tolist()]

    def g(t: float) -> float:
        total = positive(schedule.slope)[0] * t
        units = zip(
            positive(schedule.steepness),
            schedule.middle.tolist(),
            positive(schedule.height),
            strict=True,
        )
        for steepness, middle, height in units:
            total += height / (1 + math.exp(-steepness * (t - middle)))
        return total

    for t in (0.0, 0.2, 0.65, 1.0):
        share = (g(t) - g(0)) / (g(1) - g(0))
        at = torch.tensor(t, dtype=torch.float64)
        assert float(schedule.share(at).detach()) == pytest.approx(share)
        assert float(schedule.logsnr(at).detach()) == pytest.approx(7 - 11 * share)


def test_start_is_near_linear_and_needs_no_randomness():
    before = torch.random.get_rng_state()
    schedule = Learned(-4.0, 7.0)
    assert torch.equal(before, torch.random.get_rng_state())
    t = torch.linspace(0, 1, 11)
    torch.testing.assert_close(schedule.logsnr(t).detach(), 7 - 11 * t, atol=0.3, rtol=0)
    assert float(F.softplus(schedule.slope.detach())) == pytest.approx(1)
    assert float(F.softplus(schedule.steepness.detach())[0]) == pytest.approx(10)
    assert float(F.softplus(schedule.height.detach()).sum()) == pytest.approx(1, rel=1e-4)
    assert Learned(hidden=4).middle.tolist() == [0.125, 0.375, 0.625, 0.875]
    assert all(p.ndim == 1 for p in schedule.parameters())  # DeepSpeed takes no scalar


def test_ends_learn_only_when_told():
    t = torch.tensor([0.0, 0.25, 1.0])
    fixed, free = Learned(hidden=5), Learned(hidden=5, learn_ends=True)
    for schedule in (fixed, free):
        schedule.logsnr(t)[1].backward()
    assert fixed.ends.grad is None
    share = float(free.share(t)[1].detach())
    assert free.ends.grad is not None
    assert free.ends.grad.tolist() == pytest.approx([1 - share, share])


def test_times_of_logsnr_beyond_the_ends_are_the_ends():
    schedule = Learned(-4.0, 7.0, hidden=5)
    assert schedule.time(torch.tensor([9.0, -6.0])).tolist() == pytest.approx([0, 1])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"logsnr_min": 5.0, "logsnr_max": 5.0}, "logsnr_min = 5.0"),
        ({"hidden": 0}, "hidden = 0"),
        ({"hidden": 2.5}, "hidden = 2.5"),
    ],
)
def test_numbers_that_make_no_schedule_are_refused(words: dict[str, float], message: str):
    with pytest.raises(ValueError, match=message):
        Learned(**words)  # type: ignore[arg-type]


def test_bisection_finds_the_root_to_the_last_bits():
    value = torch.tensor([[0.0, 0.3], [0.7, 1.0]], dtype=torch.float64)
    root = rising_root(lambda x: x**3, value)
    torch.testing.assert_close(root, value ** (1 / 3), atol=1e-15, rtol=0)
    assert rising_root(lambda x: x**3, value.float()).dtype == torch.float32


def test_derivative_keeps_its_graph_when_told():
    schedule, t = wild(1), torch.tensor([0.2, 0.7], dtype=torch.float64)
    for keep in (False, True):
        share, speed = derivative(schedule.share, t, keep_graph=keep)
        assert share.requires_grad == speed.requires_grad == keep
        assert torch.equal(share.detach(), schedule.share(t).detach())
    (gradient,) = torch.autograd.grad(speed.sum(), schedule.middle)
    assert bool(gradient.abs().sum() > 0)
