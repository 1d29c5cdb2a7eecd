"""The causal reference: its likelihood, its sampling, its seeds."""

import pytest
import torch
from torch.testing import assert_close

from shared.config import NetConfig
from shared.tokenizer import BOS, EOS, PAD
from text.baseline import CausalLM

SIZE, LENGTH = 6, 4


@pytest.fixture(scope="module")
def model() -> CausalLM:
    torch.manual_seed(0)
    made = CausalLM(SIZE, LENGTH, NetConfig(dim=16, depth=2, heads=2)).eval()
    for p in made.parameters():  # far from uniform, so that a mistake shows
        p.data.mul_(6.0)
    return made


def test_nll_is_that_of_each_token_given_its_prefix(model: CausalLM) -> None:
    row = [4, 5, 1, 3]
    for i, token in enumerate(row):
        logits = model.model(input_ids=torch.tensor([[BOS, *row[:i]]])).logits[0, -1]
        exact = -logits.log_softmax(0)[token]
        assert_close(model.nll(torch.tensor([row]))[0, i], exact, atol=1e-4, rtol=1e-4)


def test_a_token_does_not_see_those_after_it(model: CausalLM) -> None:
    left, right = torch.tensor([[4, 5, 1, 3]]), torch.tensor([[4, 5, 4, 4]])
    assert_close(model.nll(left)[:, :2], model.nll(right)[:, :2])
    assert float((model.nll(left)[:, 3] - model.nll(right)[:, 3]).abs()) > 1e-3


def test_padding_costs_nothing_and_changes_nothing(model: CausalLM) -> None:
    short, padded = torch.tensor([[5, EOS]]), torch.tensor([[5, EOS, PAD, PAD]])
    assert_close(model.nll(short), model.nll(padded)[:, :2])
    assert float(model.nll(padded)[:, 2:].abs().sum()) == 0
    losses, logsnr = model(padded, None, torch.zeros(1), torch.zeros(1))
    assert logsnr is None
    assert_close(losses, model.nll(short).sum(1) / LENGTH)


def test_generated_tokens_follow_the_models_distribution(model: CausalLM) -> None:
    n = 4000
    rows = model.generate(range(n))
    logits = model.model(input_ids=torch.tensor([[BOS]])).logits[0, -1].double()
    logits[[PAD, BOS]] = -torch.inf
    p = logits.softmax(0)
    counts = torch.bincount(rows[:, 0], minlength=SIZE).double()
    kept = p > 0
    assert float(counts[~kept].sum()) == 0
    chi2 = float(((counts[kept] - n * p[kept]) ** 2 / (n * p[kept])).sum())
    assert chi2 < 16.3  # 3 degrees of freedom: false alarm 1 in 1,000


def test_a_sample_depends_on_its_seed_alone(model: CausalLM) -> None:
    together = model.generate(range(20, 84))
    for i in (0, 5, 63):
        assert torch.equal(model.generate([20 + i])[0], together[i])
    assert len(set(map(tuple, together.tolist()))) > 10


def test_after_the_end_there_is_padding(model: CausalLM) -> None:
    for row in model.generate(range(64)).tolist():
        if EOS in row:
            assert set(row[row.index(EOS) + 1 :]) <= {PAD}
            assert PAD not in row[: row.index(EOS)]


def test_a_low_temperature_takes_the_most_likely_token(model: CausalLM) -> None:
    logits = model.model(input_ids=torch.tensor([[BOS]])).logits[0, -1]
    logits[[PAD, BOS]] = -torch.inf
    assert set(model.generate(range(50), temperature=1e-3)[:, 0].tolist()) == {int(logits.argmax())}
    with pytest.raises(ValueError, match="temperature = 0"):
        model.generate([1], temperature=0)
