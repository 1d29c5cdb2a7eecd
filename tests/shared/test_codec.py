"""Analog bits and the identity codec: every value, every posterior, against brute force."""

import math

import pytest
import torch
from torch.distributions import Normal

from shared.codec import Bits, DiscreteCodec, Identity
from shared.schedule import Level, variance_preserving

SIZES = [2, 3, 17, 64, 100, 821]


def level_at(*logsnr: float) -> Level:
    return variance_preserving(torch.tensor(logsnr))


@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_every_value_round_trips(size: int, gray: bool):
    codec = Bits(size, (size,), scale=0.5, gray=gray)
    values = torch.arange(size)[None]
    x0 = codec.encode(values)
    assert x0.shape == (1, size, (size - 1).bit_length())
    assert set(x0.abs().unique().tolist()) == {0.5}
    assert torch.equal(codec.decode(x0), values)


def test_base_two_is_most_significant_bit_first_and_gray_changes_one_bit():
    assert Bits(8, (1,)).table[6].tolist() == [1, 1, -1]
    table = Bits(8, (1,), gray=True).table
    assert ((table[1:] != table[:-1]).sum(1) == 1).all()


@pytest.mark.parametrize("size", [3, 17, 821])
def test_any_latent_decodes_to_a_valid_value(size: int):
    codec = Bits(size, (5,))
    x0 = torch.randn(2000, 5, codec.logit_channels, generator=torch.Generator().manual_seed(0))
    decoded = codec.decode(3 * x0)
    assert int(decoded.max()) < size
    assert len(decoded.unique()) == size  # and no value is out of reach


def test_decode_is_the_nearest_word():
    codec = Bits(11, (3,))
    x0 = torch.randn(7, 3, 4, generator=torch.Generator().manual_seed(1))
    nearest = torch.cdist(x0.reshape(-1, 4), codec.table).argmin(1).reshape(7, 3)
    assert torch.equal(codec.decode(x0), nearest)


def test_evidence_is_the_posterior_of_fair_bits_at_each_samples_level():
    codec, level = Bits(8, (5,), scale=0.7), level_at(-2.0, 1.5)
    x_t = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(2))
    evidence = codec.evidence(x_t, level)
    for i in range(2):
        alpha, sigma = level.alpha[i], level.sigma[i]
        up = Normal(alpha * 0.7, sigma).log_prob(x_t[i])
        down = Normal(-alpha * 0.7, sigma).log_prob(x_t[i])
        torch.testing.assert_close(evidence[i], up - down)


def test_mean_and_nll_belong_to_the_same_bernoulli_bits():
    codec = Bits(8, (2,), scale=0.7)
    logits = torch.randn(3, 2, 3, generator=torch.Generator().manual_seed(3))
    p = torch.sigmoid(logits)
    torch.testing.assert_close(codec.mean(logits), 0.7 * (2 * p - 1))
    data = torch.tensor([[0, 7], [5, 2], [3, 3]])
    bits = (codec.encode(data) > 0).float()
    expected = torch.nn.functional.binary_cross_entropy(p, bits, reduction="none").sum((1, 2))
    torch.testing.assert_close(codec.nll(logits, data), expected)


def test_log_prob_sums_to_one_over_the_valid_words_and_finds_clean_ones():
    codec, level = Bits(11, (1,)), level_at(1.0)
    z_0 = torch.randn(1, 1, 4, generator=torch.Generator().manual_seed(4))
    values = torch.arange(11)[:, None]
    log_p = codec.log_prob(values, z_0.expand(11, 1, 4), level_at(*[1.0] * 11))
    assert float(log_p.exp().sum()) == pytest.approx(1, abs=1e-6)
    likelihood = Normal(level.alpha * codec.table, level.sigma).log_prob(z_0[0]).sum(1)
    torch.testing.assert_close(log_p, likelihood.log_softmax(0))


def test_bits_are_a_discrete_codec_and_the_identity_is_not():
    assert isinstance(Bits(4, (2,)), DiscreteCodec)
    assert not isinstance(Identity((2,)), DiscreteCodec)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_values_out_of_range_are_refused_in_any_dtype(dtype: torch.dtype):
    Bits(256, (2,)).encode(torch.tensor([[0, 255]], dtype=dtype))
    with pytest.raises(ValueError, match=r"expected integers in \[0, 200\)"):
        Bits(200, (2,)).encode(torch.tensor([[0, 255]], dtype=dtype))


def test_negative_values_are_refused_beside_good_ones():
    with pytest.raises(ValueError, match=r"data in \[-1, 3\], expected integers in \[0, 11\)"):
        Bits(11, (2,)).encode(torch.tensor([[3, -1]]))


def test_log_prob_of_a_value_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"expected integers in \[0, 11\)"):
        Bits(11, (1,)).log_prob(torch.tensor([[11]]), torch.zeros(1, 1, 4), level_at(1.0))


def test_one_value_is_no_code():
    with pytest.raises(ValueError, match="two values or more"):
        Bits(1, (3,))


def test_identity_log_prob_is_the_gaussian_that_z_0_implies():
    codec, level = Identity((3,)), level_at(4.0, 2.0)
    data, z_0 = torch.tensor([[0.1, 0.2, 0.3]] * 2), torch.tensor([[0.0, 0.5, 0.1]] * 2)
    got = codec.log_prob(data, z_0, level)
    for i in range(2):
        std = float(level.sigma[i] / level.alpha[i])
        apart = data[i] - z_0[i] / level.alpha[i]
        expected = -0.5 * (apart / std) ** 2 - math.log(std) - 0.5 * math.log(2 * math.pi)
        assert float(got[i]) == pytest.approx(float(expected.sum()), rel=1e-5)
