"""Stateless noise: a function of (seed, step, place), normal, and without visible correlations.

Each statistical bound is five standard errors or a p-value of 1e-6: the seeds are fixed, so a
failure is a change of the generator, not bad luck.
"""

import math

import pytest
import torch
from scipy.stats import kstest

from shared import noise

N = 100_000
BOUND = 5 / math.sqrt(N)


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


def test_a_sample_has_the_same_noise_alone_and_in_a_batch():
    seeds = [3, 2**40 + 1, 7, 0]
    batch = noise.normal(seeds, 5, (3, 5))
    for i, seed in enumerate(seeds):
        assert torch.equal(noise.normal([seed], 5, (3, 5))[0], batch[i])


def splitmix64(state: int, count: int) -> list[int]:
    """Vigna's public-domain splitmix64.c, in integers."""
    words = []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
        words.append(z ^ (z >> 31))
    return words


def test_words_are_splitmix64_s_from_a_key_of_seed_and_step():
    assert splitmix64(0, 1) == [0xE220A8397B1DCDAF]  # its published first word
    for seed, step in ((0, 0), (-3, 2), (2**62 + 5, -1)):
        golden = 0x9E3779B97F4A7C15
        (mixed,) = splitmix64(seed - golden, 1)  # one word is the mix of state + golden
        (key,) = splitmix64(mixed + (step - 1) * golden, 1)
        out, spare = torch.empty(2, 1, 4, dtype=torch.int64)
        places = noise._places(4, torch.device("cpu"))
        got = noise._words(noise._keys(torch.tensor([seed])), step, places, out, spare)[0]
        assert [word % 2**64 for word in got.tolist()] == splitmix64(key, 4)


@pytest.mark.parametrize("shape", [(1,), (3,), (5, 7), (33,), (3, 32, 32)])
def test_bits_do_not_depend_on_the_size_of_the_batch(shape: tuple[int, ...]):
    """Vectorised logarithms and cosines treat the tails of a tensor apart: nothing may show."""
    batch = noise.normal(range(64), 5, shape)
    for i in (0, 1, 31, 63):
        assert torch.equal(noise.normal([i], 5, shape)[0], batch[i])
        assert torch.equal(noise.uniform([i], 5, shape)[0], noise.uniform(range(64), 5, shape)[i])


def test_tails_are_those_of_a_normal():
    """A million draws; counts beyond 3 and 4 within five standard errors of Poisson."""
    x = noise.normal([31], 2, (10**6,))[0].abs()
    for bound in (3.0, 4.0):
        expected = 10**6 * math.erfc(bound / math.sqrt(2))
        assert float((x > bound).sum()) == pytest.approx(expected, abs=5 * math.sqrt(expected))
    assert float(x.max()) < 6.8


@pytest.mark.parametrize("shape", [(), (1,), (7,), (2, 3, 5)])
def test_shapes_are_kept_and_a_prefix_is_not_promised(shape: tuple[int, ...]):
    assert noise.normal([1, 2], 0, shape).shape == (2, *shape)
    assert noise.uniform([1, 2], 0, shape).shape == (2, *shape)


def test_normals_are_normal_and_uniforms_uniform():
    assert kstest(noise.normal([11], 3, (N,))[0].numpy(), "norm").pvalue > 1e-6
    assert kstest(noise.uniform([11], 3, (N,))[0].numpy(), "uniform").pvalue > 1e-6
    assert kstest(noise.normal(range(N), 3, (1,))[:, 0].numpy(), "norm").pvalue > 1e-6


@pytest.mark.parametrize("word", [0, -1, -(2**63), 2**63 - 1, 0xFFFFFFFF, 0xFF << 32])
def test_extreme_words_stay_inside_the_open_interval(word: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(noise, "_words", lambda keys, step, places, out, spare: out.fill_(word))
    u = float(noise.uniform([0], 0))
    assert 0 < u < 1
    assert u == pytest.approx(word % 2**64 / 2**64, abs=2**-23)
    assert bool(noise.normal([0], 0, (4,)).abs().lt(6.8).all())


def test_seeds_given_as_a_tensor_are_left_alone():
    seeds = torch.tensor([4, -5, 6])
    assert torch.equal(noise.normal(seeds, 1, (3,)), noise.normal([4, -5, 6], 1, (3,)))
    noise.uniform(seeds, 1)
    assert seeds.tolist() == [4, -5, 6]


def test_neighbouring_seeds_steps_and_places_do_not_correlate():
    x = noise.normal(range(N + 1), 4, (2,))
    assert abs(correlation(x[:-1], x[1:])) < BOUND
    assert abs(correlation(x[:, 0], x[:, 1])) < BOUND
    assert abs(correlation(x, noise.normal(range(N + 1), 5, (2,)))) < BOUND
    long = noise.normal([9], 0, (N + 1,))[0]
    assert abs(correlation(long[:-1], long[1:])) < BOUND
    assert abs(correlation(long[:-1] ** 2, long[1:] ** 2)) < BOUND
    far = noise.normal([s << 32 for s in range(N)], 4, (1,))  # keys of neighbouring run seeds
    assert abs(correlation(x[:N, 0], far[:, 0])) < BOUND


def test_both_halves_of_a_pair_are_independent():
    """Box-Muller's cosine and sine half share a radius: their squares must not correlate."""
    x = noise.normal([21], 0, (2 * N,))[0]
    assert abs(correlation(x[:N], x[N:])) < BOUND
    assert abs(correlation(x[:N] ** 2, x[N:] ** 2)) < BOUND


def test_a_source_of_normals_draws_the_same_bits_into_the_same_memory():
    source = noise.Normals([3, -7], (5, 3))
    for step in (4, 0, -2, (1 << 48) + 9):
        assert torch.equal(source.draw(step), noise.normal([3, -7], step, (5, 3)))
    source = noise.Normals([3, -7], (2, 4))  # an even size is a view, no copy
    first = source.draw(1)
    kept = first.clone()
    assert source.draw(2).data_ptr() == first.data_ptr()
    assert not torch.equal(first, kept)


def test_bits_are_those_of_the_first_release():
    """Seeds name samples: what a seed drew yesterday it draws tomorrow."""
    got = noise.normal([42], 3, (5,))[0]
    expected = [-1.2976551, 0.0271101, 0.6505803, 0.7806146, 0.2612696]
    torch.testing.assert_close(got, torch.tensor(expected), atol=1e-6, rtol=0)
