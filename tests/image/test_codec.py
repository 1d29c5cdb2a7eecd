"""Codecs of pictures: every value round-trips, and log-probabilities are those of Bayes' rule."""

import itertools

import pytest
import torch

from image.codec import Pixels, build_codec
from image.config import CodecConfig
from shared.codec import Bits
from shared.schedule import variance_preserving


@pytest.mark.parametrize(
    "config",
    [
        CodecConfig(),
        CodecConfig(scale=0.5),
        CodecConfig(kind="bits"),
        CodecConfig(kind="bits", gray=True, scale=2.0),
    ],
)
@pytest.mark.parametrize("levels", [2, 17, 256])
def test_every_level_round_trips(config: CodecConfig, levels: int):
    codec = build_codec(config, levels, (1, levels, 3))
    data = torch.arange(levels, dtype=torch.uint8)[None, None, :, None].repeat(2, 1, 1, 3)
    x0 = codec.encode(data)
    assert tuple(x0.shape[1:]) == codec.latent_shape
    assert float(x0.min()) == -config.scale
    assert float(x0.max()) == config.scale
    assert torch.equal(codec.decode(x0), data.long())


def test_pixels_are_evenly_spaced_and_decode_to_the_nearest_level():
    codec = Pixels(5, (1, 1, 4), scale=2.0)
    data = torch.tensor([[[[0, 1, 2, 4]]]])
    assert codec.encode(data).flatten().tolist() == [-2.0, -1.0, 0.0, 2.0]
    x0 = torch.tensor([[[[-0.51, -0.49, 1.49, 99.0]]]])
    assert codec.decode(x0).flatten().tolist() == [1, 2, 3, 4]


def test_pixels_log_prob_is_bayes_rule_over_equally_likely_levels():
    """Against q(z_0 | level) of the forward process, sample by sample at its own noise level."""
    levels, (B, C, H, W) = 5, (3, 1, 2, 1)
    codec = Pixels(levels, (C, H, W), scale=1.5)
    level = variance_preserving(torch.tensor([-1.0, 0.5, 4.0], dtype=torch.float64))
    z_0 = torch.randn(B, C, H, W, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    total = torch.zeros(B, dtype=torch.float64)
    for pair in itertools.product(range(levels), repeat=H * W):
        data = torch.tensor(pair).view(1, C, H, W).expand(B, C, H, W)
        ours = codec.log_prob(data, z_0, level)
        for i in range(B):
            bayes = 0.0
            for pixel, value in zip(z_0[i].flatten(), pair, strict=True):
                place = codec.values.double() * level.alpha[i]
                density = torch.distributions.Normal(place, level.sigma[i]).log_prob(pixel)
                bayes += float(density[value] - density.logsumexp(0))
            assert float(ours[i]) == pytest.approx(bayes, abs=1e-9)
        total += ours.exp()
    assert total.tolist() == pytest.approx([1.0] * B, abs=1e-9)


@pytest.mark.parametrize("gray", [False, True])
def test_bits_of_seventeen_levels_never_decode_to_an_invalid_one(gray: bool):
    """All 32 words of 5 bits, and noise: 17 of the words are valid, the other 15 are not."""
    codec = Bits(17, (1, 1, 1), gray=gray)
    words = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=5))).view(32, 1, 1, 1, 5)
    noise = torch.randn(500, 1, 1, 1, 5, generator=torch.Generator().manual_seed(0)) * 10
    for x0 in (words, noise):
        decoded = codec.decode(x0)
        assert int(decoded.min()) >= 0
        assert int(decoded.max()) <= 16


def test_gray_code_changes_one_bit_between_neighbouring_levels():
    x0 = Bits(17, (1, 1, 17), gray=True).encode(torch.arange(17).view(1, 1, 1, 17))
    changed = (x0[0, 0, 0, 1:] != x0[0, 0, 0, :-1]).sum(-1)
    assert changed.tolist() == [1] * 16


@pytest.mark.parametrize("kind", ["pixels", "bits"])
@pytest.mark.parametrize("wrong", [-1, 17])
def test_level_out_of_range_is_refused(kind: str, wrong: int):
    codec = build_codec(CodecConfig(kind=kind), 17, (1, 1, 2))
    with pytest.raises(ValueError, match=r"expected integers in \[0, 17\)"):
        codec.encode(torch.tensor([[[[3, wrong]]]]))
