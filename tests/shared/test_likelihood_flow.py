"""The density of the flow against the oracles' own, its trace, and its bound on discrete data."""

import math

import pytest
import torch
from torch import Tensor

from shared import noise
from shared.codec import Bits, Identity
from shared.guidance import count_evaluations
from shared.likelihood import elbo, exact, hutchinson, log_density, ode
from shared.likelihood.bound import evaluation_keys
from shared.likelihood.flow import _probe, _worst
from shared.objective.streams import CLEANEST, PROBE
from shared.oracle import LowRankGaussian, PointMixture
from shared.schedule import Cosine, FromBetas, Level, Schedule
from tests.likelihoods import FAMILIES, Plain, between, f64, mixture


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def latents(x: Tensor, level: Level, draws: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """z_0 of x (B, D), one a draw, and which datum each is of (B draws,)."""
    rows = torch.arange(len(x) * draws)
    eps = noise.normal(evaluation_keys(seed, rows), CLEANEST, tuple(x.shape[1:])).double()
    return level.alpha * x[rows // draws] + level.sigma * eps, rows // draws


def noisy(oracle, schedule, n: int, seed: int = 0) -> tuple[Tensor, Level]:
    level = schedule(f64(0.0))
    x0 = oracle.sample(n, torch.Generator().manual_seed(seed)).double()
    return level.alpha * x0 + level.sigma * draw(seed + 1, *x0.shape), level


@pytest.mark.parametrize("family", FAMILIES)
def test_with_the_exact_denoiser_the_density_is_the_oracles(family: str):
    """To 1e-4 nats/dim, from far out as from near; the prior is alike to 1e-6 at logsnr -20."""
    oracle, schedule = mixture(), between(11.0, -20.0, family)
    z_0, level = noisy(oracle, schedule, 9)
    z_0[0] += 3.0
    found = log_density(oracle.denoise, z_0, schedule, torch.arange(9), trace=exact)
    apart = (found.log_prob - oracle.log_prob(z_0, level)) / 2
    assert float(apart.abs().max()) < 1e-4
    assert 100 < found.nfe < 400


@pytest.mark.parametrize("family", ["vp", "ve"])
def test_the_density_is_right_near_both_ends_in_float32(family: str):
    """logsnr from 18 to -18: sigma from 1e-4, and to 8e3 where alpha is 1."""
    oracle = LowRankGaussian(draw(0, 5) * 1e-3, draw(1, 5, 2), 0.4)
    schedule = between(18.0, -18.0, family)
    z_0, level = noisy(oracle, schedule, 7)
    single = LowRankGaussian(oracle.mean.float(), oracle.factor.float(), 0.4)
    found = log_density(single.denoise, z_0.float(), schedule, torch.arange(7), trace=exact)
    apart = (found.log_prob - oracle.log_prob(z_0.float().double(), level)) / 5
    assert float(apart.abs().max()) < 1e-4


def test_the_variable_of_integration_does_not_matter():
    """`data_std` chooses it, and the width of the noisiest level: (s^2 - 1) snr_1, here below
    1e-6 nats."""
    oracle, schedule = mixture(), between(8.0, -16.0, "flow")
    z_0, _ = noisy(oracle, schedule, 6)
    one, other = (
        log_density(
            oracle.denoise, z_0, schedule, torch.arange(6), trace=exact, data_std=s, rtol=1e-7,
            atol=1e-7,
        )
        for s in (1.0, 0.4)
    )  # fmt: skip
    torch.testing.assert_close(one.log_prob, other.log_prob, rtol=0, atol=1e-5)
    assert one.nfe != other.nfe


def test_the_noisiest_level_is_a_gaussian_of_the_stated_width():
    """A denoiser that finds nothing leaves y / s still: p(z_0) = N(0, q_0^2) for any s."""
    schedule = between(2.0, -1.0, "flow")
    level, z_0 = schedule(f64(0.0)), draw(2, 4, 3)
    for s in (0.6, 1.7):

        def gaussian(x_t, level, condition=None, previous=None, s=s):
            return level.alpha * s**2 / ((level.alpha * s) ** 2 + level.sigma**2) * x_t

        found = log_density(gaussian, z_0, schedule, torch.arange(4), data_std=s)
        variance = float((level.alpha * s) ** 2 + level.sigma**2)
        expected = -(z_0.square() / variance + math.log(2 * math.pi * variance)).sum(1) / 2
        torch.testing.assert_close(found.log_prob, expected)


def jacobian() -> Tensor:
    return draw(7, 6, 6)


def through(matrix: Tensor):
    """x (B, 2, 3) -> tanh(x M^T) of the flat x, and its exact trace (B,)."""

    def function(x: Tensor) -> Tensor:
        return torch.tanh(x.flatten(1) @ matrix.mT).reshape(x.shape)

    def trace(x: Tensor) -> Tensor:
        return ((1 - function(x).flatten(1) ** 2) * matrix.diagonal()).sum(1)

    return function, trace


def test_exact_trace_is_that_of_each_samples_own_jacobian():
    function, trace = through(jacobian())
    x = draw(8, 4, 2, 3)
    value, found = exact(function, x, torch.zeros_like(x))
    torch.testing.assert_close(value, function(x))
    torch.testing.assert_close(found, trace(x))
    assert not value.requires_grad
    assert not found.requires_grad


def test_hutchinsons_trace_is_unbiased():
    """20,000 probes each of three points, four standard errors: false alarm 2e-4."""
    function, trace = through(jacobian())
    points = draw(9, 3, 2, 3)
    x = points.repeat_interleave(20_000, 0)
    value, found = hutchinson(function, x, _probe(torch.arange(len(x)), x))
    torch.testing.assert_close(value, function(x))
    rows = found.reshape(3, -1)
    error = rows.std(1) / 20_000**0.5
    assert bool(((rows.mean(1) - trace(points)).abs() < 4 * error).all())
    assert bool((rows.std(1) > 0.5).all())
    torch.testing.assert_close(
        hutchinson(function, x[:4], torch.full_like(x[:4], 2.0))[1],
        4 * hutchinson(function, x[:4], torch.ones_like(x[:4]))[1],
    )


def test_hutchinsons_trace_is_exact_on_a_diagonal():
    function, trace = through(torch.diag(draw(3, 6)))
    x = draw(4, 5, 2, 3)
    found = hutchinson(function, x, _probe(torch.arange(5), x))[1]
    torch.testing.assert_close(found, trace(x))


def test_probes_are_signs_keyed_by_sample():
    """40,000 signs: mean and neighbours' product within five standard errors."""
    like = torch.zeros(4000, 2, 5)
    probe = _probe(torch.arange(4000), like)
    assert bool((probe.abs() == 1).all())
    assert abs(float(probe.mean())) < 5 / 40_000**0.5
    assert abs(float((probe[:, :, 1:] * probe[:, :, :-1]).mean())) < 5 / 32_000**0.5
    assert torch.equal(_probe(torch.tensor([7, 3]), like[:2]), probe[[7, 3]])
    drawn = noise.uniform(torch.arange(4000), PROBE, (2, 5))
    assert torch.equal(probe, (drawn - 0.5).sign())


def test_the_error_is_that_of_the_worst_sample():
    y = f64([[1.0, 1.0], [3.0, 4.0], [0.0, 2.0]])
    assert float(_worst((y, f64([1.0, -2.0, 0.5])))) == pytest.approx(12.5**0.5)
    assert float(_worst((y, f64([1.0, -9.0, 0.5])))) == 9.0


def test_hutchinsons_density_is_unbiased_and_keyed():
    """One latent under 500 probes, 4 standard errors: false alarm 6e-5."""
    oracle = LowRankGaussian(torch.zeros(4).double(), draw(1, 4, 2), 0.3)
    schedule = between(7.0, -16.0)
    z_0, level = noisy(oracle, schedule, 1)
    many = z_0.expand(500, -1)
    found = log_density(oracle.denoise, many, schedule, torch.arange(500)).log_prob
    assert float(found.std()) > 0.3
    exactly = float(oracle.log_prob(z_0, level))
    assert abs(float(found.mean()) - exactly) < 4 * float(found.std()) / 500**0.5
    few = log_density(oracle.denoise, many[:2], schedule, torch.tensor([3, 40])).log_prob
    torch.testing.assert_close(few, found[[3, 40]], rtol=0, atol=1e-4)


def test_two_passes_give_the_density_of_what_the_denoiser_says_when_shown_itself():
    """c x + d previous, of which c (1 + d) is the exact gain. The trace is that of both passes:
    with the first held fixed it would be that of c alone."""
    oracle, schedule = LowRankGaussian(f64([0.0] * 3), draw(1, 3, 1), 0.5), between(8.0, -16.0)
    z_0, level = noisy(oracle, schedule, 5)

    def parts(x_t, level, condition=None, previous=None):
        own = oracle.denoise(x_t, level) / 1.3
        return own if previous is None else own + 0.3 * previous

    found = log_density(parts, z_0, schedule, torch.arange(5), trace=exact, passes=2)
    torch.testing.assert_close(found.log_prob, oracle.log_prob(z_0, level), rtol=0, atol=1e-4)
    whole = log_density(oracle.denoise, z_0, schedule, torch.arange(5), trace=exact)
    assert found.nfe == 2 * whole.nfe


def test_continuous_data_have_the_density_that_the_noise_of_the_cleanest_level_leaves():
    """log alpha is all that is left of noise and reconstruction; -log p = E -log p_0(z_0) - log
    alpha_0 a dimension, here with the oracle's p_0 at the same z_0."""
    oracle, schedule = mixture(), between(9.0, -20.0, "flow")
    x = oracle.sample(6, torch.Generator().manual_seed(3))
    found = ode(oracle.denoise, Plain(2), x, schedule, draws=2, seed=4, trace=exact)
    level = schedule(f64(0.0))
    left = found.terms["noise"] + found.terms["reconstruction"]
    torch.testing.assert_close(left, (-2 * level.alpha.log()).expand(6))
    expected = -oracle.log_prob(latents(x, level, 2, seed=4)[0], level).reshape(6, 2).mean(1)
    torch.testing.assert_close(found.terms["flow"], expected, rtol=0, atol=2e-4)
    assert (found.dims, found.draws) == (2, 2)


def test_identity_codec_in_float32_gives_the_same():
    oracle, schedule = mixture(), between(9.0, -20.0, "sub_vp")
    x = oracle.sample(4, torch.Generator().manual_seed(3))
    found, exactly = (
        ode(oracle.denoise, codec, x, schedule, trace=exact) for codec in (Identity((2,)), Plain(2))
    )
    torch.testing.assert_close(found.nats, exactly.nats, rtol=0, atol=2e-3)


def words() -> tuple[Bits, Tensor, Tensor, PointMixture]:
    """Three rows of two numbers below five, with their probabilities and their oracle."""
    codec = Bits(5, (2,), scale=0.8)
    data, weights = torch.tensor([[0, 3], [4, 1], [2, 3]]), f64([0.2, 0.5, 0.3])
    return codec, data, weights, PointMixture(codec.encode(data), weights)


@pytest.mark.parametrize("family", ["vp", "sub_vp"])
def test_on_discrete_data_the_bound_is_the_exact_log_probability(family: str):
    """Row by row, not on average alone: at a clean z_0, p(z_0) is w_k q(z_0 | row k)."""
    codec, data, weights, oracle = words()
    found = ode(
        oracle.denoise, codec, data, between(10.0, -16.0, family), draws=2, data_std=0.8,
        trace=exact,
    )  # fmt: skip
    torch.testing.assert_close(found.nats, -weights.log(), rtol=0, atol=6 * 1e-4)


def test_on_discrete_data_both_bounds_are_below_the_exact_log_probability():
    """With a coarse cleanest level: by E KL(posterior || rounding), and alike but for the prior;
    3 standard errors: false alarm 0.3 %."""
    codec, data, weights, oracle = words()
    draws, schedule = 400, between(0.5, -16.0, "flow")
    rows = data.repeat(draws, 1)
    flow = ode(
        oracle.denoise, codec, rows, schedule, data_std=0.8, trace=exact, batch=len(rows), rtol=1e-4
    )
    bound = elbo(oracle.denoise, codec, rows, schedule, batch=len(rows))
    level = schedule(f64(0.0))
    z_0 = level.alpha * codec.encode(rows) + level.sigma * draw(5, len(rows), 2, 3)
    which = torch.arange(3).repeat(draws)[:, None]
    gap = oracle.log_posterior(z_0, level).gather(1, which)[:, 0] - codec.log_prob(rows, z_0, level)
    gap = gap.reshape(draws, 3) @ weights
    entropy = -float((weights * weights.log()).sum())
    assert float(gap.mean()) > 10 * float(gap.std()) / draws**0.5
    for found in (flow, bound):
        nats = found.nats.reshape(draws, 3) @ weights
        error = float((nats.var() + gap.var()) / draws) ** 0.5
        assert float(nats.mean()) > entropy + 3 * error
        assert abs(float(nats.mean() - gap.mean()) - entropy) < 3 * error
    again = elbo(oracle.denoise, codec, rows, schedule, draws=1, batch=len(rows))
    torch.testing.assert_close(flow.terms["reconstruction"], again.terms["reconstruction"])


def test_condition_and_batches_go_with_their_rows():
    oracle = mixture()
    labels = torch.tensor([[0], [1], [1]])
    x = oracle.sample(3, torch.Generator().manual_seed(2), labels)
    schedule = between(8.0, -22.0)
    told: list[float] = []
    counted = count_evaluations(oracle.denoise)
    found = ode(
        counted, Plain(2), x, schedule, labels, draws=2, batch=4, trace=exact,
        callback=told.append,
    )  # fmt: skip
    level = schedule(f64(0.0))
    z_0, of = latents(x, level, draws=2)
    expected = -oracle.log_prob(z_0, level, labels[of]).reshape(3, 2).mean(1)
    torch.testing.assert_close(found.terms["flow"], expected, rtol=0, atol=2e-4)
    assert told[0] == 0
    assert max(told) == told[-1] == 1
    assert min(abs(share - 4 / 6) for share in told) < 1e-9
    assert all(0 <= share <= 1 for share in told)
    assert found.nfe == counted.rows / 6


def test_only_levels_of_the_schedule_are_asked_for():
    """A Runge-Kutta step may not reach over the end: the network knows nothing there."""
    oracle, schedule = mixture(), between(5.0, -4.0, "ve")
    asked: list[float] = []

    def watched(x_t, level, condition=None, previous=None):
        asked.append(float(level.logsnr))
        return oracle.denoise(x_t, level)

    log_density(watched, noisy(oracle, schedule, 3)[0], schedule, torch.arange(3))
    assert max(asked) == 5.0
    assert min(asked) == pytest.approx(-4.0, abs=1e-12)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"draws": 0}, "draws = 0"),
        ({"condition": torch.zeros(3, 1)}, "condition: 3 rows for 2 data"),
        ({"rtol": 0.0}, r"rtol = 0\.0"),
        ({"atol": -1.0}, r"atol = -1\.0"),
        ({"data_std": 0.0}, r"data_std = 0\.0"),
        ({"passes": 0}, "passes = 0"),
        ({"cleanest": -0.1}, r"cleanest = -0\.1"),
        ({"schedule": FromBetas((0.1, 0.2))}, "no noise is left there"),
    ],
)
def test_impossible_arguments_are_refused_by_name(settings, words):
    values = {"data": f64([[0.1, 0.2], [0.3, 0.1]]), "schedule": Cosine()} | settings
    with pytest.raises(ValueError, match=words):
        ode(mixture().denoise, Plain(2), **values)


def test_an_end_without_signal_is_refused():
    class Endless(Schedule):
        def logsnr(self, t: Tensor) -> Tensor:
            return 9 - 1 / (1 - t)

        def time(self, logsnr: Tensor) -> Tensor:
            return 1 - 1 / (9 - logsnr)

    with pytest.raises(ValueError, match="logsnr = -inf at t = 1"):
        log_density(mixture().denoise, f64([[0.1, 0.2]]), Endless(), torch.arange(1))


def test_keys_of_another_number_are_refused():
    with pytest.raises(ValueError, match=r"expected one a latent, \(1,\)"):
        log_density(mixture().denoise, f64([[0.1, 0.2]]), Cosine(), torch.arange(2))


@pytest.mark.parametrize("trace", [exact, hutchinson])
def test_an_estimate_without_gradient_is_refused(trace):
    with pytest.raises(ValueError, match="carries no gradient"):
        log_density(
            torch.no_grad()(mixture().denoise), f64([[0.1, 0.2]]), Cosine(), torch.arange(1),
            trace=trace,
        )  # fmt: skip


def test_a_flow_that_is_not_finite_names_the_level():
    def broken(x_t, level, condition=None, previous=None):
        return x_t * (math.nan if float(level.logsnr) < 1 else 1.0)

    with pytest.raises(FloatingPointError, match=r"not finite at logsnr = -?0\."):
        log_density(broken, f64([[0.1, 0.2]]), Cosine(), torch.arange(1))
