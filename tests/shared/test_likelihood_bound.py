"""The bound against closed forms: on Gaussians by quadrature, elsewhere in the mean of many draws.

With the exact denoiser, d I(x; z) / d snr = mmse / 2 (Guo et al. 2005) makes the mean continuous
bound

    I(x; z_0) + KL(p(z_1) || N(0, sigma_1^2)) - E log p(x | z_0)
      = H(x) + [h(z_0 / alpha_0) - h(x)] + KL(p(z_1) || N(0, sigma_1^2))

so it is above the entropy by the blur of the cleanest level and the mismatch of the prior, no more.
A chain of steps adds the gap between a Riemann sum of mmse and its integral.
"""

import itertools
import math
from functools import partial

import pytest
import torch
from torch import Tensor

from shared import noise
from shared.codec import Bits
from shared.denoiser import Denoiser
from shared.likelihood import chain_elbo, elbo
from shared.likelihood.bound import _times, evaluation_keys
from shared.objective import discrete_bound, sample_keys
from shared.oracle import PointMixture
from shared.schedule import Cosine, FromBetas, Level
from tests.likelihoods import FAMILIES, Plain, between, corners, f64, gaussian, mixture

HIGH, LOW = 9.0, -5.0  # both ends cost something that can be seen


@pytest.fixture
def quadrature(monkeypatch: pytest.MonkeyPatch):
    """quadrature(width): from here on draw k of a datum has the k-th corner as its noise, so that
    the mean over 2^width draws of a quadratic is its expectation."""

    def patch(width: int) -> int:
        nodes = corners(width)
        count = len(nodes)

        def normal(keys: Tensor, step: int, shape: tuple[int, ...], device: object = None):
            return nodes.repeat(len(keys) // count, 1)

        monkeypatch.setattr(noise, "normal", normal)
        return count

    return patch


def entropy(variances: Tensor) -> float:
    return float((2 * math.pi * math.e * variances).log().sum()) / 2


def ends(oracle, data: Tensor, variances: Tensor, high: float, low: float) -> tuple[float, float]:
    """What the cleanest level's blur costs, and the mismatch of the prior, nats."""
    blur = float((1 + math.exp(-high) / variances).log().sum()) / 2
    power, snr = float(data.square().sum(1).mean()), math.exp(low)
    return blur, snr * power / 2 - float((1 + variances * snr).log().sum()) / 2


def chain(oracle, data: Tensor, draws: int, steps: int, family: str) -> dict[str, float]:
    found = chain_elbo(
        oracle.denoise, Plain(data.shape[1]), data, between(HIGH, LOW, family), steps,
        draws=draws, batch=len(data) * draws,
    )  # fmt: skip
    means = {name: found.term(name).value for name in found.terms}
    return means | {"total": found.nats_per_datum.value}


@pytest.mark.parametrize(("family", "width"), [*((f, 2) for f in FAMILIES), ("sub_vp", 1)])
def test_chain_rises_with_its_steps_to_the_continuous_bound(quadrature, family, width):
    oracle, data, variances = gaussian(width)
    draws = quadrature(width)
    blur, mismatch = ends(oracle, data, variances, HIGH, LOW)
    best = entropy(variances)
    bounds: dict[int, float] = {}
    many = (1000,) if family == "flow" else ()
    for steps in (1, 2, 3, 7, 15, 30, 60, 120, 240, 480, *many):
        found = chain(oracle, data, draws, steps, family)
        snr = torch.exp(torch.linspace(LOW, HIGH, steps + 1, dtype=torch.float64))
        mmse = (variances / (1 + variances * snr[:-1, None])).sum(1)
        assert found["diffusion"] == pytest.approx(float((snr.diff() * mmse).sum()) / 2, rel=1e-10)
        assert found["prior"] == pytest.approx(
            math.exp(LOW) * float(data.square().sum(1).mean()) / 2, rel=1e-10
        )
        assert found["reconstruction"] == pytest.approx(
            width / 2 * (math.log(2 * math.pi) - HIGH + 1), rel=1e-10
        )
        bounds[steps] = -found["total"]
        assert bounds[steps] <= -best  # the mean bound is never above the mean log-density
    values = list(bounds.values())
    assert values == sorted(values)
    # Richardson: with h = 1 / steps, the error is a series in h
    rows = [bounds[steps] for steps in (30, 60, 120, 240, 480)]
    for power in (1, 2, 3, 4):
        rows = [(2**power * b - a) / (2**power - 1) for a, b in itertools.pairwise(rows)]
    assert -rows[0] - mismatch - blur == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize(("family", "width"), [*((f, 2) for f in FAMILIES), ("ve", 1)])
def test_continuous_bound_is_the_entropy_but_for_its_ends(quadrature, family, width):
    """Times t = u - sin(2 pi u) / 2 pi: evenly spaced u then integrate to 1e-7, since the integrand
    and its slope vanish at both ends."""
    oracle, data, variances = gaussian(width)
    draws = 256 * quadrature(width)

    def times(uniform: Tensor) -> tuple[Tensor, Tensor]:
        angle = 2 * math.pi * uniform
        return uniform - angle.sin() / (2 * math.pi), 1 / (1 - angle.cos())

    schedule = between(HIGH, LOW, family)
    found = elbo(
        oracle.denoise, Plain(width), data, schedule, draws=draws, times=times,
        batch=len(data) * draws,
    )  # fmt: skip
    blur, mismatch = ends(oracle, data, variances, HIGH, LOW)
    assert blur > 1e-4
    assert mismatch > 1e-4
    expected = entropy(variances) + blur + mismatch
    assert found.nats_per_datum.value == pytest.approx(expected, abs=1e-6)
    snr = f64([LOW, HIGH]).exp()
    gained = (1 + variances * snr[:, None]).log().sum(1).diff() / 2  # I(x; z_0) - I(x; z_1)
    assert found.term("diffusion").value == pytest.approx(float(gained), abs=1e-6)
    assert found.nfe == 1


def grid_terms(oracle, level: Level) -> tuple[float, float]:
    """h(z) and -E log N(z; 0, sigma^2) at a level, by the trapezium rule on the plane, nats."""
    reach = 7 * float(level.sigma.square() + level.alpha.square()) ** 0.5
    axis = torch.linspace(-reach, reach, 301, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis)
    log_p = oracle.log_prob(z, level)
    weights = log_p.exp() * (axis[1] - axis[0]) ** 2
    assert float(weights.sum()) == pytest.approx(1, abs=1e-6)
    normal = z.square().sum(1) / (2 * level.sigma**2) + torch.log(2 * math.pi * level.sigma**2)
    return -float((weights * log_p).sum()), float((weights * normal).sum())


@pytest.mark.parametrize("family", FAMILIES)
def test_on_a_mixture_the_bound_is_off_log_p_by_its_closed_form(family):
    """Paired with each datum's log p; 3 standard errors: false alarm 0.3 %."""
    oracle, schedule = mixture(), between(4.0, -2.0, family)
    x = oracle.sample(15_000, torch.Generator().manual_seed(1))
    found = elbo(oracle.denoise, Plain(2), x, schedule, draws=4, seed=3, batch=10_000)
    first, last = (schedule(f64(t)) for t in (0.0, 1.0))
    clean = Level(*f64([math.inf, 1.0, 0.0]))
    blurred = grid_terms(oracle, first)[0] - 2 * math.log(float(first.alpha))
    spread, normal = grid_terms(oracle, last)
    off = blurred - grid_terms(oracle, Level(clean.logsnr, clean.alpha, clean.sigma + 1e-9))[0]
    expected = off + normal - spread
    apart = found.nats + oracle.log_prob(x, clean)
    error = float(apart.std()) / math.sqrt(len(x))
    assert expected > 5 * error  # or the test would see nothing
    assert abs(float(apart.mean()) - expected) < 3 * error


def words() -> tuple[Bits, Tensor, Tensor, PointMixture]:
    """Five rows of four numbers below five, with their probabilities and their oracle."""
    codec = Bits(5, (4,), scale=0.8)
    data = torch.tensor([[0, 1, 2, 3], [4, 4, 1, 0], [0, 1, 2, 4], [3, 3, 3, 3], [2, 0, 4, 1]])
    weights = f64([0.1, 0.3, 0.25, 0.2, 0.15])
    return codec, data, weights, PointMixture(codec.encode(data), weights)


@pytest.mark.parametrize("family", FAMILIES)
def test_on_discrete_data_the_bound_reaches_the_exact_entropy(family):
    """Wide ends cost nothing; 3 standard errors of the mean over noise: false alarm 0.3 %."""
    codec, data, weights, oracle = words()
    B, draws = len(data), 3000
    found = elbo(
        oracle.denoise, codec, data.repeat(draws, 1), between(10.0, -14.0, family), draws=1,
        seed=2, batch=B * draws,
    )  # fmt: skip
    nats = found.nats.reshape(draws, B) @ weights
    expected = -float((weights * weights.log()).sum())
    assert abs(float(nats.mean()) - expected) < 3 * float(nats.std()) / draws**0.5
    assert found.term("reconstruction").value < 1e-6


def idle(x_t, level, condition=None, previous=None):
    return x_t


def test_reconstruction_of_bits_is_its_closed_form():
    """Bits of a power of two are independent, with logit b (2 r + 2 sqrt(r) eps), r = scale^2 snr:
    softplus by quadrature over eps; 4 standard errors: false alarm 6e-5."""
    codec, high = Bits(8, (3,), scale=0.7), 1.2
    data = torch.arange(24_000).reshape(-1, 3) % 8
    found = elbo(idle, codec, data, between(high, -3.0), draws=1, batch=8000)
    eps = torch.linspace(-9, 9, 4001, dtype=torch.float64)
    r = 0.49 * math.exp(high)
    density = torch.exp(-(eps**2) / 2) / math.sqrt(2 * math.pi)
    loss = torch.nn.functional.softplus(-(2 * r + 2 * math.sqrt(r) * eps))
    expected = 9 * float((loss * density).sum() * (eps[1] - eps[0]))
    got = found.term("reconstruction")
    assert abs(got.value - expected) < 4 * got.error
    assert got.error < 0.05 * expected


def test_with_a_coarse_cleanest_level_the_bound_is_above_the_entropy():
    """The rounding takes every word for equally likely: its cost is E KL(posterior || rounding)."""
    codec, data, weights, oracle = words()
    draws, schedule = 3000, between(1.0, -14.0)
    rows = data.repeat(draws, 1)
    found = elbo(oracle.denoise, codec, rows, schedule, draws=1, seed=4, batch=len(rows))
    level = schedule(f64(0.0))
    x0 = codec.encode(rows).double()
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z_0 = level.alpha * x0 + level.sigma * eps
    which = torch.arange(len(data)).repeat(draws)[:, None]
    gap = oracle.log_posterior(z_0, level).gather(1, which)[:, 0] - codec.log_prob(rows, z_0, level)
    nats, gap = (each.reshape(draws, -1) @ weights for each in (found.nats, gap.double()))
    expected = float(gap.mean() - (weights * weights.log()).sum())
    error = float((nats.var() + gap.var()) / draws) ** 0.5
    assert float(gap.mean()) > 10 * error
    assert abs(float(nats.mean()) - expected) < 3 * error  # false alarm 0.3 %


def test_two_passes_show_a_self_conditioned_denoiser_its_estimate():
    """0.5 x0_hat first, then 0.5 x0_hat + its first estimate: two passes are the exact denoiser."""
    oracle, x = mixture(), mixture().sample(6, torch.Generator().manual_seed(0))
    schedule = between(8.0, -8.0, "flow")

    def halves(x_t, level, condition=None, previous=None):
        return 0.5 * oracle.denoise(x_t, level) + (0 if previous is None else previous)

    for estimate, steps in ((elbo, 1), (partial(chain_elbo, steps=5), 5)):
        whole = estimate(oracle.denoise, Plain(2), x, schedule, draws=3)
        two = estimate(halves, Plain(2), x, schedule, draws=3, passes=2)
        one = estimate(halves, Plain(2), x, schedule, draws=3)
        torch.testing.assert_close(two.nats, whole.nats)
        assert bool((one.nats > whole.nats + 0.01).any())
        assert two.nfe == 2 * whole.nfe == 2 * steps


def test_fraction_and_keys_reach_the_chain():
    oracle, x = mixture(), mixture().sample(5, torch.Generator().manual_seed(0))
    schedule, keys = between(3.0, -3.0), evaluation_keys(7, torch.arange(5))
    for fraction in (0.0, 1.0):
        found = chain_elbo(oracle.denoise, Plain(2), x, schedule, 4, seed=7, fraction=fraction)
        bound = discrete_bound(oracle.denoise, Plain(2), x, schedule, keys, 4, fraction=fraction)
        for name in found.terms:
            assert torch.equal(found.terms[name], getattr(bound, name))


def test_a_datum_does_not_depend_on_its_batch_but_on_the_seed():
    oracle, x = mixture(), mixture().sample(7, torch.Generator().manual_seed(0))
    schedule = between(6.0, -6.0)
    told: list[float] = []
    whole = elbo(oracle.denoise, Plain(2), x, schedule, draws=3, seed=5)
    parts = elbo(
        oracle.denoise, Plain(2), x, schedule, draws=3, seed=5, batch=4, callback=told.append
    )
    torch.testing.assert_close(parts.nats, whole.nats, rtol=1e-12, atol=1e-12)
    assert told == [4 / 21, 8 / 21, 12 / 21, 16 / 21, 20 / 21, 1.0]
    few = elbo(oracle.denoise, Plain(2), x[:2], schedule, draws=3, seed=5)
    torch.testing.assert_close(few.nats, whole.nats[:2], rtol=1e-12, atol=1e-12)
    other = elbo(oracle.denoise, Plain(2), x, schedule, draws=3, seed=6)
    assert bool((other.nats != whole.nats).all())
    assert (whole.draws, whole.dims) == (3, 2)


def test_the_condition_goes_with_its_datum():
    oracle = mixture()
    labels = torch.tensor([[0], [1], [1], [0], [1]])
    x = oracle.sample(5, torch.Generator().manual_seed(2), labels)
    schedule = between(6.0, -6.0)
    told = elbo(oracle.denoise, Plain(2), x, schedule, labels, draws=4, batch=7)
    for label in (0, 1):
        alone = elbo(
            lambda x_t, level, condition=None, previous=None, label=label: oracle.denoise(
                x_t, level, torch.full((len(x_t),), label)
            ),
            Plain(2), x, schedule, draws=4,
        )  # fmt: skip
        rows = (labels == label).flatten()
        torch.testing.assert_close(told.nats[rows], alone.nats[rows])
        assert not torch.allclose(told.nats[~rows], alone.nats[~rows])
    chained = chain_elbo(oracle.denoise, Plain(2), x, schedule, 3, condition=labels)
    free = chain_elbo(oracle.denoise, Plain(2), x, schedule, 3)
    assert not torch.allclose(chained.nats, free.nats)


def test_times_of_a_datum_are_evenly_spaced_from_a_start_of_its_own():
    draws = 5
    u = _times(3, torch.arange(2000 * draws), draws).reshape(-1, draws)
    torch.testing.assert_close((u[:, 2] - u[:, 0]) % 1, torch.full((2000,), 2 / draws).double())
    u = u.sort(1).values
    torch.testing.assert_close(u.diff(dim=1), torch.full((2000, draws - 1), 1 / draws).double())
    first = u[:, 0] * draws  # uniform in (0, 1): five standard errors of mean and mean square
    assert float(first.mean()) == pytest.approx(1 / 2, abs=5 * (1 / 12 / 2000) ** 0.5)
    assert float(first.square().mean()) == pytest.approx(1 / 3, abs=5 * (4 / 45 / 2000) ** 0.5)
    assert torch.equal(
        _times(3, torch.arange(7, 9), draws), _times(3, torch.arange(10), draws)[7:9]
    )


def test_spaced_times_vary_less_than_independent_ones():
    """Where the loss depends on the time alone, four spaced draws are as good as 16 independent
    ones and better: a data set of one point, whose denoiser is off by sigma."""
    schedule, data = between(3.0, -3.0), torch.zeros(400, 2, dtype=torch.float64)

    def off(x_t, level, condition=None, previous=None):
        return level.widen(2).sigma ** 4 * torch.ones_like(x_t)

    four, one = (elbo(off, Plain(2), data, schedule, draws=d, batch=2000) for d in (4, 1))
    assert float(four.terms["diffusion"].var()) < float(one.terms["diffusion"].var()) / 12


def test_keys_of_evaluation_are_none_of_training():
    rows = torch.arange(1000)
    ours = torch.cat([evaluation_keys(seed, rows) for seed in range(4)])
    assert len(ours.unique()) == 4000
    assert bool((ours < 0).all())
    assert bool((sample_keys(2**31 - 1, rows) >= 0).all())


def test_a_network_without_gradients_left_behind():
    net = torch.nn.Linear(2, 2).double()

    class Net(torch.nn.Module):
        def forward(self, x, logsnr, condition, previous):
            return net(x)

    found = elbo(Denoiser(Net()), Plain(2), f64([[0.1, 0.2]]), Cosine())
    assert not found.nats.requires_grad
    assert found.nats.dtype == torch.float64


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"draws": 0}, "draws = 0: expected 1 or more"),
        ({"batch": 0}, "batch = 0: expected 1 or more"),
        ({"condition": torch.zeros(3, 1)}, "condition: 3 rows for 2 data"),
        ({"data": torch.zeros(0, 2)}, "data: expected one datum or more"),
        ({"schedule": FromBetas((0.1, 0.2))}, "no noise is left there"),
        ({"cleanest": 1.0}, r"cleanest = 1\.0: expected a time in \[0, 1\)"),
        ({"passes": 3}, "passes = 3"),
    ],
)
def test_impossible_arguments_are_refused_by_name(settings, words):
    values = {"data": f64([[0.1, 0.2], [0.3, 0.1]]), "schedule": Cosine()} | settings
    for estimate in (elbo, chain_elbo):
        with pytest.raises(ValueError, match=words):
            estimate(mixture().denoise, Plain(2), **values)


def test_a_chain_of_no_steps_is_refused():
    with pytest.raises(ValueError, match="steps = 0"):
        chain_elbo(mixture().denoise, Plain(2), f64([[0.1, 0.2]]), Cosine(), 0)


def test_a_chain_given_by_betas_is_taken_from_its_first_noisy_level():
    oracle, x = mixture(), mixture().sample(4, torch.Generator().manual_seed(0))
    betas = FromBetas(tuple([0.02] * 50))
    found = chain_elbo(oracle.denoise, Plain(2), x, betas, 49, cleanest=1 / 50)
    assert found.term("reconstruction").value == pytest.approx(
        math.log(2 * math.pi * 0.02 / 0.98) + 1, abs=3
    )
    smooth = elbo(oracle.denoise, Plain(2), x, betas, draws=500, cleanest=1 / 50, batch=2000)
    assert smooth.nats_per_datum.value == pytest.approx(found.nats_per_datum.value, abs=1.5)


def test_a_term_that_is_not_a_number_is_named_with_its_datum():
    x = f64([[0.1, 0.2], [0.3, 0.1], [5.0, 5.0]])

    def broken(x_t, level, condition=None, previous=None):
        return torch.where(x_t.abs().amax(1, keepdim=True) > 4, torch.nan, x_t)

    with pytest.raises(FloatingPointError, match="'diffusion' of datum 2"):
        elbo(broken, Plain(2), x, between(12.0, 10.0), draws=3)
