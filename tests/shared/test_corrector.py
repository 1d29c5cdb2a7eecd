"""Langevin correctors: closed forms of their variance, and a Metropolis test that leaves none."""

import math

import pytest
import torch
from scipy.stats import kstest
from torch import Tensor

from shared import noise
from shared.oracle import GaussianMixture
from shared.schedule import Level
from shared.solver import Point, prepare, run
from shared.solver.ancestral import Ancestral
from shared.solver.corrector import Corrector, Langevin, Mala, PredictorCorrector, SnrLangevin
from shared.solver.ddim import Ddim
from shared.solver.desk import LoopDesk
from shared.solver.dpmpp import Dpmpp2m
from shared.solver.grid import SchedulePath
from shared.solver.plan import Plan
from shared.solver.step import Move
from tests.solvers import Straight


def stay(corrector: Corrector, count: int, family: str, logsnr: float = 0.7) -> Plan:
    """`count` correctors at one level of a family; DDIM from a level to itself changes nothing."""
    path = SchedulePath(Straight(family))
    point = path.point(logsnr)
    solver = PredictorCorrector(Ddim(), corrector, count)
    return Plan(solver, point, tuple(solver.plan([Move(point, point)], path)))


def gaussian(std: float) -> GaussianMixture:
    return GaussianMixture(
        *(torch.tensor(v, dtype=torch.float64) for v in ([1.0], [[0.3]], [[std**2]]))
    )


def variance_after(
    plan: Plan, oracle: GaussianMixture, count: int, start: float, monkeypatch: pytest.MonkeyPatch
) -> float:
    """The variance, exactly: the state is affine in the start and in each noise, a row for each."""
    rows = 2 + count

    def one_row(desk: LoopDesk, k: int) -> Tensor:
        noise = torch.zeros(rows, 1, dtype=torch.float64)
        noise[2 + (k - 1) // 2] = 1
        return noise

    monkeypatch.setattr(LoopDesk, "normal", one_row)
    x = torch.full((rows, 1), plan.start.alpha * 0.3, dtype=torch.float64)
    x[1] += math.sqrt(start)
    out = run(plan, oracle.denoise, x, seeds=range(rows)).x[:, 0]
    assert float(out[0]) == pytest.approx(plan.start.alpha * 0.3)  # the mean stays
    return float((out[1:] - out[0]).square().sum())


@pytest.mark.parametrize("eps", [0.05, 0.4, 1.3])
@pytest.mark.parametrize("family", ["vp", "ve", "sub_vp", "flow"])
def test_variance_follows_its_closed_form(family: str, eps: float, monkeypatch: pytest.MonkeyPatch):
    """V (1 + e^2) after one step from V, V / (1 - e / 2) in the end, with e = eps sigma^2 / V.

    Of a point of data V = sigma^2 and e = eps: 1 + eps^2 and 1 / (1 - eps / 2) in units of it."""
    for std in (1e-9, 0.6):
        oracle, once = gaussian(std), stay(Langevin(eps), 1, family)
        at = once.start
        V = at.alpha**2 * std**2 + at.sigma**2
        e = eps * at.sigma**2 / V
        assert std > 0.1 or e == pytest.approx(eps)
        one = variance_after(once, oracle, 1, V, monkeypatch)
        assert one == pytest.approx(V * (1 + e**2), rel=1e-9)
        many = variance_after(stay(Langevin(eps), 900, family), oracle, 900, V, monkeypatch)
        assert many == pytest.approx(V / (1 - e / 2), rel=1e-6)


@pytest.mark.parametrize("family", ["vp", "ve", "sub_vp"])
def test_variance_of_draws_follows_its_closed_form(family: str):
    """100,000 samples, three standard errors (false alarm 0.3 % each, the seeds are fixed)."""
    n, eps, oracle = 100_000, 0.4, gaussian(1e-9)
    generator = torch.Generator().manual_seed(5)
    for count, factor in ((1, 1 + eps**2), (40, 1 / (1 - eps / 2))):
        plan = stay(Langevin(eps), count, family)
        at = plan.start
        x = at.alpha * 0.3 + at.sigma * torch.randn(n, 1, generator=generator, dtype=torch.float64)
        out = run(plan, oracle.denoise, x, seeds=range(n)).x
        assert float(out.var() / at.sigma**2) == pytest.approx(
            factor, abs=3 * factor * math.sqrt(2 / n)
        )


MIXTURE = GaussianMixture(
    *(torch.tensor(v, dtype=torch.float64) for v in ([0.3, 0.7], [[-0.9], [1.2]], [[0.05], [0.02]]))
)


def cdf(x: object, at: Point) -> object:
    """Of the mixture's x_t."""
    total = 0.0
    for weight, mean, variance in ((0.3, -0.9, 0.05), (0.7, 1.2, 0.02)):
        std = math.sqrt(at.alpha**2 * variance + at.sigma**2)
        z = (torch.as_tensor(x) - at.alpha * mean) / std
        total = total + weight * torch.special.ndtr(z)
    return torch.as_tensor(total).numpy()


def after(corrector: Corrector, family: str, denoise: object = None) -> float:
    """p-value of 20,000 exact draws after 20 steps of a corrector."""
    n, plan = 20_000, stay(corrector, 20, family, 2.0)
    at = plan.start
    generator = torch.Generator().manual_seed(3)
    x = at.alpha * MIXTURE.sample(n, generator)
    x = x + at.sigma * torch.randn(n, 1, generator=generator, dtype=torch.float64)
    out = run(plan, denoise or MIXTURE.denoise, x, seeds=range(n)).x  # type: ignore[arg-type]
    assert 0.2 < float((out != x).double().mean()) <= 1
    return float(kstest(out[:, 0].numpy(), lambda v: cdf(v, at)).pvalue)


@pytest.mark.parametrize("family", ["vp", "ve", "sub_vp"])
def test_metropolis_leaves_a_level_as_it_was(family: str):
    """Where plain Langevin steps of the same size do not. False alarm 1e-4."""
    assert after(Mala(MIXTURE.log_prob, 1.2), family) > 1e-4
    assert after(Langevin(1.2), family) < 1e-6


def test_metropolis_forgives_a_wrong_estimate():
    def wrong(
        x_t: Tensor, level: Level, condition: Tensor | None = None, previous: Tensor | None = None
    ) -> Tensor:
        return 0.7 * MIXTURE.denoise(x_t, level) + 0.2

    assert after(Mala(MIXTURE.log_prob, 0.7), "vp", wrong) > 1e-4
    assert after(Langevin(0.7), "vp", wrong) < 1e-6


def test_metropolis_weighs_all_coordinates_of_a_sample():
    """Two coordinates of 20,000 exact draws, ten steps so wide that most are refused: the squared
    radius stays chi-squared with 2 degrees of freedom (the acceptance is a sum, not a mean)."""
    n, oracle = (
        20_000,
        GaussianMixture(
            *(torch.tensor(v, dtype=torch.float64) for v in ([1.0], [[0.0, 0.0]], [[0.2, 0.2]]))
        ),
    )
    plan = stay(Mala(oracle.log_prob, 1.2), 10, "vp")
    variance = plan.start.alpha**2 * 0.2 + plan.start.sigma**2
    generator = torch.Generator().manual_seed(8)
    x = variance**0.5 * torch.randn(n, 2, generator=generator, dtype=torch.float64)
    out = run(plan, oracle.denoise, x, seeds=range(n)).x
    assert float((out != x).any(1).double().mean()) > 0.3
    radius = out.square().sum(1) / variance
    assert kstest(radius.numpy(), "chi2", args=(2,)).pvalue > 0.001


@pytest.mark.parametrize("corrector", [Langevin(), SnrLangevin(), Mala(MIXTURE.log_prob)])
def test_correctors_draw_from_streams_of_their_own(
    corrector: Corrector, monkeypatch: pytest.MonkeyPatch
):
    """The predictor's noise is stream 0 of a step, proposals are odd, Metropolis tests even."""
    used: list[int] = []
    monkeypatch.setattr(
        noise.Normals, "draw", lambda source, step: used.append(step) or torch.ones(source.shape)
    )
    monkeypatch.setattr(
        noise, "uniform", lambda seeds, step, device: used.append(step) or torch.ones(len(seeds))
    )
    plan = prepare(Straight(), PredictorCorrector(Ancestral(), corrector, count=2), 3)
    run(plan, MIXTURE.denoise, torch.ones(2, 1, dtype=torch.float64), seeds=[1, 2])
    streams = {1, 2, 3, 4} if isinstance(corrector, Mala) else {1, 3}
    assert len(used) == len(set(used)) == 3 * len(streams) + 2  # the last step ends clean
    assert {step // 2**32 for step in used} == {0} | streams
    assert sorted(step % 2**32 for step in used)[0] == 1
    assert {step % 2**32 for step in used} == {1, 2, 3}


def test_snr_rule_has_norms_of_each_sample():
    """A neighbour's size changes nothing, and a sample at rest stays where it is."""
    plan = stay(SnrLangevin(0.16), 1, "vp")

    def denoise(
        x_t: Tensor, level: Level, condition: Tensor | None = None, previous: Tensor | None = None
    ) -> Tensor:
        return x_t * 0.2

    x = torch.tensor([[0.5, -1.0, 0.3], [40.0, 30.0, -20.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    together = run(plan, denoise, x, seeds=[1, 2, 3]).x
    alone = run(plan, denoise, x[:1], seeds=[1]).x
    torch.testing.assert_close(together[:1], alone)
    assert torch.equal(together[2], x[2])


def test_arguments_are_checked():
    for eps in (0.0, 2.0):
        with pytest.raises(ValueError, match="between 0 and 2"):
            Langevin(eps)
        with pytest.raises(ValueError, match="between 0 and 2"):
            Mala(MIXTURE.log_prob, eps)
    with pytest.raises(ValueError, match="snr = 0"):
        SnrLangevin(0)
    with pytest.raises(ValueError, match="one corrector a level"):
        PredictorCorrector(count=0)
    with pytest.raises(ValueError, match="no memory"):
        PredictorCorrector(Dpmpp2m())
    assert PredictorCorrector(Ancestral(), count=3).nfe == 4
