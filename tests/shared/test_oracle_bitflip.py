"""The bit-flip process against matrices over all words, and the paper's heartbeat.

The small process has words of four bits: its forward and reverse chains are 16 x 16 matrices, and
everything the class says is a product, a ratio or a sum of their entries.
"""

import itertools
import math

import pytest
import torch
from torch import Tensor

from shared.oracle import BitFlip, binomial_betas, heartbeat

SEQUENCES = torch.tensor([[1, 0, 0, 1], [0, 1, 0, 1], [1, 1, 0, 0]])
WEIGHTS = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)
BETAS = torch.tensor([0.1, 0.3, 0.25, 0.6, 0.45], dtype=torch.float64)
RATE, L, T = 0.3, 4, 5
WORDS = torch.tensor(list(itertools.product([0, 1], repeat=L)))
STEPS = range(1, T + 1)


def process() -> BitFlip:
    return BitFlip(SEQUENCES, BETAS, RATE, WEIGHTS)


def one_bit(t: int) -> Tensor:
    """[from, to] of a single bit at step t: kept, or drawn afresh."""
    fresh = torch.tensor([1 - RATE, RATE], dtype=torch.float64)
    return (1 - BETAS[t - 1]) * torch.eye(2, dtype=torch.float64) + BETAS[t - 1] * fresh


def kernel(t: int) -> Tensor:
    """[word at t - 1, word at t] (16, 16)."""
    words = torch.ones(1, 1, dtype=torch.float64)
    for _ in range(L):
        words = torch.kron(words, one_bit(t))
    return words


def data() -> Tensor:
    """q(x_0) over all words (16,)."""
    hits = (WORDS[:, None] == SEQUENCES).all(-1)
    return (hits * WEIGHTS).sum(-1)


def given(t: int) -> Tensor:
    """q(x_t | x_0 = sequence k), (3, 16)."""
    start = (SEQUENCES[:, None] == WORDS).all(-1).double()
    for step in range(1, t + 1):
        start = start @ kernel(step)
    return start


def marginal(t: int) -> Tensor:
    return WEIGHTS @ given(t)


def reverse(t: int) -> Tensor:
    """q(x_{t-1} | x_t) under the data, [word at t, word at t - 1]."""
    joint = marginal(t - 1)[:, None] * kernel(t)
    return (joint / joint.sum(0)).mT


def factorised(t: int) -> Tensor:
    """The product of the marginals of `reverse`, [word at t, word at t - 1]."""
    rates = reverse(t) @ WORDS.double()
    return torch.where(WORDS[None] == 1, rates[:, None], 1 - rates[:, None]).prod(-1)


def prior() -> Tensor:
    rates = torch.tensor([1 - RATE, RATE], dtype=torch.float64)
    return rates[WORDS].prod(-1)


def brute_terms(kernels: list[Tensor]) -> Tensor:
    """The bound's terms of reverse kernels [word at t, word at t - 1], by sums over all words."""
    last = given(T)
    terms = [float((WEIGHTS[:, None] * torch.xlogy(last, last / prior())).sum())]
    for t, p in zip(STEPS, kernels, strict=True):
        total = 0.0
        for k in range(3):
            joint = given(t - 1)[k][:, None] * kernel(t)  # [t - 1, t] given sequence k
            posterior = (joint / joint.sum(0)).mT
            kl = torch.xlogy(posterior, posterior) - torch.xlogy(posterior, p)
            total += float(WEIGHTS[k] * given(t)[k] @ kl.sum(-1))
        terms.append(total)
    return torch.tensor(terms, dtype=torch.float64) / math.log(2)


def model(kernels: list[Tensor]) -> Tensor:
    """p(x_0) of the model that starts at the prior and takes these reverse kernels, (16,)."""
    p = prior()
    for step in reversed(kernels):
        p = p @ step
    return p


def test_kernels_compose_to_the_marginal():
    one = one_bit(1)
    torch.testing.assert_close(process().kernel(torch.tensor([0, 1]), 1), one[:, 1])
    for t in range(1, T):
        one = one @ one_bit(t + 1)
        torch.testing.assert_close(process().marginal(torch.tensor([0, 1]), t + 1), one[:, 1])
    for s in range(T):  # Chapman-Kolmogorov: the rates at s pushed through one kernel more
        rates = process().marginal(torch.tensor([0, 1]), s)
        pushed = rates * process().kernel(torch.ones(()), s + 1) + (1 - rates) * process().kernel(
            torch.zeros(()), s + 1
        )
        torch.testing.assert_close(process().marginal(torch.tensor([0, 1]), s + 1), pushed)


@pytest.mark.parametrize("t", [0, *STEPS])
def test_the_noised_distribution_is_that_of_the_matrices(t: int):
    torch.testing.assert_close(process().log_prob(WORDS, t).exp(), marginal(t))
    joint = WEIGHTS[:, None] * given(t)
    inside = marginal(t) > 0
    posterior = process().log_posterior(WORDS[inside], t).exp()
    torch.testing.assert_close(posterior, (joint / joint.sum(0)).mT[inside])


@pytest.mark.parametrize("t", STEPS)
def test_the_posterior_of_a_bit_is_bayes_rule(t: int):
    for x_0, x_t in itertools.product([0, 1], repeat=2):
        start = torch.eye(2, dtype=torch.float64)[x_0]
        for s in range(1, t):
            start = start @ one_bit(s)
        joint = start * one_bit(t)[:, x_t]
        got = process().posterior(torch.tensor(x_t), torch.tensor(x_0), t)
        assert float(got) == pytest.approx(float(joint[1] / joint.sum()), abs=1e-14)


@pytest.mark.parametrize("t", STEPS)
def test_the_reverse_kernel_is_bayes_rule_on_words(t: int):
    x_t, x_s = WORDS.repeat_interleave(16, 0), WORDS.repeat(16, 1)
    got = process().reverse_log_prob(x_s, x_t, t).exp().reshape(16, 16)
    torch.testing.assert_close(got, reverse(t))
    torch.testing.assert_close(got.sum(-1), torch.ones(16, dtype=torch.float64))
    torch.testing.assert_close(process().reverse_rates(WORDS, t), reverse(t) @ WORDS.double())


def test_the_terms_of_both_bounds_are_sums_over_all_words():
    torch.testing.assert_close(
        process().exact_terms(), brute_terms([reverse(t) for t in STEPS]), rtol=1e-10, atol=1e-12
    )
    torch.testing.assert_close(
        process().factorised_terms(),
        brute_terms([factorised(t) for t in STEPS]),
        rtol=1e-10,
        atol=1e-12,
    )


@pytest.mark.parametrize("t", STEPS)
def test_terms_of_any_model_are_averages_of_its_step_kls(t: int):
    """`step_bits`, averaged exactly over words and sequences; other rates than the best lose."""

    def mean(rates: Tensor) -> float:
        kls = [process().step_bits(rates, WORDS, word, t) for word in SEQUENCES]
        return float((WEIGHTS[:, None] * given(t) * torch.stack(kls)).sum())

    best = process().reverse_rates(WORDS, t)
    assert mean(best) == pytest.approx(float(process().factorised_terms()[t]), rel=1e-10)
    for change in (0.98 * best + 0.02, 0.98 * best):
        assert mean(change) > mean(best) + 1e-4


def test_information_is_the_mutual_information_and_falls():
    information = [process().information_bits(t) for t in range(T + 1)]
    for t, got in enumerate(information):
        q, mixed = given(t), marginal(t)
        ratio = torch.where(q > 0, q / mixed.clamp(min=1e-300), 1.0)
        expected = float((WEIGHTS[:, None] * torch.xlogy(q, ratio)).sum()) / math.log(2)
        assert got == pytest.approx(expected, abs=1e-12)
    assert information[0] == pytest.approx(process().entropy_bits(), abs=1e-12)
    assert information == sorted(information, reverse=True)
    entropy = -float((WEIGHTS * WEIGHTS.log2()).sum())
    assert process().entropy_bits() == pytest.approx(entropy, abs=1e-12)


@pytest.mark.parametrize("name", ["exact", "factorised"])
def test_the_bound_is_below_the_models_mean_log_likelihood(name: str):
    kernels = [reverse(t) if name == "exact" else factorised(t) for t in STEPS]
    bound = -float(getattr(process(), f"{name}_terms")().sum())
    inside = data() > 0
    log_likelihood = float((data()[inside] * model(kernels)[inside].log2()).sum())
    assert bound < log_likelihood < -process().entropy_bits()
    assert float(model(kernels).sum()) == pytest.approx(1)


def test_with_the_exact_reverse_only_the_mismatch_of_the_prior_is_lost():
    last = marginal(T)
    mismatch = float(torch.xlogy(last, last / prior()).sum()) / math.log(2)
    assert mismatch > 1e-3
    bound = -float(process().exact_terms().sum())
    assert bound == pytest.approx(-process().entropy_bits() - mismatch, abs=1e-12)


def test_the_papers_betas_erase_the_same_share_of_the_signal_at_each_step():
    chain = heartbeat(40)
    torch.testing.assert_close(chain.keep, 1 - torch.arange(41, dtype=torch.float64) / 40)
    assert float(chain.keep[-1]) == 0
    assert binomial_betas(4).tolist() == [1 / 4, 1 / 3, 1 / 2, 1]


def test_the_heartbeat_is_five_phases_of_a_pulse_each_fifth_bin():
    chain = heartbeat()
    assert (chain.steps, chain.rate) == (2000, 0.2)
    assert chain.sequences.shape == (5, 20)
    for phase in range(5):
        ones = torch.zeros(20)
        ones[phase::5] = 1
        assert int((chain.sequences == ones).all(-1).sum()) == 1
    assert chain.entropy_bits() == pytest.approx(math.log2(5))


@pytest.mark.parametrize("steps", [1, 7, 50])
def test_the_exact_reverse_of_the_heartbeat_loses_nothing(steps: int):
    """The last step erases all, so the prior is exact: -2.322 bits per sequence."""
    assert -float(heartbeat(steps).exact_terms().sum()) == pytest.approx(-math.log2(5), abs=1e-11)


def test_the_ceiling_of_independent_bits_rises_from_the_null_model_to_the_entropy():
    """One step sees nothing: 20 bits at rate 0.2, -14.438 bits, the null model of the paper's
    Table 1. Ever smaller steps reach the data's own -2.322."""
    bounds = [-float(heartbeat(steps).factorised_terms().sum()) for steps in (1, 2, 8, 32, 64)]
    null = 20 * (0.2 * math.log2(0.2) + 0.8 * math.log2(0.8))
    assert bounds[0] == pytest.approx(null, abs=1e-11)
    assert bounds == sorted(bounds)
    assert bounds[-1] < -math.log2(5)
    gaps = [-math.log2(5) - bound for bound in bounds[-2:]]
    assert gaps[0] / gaps[1] == pytest.approx(2, rel=0.1)  # the loss is of first order in 1 / T


def test_a_chain_of_exact_reverse_steps_draws_the_data():
    """From noise in 6 steps, 5,000 words, each phase within 5 standard errors: false alarms below
    3e-6 (of five)."""
    chain, n, generator = heartbeat(6), 5000, torch.Generator().manual_seed(0)
    x = torch.bernoulli(torch.full((n, 20), 0.2), generator=generator)
    for t in range(6, 0, -1):
        x = chain.reverse_step(x, t, generator)
    hits = (x[:, None] == chain.sequences).all(-1).double()
    assert bool((hits.sum(-1) == 1).all())
    assert bool(((hits.mean(0) - 0.2).abs() < 5 * math.sqrt(0.16 / n)).all())


@pytest.mark.parametrize("t", [2, 5])
def test_a_reverse_step_draws_from_the_exact_kernel(t: int):
    """40,000 draws from one word, 5 standard errors: false alarms below 1e-5 (of sixteen)."""
    n, place = 40_000, 6
    x_t = WORDS[place].expand(n, -1)
    drawn = process().reverse_step(x_t, t, torch.Generator().manual_seed(1))
    assert drawn.dtype == x_t.dtype
    share = (drawn[:, None] == WORDS).all(-1).double().mean(0)
    p = reverse(t)[place]
    assert bool(((share - p).abs() <= 5 * torch.sqrt(p * (1 - p) / n)).all())


def test_draws_of_data_and_of_noised_data_have_their_frequencies():
    """40,000 draws, 5 standard errors: false alarms below 2e-5 (of 19)."""
    n, generator = 40_000, torch.Generator().manual_seed(2)
    x_0 = process().sample(n, generator)
    share = (x_0[:, None] == SEQUENCES).all(-1).double().mean(0)
    assert bool(((share - WEIGHTS).abs() < 5 * torch.sqrt(WEIGHTS * (1 - WEIGHTS) / n)).all())
    x_t = process().noised(x_0, 3, generator)
    share, p = (x_t[:, None] == WORDS).all(-1).double().mean(0), marginal(3)
    assert bool(((share - p).abs() < 5 * torch.sqrt(p * (1 - p) / n)).all())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sequences": torch.tensor([[0, 2]])}, "zeros and ones"),
        ({"sequences": torch.tensor([0, 1])}, r"sequences \(2,\): expected \(K, L\)"),
        ({"sequences": torch.tensor([[0, 1], [0, 1]])}, "a sequence repeats"),
        ({"betas": torch.tensor([0.1, 0.0])}, r"betas \(2,\): expected \(T,\), each in \(0, 1\]"),
        ({"betas": torch.tensor([0.1, 1.1])}, "betas"),
        ({"betas": torch.tensor([[0.1]])}, "betas"),
        ({"rate": 0.0}, "rate = 0.0"),
        ({"rate": 1.0}, "rate = 1.0"),
        ({"weights": torch.ones(2)}, r"weights \(2,\) for 3 sequences"),
        ({"weights": torch.tensor([1.0, 0.0, 1.0])}, "one positive number each"),
    ],
)
def test_bad_arguments_are_refused(change: dict[str, object], message: str):
    good = {"sequences": SEQUENCES, "betas": BETAS, "rate": RATE, "weights": WEIGHTS}
    with pytest.raises(ValueError, match=message):
        BitFlip(**{**good, **change})  # type: ignore[arg-type]


@pytest.mark.parametrize("t", [-1, 6])
def test_a_step_outside_the_chain_is_refused(t: int):
    with pytest.raises(ValueError, match=f"t = {t}: expected 0 to 5"):
        process().marginal(SEQUENCES, t)
    for call in (
        lambda t: process().kernel(SEQUENCES, t),
        lambda t: process().posterior(SEQUENCES, SEQUENCES, t),
    ):
        with pytest.raises(ValueError, match=r"expected 1 to 5"):
            call(min(t, 0) if t < 0 else t)


def test_words_of_another_length_are_refused():
    with pytest.raises(ValueError, match=r"x_t \(16, 3\): expected \(B, 4\) bits"):
        process().log_prob(WORDS[:, :3], 1)


def test_sums_over_a_hundred_thousand_states_are_served_and_larger_ones_refused():
    """Five kinds of column, each nine times, make 10^5 vectors of counts."""
    served = BitFlip(torch.eye(5).repeat(1, 9), BETAS)
    assert served.information_bits(0) == pytest.approx(math.log2(5), abs=1e-12)
    with pytest.raises(ValueError, match="161051 states of x_t to sum over, more than 100000"):
        BitFlip(torch.eye(5).repeat(1, 10), BETAS).information_bits(1)


def test_a_chain_needs_a_step():
    with pytest.raises(ValueError, match="steps = 0"):
        binomial_betas(0)
