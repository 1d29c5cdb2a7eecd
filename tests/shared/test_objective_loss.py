"""Losses: integrals over logsnr, learned schedules, learned ranges; each against its formula."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from shared import noise
from shared.codec import Bits, Identity
from shared.denoiser import Denoiser
from shared.objective import (
    NOISE,
    LogNormal,
    diffusion_loss,
    discrete_bound,
    elbo_terms,
    hybrid_loss,
    moment,
    sample_keys,
    step_kl,
    weight,
)
from shared.objective.streams import CHAIN
from shared.schedule import (
    Cosine,
    Edm,
    Flow,
    Learned,
    Level,
    Shifted,
    Ve,
    Warped,
    from_betas,
    linear_betas,
)
from tests.likelihoods import Plain


class Scale(nn.Module):
    """F = gain x, and a second half of bias + x / 2 where a range is learned."""

    def __init__(self, ranged: bool = False) -> None:
        super().__init__()
        self.gain, self.bias = nn.Parameter(torch.tensor(0.5)), nn.Parameter(torch.tensor(0.3))
        self.ranged = ranged
        self.seen: list[tuple[Tensor, Tensor | None]] = []

    def forward(self, x: Tensor, logsnr: Tensor, condition: Any, previous: Tensor | None) -> Tensor:
        self.seen.append((x, previous))
        out = self.gain * x
        return torch.cat([out, self.bias + x / 2], -1) if self.ranged else out


def batch(n: int = 6, D: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """data (n, D), t (n,), keys (n,)."""
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(n, D, generator=generator)
    return data, torch.linspace(0.15, 0.9, n), sample_keys(4, torch.arange(n))


def noisy(data: Tensor, keys: Tensor, level: Level) -> Tensor:
    eps = noise.normal(keys, NOISE, tuple(data.shape[1:]))
    return level.widen(2).alpha * data + level.widen(2).sigma * eps


@pytest.mark.parametrize("schedule", [Cosine(-6, 6), Flow(-5, 5), Edm()], ids=repr)
def test_loss_is_the_mean_weighted_squared_error_at_the_schedules_levels(schedule: Cosine):
    data, t, keys = batch()
    denoiser = Denoiser(Scale(), "edm", data_std=0.5)
    losses, level = diffusion_loss(denoiser, Identity((3,)), data, None, t, keys, schedule, "edm")
    expected_level = schedule(t)
    x0_hat = denoiser(noisy(data, keys, expected_level), expected_level)
    error = (x0_hat - data).square().mean(1)
    torch.testing.assert_close(losses, weight("edm", expected_level, 0.5) * error)
    torch.testing.assert_close(level.logsnr, expected_level.logsnr)


def test_weighting_may_be_any_function_of_the_level():
    data, t, keys = batch()
    some = (Denoiser(Scale(), "v"), Identity((3,)), data, None, t, keys, Flow(-5, 5))
    losses, level = diffusion_loss(*some, lambda level: level.alpha + 2)
    plain, _ = diffusion_loss(*some, "x0")
    torch.testing.assert_close(losses, (level.alpha + 2) * plain)


def test_density_turns_the_loss_into_an_integral_over_logsnr():
    """Times the rate of logsnr, over p(t): by hand, and with another sampler in the mean."""
    data, t, keys = batch()
    schedule, density = Flow(-5, 5), torch.tensor([0.5, 1.0, 2.0, 1.5, 0.7, 1.2])
    some = (Denoiser(Scale(), "v"), Identity((3,)), data, None, t, keys, schedule, "eps")
    plain, _ = diffusion_loss(*some)
    integral, level = diffusion_loss(*some, density)
    h = 1e-4
    rate = (schedule.logsnr(t.double() - h) - schedule.logsnr(t.double() + h)) / (2 * h)
    torch.testing.assert_close(
        integral.double(), plain.double() * rate / density, rtol=1e-5, atol=0
    )
    torch.testing.assert_close(level.logsnr, schedule(t).logsnr)


def test_elbo_weighting_with_density_is_the_diffusion_term_per_element():
    data, t, keys = batch()
    schedule = Ve(0.05, 20.0)
    denoiser = Denoiser(Scale(), "v")
    losses, _ = diffusion_loss(
        denoiser, Identity((3,)), data, None, t, keys, schedule, "elbo", torch.ones(6)
    )
    bound = elbo_terms(denoiser, Identity((3,)), data, schedule, keys, uniform=t)
    torch.testing.assert_close(losses, bound.diffusion / 3, rtol=1e-4, atol=0)


def test_cross_entropy_is_integrated_too():
    codec, (_, t, keys) = Bits(8, (5,)), batch()
    data = torch.arange(30).reshape(6, 5) % 8
    density, schedule = torch.linspace(0.5, 2, 6), Cosine(-6, 6)
    denoiser = Denoiser(Scale(), "categorical", codec=codec)
    some = (denoiser, codec, data, None, t, keys, schedule, "x0")
    plain, _ = diffusion_loss(*some)
    integral, _ = diffusion_loss(*some, density)
    torch.testing.assert_close(integral, plain * moment(schedule, t).rate / density)


def test_moment_is_the_level_and_its_rate():
    t = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    for schedule in (Flow(-5, 5), Shifted(Ve(), 1.0), Learned(-4, 6, 5).double()):
        at = moment(schedule, t)
        expected = schedule(t)
        for name in ("logsnr", "alpha", "sigma"):
            torch.testing.assert_close(getattr(at.level, name), getattr(expected, name))
        h = 1e-6
        rate = (schedule.logsnr(t - h) - schedule.logsnr(t + h)) / (2 * h)
        torch.testing.assert_close(at.rate, rate, rtol=1e-6, atol=0)
        assert at.rate.requires_grad == isinstance(schedule, Learned)
    with torch.no_grad():
        assert not moment(Learned(-4, 6, 5), t).rate.requires_grad


# --- the learned schedule


def gaussian(x_t: Tensor, level: Level, condition: Any = None, previous: Any = None) -> Tensor:
    """E[x0 | x_t] for x0 ~ N(0, 0.5)."""
    level = level.widen(x_t.ndim)
    return 0.5 * level.alpha * x_t / (0.5 * level.alpha**2 + level.sigma**2)


def learned(seed: int, learn_ends: bool = False) -> Learned:
    schedule = Learned(-4.0, 5.0, 3, learn_ends).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in (schedule.slope, schedule.steepness, schedule.middle, schedule.height):
            p.copy_(2 * torch.randn(p.shape, generator=generator, dtype=torch.float64))
    return schedule


def gaussian_data(n: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return 0.5**0.5 * torch.randn(n, 1, generator=generator, dtype=torch.float64)


def test_bound_does_not_depend_on_the_interior_of_the_schedule():
    """Two schedules with the same ends, 40,000 paired draws: three standard errors (one false alarm
    in 370, with this seed none); its variance does."""
    n = 40_000
    data, keys = gaussian_data(n), sample_keys(0, torch.arange(n))
    even, bent = Learned(-4.0, 5.0, 3).double(), Learned(-4.0, 5.0, 3).double()
    with torch.no_grad():
        bent.height.add_(3.0)
        bent.middle.fill_(0.8)
        one, two = (elbo_terms(gaussian, Plain(), data, x, keys) for x in (even, bent))
    difference = one.total - two.total
    assert abs(float(difference.mean())) < 3 * float(difference.std()) / n**0.5
    assert float(two.diffusion.var() / one.diffusion.var()) > 1.1


def test_interior_descends_on_the_squared_loss_and_ends_on_the_loss():
    """Gradients of one batch against finite differences of its second moment and of its mean."""
    schedule = learned(2, learn_ends=True)
    data, keys = gaussian_data(7), torch.arange(7)
    uniform = torch.linspace(0.05, 0.95, 7, dtype=torch.float64)

    def diffusion() -> Tensor:
        return elbo_terms(gaussian, Plain(), data, schedule, keys, uniform=uniform).diffusion

    diffusion().mean().backward()
    for name, power in (("slope", 2), ("steepness", 2), ("middle", 2), ("height", 2), ("ends", 1)):
        parameter = getattr(schedule, name)
        flat, gradient = parameter.data.view(-1), parameter.grad.view(-1)
        for i in range(len(flat)):
            values = []
            for step in (1e-5, -2e-5):
                flat[i] += step
                values.append(float((diffusion() ** power).detach().mean()))
            flat[i] += 1e-5
            difference = (values[0] - values[1]) / 2e-5
            assert float(gradient[i]) == pytest.approx(difference, rel=1e-5, abs=1e-8), name


def test_gradient_of_the_training_loss_is_that_of_the_bound():
    """For the network the plain one, for the interior that of the square, per element."""
    data, t, keys = batch(5, 1)
    schedule = Learned(-4.0, 5.0, 3)
    net, codec = Scale(), Identity((1,))
    denoiser, gain = Denoiser(net, "v"), net.gain
    losses, _ = diffusion_loss(
        denoiser, codec, data, None, t, keys, schedule, "elbo", torch.ones(5)
    )
    losses.mean().backward()
    interior = [schedule.slope, schedule.steepness, schedule.middle, schedule.height]
    grads = [p.grad for p in interior]
    again, _ = diffusion_loss(denoiser, codec, data, None, t, keys, schedule, "elbo", torch.ones(5))
    (network,) = torch.autograd.grad(again.mean(), [gain])
    torch.testing.assert_close(gain.grad, network)
    bound = elbo_terms(denoiser, codec, data, schedule, keys, uniform=t)
    for got, expected in zip(
        grads, torch.autograd.grad(bound.diffusion.mean(), interior), strict=True
    ):
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-6)


def test_variance_falls_as_the_interior_learns():
    """Gradient descent on a fixed batch of 512 times: the squared loss ends below its start."""
    schedule = Learned(-4.0, 5.0, 8).double()
    data, keys = gaussian_data(512), torch.arange(512)
    uniform = (torch.arange(512).double() + 0.5) / 512
    seconds = []
    for _ in range(30):
        schedule.zero_grad()
        losses = elbo_terms(gaussian, Plain(), data, schedule, keys, uniform=uniform).diffusion
        losses.mean().backward()
        seconds.append(float(losses.detach().square().mean()))
        with torch.no_grad():
            for p in schedule.parameters():
                if p.grad is not None:
                    p -= 0.05 * p.grad
    assert seconds[-1] < 0.97 * seconds[0]


def test_learned_schedule_without_density_is_refused():
    data, t, keys = batch()
    with pytest.raises(ValueError, match="density = None: a learned schedule"):
        diffusion_loss(Denoiser(Scale()), Identity((3,)), data, None, t, keys, Learned())


# --- the learned range


def test_hybrid_loss_is_simple_plus_a_thousandth_of_the_bound():
    """By hand on T = 8 steps: t is rounded up to i / 8; eps-MSE + 0.001 x 8 x KL per element."""
    data, t, keys = batch()
    schedule = Cosine(-6, 7)
    denoiser = Denoiser(Scale(ranged=True), "eps", learned_range=True)
    losses, level = hybrid_loss(denoiser, Identity((3,)), data, None, t, keys, schedule, steps=8)
    for i, time in enumerate(t.tolist()):
        place = math.ceil(time * 8)
        at, to = (schedule(torch.tensor([k / 8])) for k in (place, place - 1))
        torch.testing.assert_close(level.logsnr[i], at.logsnr[0])
        x0 = data[i : i + 1]
        x0_hat, fraction = denoiser.with_range(noisy(x0, keys[i : i + 1], at), at)
        simple = at.logsnr.exp() * (x0 - x0_hat).square().mean()
        kl = step_kl(x0, x0_hat, at, to, fraction) / 3
        torch.testing.assert_close(losses[i : i + 1], simple + 0.008 * kl)


def test_hybrid_loss_teaches_the_estimate_by_the_simple_loss_alone():
    data, t, keys = batch()
    net = Scale(ranged=True)
    denoiser = Denoiser(net, "eps", learned_range=True)
    some = (denoiser, Identity((3,)), data, None, t, keys, Cosine(-6, 7), 8, "eps")
    for share in (0.0, 5.0):
        losses, _ = hybrid_loss(*some, share)
        gain, bias = torch.autograd.grad(losses.sum(), [net.gain, net.bias], allow_unused=True)
        if share == 0:
            simple = gain
        else:
            torch.testing.assert_close(gain, simple)
            assert float(bias.abs()) > 0.01


def test_hybrid_loss_of_a_chain_leaves_out_its_step_to_the_clean_end():
    chain = from_betas(linear_betas(8, 0.05, 0.5))
    data, _, keys = batch()
    t = torch.tensor([0.0, 0.01, 0.124, 0.126, 0.6, 1.0])
    net = Scale(ranged=True)
    some = (Denoiser(net, "eps", learned_range=True), Identity((3,)), data, None, t, keys, chain, 8)
    whole, level = hybrid_loss(*some)
    simple, _ = hybrid_loss(*some, share=0.0)
    assert bool(whole.isfinite().all())
    assert (whole - simple).gt(1e-7).tolist() == [False, False, False, True, True, True]
    torch.testing.assert_close(level.logsnr, chain(torch.tensor([1, 1, 1, 2, 5, 8]) / 8).logsnr)
    (gradient,) = torch.autograd.grad(whole.sum(), [net.bias])
    assert bool(gradient.isfinite())


def test_hybrid_loss_shows_even_keys_their_first_estimate():
    data, t, keys = batch()
    net = Scale(ranged=True)
    denoiser = Denoiser(net, "eps", self_condition=True, learned_range=True)
    hybrid_loss(denoiser, Identity((3,)), data, None, t, keys, Cosine(-6, 7), 8)
    assert [len(x) for x, _ in net.seen] == [3, 6]
    previous = net.seen[1][1]
    assert previous is not None
    assert previous.abs().sum(1).gt(0).tolist() == [True, False] * 3


@pytest.mark.parametrize("key", [2, 3])
def test_no_network_is_given_an_empty_batch(key: int):
    """Nor is its first pass left out: networks cut over ranks gather their weights in it."""
    data, t, _ = batch()
    net = Scale()
    denoiser = Denoiser(net, "eps", self_condition=True)
    keys = torch.tensor([key])
    diffusion_loss(denoiser, Identity((3,)), data[:1], None, t[:1], keys, Cosine(-6, 7), "x0")
    assert [len(x) for x, _ in net.seen] == [1, 1]
    previous = net.seen[1][1]
    assert previous is not None
    assert bool(previous.any()) == (key % 2 == 0)


def test_bound_with_a_learned_range_takes_the_networks_fraction():
    data, _, keys = batch()
    denoiser = Denoiser(Scale(ranged=True), "eps", learned_range=True)
    chain = (denoiser, Identity((3,)), data, Cosine(-4, 5), keys)
    bound = discrete_bound(*chain, steps=1, fraction=None)
    at, to = (Cosine(-4, 5)(torch.tensor(x, dtype=torch.float64)) for x in (1.0, 0.0))
    eps = noise.normal(keys, CHAIN, (3,))
    x_t = (at.alpha * data + at.sigma * eps).float()
    x0_hat, fraction = denoiser.with_range(x_t, at.to(data))
    torch.testing.assert_close(bound.diffusion, step_kl(data, x0_hat, at, to, fraction))
    for fixed in (0.0, 1.0):
        other = discrete_bound(*chain, steps=1, fraction=fixed).diffusion
        assert not torch.allclose(other, bound.diffusion)


def test_log_normal_times_make_edms_loss():
    """Mean over ln sigma ~ N(-1.2, 1.2^2) of (sigma^2 + sd^2) / (sigma sd)^2 |error|^2: with the
    error of a network that says 0, E[F^2] = 1 at every level. 4,000 data, four standard errors."""
    n, sd = 4000, 0.5
    data = sd * torch.randn(n, 3, generator=torch.Generator().manual_seed(9))
    t, _ = LogNormal(Edm())((torch.arange(n) + 0.5) / n)
    net = Scale()
    net.gain.data.zero_()
    losses, level = diffusion_loss(
        Denoiser(net, "edm", sd), Identity((3,)), data, None, t, torch.arange(n), Edm(), "edm"
    )
    assert float(losses.mean().detach()) == pytest.approx(
        1, abs=4 * float(losses.std().detach()) / n**0.5
    )
    assert float(level.sigma.log().mean()) == pytest.approx(-1.2, abs=1e-3)


def test_bound_with_a_learned_range_shows_the_estimate_of_the_same_level():
    """The first pass sees the level of the second: logsnr 5 at t = 0 is never evaluated."""
    seen: list[tuple[float, bool]] = []

    class Net(nn.Module):
        def forward(self, x: Tensor, logsnr: Tensor, condition: Any, previous: Tensor) -> Tensor:
            seen.append((float(logsnr[0]), bool(previous.any())))
            return torch.cat([x / 2 + previous, x], -1)

    data, _, keys = batch()
    denoiser = Denoiser(Net(), "x0", self_condition=True, learned_range=True)
    schedule = Warped((5.0, -4.0))
    discrete_bound(denoiser, Identity((3,)), data, schedule, keys, steps=2, fraction=None, passes=2)
    assert seen == [(-4, False), (-4, True), (0.5, False), (0.5, True)]
