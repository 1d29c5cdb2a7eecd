"""Samplers of training times: histograms against the density they state, and what it is for."""

import math

import pytest
import torch
from scipy.stats import chisquare, kstest

from shared import noise
from shared.density import LossDensity
from shared.objective import (
    TIME,
    TIMES,
    Importance,
    LogitNormal,
    LogNormal,
    TimeSampler,
    named_times,
    sample_keys,
    stratified_times,
    streams,
    uniform_times,
)
from shared.schedule import Cosine, Edm, Flow, Linear, Ve, Warped, slope

SAMPLERS: dict[str, TimeSampler] = {
    "uniform": uniform_times,
    "log normal on edm": LogNormal(Edm()),
    "log normal on cosine": LogNormal(Cosine(-9, 6), mean=0.7, std=0.8),
    "log normal cut at both ends": LogNormal(Linear(logsnr_max=4.0), mean=0.5, std=4.0),
    "logit normal": LogitNormal(),
    "logit normal, leaning": LogitNormal(-0.8, 0.6),
    "importance": Importance(Flow(-8, 7), Warped((7.0, 2.0, 1.0, -0.5, -8.0))),
}
EACH = pytest.mark.parametrize("name", SAMPLERS)


def uniforms(n: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.rand(n, generator=torch.Generator().manual_seed(5), dtype=dtype)


def test_keys_and_stratified_times_are_what_checkpoints_rely_on():
    """A run goes on with the same noise only if its keys and times keep their formula."""
    assert sample_keys(3, torch.tensor([5, 2**40 + 7])).tolist() == [5 + 3 * 2**32, 7 + 3 * 2**32]
    t = stratified_times(2, 9, torch.arange(4)).double()
    steps = torch.tensor([0.6180339887] * 3, dtype=torch.float64)
    torch.testing.assert_close(t.diff() % 1, steps, atol=1e-6, rtol=0)
    offset = noise.uniform(sample_keys(2, torch.tensor([9])), TIME)
    torch.testing.assert_close(t[:1], offset.double(), atol=1e-6, rtol=0)


@EACH
def test_times_have_the_density_that_is_stated(name: str):
    """40,000 times in 20 bins, whose masses are integrals of the stated density; p-value 1e-6."""
    sampler = SAMPLERS[name]
    points, density = sampler(torch.linspace(0, 1, 20_001, dtype=torch.float64))
    mass = torch.stack(
        [
            torch.trapezoid(density[k : k + 1001], points[k : k + 1001])
            for k in range(0, 20_000, 1000)
        ]
    )
    assert float(mass.sum()) == pytest.approx(1, abs=1e-3)
    t, _ = sampler(uniforms(40_000))
    counts = torch.histogram(t, points[::1000].contiguous()).hist
    assert chisquare(counts.numpy(), (mass / mass.sum() * 40_000).numpy()).pvalue > 1e-6


@EACH
def test_times_rise_with_the_uniforms_by_one_over_the_density(name: str):
    """So stratified uniforms give stratified times, and t is exactly distributed."""
    u = torch.linspace(0.011, 0.987, 32, dtype=torch.float64)
    above, below = SAMPLERS[name](u + 1e-6)[0], SAMPLERS[name](u - 1e-6)[0]
    slope = (above - below) / 2e-6
    torch.testing.assert_close(slope, 1 / SAMPLERS[name](u)[1], rtol=1e-5, atol=0)
    assert bool((slope > 0).all())


@EACH
def test_times_stay_in_their_range_and_precision_at_the_ends(name: str):
    u = torch.tensor([0.0, 2.0**-24, 0.5, 1 - 2.0**-24, 1.0])
    t, density = SAMPLERS[name](u)
    assert t.dtype == density.dtype == torch.float32
    assert bool(((t >= 0) & (t <= 1)).all())
    assert bool((density > 0).all() & density.isfinite().all())


def test_noise_of_log_normal_times_is_edms():
    """ln sigma ~ N(-1.2, 1.2^2) for alpha = 1; the ends cut off 4e-5. p-value of 1e-6."""
    schedule = Edm()
    t, _ = LogNormal(schedule)(uniforms(20_000))
    assert kstest(((schedule(t).sigma.log() + 1.2) / 1.2).numpy(), "norm").pvalue > 1e-6


def test_log_normal_is_cut_at_the_ends_of_the_schedule():
    """Of N(0.5, 4^2) Linear keeps what lies between -2 and 5.02; p-value of 1e-6."""
    schedule = Linear(logsnr_max=4.0)
    t, _ = LogNormal(schedule, 0.5, 4.0)(uniforms(20_000))
    noise = -schedule.logsnr(t) / 2
    z, (low, high) = (noise - 0.5) / 4, (torch.tensor([-2.0, 5.02497866]).double() - 0.5) / 4
    ndtr = torch.special.ndtr
    share = (ndtr(z) - ndtr(low)) / (ndtr(high) - ndtr(low))
    assert kstest(share.numpy(), "uniform").pvalue > 1e-6


def test_logit_of_logit_normal_times_is_normal():
    t, _ = LogitNormal(0.3, 0.7)(uniforms(20_000))
    logit = (t / (1 - t)).log()
    assert kstest(((logit - 0.3) / 0.7).numpy(), "norm").pvalue > 1e-6


def test_importance_is_the_base_at_the_levels_of_the_proposal():
    base, proposal = Flow(-8, 7), Warped((7.0, 2.0, 1.0, -0.5, -8.0))
    u = uniforms(50)
    t, _ = Importance(base, proposal)(u)
    torch.testing.assert_close(base.logsnr(t), proposal.logsnr(u))
    same, density = Importance(base, base)(u)
    torch.testing.assert_close(same, u)
    torch.testing.assert_close(density, torch.ones_like(u))


def test_importance_follows_the_fitted_density():
    """A loss that falls between logsnr 0 and 2: most times fall there too, on the base's clock."""
    base = Cosine(-8, 8)
    fitted = LossDensity(base, start=1)
    logsnr = torch.linspace(-8, 8, 4096)
    fitted.update(fitted.statistics((1 - logsnr / 2).clamp(0, 1), logsnr))
    t, density = Importance(base, fitted.schedule())(torch.linspace(0.001, 0.999, 999).double())
    inside = (base.logsnr(t) > -0.75) & (base.logsnr(t) < 2.75)
    assert float(inside.double().mean()) > 0.85
    density = density / slope(base, t)[1].abs()  # of logsnr
    assert float(density[inside].mean()) > 5 * float(density[~inside].mean())


@pytest.mark.parametrize(
    ("mean", "std"), [(0.0, 0.0), (0.0, -1.0), (math.nan, 1.0), (0.0, math.inf)]
)
def test_normals_that_are_none_are_refused(mean: float, std: float):
    for make in (lambda: LogNormal(Ve(), mean, std), lambda: LogitNormal(mean, std)):
        with pytest.raises(ValueError, match="of training times"):
            make()


def test_samplers_have_names_and_only_the_numbers_that_they_use():
    assert set(TIMES) == {"uniform", "log_normal", "logit_normal"}
    schedule = Edm()
    assert named_times("uniform", {}, schedule) is uniform_times
    assert named_times("log_normal", {}, schedule) == LogNormal(schedule, -1.2, 1.2)
    assert named_times("log_normal", {"mean": 0.5}, schedule) == LogNormal(schedule, 0.5, 1.2)
    assert named_times("logit_normal", {"std": 2.0}, schedule) == LogitNormal(0.0, 2.0)
    with pytest.raises(ValueError, match="uniform has no option mean: it has none"):
        named_times("uniform", {"mean": 0.0}, schedule)
    with pytest.raises(ValueError, match="no option sd: expected one of mean, std; did you mean"):
        named_times("log_normal", {"sd": 0.0}, schedule)


def test_every_use_of_a_key_has_a_stream_of_its_own():
    """Below those of the solvers, from 0 up; nothing lies beyond the chain's, which go on down."""
    named = {name: value for name, value in vars(streams).items() if isinstance(value, int)}
    assert named.keys() >= {"TIME", "NOISE", "AUGMENT", "CROP", "MASK", "CHAIN"}
    uses = [value for name, value in named.items() if name != "CHAIN"] + [streams.AUGMENT - 1]
    assert len(set(uses)) == len(uses)
    assert max(uses) < 0
    assert min(uses) > streams.CHAIN
