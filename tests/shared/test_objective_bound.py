"""The variational bound: its terms and totals against closed forms and quadrature."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

from shared import noise
from shared.codec import Bits, Identity
from shared.denoiser import Denoise
from shared.objective import (
    Importance,
    LogitNormal,
    LogNormal,
    TimeSampler,
    discrete_bound,
    elbo_terms,
    sample_keys,
    step_kl,
    uniform_times,
)
from shared.objective.streams import CHAIN, CLEANEST, NOISE, TIME
from shared.oracle import GaussianMixture
from shared.schedule import (
    Cosine,
    Edm,
    Flow,
    Learned,
    Level,
    Linear,
    Schedule,
    SubVp,
    Ve,
    Warped,
    from_betas,
    linear_betas,
    variance_exploding,
    variance_preserving,
)
from tests.likelihoods import Plain

SD = 0.7
SCHEDULES: list[Schedule] = [
    Linear(logsnr_max=9.0),
    Cosine(-6, 7),
    Ve(0.03, 20.0),
    SubVp(logsnr_max=8.0),
    Flow(-7, 6),
    Edm(0.02, 30.0),
    Learned(-4, 6, hidden=7),
]
EACH = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)


def posterior_variance(level: Level) -> Tensor:
    """Of x0 ~ N(0, SD^2) given x_t: 1 / (1 / SD^2 + SNR)."""
    return 1 / (1 / SD**2 + level.logsnr.exp())


def off_by(x0: Tensor, error: Callable[[Level], Tensor]) -> Denoise:
    """A denoiser of x0 whose squared error is known, so that no noise is left in the terms."""

    def denoise(
        x_t: Tensor, level: Level, condition: Tensor | None = None, previous: Tensor | None = None
    ) -> Tensor:
        return x0 + error(level.widen(x0.ndim)).sqrt()

    return denoise


def gaussian(
    x_t: Tensor, level: Level, condition: Tensor | None = None, previous: Tensor | None = None
) -> Tensor:
    """E[x0 | x_t] for x0 ~ N(0, SD^2)."""
    level = level.widen(x_t.ndim)
    return SD**2 * level.alpha * x_t / (SD**2 * level.alpha**2 + level.sigma**2)


def normal_data(n: int, D: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return SD * torch.randn(n, D, generator=generator, dtype=torch.float64)


def ends(schedule: Schedule, cleanest: float = 0.0) -> tuple[float, float]:
    """SNR at the clean end and at t = 1."""
    t = torch.tensor([cleanest, 1.0], dtype=torch.float64)
    first, last = schedule.logsnr(t).detach().exp().tolist()
    return first, last


def near(terms: Tensor, expected: float) -> None:
    """Within four standard errors: a false alarm in 16,000."""
    terms = terms.detach()
    assert float(terms.mean()) == pytest.approx(
        expected, abs=4 * float(terms.std()) / len(terms) ** 0.5
    )


@EACH
def test_terms_of_a_gaussian_are_their_closed_forms(schedule: Schedule):
    """For x0 ~ N(0, sd^2) and its exact denoiser, with s and l the SNR at both ends: prior
    l sd^2 / 2; diffusion ln((1 + sd^2 s) / (1 + sd^2 l)) / 2; reconstruction ln(2 pi e / s) / 2.
    30,000 draws."""
    n = 30_000
    keys = sample_keys(3, torch.arange(n))
    data, (first, last) = normal_data(n), ends(schedule)
    uniform = (torch.arange(n).double() + 0.5) / n
    bound = elbo_terms(
        gaussian,
        Plain(),
        data,
        schedule,
        keys,
        uniform=uniform[torch.randperm(n, generator=torch.Generator().manual_seed(0))],
    )
    near(bound.prior, last * SD**2 / 2)
    near(bound.diffusion, math.log((1 + SD**2 * first) / (1 + SD**2 * last)) / 2)
    near(bound.reconstruction, math.log(2 * math.pi * math.e / first) / 2)
    assert bound.total.shape == (n,)
    torch.testing.assert_close(bound.total, bound.prior + bound.diffusion + bound.reconstruction)


@EACH
def test_gap_of_the_bound_is_the_mismatch_of_its_ends_alone(schedule: Schedule):
    """Mean bound - E[-log p] = l sd^2 / 2 - ln(1 + l sd^2) / 2, the prior's KL, plus that of the
    reconstruction, ln(1 + 1 / (s sd^2)) / 2. By the known error: no noise but the data's."""
    n = 4000
    data, (first, last) = normal_data(n), ends(schedule)
    uniform = (torch.arange(n).double() + 0.5) / n
    keys = torch.arange(n)
    bound = elbo_terms(
        off_by(data, posterior_variance), Plain(), data, schedule, keys, uniform=uniform
    )
    diffusion = math.log((1 + SD**2 * first) / (1 + SD**2 * last)) / 2
    assert float(bound.diffusion.detach().mean()) == pytest.approx(diffusion, abs=2e-3)
    prior, reconstruction = last * SD**2 / 2, math.log(2 * math.pi * math.e / first) / 2
    gap = prior + diffusion + reconstruction - math.log(2 * math.pi * math.e * SD**2) / 2
    prior_kl = last * SD**2 / 2 - math.log(1 + last * SD**2) / 2
    assert gap == pytest.approx(prior_kl + math.log(1 + 1 / (first * SD**2)) / 2)


@pytest.mark.parametrize(
    "times",
    [
        uniform_times,
        LogNormal(Edm(0.02, 30.0), mean=-0.5, std=1.6),
        LogitNormal(0.1, 2.0),
        Importance(Edm(0.02, 30.0), Ve(0.02, 30.0)),
    ],
    ids=["uniform", "log normal", "logit normal", "importance"],
)
def test_bound_is_the_same_whoever_draws_the_times(times: TimeSampler):
    """Mean over strata of the times, so the error is that of a quadrature."""
    schedule, n = Edm(0.02, 30.0), 20_000
    first, last = ends(schedule)
    data, uniform = torch.zeros(n, 1).double(), (torch.arange(n).double() + 0.5) / n
    denoise = off_by(data, posterior_variance)
    bound = elbo_terms(denoise, Plain(), data, schedule, torch.arange(n), None, uniform, times)
    expected = math.log((1 + SD**2 * first) / (1 + SD**2 * last)) / 2
    assert float(bound.diffusion.mean()) == pytest.approx(expected, rel=5e-3)


def test_bound_of_a_mixture_is_above_its_entropy_by_the_ends_alone():
    """A 2-D mixture: mean of bound + log p, paired, within four standard errors of 0, the ends (SNR
    e^-12 and e^12) being mute: with the codec's Gaussian the last gap is below 1e-4."""
    covariances = torch.tensor([[[0.5, 0.2], [0.2, 0.3]], [[0.2, 0.0], [0.0, 0.6]]]).double()
    means = torch.tensor([[-1.0, 0.4], [0.8, -0.5]], dtype=torch.float64)
    oracle = GaussianMixture(torch.tensor([0.4, 0.6]).double(), means, covariances)
    n, schedule = 20_000, Ve(math.exp(-6), math.exp(6))
    data = oracle.sample(n, torch.Generator().manual_seed(3))
    keys = sample_keys(1, torch.arange(n))
    bound = elbo_terms(oracle.denoise, Plain(), data, schedule, keys)
    clean = variance_exploding(torch.tensor(60.0, dtype=torch.float64))
    near(bound.total + oracle.log_prob(data, clean), 0.0)


def test_terms_are_sums_over_a_datum_and_use_streams_of_their_own():
    """By hand for one datum of 2 x 3 numbers and a denoiser that is wrong by what it sees."""
    B, shape = 2, (2, 3)
    data = torch.randn(B, *shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    keys, schedule = torch.tensor([5, 9]), Flow(-5, 4)

    def wrong(x_t: Tensor, level: Level, condition: Any = None, previous: Any = None) -> Tensor:
        return 0.3 * x_t

    bound = elbo_terms(wrong, Plain(), data, schedule, keys, cleanest=0.1)
    for i in range(B):
        t = 0.1 + 0.9 * float(noise.uniform(keys, TIME)[i])
        h = 1e-5
        two = schedule(torch.tensor([t - h, t + h], dtype=torch.float64))
        slope = float((two.alpha / two.sigma).square().diff()) / (2 * h)
        at = schedule(torch.tensor(t, dtype=torch.float64))
        x_t = at.alpha * data[i] + at.sigma * noise.normal(keys[i : i + 1], NOISE, shape)[0]
        error = float((data[i] - 0.3 * x_t).square().sum())
        assert float(bound.diffusion[i]) == pytest.approx(-slope / 2 * 0.9 * error, rel=1e-5)
        last = schedule(torch.tensor(1.0, dtype=torch.float64))
        snr = float(last.alpha / last.sigma) ** 2
        assert float(bound.prior[i]) == pytest.approx(snr / 2 * float(data[i].square().sum()))
        clean = schedule(torch.tensor(0.1, dtype=torch.float64))
        eps = noise.normal(keys[i : i + 1], CLEANEST, shape)
        z_0 = clean.alpha * data[i : i + 1] + clean.sigma * eps
        expected = -Plain().log_prob(data[i : i + 1], z_0, clean)
        assert float(bound.reconstruction[i]) == pytest.approx(float(expected))
    assert len({TIME, NOISE, CLEANEST}) == 3
    assert max(TIME, NOISE, CLEANEST) < 0
    assert min(TIME, NOISE, CLEANEST) > CHAIN


def test_reconstruction_is_the_codecs():
    """Bits: an uninformed z_0 costs ln 8 a number, a clean one nothing."""
    codec, data = Bits(8, (5,)), torch.tensor([[0, 3, 5, 6, 7]])
    keys = torch.tensor([4])

    def zero(x_t: Tensor, level: Level, condition: Any = None, previous: Any = None) -> Tensor:
        return torch.zeros_like(x_t)

    dark = elbo_terms(zero, codec, data, Cosine(-16, -14), keys)
    assert float(dark.reconstruction) == pytest.approx(5 * math.log(8), abs=0.05)
    clear = elbo_terms(zero, codec, data, Cosine(-5, 8), keys)
    assert float(clear.reconstruction) == pytest.approx(0, abs=1e-6)
    assert float(clear.prior) == pytest.approx(math.exp(-5) / 2 * 15, rel=1e-5)


def test_self_conditioned_denoisers_take_two_passes_at_the_same_x_t():
    seen: list[tuple[Tensor, Tensor | None]] = []
    gain = torch.tensor(0.4, requires_grad=True)

    def denoise(
        x_t: Tensor, level: Level, condition: Tensor | None = None, previous: Tensor | None = None
    ) -> Tensor:
        seen.append((x_t, previous))
        return gain * x_t

    data, keys = torch.randn(3, 2), torch.arange(3)
    bound = elbo_terms(denoise, Identity((2,)), data, Cosine(-5, 5), keys, passes=2)
    (first, nothing), (second, previous) = seen
    assert torch.equal(first, second)
    assert nothing is None
    assert previous is not None
    assert not previous.requires_grad
    torch.testing.assert_close(previous, 0.4 * first)
    assert bound.total.requires_grad
    seen.clear()
    discrete_bound(denoise, Identity((2,)), data, Cosine(-5, 5), keys, steps=3, passes=2)
    assert [previous is None for _, previous in seen] == [True, False] * 3
    with pytest.raises(ValueError, match="passes = 3"):
        elbo_terms(denoise, Identity((2,)), data, Cosine(-5, 5), keys, passes=3)


def test_condition_reaches_the_denoiser():
    seen: list[Tensor | None] = []

    def denoise(
        x_t: Tensor, level: Level, condition: Tensor | None = None, previous: Tensor | None = None
    ) -> Tensor:
        seen.append(condition)
        return x_t

    condition, data = torch.tensor([[1], [2]]), torch.randn(2, 3)
    words = (denoise, Identity((3,)), data, Cosine(-5, 5), torch.arange(2))
    elbo_terms(*words, condition=condition, passes=2)
    discrete_bound(*words, steps=2, condition=condition)
    assert len(seen) == 4
    assert all(some is condition for some in seen)


def test_bound_without_a_noisy_cleanest_level_is_refused():
    chain = from_betas(linear_betas(10, 0.05, 0.5))
    data, keys = torch.zeros(2, 1).double(), torch.arange(2)
    with pytest.raises(ValueError, match=r"cleanest = 0.0: no noise is left"):
        elbo_terms(gaussian, Plain(), data, chain, keys)
    with pytest.raises(ValueError, match=r"cleanest = 1.0: expected a time"):
        discrete_bound(gaussian, Plain(), data, Cosine(), keys, cleanest=1.0)
    assert elbo_terms(gaussian, Plain(), data, chain, keys, cleanest=0.1).total.isfinite().all()


# --- the bound on a grid


@EACH
@pytest.mark.parametrize("steps", [1, 3, 8])
def test_bound_on_a_grid_is_its_sum_of_kls(schedule: Schedule, steps: int):
    """(SNR_s - SNR_t) / 2 times the posterior variance at t, over a uniform grid."""
    data = torch.randn(4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    denoise = off_by(data, posterior_variance)
    bound = discrete_bound(denoise, Plain(), data, schedule, torch.arange(4), steps=steps)
    expected = 0.0
    for i in range(1, steps + 1):
        t = torch.tensor([i / steps, (i - 1) / steps], dtype=torch.float64)
        level = schedule(t)
        snr = (level.alpha / level.sigma).detach().square()
        expected += float((snr[1] - snr[0]) / 2 * posterior_variance(level)[0].detach()) * 3
    torch.testing.assert_close(bound.diffusion.detach(), torch.full((4,), expected).double())
    last = ends(schedule)[1]
    torch.testing.assert_close(bound.prior.detach(), last / 2 * data.square().sum(1))


@EACH
def test_bound_on_a_grid_falls_to_the_continuous_one_as_it_is_refined(schedule: Schedule):
    data = torch.zeros(1, 1, dtype=torch.float64)
    denoise = off_by(data, posterior_variance)
    first, last = ends(schedule)
    limit = math.log((1 + SD**2 * first) / (1 + SD**2 * last)) / 2
    values = [
        float(
            discrete_bound(
                denoise, Plain(), data, schedule, torch.arange(1), steps=2**k
            ).diffusion.detach()
        )
        for k in range(7)
    ]
    assert all(a > b for a, b in itertools.pairwise(values))
    assert values[-1] > limit
    assert values[-1] - limit < 0.7 * (values[-2] - limit)


def test_bound_on_a_grid_reaches_the_continuous_one_at_first_order():
    """On levels uniform in logsnr: half as many steps, twice the gap; what is left after one
    extrapolation is of second order."""
    data = torch.zeros(1, 1, dtype=torch.float64)
    denoise, schedule = off_by(data, posterior_variance), Warped((8.0, -7.0))
    limit = math.log((1 + SD**2 * math.exp(8)) / (1 + SD**2 * math.exp(-7))) / 2
    few, many = (
        float(discrete_bound(denoise, Plain(), data, schedule, torch.arange(1), steps=n).diffusion)
        for n in (128, 256)
    )
    assert (few - limit) / (many - limit) == pytest.approx(2, abs=0.05)
    assert 2 * many - few == pytest.approx(limit, abs=5e-3)


def test_bound_on_a_grid_holds_for_the_exact_denoiser_of_a_mixture():
    """1-D mixture by quadrature of its posterior variance: the estimate of 4,000 data agrees within
    four standard errors, and is above the cross-entropy."""
    oracle = GaussianMixture(
        torch.tensor([0.3, 0.7]).double(),
        torch.tensor([[-1.0], [0.6]]).double(),
        torch.tensor([[0.2], [0.1]]).double(),
    )
    schedule, steps, n = Flow(-6, 6), 6, 4000
    expected = 0.0
    for i in range(1, steps + 1):
        at, to = (schedule(torch.tensor([j / steps], dtype=torch.float64)) for j in (i, i - 1))

        def integrand(x: float, at: Level = at) -> float:
            """p_t(x) E[x0 | x]^2."""
            x_t = torch.tensor([[x]], dtype=torch.float64)
            return float(oracle.log_prob(x_t, at).exp() * oracle.denoise(x_t, at)[0] ** 2)

        explained = quad(integrand, -8, 8, points=[-1, 0.6], limit=200)[0]
        second = 0.3 * (1 + 0.2) + 0.7 * (0.36 + 0.1)
        gain = float(to.logsnr.exp() - at.logsnr.exp()) / 2
        expected += gain * (second - explained)
    data = oracle.sample(n, torch.Generator().manual_seed(8))
    keys = sample_keys(2, torch.arange(n))
    bound = discrete_bound(oracle.denoise, Plain(), data, schedule, keys, steps=steps)
    near(bound.diffusion, expected)
    clean = variance_exploding(torch.tensor(60.0, dtype=torch.float64))
    assert float((bound.total + oracle.log_prob(data, clean)).mean()) > 0.5


def test_a_chain_of_T_steps_is_taken_from_its_last_step_to_its_first():
    """DDPM's L_{t-1} by its own means and variances (Ho et al. 2020, eq. 6, 7), step by step, for
    both variances: beta (fraction 1) and beta-tilde (fraction 0)."""
    betas = linear_betas(6, 0.05, 0.5)
    chain, T = from_betas(betas), 6
    data, keys = torch.tensor([[0.4, -1.1]], dtype=torch.float64), torch.tensor([7])
    wrong = off_by(data, lambda level: level.sigma)
    abar = (1 - betas).cumprod(0)
    for fraction in (0.0, 1.0):
        expected = 0.0
        for i in range(1, T):
            tilde = betas[i] * (1 - abar[i - 1]) / (1 - abar[i])
            shift = abar[i - 1].sqrt() * betas[i] / (1 - abar[i]) * (1 - abar[i]) ** 0.25
            variance = betas[i] if fraction else tilde
            per = ((variance / tilde).log() + (tilde + shift**2) / variance - 1) / 2
            expected += 2 * float(per)
        bound = discrete_bound(
            wrong, Plain(), data, chain, keys, steps=T - 1, fraction=fraction, cleanest=1 / T
        )
        assert float(bound.diffusion) == pytest.approx(expected)


def test_each_step_of_a_bound_has_noise_of_its_own():
    seen: list[Tensor] = []

    def denoise(x_t: Tensor, level: Level, condition: Any = None, previous: Any = None) -> Tensor:
        seen.append((x_t - level.alpha * data) / level.sigma)
        return x_t

    data = torch.randn(2, 3, dtype=torch.float64)
    discrete_bound(denoise, Plain(), data, Cosine(-4, 4), torch.tensor([3, 8]), steps=3)
    for i, eps in enumerate(seen):
        expected = noise.normal([3, 8], CHAIN - i, (3,)).double()
        torch.testing.assert_close(eps, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("fraction", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("family", [variance_preserving, variance_exploding])
def test_kl_of_a_step_is_that_of_two_gaussians(fraction: float, family: Callable[[Tensor], Level]):
    """q(x_s | x_t, x0) by the product of two Gaussians; p has x0_hat for x0 and the variance
    between the posterior's and that of x_t given x_s."""
    at, to = family(torch.tensor([-1.0, 0.4]).double()), family(torch.tensor([0.5, 3.0]).double())
    generator = torch.Generator().manual_seed(6)
    x0, x0_hat, x_t = (torch.randn(2, 3, generator=generator).double() for _ in range(3))
    got = step_kl(x0, x0_hat, at, to, fraction)
    for i in range(2):
        a_t, s_t, a_s, s_s = (float(x[i]) for x in (at.alpha, at.sigma, to.alpha, to.sigma))
        ratio = a_t / a_s
        step = s_t**2 - ratio**2 * s_s**2  # variance of x_t given x_s
        precision = 1 / s_s**2 + ratio**2 / step
        mean, model = (
            (a_s * clean / s_s**2 + ratio * x_t[i] / step) / precision
            for clean in (x0[i], x0_hat[i])
        )
        variance = step**fraction * (1 / precision) ** (1 - fraction)
        normal = torch.distributions.Normal
        kl = torch.distributions.kl_divergence(
            normal(mean, torch.full((3,), precision**-0.5).double()),
            normal(model, torch.full((3,), variance**0.5).double()),
        )
        assert float(got[i]) == pytest.approx(float(kl.sum()))


def test_fraction_may_differ_by_element():
    at, to = (variance_preserving(torch.tensor([x]).double()) for x in (-1.0, 1.0))
    x0, x0_hat = torch.zeros(1, 2).double(), torch.tensor([[0.5, -0.2]]).double()
    both = step_kl(x0, x0_hat, at, to, torch.tensor([[0.2, 0.9]]).double())
    first = step_kl(x0[:, :1], x0_hat[:, :1], at, to, 0.2)
    second = step_kl(x0[:, 1:], x0_hat[:, 1:], at, to, 0.9)
    torch.testing.assert_close(both, first + second)


def test_kl_stays_positive_in_float32_between_close_levels():
    """(w + e^-w - 1) / 2 with w = 1e-3: expm1 keeps what 1 + e^-w would lose."""
    at, to = (variance_exploding(torch.tensor([x])) for x in (1.0, 1.001))
    got = step_kl(torch.zeros(1, 1), torch.zeros(1, 1), at, to, 1.0)
    assert float(got) == pytest.approx(1e-3**2 / 4, rel=2e-3)


def test_bounds_refuse_what_they_cannot_do():
    data, keys = torch.zeros(1, 1).double(), torch.arange(1)
    with pytest.raises(ValueError, match="steps = 0"):
        discrete_bound(gaussian, Plain(), data, Cosine(), keys, steps=0)
    with pytest.raises(ValueError, match="fraction = None"):
        discrete_bound(gaussian, Plain(), data, Cosine(), keys, fraction=None)


def test_float32_data_give_float32_terms_near_those_of_float64():
    data, keys = normal_data(50), torch.arange(50)
    exact = elbo_terms(gaussian, Plain(), data, Cosine(-9, 9), keys)
    rough = elbo_terms(gaussian, Plain(), data.float(), Cosine(-9, 9), keys)
    for name in ("prior", "diffusion", "reconstruction"):
        some = getattr(rough, name)
        assert some.dtype == torch.float32
        torch.testing.assert_close(some.double(), getattr(exact, name), rtol=2e-3, atol=1e-4)
