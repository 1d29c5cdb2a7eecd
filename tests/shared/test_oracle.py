"""The mixture's score, posterior mean and density against derivatives and quadrature."""

import math

import pytest
import torch
from scipy.integrate import quad
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from shared.oracle import GaussianMixture
from shared.schedule import Level, variance_preserving
from tests.levels import FAMILIES, level_at, noised, single, solved_flow

EYE = torch.eye(3, dtype=torch.float64)


def mixture() -> GaussianMixture:
    """Two correlated components in space, whose axes are no reflections: transposing them shows."""
    factors = torch.tensor(
        [
            [[0.7, 0.0, 0.0], [0.2, 0.5, 0.0], [-0.3, 0.1, 0.4]],
            [[0.4, 0.0, 0.0], [-0.2, 0.6, 0.0], [0.1, 0.3, 0.5]],
        ],
        dtype=torch.float64,
    )
    weights = torch.tensor([1.0, 3.0], dtype=torch.float64)
    means = torch.tensor([[-1.0, 0.5, 0.2], [0.7, -0.2, 0.1]], dtype=torch.float64)
    return GaussianMixture(weights, means, factors @ factors.mT)


def points(n: int) -> Tensor:
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def covariances(oracle: GaussianMixture) -> Tensor:
    return oracle.axes @ torch.diag_embed(oracle.variances) @ oracle.axes.mT


def truth(x: Tensor, alpha: Tensor, sigma: Tensor) -> dict[str, Tensor]:
    """All answers about the mixture at one level, by torch.distributions, solve and autograd."""
    oracle, x = mixture(), x.detach().double().requires_grad_()
    spread = alpha**2 * covariances(oracle) + sigma**2 * EYE
    components = MultivariateNormal(alpha * oracle.means, spread)
    prior = Categorical(torch.tensor([1.0, 3.0], dtype=torch.float64))
    log_prob = MixtureSameFamily(prior, components).log_prob(x)
    (score,) = torch.autograd.grad(log_prob.sum(), x)
    with torch.no_grad():
        joint = components.log_prob(x[:, None]) + prior.logits
        centred = x[:, None] - alpha * oracle.means
        pull = torch.linalg.solve(spread, centred[..., None])
        each = oracle.means + alpha * (covariances(oracle) @ pull)[..., 0]
        x0_hat = (joint.softmax(-1)[..., None] * each).sum(1)
        posterior = joint.log_softmax(-1)
    return {
        "log_prob": log_prob.detach(),
        "score": score,
        "denoise": x0_hat,
        "log_posterior": posterior,
    }


@pytest.mark.parametrize("name", ["log_prob", "score", "denoise", "log_posterior"])
def test_every_answer_is_that_of_the_noised_mixture_at_each_samples_level(name: str):
    """Levels of different families in one batch: no relation of alpha and sigma is assumed."""
    alpha = torch.tensor([1.0, 0.4, 0.9, 0.2], dtype=torch.float64)
    sigma = torch.tensor([3.0, 0.6, 0.05, 0.8], dtype=torch.float64)
    level, x = Level(2 * torch.log(alpha / sigma), alpha, sigma), points(4)
    got = getattr(mixture(), name)(x, level)
    for i in range(4):
        expected = truth(x[i : i + 1], alpha[i], sigma[i])[name]
        torch.testing.assert_close(got[i : i + 1], expected)


def test_posterior_mean_in_one_dimension_is_bayes_by_quadrature():
    weights = torch.tensor([0.2, 0.8], dtype=torch.float64)
    means = torch.tensor([[-1.0], [1.5]], dtype=torch.float64)
    variances = torch.tensor([[0.3], [0.6]], dtype=torch.float64)
    oracle, level, x_t = GaussianMixture(weights, means, variances), level_at("vp", 0.4), 0.35
    alpha, sigma = float(level.alpha), float(level.sigma)

    def joint(x0: float) -> float:
        prior = sum(
            float(w) * math.exp(-((x0 - float(m)) ** 2) / (2 * float(v))) / math.sqrt(float(v))
            for w, m, v in zip(weights, means, variances, strict=True)
        )
        return prior * math.exp(-((x_t - alpha * x0) ** 2) / (2 * sigma**2))

    expected = quad(lambda x0: x0 * joint(x0), -12, 12)[0] / quad(joint, -12, 12)[0]
    got = oracle.denoise(torch.tensor([[x_t]], dtype=torch.float64), level)
    assert float(got) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("logsnr", [-20.0, -10.0, 0.0, 10.0, 20.0])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_answer_is_right_at_both_ends_in_float32(family: str, logsnr: float):
    exact, level = mixture(), level_at(family, logsnr)
    oracle = GaussianMixture(
        torch.tensor([1.0, 3.0]), exact.means.float(), covariances(exact).float()
    )
    x = noised(exact.sample(5, torch.Generator().manual_seed(1)), level).float()
    std = math.sqrt(float(level.alpha**2 + level.sigma**2))
    for name, expected in truth(x, level.alpha, level.sigma).items():
        got = getattr(oracle, name)(x, single(level))
        assert got.dtype == torch.float32
        scale = 1 / std if name == "score" else 1.0
        torch.testing.assert_close(got.double(), expected, rtol=2e-5, atol=2e-5 * scale)


def test_the_estimate_tends_to_x0_and_to_the_mean():
    oracle, x = mixture(), points(5)
    torch.testing.assert_close(oracle.denoise(x, level_at("vp", 20.0)), x, atol=1e-3, rtol=0)
    mean = (oracle.log_weights.exp()[:, None] * oracle.means).sum(0)
    got = oracle.denoise(x, level_at("vp", -20.0))
    torch.testing.assert_close(got, mean.expand(5, 3), atol=1e-3, rtol=0)


def component(k: int) -> GaussianMixture:
    oracle = mixture()
    one = torch.ones(1, dtype=torch.float64)
    return GaussianMixture(one, oracle.means[k : k + 1], covariances(oracle)[k : k + 1])


@pytest.mark.parametrize("name", ["denoise", "score", "log_prob"])
def test_a_condition_chooses_each_samples_component_and_minus_one_none(name: str):
    oracle, x, level = mixture(), points(4), level_at("flow", 0.3, -2.0, 1.0, 0.0)
    answer = getattr(oracle, name)
    got = answer(x, level, torch.tensor([1, -1, 0, 1]))
    alone = [getattr(component(k), name)(x, level) for k in (0, 1)]
    expected = torch.stack([alone[1][0], answer(x, level)[1], alone[0][2], alone[1][3]])
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(answer(x, level, torch.tensor([[1], [-1], [0], [1]])), expected)


def test_the_exact_classifier_turns_the_score_into_the_conditional_score():
    """grad log p_t(k | x_t) = grad log p_t(x_t | k) - grad log p_t(x_t): classifier guidance."""
    oracle, level = mixture(), level_at("ve", 0.3, -2.0, 1.0, 5.0)
    chosen = torch.tensor([1, 0, 0, 1])
    x = points(4).requires_grad_()
    picked = oracle.log_posterior(x, level)[torch.arange(4), chosen]
    (gradient,) = torch.autograd.grad(picked.sum(), x)
    x = x.detach()
    torch.testing.assert_close(gradient, oracle.score(x, level, chosen) - oracle.score(x, level))


def test_draws_under_a_condition_are_of_its_component():
    """Two components 40 standard deviations apart; the free third: either, 30 of 60 +- 5 errors."""
    means = torch.tensor([[-20.0, 0.0], [20.0, 0.0]])
    oracle = GaussianMixture(torch.ones(2), means, torch.ones(2, 2))
    condition = torch.tensor([0, 1, -1]).repeat(60)
    drawn = oracle.sample(180, torch.Generator().manual_seed(0), condition)
    right = drawn[:, 0] > 0
    assert not bool(right[condition == 0].any())
    assert bool(right[condition == 1].all())
    assert abs(int(right[condition == -1].sum()) - 30) < 5 * math.sqrt(15)


@pytest.mark.parametrize("condition", [[0, 2, 1], [0, -2, 1], [0, 1]])
def test_a_condition_that_is_no_component_of_each_sample_is_refused(condition: list[int]):
    with pytest.raises(ValueError, match=r"condition .*for 3 samples, 0 to 1, or -1 for any"):
        mixture().denoise(points(3), level_at("vp", 0.0), torch.tensor(condition))


@pytest.mark.parametrize("name", ["denoise", "score", "log_prob", "log_posterior"])
def test_a_row_does_not_depend_on_its_batch(name: str):
    """Bit for bit: the tests of the loop rely on it."""
    oracle, x = mixture(), points(64).float()
    levels = variance_preserving(torch.linspace(-9, 9, 64))
    batch = getattr(oracle, name)(x, levels)
    for i in range(0, 64, 7):
        parts = (levels.logsnr, levels.alpha, levels.sigma)
        level = Level(*(part[i : i + 1] for part in parts))
        assert torch.equal(getattr(oracle, name)(x[i : i + 1], level), batch[i : i + 1])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_flow_of_one_component_solves_the_ode_and_leads_back(family: str):
    oracle, at, to = component(1), level_at(family, -4.0), level_at(family, 3.0)
    x = noised(oracle.sample(2, torch.Generator().manual_seed(1)), at)
    got = oracle.flow(x, at, to)
    solved = solved_flow(oracle.denoise, x, family, -4.0, 3.0)
    torch.testing.assert_close(got, solved, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(oracle.flow(got, to, at), x)


def test_the_flow_takes_each_sample_between_its_own_levels():
    oracle, x = component(1), points(2)
    at, to = level_at("ve", -3.0, 0.5), level_at("sub_vp", 1.0, -2.0)
    got = oracle.flow(x, at, to)
    assert got.shape == (2, 3)
    for i, (a, b) in enumerate([(-3.0, 1.0), (0.5, -2.0)]):
        alone = oracle.flow(x[i : i + 1], level_at("ve", a), level_at("sub_vp", b))
        torch.testing.assert_close(got[i : i + 1], alone)


def test_the_flow_of_several_components_is_refused():
    with pytest.raises(ValueError, match="the flow of 2 components has no closed form"):
        mixture().flow(points(3), level_at("vp", 0.0), level_at("vp", 1.0))


def test_samples_have_the_mixtures_mean_and_covariance():
    """50,000 draws, five standard errors: false alarms below 1e-5 (of three and six numbers)."""
    oracle = mixture()
    drawn = oracle.sample(50_000, torch.Generator().manual_seed(1))
    mean = (oracle.log_weights.exp()[:, None] * oracle.means).sum(0)
    assert bool(((drawn.mean(0) - mean).abs() < 5 * drawn.std(0) / math.sqrt(50_000)).all())
    second = covariances(oracle) + oracle.means[:, :, None] * oracle.means[:, None, :]
    second = (oracle.log_weights.exp()[:, None, None] * second).sum(0)
    products = drawn[:, :, None] * drawn[:, None, :]
    error = products.std(0) / math.sqrt(50_000)
    assert bool(((products.mean(0) - second).abs() < 5 * error).all())


@pytest.mark.parametrize("weights", [[0.5, 0.0], [2.0, -1.0], [1.0, math.nan]])
def test_weights_that_are_not_positive_are_refused(weights: list[float]):
    with pytest.raises(ValueError, match="weights"):
        GaussianMixture(torch.tensor(weights), torch.zeros(2, 3), torch.ones(2, 3))


@pytest.mark.parametrize(
    ("covariance", "message"),
    [
        ([[1.0, 0.5], [0.2, 1.0]], "not symmetric"),
        ([[1.0, 2.0], [2.0, 1.0]], "not positive definite"),
    ],
)
def test_matrix_that_is_no_covariance_is_refused(covariance: list[list[float]], message: str):
    with pytest.raises(ValueError, match=message):
        GaussianMixture(torch.ones(1), torch.zeros(1, 2), torch.tensor([covariance]))


def test_a_mean_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="a mean is not finite"):
        GaussianMixture(torch.ones(1), torch.tensor([[0.0, math.nan]]), torch.ones(1, 2))


@pytest.mark.parametrize(
    ("weights", "covariance"), [((3,), (2, 3)), ((2,), (2, 3, 2)), ((2, 1), (2, 3))]
)
def test_shapes_that_disagree_are_refused(weights: tuple[int, ...], covariance: tuple[int, ...]):
    with pytest.raises(ValueError, match=r"expected \(K,\), \(K, D\) and \(K, D, D\) or \(K, D\)"):
        GaussianMixture(torch.ones(weights), torch.zeros(2, 3), torch.ones(covariance))
