"""Units, and standard errors that are what they say."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from shared.likelihood import Estimate, Likelihood, elbo
from tests.likelihoods import Plain, between, f64, gaussian

T_40 = 2.0227  # 97.5 % quantile of Student's t with 39 degrees of freedom


def two_terms(dims: int = 6) -> Likelihood:
    return Likelihood({"a": f64([1.0, 2.0, 6.0]), "b": f64([0.5, 0.5, 2.0])}, dims, 4, 7.5)


def test_nats_are_the_sum_of_the_terms_with_their_standard_error():
    found = two_terms()
    assert found.nats.tolist() == [1.5, 2.5, 8.0]
    mean, error = found.nats_per_datum
    assert mean == pytest.approx(4.0)
    assert error == pytest.approx(math.sqrt((2.5**2 + 1.5**2 + 4**2) / 2 / 3))
    assert found.term("b") == pytest.approx((1.0, math.sqrt((0.25 + 0.25 + 1) / 2 / 3)))


def test_bits_per_dim_divide_by_dims_and_ln_2():
    found = two_terms(dims=5)
    for bits, nats in zip(found.bits_per_dim, found.nats_per_datum, strict=True):
        assert bits == pytest.approx(nats / 5 / math.log(2))


def test_tokens_are_weighed_alike_and_perplexity_is_of_the_corpus():
    found, tokens = two_terms(), torch.tensor([2, 3, 5])
    nats = found.nats_per_token(tokens)
    assert nats.value == pytest.approx(12 / 10)
    left = [1.5 - 2.4, 2.5 - 3.6, 8.0 - 6.0]  # nats - ratio tokens, whose sum is 0
    assert nats.error == pytest.approx(math.sqrt(sum(x**2 for x in left) / 2 / 3) / (10 / 3))
    bits = found.bits_per_char(tokens)
    assert bits == pytest.approx((nats.value / math.log(2), nats.error / math.log(2)))
    perplexity = found.perplexity(tokens)
    assert perplexity.value == pytest.approx(math.exp(1.2))
    small = 1e-6  # d exp(x) / dx, by a difference
    slope = (math.exp(1.2 + small) - math.exp(1.2 - small)) / (2 * small)
    assert perplexity.error == pytest.approx(slope * nats.error)


def test_one_datum_has_no_standard_error():
    found = Likelihood({"a": f64([3.0])}, 2, 1, 1)
    assert found.nats_per_datum.value == 3.0
    assert math.isnan(found.nats_per_datum.error)


def test_a_hopeless_model_has_an_infinite_perplexity():
    found = Likelihood({"a": f64([1e4, 1e4])}, 1, 1, 1)
    assert found.perplexity(torch.tensor([3, 3])).value == math.inf


def covered(estimates: list[Estimate], truth: float) -> float:
    return sum(abs(e.value - truth) < T_40 * e.error for e in estimates) / len(estimates)


def split(found: Likelihood, size: int) -> list[Likelihood]:
    parts = zip(*(term.split(size) for term in found.terms.values()), strict=True)
    return [
        dataclasses.replace(found, terms=dict(zip(found.terms, terms, strict=True)))
        for terms in parts
    ]


def test_standard_error_of_a_bound_covers_its_mean_as_often_as_it_says():
    """600 data sets of 40 data: 95 % intervals hold the closed form 95 % of the time. Outside of
    [0.91, 0.99]: 4.5 standard errors of the share, false alarm 1e-5. Half or twice the standard
    error would cover 68 % or 99.98 %."""
    oracle, _, variances = gaussian(2)
    high, low = 6.0, -6.0
    x = oracle.sample(600 * 40, torch.Generator().manual_seed(5))
    found = elbo(oracle.denoise, Plain(2), x, between(high, low), draws=3, batch=24_000, seed=1)
    snr_0, snr_1 = math.exp(high), math.exp(low)
    power = float(variances.sum()) + 0.5**2 + 0.2**2
    truth = snr_1 * power / 2 + math.log(2 * math.pi * math.e / snr_0)
    truth += float(((1 + variances * snr_0) / (1 + variances * snr_1)).log().sum()) / 2
    parts = split(found, 40)
    assert len(parts) == 600
    assert 0.91 < covered([part.nats_per_datum for part in parts], truth) < 0.99
    in_bits = [part.bits_per_dim for part in parts]
    assert 0.91 < covered(in_bits, truth / 2 / math.log(2)) < 0.99


def test_standard_error_of_a_ratio_covers_it_as_often_as_it_says():
    """Long sentences cost more nats: 600 sets of 40; limits as above. The spread of each sentence's
    own ratio, or of nats alone, would cover another share."""
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randint(4, 15, (24_000,), generator=generator)
    noise = torch.randn(24_000, generator=generator, dtype=torch.float64)
    nats = 3.0 + 0.7 * tokens + 1.5 * noise
    truth = 3.0 / 9.0 + 0.7
    parts = split(Likelihood({"all": nats}, 1, 1, 1), 40)
    pairs: list[tuple[Likelihood, Tensor]] = list(zip(parts, tokens.split(40), strict=True))
    assert 0.91 < covered([part.nats_per_token(own) for part, own in pairs], truth) < 0.99
    perplexities = [part.perplexity(own) for part, own in pairs]
    assert 0.91 < covered(perplexities, math.exp(truth)) < 0.99


@pytest.mark.parametrize(
    ("tokens", "words"),
    [(torch.tensor([1, 2]), "for each of 3 data"), (torch.tensor([1, 0, 2]), "least 0")],
)
def test_tokens_that_cannot_be_divided_by_are_refused(tokens, words):
    with pytest.raises(ValueError, match=words):
        two_terms().nats_per_token(tokens)


def test_terms_of_other_shapes_and_unknown_terms_are_refused():
    with pytest.raises(ValueError, match="all alike"):
        Likelihood({"a": f64([1.0, 2.0]), "b": f64([1.0])}, 1, 1, 1)
    with pytest.raises(ValueError, match="all alike"):
        Likelihood({"a": f64([[1.0, 2.0]])}, 1, 1, 1)
    with pytest.raises(ValueError, match="term = 'c': expected one of a, b"):
        two_terms().term("c")
