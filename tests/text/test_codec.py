"""The embedding codec against brute force: Bayes' rule over the words, and its own noise."""

import itertools

import pytest
import torch
from torch.testing import assert_close

from shared.codec import Bits, DiscreteCodec
from shared.schedule import variance_preserving
from text.codec import Embedding

SIZE, LENGTH, DIM, BATCH = 7, 3, 5, 2


@pytest.fixture(params=[True, False], ids=["unit norm", "free"])
def codec(request) -> Embedding:
    torch.manual_seed(0)
    return Embedding(SIZE, LENGTH, DIM, unit_norm=request.param)


@pytest.fixture
def directions() -> Embedding:
    torch.manual_seed(0)
    return Embedding(SIZE, LENGTH, DIM)


def bayes(codec: Embedding, x_t: torch.Tensor, alpha: float, sigma: float) -> torch.Tensor:
    """p(w | x_t) for words drawn uniformly, from Gaussian densities, word by word."""
    joint = torch.zeros(*x_t.shape[:2], SIZE)
    for b, i, w in itertools.product(range(x_t.shape[0]), range(x_t.shape[1]), range(SIZE)):
        normal = torch.distributions.Normal(alpha * codec.table()[w], sigma)
        joint[b, i, w] = normal.log_prob(x_t[b, i]).sum().exp()
    return joint / joint.sum(-1, keepdim=True)


def noisy(logsnr: list[float]):
    torch.manual_seed(1)
    x_t = torch.randn(BATCH, LENGTH, DIM)
    return x_t, variance_preserving(torch.tensor(logsnr))


def test_it_is_a_codec_of_discrete_data(codec: Embedding) -> None:
    assert isinstance(codec, DiscreteCodec)
    assert codec.latent_shape == (LENGTH, DIM)
    assert codec.logit_channels == SIZE


def test_every_coordinate_has_unit_power(directions: Embedding) -> None:
    assert_close(directions.table().square().mean(1), torch.ones(SIZE))


def test_every_word_comes_back_from_its_point_and_from_near_it(codec: Embedding) -> None:
    ids = torch.arange(SIZE)[:, None].expand(SIZE, LENGTH)
    x0 = codec.encode(ids)
    assert torch.equal(codec.decode(x0), ids)
    assert torch.equal(codec.decode((0.5 if codec.unit_norm else 1.0) * x0 + 0.01), ids)


def test_what_is_decoded_is_the_nearest_word(codec: Embedding) -> None:
    x0 = torch.randn(50, LENGTH, DIM, generator=torch.Generator().manual_seed(2))
    distances = torch.cdist(x0, codec.table().expand(50, SIZE, DIM))
    assert torch.equal(codec.decode(x0), distances.argmin(-1))


def test_evidence_is_the_posterior_of_uniform_words_at_each_samples_level(codec) -> None:
    x_t, level = noisy([-1.0, 2.0])
    posterior = codec.evidence(x_t, level).softmax(-1)
    for b in range(BATCH):
        exact = bayes(codec, x_t[b : b + 1], float(level.alpha[b]), float(level.sigma[b]))
        assert_close(posterior[b : b + 1], exact, atol=1e-6, rtol=1e-5)


def test_evidence_clamped_from_below_is_still_the_posterior(codec: Embedding) -> None:
    x_t, level = noisy([7.0, 9.0])
    evidence = codec.evidence(x_t, level)
    assert bool((evidence < -30).any())
    assert_close(evidence.clamp(-30, 30).softmax(-1), evidence.softmax(-1), atol=1e-6, rtol=0)


def test_mean_is_the_posterior_mean(codec: Embedding) -> None:
    x_t, level = noisy([0.0, 1.0])
    mean = codec.mean(codec.evidence(x_t, level))
    for b in range(BATCH):
        p = bayes(codec, x_t[b : b + 1], float(level.alpha[b]), float(level.sigma[b]))[0]
        for i in range(LENGTH):
            exact = sum(p[i, w] * codec.table()[w] for w in range(SIZE))
            assert_close(mean[b, i], exact, atol=1e-5, rtol=1e-5)


def test_rounding_probabilities_of_all_sentences_sum_to_one(codec: Embedding) -> None:
    z_0, level = noisy([1.0, 3.0])
    sentences = torch.tensor(list(itertools.product(range(SIZE), repeat=LENGTH)))
    for b in range(BATCH):
        n = len(sentences)
        one = variance_preserving(level.logsnr[b].expand(n))
        log_prob = codec.log_prob(sentences, z_0[b].expand(n, LENGTH, DIM), one)
        assert_close(log_prob.exp().sum(), torch.tensor(1.0))


def test_nll_is_the_cross_entropy_summed_over_the_sentence(codec: Embedding) -> None:
    logits = torch.randn(BATCH, LENGTH, SIZE)
    ids = torch.tensor([[0, 6, 2], [5, 5, 1]])
    exact = [-sum(float(logits[b, i].log_softmax(0)[ids[b, i]]) for i in (0, 1, 2)) for b in (0, 1)]
    assert_close(codec.nll(logits, ids), torch.tensor(exact))


def test_the_table_learns_but_cannot_grow(directions: Embedding) -> None:
    codec = directions
    optimizer = torch.optim.SGD(codec.parameters(), lr=10.0)
    x_t, level = noisy([0.0, 0.0])
    before = codec.table().detach().clone()
    codec.nll(codec.evidence(x_t, level), torch.tensor([[0, 6, 2], [5, 5, 1]])).sum().backward()
    optimizer.step()
    assert float((codec.table() - before).abs().max()) > 0.1
    assert_close(codec.table().square().mean(1), torch.ones(SIZE))


@pytest.mark.parametrize("ids", [[[0, 1, 7]], [[0, -1, 2]]])
def test_ids_out_of_range_are_refused(codec: Embedding, ids) -> None:
    with pytest.raises(ValueError, match=r"expected integers in \[0, 7\)"):
        codec.encode(torch.tensor(ids))


def test_bits_over_a_vocabulary_that_is_no_power_of_two_never_decode_to_an_invalid_id() -> None:
    size = 11
    bits = Bits(size, (LENGTH,))
    ids = torch.arange(size)[:, None].expand(size, LENGTH)
    assert torch.equal(bits.decode(bits.encode(ids)), ids)
    everywhere = torch.tensor(list(itertools.product([-1.0, -0.2, 0.1, 1.0], repeat=4)))
    decoded = bits.decode(everywhere[:, None].expand(-1, LENGTH, -1))
    assert int(decoded.max()) < size
    assert set(decoded.flatten().tolist()) == set(range(size))
