"""Groups of a condition's columns: dropped one by one, and guided by the chain rule."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from shared.codec import Bits
from shared.config import DiffusionConfig, NetConfig
from shared.drawing import draw
from shared.errors import ConfigError
from shared.guidance import chain, classifier_free, count_evaluations
from shared.learner import DiffusionLearner
from shared.objective import drop_condition, sample_keys
from shared.oracle import GaussianMixture
from shared.sampling import Sampling
from shared.scales import parse_scales
from shared.schedule import Level
from tests.guided import f64, flow_level, normals
from tests.toy import LENGTH, SIZE, ToyNet

GROUPS = {"layout": (0, 2), "texture": (1,)}
ROWS = 20_000


def test_groups_are_dropped_independently_and_with_all_of_it_at_their_rates():
    """Five standard errors of 20,000 rows; column 3 is in no group."""
    condition = torch.tensor([[3, 5, 7, 9]]).expand(ROWS, 4)
    keys = sample_keys(2, torch.arange(ROWS))
    dropped = drop_condition(condition, keys, {"all": 0.05, "layout": 0.2, "texture": 0.3}, GROUPS)
    gone = dropped == 0
    assert torch.equal(gone[:, 0], gone[:, 2])
    expected = {
        "all": (gone[:, 3], 0.05),
        "layout": (gone[:, 0], 0.05 + 0.95 * 0.2),
        "texture": (gone[:, 1], 0.05 + 0.95 * 0.3),
        "both": (gone[:, 0] & gone[:, 1], 0.05 + 0.95 * 0.06),
    }
    for name, (rows, p) in expected.items():
        error = 5 * math.sqrt(p * (1 - p) / ROWS)
        assert float(rows.float().mean()) == pytest.approx(p, abs=error), name
    kept = ~gone
    assert torch.equal(dropped[kept], condition[kept])


def test_all_alone_drops_the_same_rows_as_one_number():
    condition = torch.tensor([[3, 5, 7]]).expand(500, 3)
    keys = sample_keys(4, torch.arange(500))
    by_name = drop_condition(condition, keys, {"all": 0.3}, GROUPS)
    assert torch.equal(by_name, drop_condition(condition, keys, 0.3))


def labelled() -> GaussianMixture:
    """Component 2 i + j has labels i and j, which are dependent given x and a priori."""
    weights = f64(0.1, 0.4, 0.3, 0.2)
    means = f64([-1.0, 0.4], [0.9, 0.7], [0.1, -1.1], [0.5, 0.2])
    covariances = f64(
        [[0.30, 0.12], [0.12, 0.20]], [[0.15, -0.08], [-0.08, 0.40]],
        [[0.25, 0.0], [0.0, 0.10]], [[0.2, 0.05], [0.05, 0.3]],
    )  # fmt: skip
    return GaussianMixture(weights, means, covariances)


def agrees(condition: Tensor) -> Tensor:
    """condition (B, 2), 0 for any label and 1 + label otherwise -> components (B, 4) that agree."""
    labels = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
    asked = condition[:, None, :]
    return ((asked == 0) | (asked == labels + 1)).all(-1)


def exact(
    x_t: Tensor, level: Level, condition: Tensor | None = None, previous: Tensor | None = None
) -> Tensor:
    """E[x0 | x_t, labels] of the mixture."""
    assert condition is not None
    oracle = labelled()
    log_p = oracle.log_posterior(x_t, level).masked_fill(~agrees(condition), -math.inf)
    each = [oracle.denoise(x_t, level, torch.full((len(x_t),), k)) for k in range(4)]
    return (log_p.softmax(1)[..., None] * torch.stack(each, 1)).sum(1)


X, LEVELS = normals(4, 2), flow_level(0.2, 0.4, 0.6, 0.8)
ASKED = torch.tensor([[1, 2], [2, 1], [2, 2], [1, 1]])


@pytest.mark.parametrize("scales", [(1.0, 1.0), (2.0, 3.0), (0.5, -1.0), (3.0, 0.0)])
@pytest.mark.parametrize("columns", [[(0,), (1,)], [(1,), (0,)]])
def test_scales_of_groups_raise_the_factors_of_the_chain_rule_to_powers(scales, columns):
    """x0 = E[x0 | x_t] + (sigma^2 / alpha) grad (s_1 log p(c_1 | x) + s_2 log p(c_2 | c_1, x)),
    from the oracle's posterior by autograd: the labels are not independent given x."""
    x = X.clone().requires_grad_()
    log_p = labelled().log_posterior(x, LEVELS)
    first = ASKED.clone()
    first[:, list(columns[1])] = 0
    one, both = (
        log_p.masked_fill(~agrees(condition), -math.inf).logsumexp(1)
        for condition in (first, ASKED)
    )
    total = (scales[0] * one + scales[1] * (both - one)).sum()
    pull = torch.autograd.grad(total, x)[0]
    wide = LEVELS.widen(2)
    base = exact(X, LEVELS, torch.zeros_like(ASKED))
    expected = base + wide.sigma**2 / wide.alpha * pull

    negative, condition, weights = chain(ASKED, columns, scales)
    guided = classifier_free(exact, weights, negative=negative)
    torch.testing.assert_close(guided(X, LEVELS, condition), expected, atol=1e-9, rtol=1e-9)


def test_groups_at_scale_1_are_the_model_as_it_is_in_one_evaluation():
    counted = count_evaluations(exact)
    negative, condition, weights = chain(ASKED, [(1,), (0,)], [1.0, 1.0])
    got = classifier_free(counted, weights, negative=negative)(X, LEVELS, condition)
    torch.testing.assert_close(got, exact(X, LEVELS, ASKED))
    assert counted.rows == len(X)


def test_what_is_in_no_group_is_given_throughout():
    condition = torch.tensor([[3, 5, 7, 9]])
    negative, prefixes, weights = chain(condition, [(0, 2), (1,)], [2.0, 3.5])
    assert negative.tolist() == [[0, 0, 0, 9]]
    assert prefixes.tolist() == [[[3, 0, 7, 9], [3, 5, 7, 9]]]
    assert weights == [-1.5, 3.5]
    assert condition.tolist() == [[3, 5, 7, 9]]


def learner(drop: float | dict[str, float], groups: dict[str, tuple[int, ...]]) -> DiffusionLearner:
    codec = Bits(SIZE, (LENGTH,))
    net = ToyNet(codec.logit_channels, NetConfig(dim=8, depth=1, heads=2))
    return DiffusionLearner(net, codec, DiffusionConfig(drop_condition=drop), groups=groups)


def test_a_group_that_there_is_not_is_refused():
    condition = torch.ones(2, 3, dtype=torch.long)
    how = Sampling(steps=1, guidance={"layuot": 2.0})
    with pytest.raises(ConfigError, match=r"no group 'layuot' .*did you mean layout"):
        draw(learner(0.1, GROUPS), [1, 2], how, condition, progress=False)
    with pytest.raises(ConfigError, match="has no groups; give one number"):
        draw(learner(0.1, {}), [1, 2], how, condition, progress=False)
    with pytest.raises(ConfigError, match=r"diffusion.drop_condition: no group 'size'"):
        learner({"size": 0.1}, GROUPS)
    with pytest.raises(ConfigError, match="towards what"):
        draw(learner(0.1, GROUPS), [1], Sampling(steps=1, guidance={"layout": 2.0}), progress=False)


def test_scales_of_groups_go_with_neither_interval_nor_guide_nor_negative():
    others: list[dict[str, Any]] = [{"guidance_interval": (-1.0, 1.0)}, {"guide": "runs/weaker"}]
    for more in others:
        with pytest.raises(ConfigError, match="not with a scale for each group"):
            Sampling(guidance={"layout": 2.0}, **more)
    condition = torch.ones(1, 3, dtype=torch.long)
    how = Sampling(steps=1, guidance={"layout": 2.0})
    with pytest.raises(ConfigError, match="negative: not with a scale for each group"):
        draw(learner(0.1, GROUPS), [1], how, condition, negative=condition, progress=False)


@pytest.mark.parametrize(
    ("drop", "guidance", "warns"),
    [
        ({"all": 0.1, "layout": 0.1, "texture": 0.1}, {"layout": 2.0}, False),
        ({"all": 0.1, "layout": 0.1}, {"layout": 2.0, "texture": 2.0}, True),
        (0.1, {"layout": 2.0}, True),
        ({"layout": 0.1}, 2.0, True),
        ({"layout": 0.1, "texture": 0.1}, 2.0, False),
        ({"all": 0.1}, 2.0, False),
    ],
)
def test_guidance_from_what_training_never_dropped_warns(
    drop, guidance, warns: bool, recwarn: pytest.WarningsRecorder
):
    condition = torch.ones(2, 3, dtype=torch.long)
    how = Sampling(steps=1, guidance=guidance)
    draw(learner(drop, GROUPS), [1, 2], how, condition, progress=False)
    told = [one for one in recwarn if "has never seen samples without" in str(one.message)]
    assert len(told) == warns


def test_a_negative_condition_takes_the_place_of_none():
    made, condition = learner(0.1, GROUPS), torch.ones(2, 3, dtype=torch.long)
    for parameter in made.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=torch.manual_seed(1)))
    how = Sampling(steps=3, guidance=2.0)
    negative = torch.tensor([[2, 2, 0], [2, 2, 0]])

    def drawn(negative: Tensor | None) -> Tensor:
        return draw(made, [1, 2], how, condition, negative=negative, progress=False)

    assert torch.equal(drawn(None), drawn(torch.zeros(2, 3, dtype=torch.long)))
    assert not torch.equal(drawn(None), drawn(negative))


@pytest.mark.parametrize(
    ("asked", "scales"),
    [("3", 3.0), ("-0.5", -0.5), ("layout=2,texture=3.5", {"layout": 2.0, "texture": 3.5})],
)
def test_scales_are_a_number_or_one_for_each_group(asked: str, scales):
    assert parse_scales(asked) == scales


@pytest.mark.parametrize("asked", ["two", "layout=two", "layout=1,layout=2", "=2", "layout=1,2"])
def test_what_is_no_scale_is_refused(asked: str):
    with pytest.raises(ValueError, match=asked):
        parse_scales(asked)
