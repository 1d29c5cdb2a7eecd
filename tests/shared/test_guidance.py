"""Guidance as functions from Denoise to Denoise: formulas, evaluations, exactness."""

import pytest
import torch
from torch import Tensor

from shared.guidance import classifier_free, infill
from shared.oracle import GaussianMixture
from shared.schedule import Cosine, Level
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


@pytest.mark.parametrize("solver", ["ancestral", "ddim", "dpmpp_2m"])
def test_what_is_given_comes_out_exactly(solver: str):
    known, mask = torch.randn(3, 4), torch.tensor([[True, False, False, True]])
    denoise = infill(classifier_free(Counted(), 2.0), known, mask)
    condition = torch.ones(3, 1, dtype=torch.long)
    out = sample(denoise, torch.randn(3, 4), Cosine(), solver, 5, condition, seeds=[1, 2, 3])
    assert torch.equal(out[:, [0, 3]], known[:, [0, 3]])
    assert not bool((out[:, [1, 2]] == known[:, [1, 2]]).any())
