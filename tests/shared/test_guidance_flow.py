"""LatentOps' two modes on a Gaussian latent: gradient flow and product; budgets; logic."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from shared.gaussian import Gaussian, product
from shared.guidance import Quadratic, energy, gradient_flow, unit_gaussian
from shared.guidance.flow import LENGTH
from shared.guidance.logic import log_any, log_not, log_one_of
from shared.schedule import Cosine, Linear
from shared.solver import sample
from shared.solver.ode import Ode
from tests.guided import affine, f64, normals

# orthogonal directions of a latent of 3 coordinates
FIRST = Quadratic(f64([1.0, 0.0, 1.0]), f64(0.7), f64(0.9))
SECOND = Quadratic(f64([1.0, 2.0, -1.0]), f64(-0.4), f64(2.5))
ONE_OR_TWO = ([FIRST], [FIRST, SECOND])
WIDE = Cosine(-24, 24)  # its noisy end is pure noise, to 1e-5
LATE = 1000  # steps of the grid: the ODE is integrated to the last of them, at logsnr 13


def flowed(z: Tensor, energies: list[Quadratic], weights: list[float], length: float) -> Tensor:
    """z* + expm(-A length) (z - z*) with A the Hessian of the sum and z* a minimum of it."""
    hessian, pull = torch.zeros(3, 3).double(), torch.zeros(3).double()
    for one, weight in zip(energies, weights, strict=True):
        scaled = weight * one.a.T / one.std**2
        hessian, pull = hessian + scaled @ one.a, pull + scaled @ one.y
    minimum = torch.linalg.pinv(hessian) @ pull
    return minimum + (z - minimum) @ torch.linalg.matrix_exp(-hessian * length)


def product_of(energies: list[Quadratic]) -> Gaussian:
    """N(0, I) times every exp(-E), each a Gaussian observation of a z."""
    law = Gaussian.isotropic(torch.zeros(3).double(), 1.0)
    for one in energies:
        noise = Gaussian.isotropic(torch.zeros(1).double(), float(one.std))
        law = law.posterior(one.a, noise, one.y)
    return law


def test_the_product_is_that_of_the_algebras_own_product():
    axis = Quadratic(torch.eye(3).double(), f64(0.2, -1.0, 0.5), f64(0.9, 0.9, 0.9))
    prior = Gaussian.isotropic(torch.zeros(3).double(), 1.0)
    exact, _ = product(prior, Gaussian.isotropic(axis.y, 0.9))
    guided = energy(unit_gaussian, [axis.noised], [1.0])
    M, b = affine(lambda x: sample(guided, x, WIDE, Ode(1e-9, 1e-9), LATE), 3)
    torch.testing.assert_close(b, exact.mean, atol=1e-4, rtol=0)
    torch.testing.assert_close(M @ M.T, exact.covariance, atol=1e-4, rtol=0)


@pytest.mark.parametrize("energies", ONE_OR_TWO, ids=["one", "two"])
def test_the_papers_mode_ends_at_the_closed_form_gradient_flow(energies: list[Quadratic]):
    z, weights = normals(5, 3), [1.0, 0.6][: len(energies)]
    exact = flowed(z, energies, weights, LENGTH)
    found = gradient_flow(z, energies, weights, rtol=1e-9, atol=1e-9)
    assert found.done
    assert found.reached == LENGTH
    torch.testing.assert_close(found.y, exact, atol=1e-6, rtol=0)


@pytest.mark.parametrize("energies", ONE_OR_TWO, ids=["one", "two"])
def test_our_own_solvers_follow_the_same_flow(energies: list[Quadratic]):
    z, weights = normals(5, 3), [1.0, 0.6][: len(energies)]
    guided = energy(unit_gaussian, energies, weights)
    got = sample(guided, z, Linear(), "dpmpp_2m", 300)
    torch.testing.assert_close(got, flowed(z, energies, weights, LENGTH), atol=2e-3, rtol=0)


@pytest.mark.parametrize("energies", ONE_OR_TWO, ids=["one", "two"])
def test_the_exact_mode_ends_at_the_product_gaussian(energies: list[Quadratic]):
    exact = product_of(energies)
    guided = energy(unit_gaussian, [one.noised for one in energies], [1.0] * len(energies))
    M, b = affine(lambda x: sample(guided, x, WIDE, Ode(1e-9, 1e-9), LATE), 3)
    torch.testing.assert_close(b, exact.mean, atol=1e-4, rtol=0)
    torch.testing.assert_close(M @ M.T, exact.covariance, atol=1e-4, rtol=0)


def test_the_modes_differ_by_what_the_closed_forms_say():
    """Along an energy's direction the flow keeps e^-(5.025 / std^2) of the prior's spread, the
    product 1 / sqrt(1 + 1 / std^2)."""
    one = Quadratic(f64([1.0, 0.0, 0.0]), f64(1.5), f64(1.2))
    M, _ = affine(lambda z: gradient_flow(z, [one], [1.0], rtol=1e-9, atol=1e-9).y, 3)
    spread = float((M @ M.T)[0, 0].sqrt())
    assert spread == pytest.approx(math.exp(-LENGTH / 1.2**2), abs=1e-6)
    assert float(product_of([one]).covariance[0, 0].sqrt()) == pytest.approx(
        1 / math.sqrt(1 + 1 / 1.2**2)
    )


def test_a_flow_beyond_its_budget_stops_on_its_way_and_says_so():
    z = normals(5, 3)
    with pytest.warns(UserWarning, match=r"evaluations reach .* of 5.03; the state there is taken"):
        found = gradient_flow(z, [FIRST], [1.0], budget=20)
    assert not found.done
    assert found.evaluations <= 20
    assert 0 < found.reached < LENGTH
    on_the_way = flowed(z, [FIRST], [1.0], found.reached)
    torch.testing.assert_close(found.y, on_the_way, atol=1e-4, rtol=0)


def test_a_sampler_beyond_its_budget_takes_its_estimate_and_says_so():
    asked: list[float] = []

    def counted(x_t: Tensor, level, condition=None, previous=None) -> Tensor:
        asked.append(float(level.logsnr))
        return unit_gaussian(x_t, level)

    x, one = normals(4, 3), Quadratic(torch.eye(3).double(), f64(0.2, -1.0, 0.5), f64(1, 1, 1))
    guided = energy(counted, [one.noised], [1.0])
    full = sample(guided, x, WIDE, Ode())
    needed, errors = len(asked), list[float]()
    for share in (0.5, 0.8):
        asked.clear()
        with pytest.warns(UserWarning, match="Give a larger budget"):
            short = sample(guided, x, WIDE, Ode(budget=int(share * needed)))
        assert share * needed - 7 < len(asked) <= share * needed
        errors.append(float((short - full).norm()))
    assert errors[1] < errors[0] / 2
    with pytest.raises(ValueError, match="budget = 5: expected 10 evaluations or more"):
        Ode(budget=5)


def test_a_budget_that_suffices_changes_nothing():
    z = normals(5, 3)
    free, held = (gradient_flow(z, [FIRST], [1.0], budget=budget) for budget in (None, 5000))
    assert torch.equal(free.y, held.y)
    assert free.evaluations == held.evaluations
    assert held.done
    with pytest.raises(ValueError, match="length = -1"):
        gradient_flow(z, [FIRST], [1.0], length=-1)


def test_logic_is_that_of_independent_events_written_out():
    p = f64([0.1, 0.5, 0.9], [0.3, 0.02, 0.999], [0.7, 0.4, 0.001])
    whole = torch.zeros(3).double()
    for held in itertools.product([True, False], repeat=3):
        if any(held):
            rows = [p[i] if held[i] else 1 - p[i] for i in range(3)]
            whole = whole + torch.stack(rows).prod(0)
    torch.testing.assert_close(log_any(list(p.log())).exp(), whole)
    torch.testing.assert_close(log_not(p.log()).exp(), 1 - p)
    exclusive = f64([0.2, 0.5, 0.3]).log()
    assert float(log_one_of(exclusive, [0, 2]).exp()) == pytest.approx(0.5)


def test_logic_keeps_finite_gradients_at_certainty():
    log_p = torch.tensor([-1e-12, -1e-3, -0.7, -40.0, -90.0], requires_grad=True)
    values = log_any([log_not(log_p), log_p])
    values.sum().backward()
    assert bool(values.isfinite().all())
    assert log_p.grad is not None
    assert bool(log_p.grad.isfinite().all())
