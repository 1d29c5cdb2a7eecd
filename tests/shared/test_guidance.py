"""Guidance as functions from Denoise to Denoise: formulas, evaluations, exactness."""

import pytest
import torch
from torch import Tensor

from shared.guidance import classifier_free, infill
from shared.oracle import GaussianMixture
from shared.schedule import Cosine, Level, variance_preserving
from shared.solver import sample


class Counted:
    """An estimate that tells condition and previous apart, and counts its evaluations."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def __call__(
        self,
        x_t: Tensor,
        level: Level,
        condition: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> Tensor:
        self.rows.append(len(x_t))
        out = x_t * level.widen(x_t.ndim).alpha
        if condition is not None:
            out = out + condition.float()
        return out if previous is None else out + 0.1 * previous


def level_of(n: int) -> Level:
    return Cosine(-6, 6)(torch.linspace(0.2, 0.8, n))


@pytest.mark.parametrize(("scale", "rows"), [(0.0, [3]), (1.0, [3]), (2.5, [6]), (-1.0, [6])])
@pytest.mark.parametrize("scalar", [False, True])
def test_classifier_free_follows_its_formula_in_one_call(
    scale: float, rows: list[int], scalar: bool
):
    level = Cosine(-6, 6)(torch.tensor(0.4)) if scalar else level_of(3)
    x_t, previous = torch.randn(3, 2), torch.randn(3, 2)
    condition = torch.tensor([[1], [2], [5]])
    plain, counted = Counted(), Counted()
    x0_u = plain(x_t, level, torch.zeros_like(condition), previous)
    x0_c = plain(x_t, level, condition, previous)
    guided = classifier_free(counted, scale)(x_t, level, condition, previous)
    torch.testing.assert_close(guided, x0_u + scale * (x0_c - x0_u))
    assert counted.rows == rows


@pytest.mark.parametrize(("logsnr", "rows"), [(-2.1, 3), (-2.0, 6), (1.0, 6), (1.1, 3)])
def test_outside_its_interval_guidance_is_the_condition_alone(logsnr: float, rows: int):
    level, x_t = variance_preserving(torch.tensor(logsnr)), torch.randn(3, 2)
    condition = torch.tensor([[1], [2], [5]])
    counted = Counted()
    guided = classifier_free(counted, 2.5, interval=(-2.0, 1.0))(x_t, level, condition)
    scale = 1.0 if rows == 3 else 2.5
    torch.testing.assert_close(guided, classifier_free(Counted(), scale)(x_t, level, condition))
    assert counted.rows == [rows]


def test_interval_that_is_none_is_refused():
    with pytest.raises(ValueError, match="low below high"):
        classifier_free(Counted(), 2.0, interval=(1.0, 1.0))


def test_without_a_condition_nothing_is_guided():
    counted, x_t = Counted(), torch.randn(3, 2)
    guided = classifier_free(counted, 3.0)(x_t, level_of(3))
    torch.testing.assert_close(guided, counted(x_t, level_of(3)))
    assert counted.rows == [3, 3]


def test_conditional_samples_come_from_the_component_asked_for():
    """Scale 1 on a mixture with the exact conditional denoiser; means within five standard errors
    (4,000 samples a component), plus 0.01 for 60 steps."""
    means = torch.tensor([[-1.0], [1.0]])
    oracle = GaussianMixture(torch.tensor([0.5, 0.5]), means, torch.full((2, 1), 0.25))
    n = 4000
    for component in (0, 1):
        noise = torch.randn(n, 1, generator=torch.Generator().manual_seed(component))
        condition = torch.full((n, 1), component)
        denoise = classifier_free(oracle.denoise, 1.0, null=-1)
        out = sample(denoise, noise, Cosine(-8, 8), "dpmpp_2m", 60, condition)
        assert float(out.mean()) == pytest.approx(
            float(means[component]), abs=5 * 0.5 / n**0.5 + 0.01
        )
        assert float(out.std()) == pytest.approx(0.5, abs=5 * 0.5 / (2 * n) ** 0.5 + 0.01)


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
def test_guided_flow_between_unit_gaussians_is_a_known_shift(scale: float):
    """Condition 1 is N(m_1, I) and none is N(m_0, I): the guided score is that of
    N(m_0 + scale (m_1 - m_0), I), whose flow keeps x_t - alpha m."""
    m_0, m_1 = torch.tensor([0.2, -0.4]).double(), torch.tensor([1.0, 0.3]).double()

    def denoise(
        x_t: Tensor, level: Level, condition: Tensor | None = None, previous: Tensor | None = None
    ) -> Tensor:
        assert condition is not None
        mean = torch.where(condition == 1, m_1, m_0)
        return mean + level.alpha * (x_t - level.alpha * mean)

    schedule, m = Cosine(-9, 9), m_0 + scale * (m_1 - m_0)
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    condition = torch.ones(5, 1, dtype=torch.long)
    out = sample(classifier_free(denoise, scale), x, schedule, "dpmpp_2m", 400, condition)
    start = schedule(torch.tensor(1.0, dtype=torch.float64)).alpha
    torch.testing.assert_close(out, x + (1 - start) * m, atol=2e-3, rtol=0)


def test_guidance_at_one_level_mixes_the_scores_of_a_mixture():
    """Tweedie of the guided estimate = (1 - s) score + s score of the component (scale 3)."""
    oracle = GaussianMixture(
        torch.tensor([0.3, 0.7]).double(),
        torch.tensor([[-1.0, 0.2], [0.8, 0.5]]).double(),
        torch.tensor([[0.3, 0.5], [0.2, 0.4]]).double(),
    )
    alone = GaussianMixture(
        torch.ones(1).double(), oracle.means[1:], torch.tensor([[0.2, 0.4]]).double()
    )
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    level = Cosine(-6, 6)(torch.linspace(0.2, 0.8, 4, dtype=torch.float64))
    condition = torch.ones(4, 1, dtype=torch.long)
    x0_hat = classifier_free(oracle.denoise, 3.0, null=-1)(x, level, condition)
    wide = level.widen(2)
    score = (wide.alpha * x0_hat - x) / wide.sigma**2
    expected = -2 * oracle.score(x, level) + 3 * alone.score(x, level)
    torch.testing.assert_close(score, expected)


@pytest.mark.parametrize("solver", ["ancestral", "ddim", "dpmpp_2m"])
def test_what_is_given_comes_out_exactly(solver: str):
    known, mask = torch.randn(3, 4), torch.tensor([[True, False, False, True]])
    denoise = infill(classifier_free(Counted(), 2.0), known, mask)
    condition = torch.ones(3, 1, dtype=torch.long)
    out = sample(denoise, torch.randn(3, 4), Cosine(), solver, 5, condition, seeds=[1, 2, 3])
    assert torch.equal(out[:, [0, 3]], known[:, [0, 3]])
    assert not bool((out[:, [1, 2]] == known[:, [1, 2]]).any())
