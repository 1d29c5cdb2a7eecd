"""What a denoiser may also have: a learned range of variances, and an input left as it is."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from shared.codec import Bits
from shared.denoiser import Denoiser, RangeDenoise
from shared.schedule import Level, variance_preserving


class Scale(nn.Module):
    """F = x / 2, and a second half of 0.3 + x / 2 where a range is learned."""

    def __init__(self, ranged: bool = False) -> None:
        super().__init__()
        self.ranged = ranged
        self.seen: list[tuple[Tensor, Tensor | None]] = []

    def forward(self, x: Tensor, logsnr: Tensor, condition: Any, previous: Tensor | None) -> Tensor:
        self.seen.append((x, previous))
        return torch.cat([x / 2, 0.3 + x / 2], -1) if self.ranged else x / 2


def test_range_is_the_second_half_of_the_channels():
    net = Scale(ranged=True)
    denoiser = Denoiser(net, "v", learned_range=True)
    assert isinstance(denoiser, RangeDenoise)
    level = variance_preserving(torch.tensor([-3.0, 2.0]))
    x_t = torch.randn(2, 3, generator=torch.Generator().manual_seed(1))
    x0_hat, fraction = denoiser.with_range(x_t, level)
    torch.testing.assert_close(x0_hat, Denoiser(Scale(), "v")(x_t, level))
    torch.testing.assert_close(denoiser(x_t, level), x0_hat)
    free = 0.3 + x_t / 2
    torch.testing.assert_close(fraction, (1 + torch.tanh(free)) / 2)
    assert x0_hat.shape == fraction.shape == x_t.shape


def test_range_is_in_the_last_axis():
    x_t, level = torch.randn(2, 3, 5), variance_preserving(torch.tensor([-3.0, 2.0]))
    denoiser = Denoiser(Scale(ranged=True), "v", learned_range=True)
    x0_hat, fraction = denoiser.with_range(x_t, level)
    torch.testing.assert_close(x0_hat, Denoiser(Scale(), "v")(x_t, level))
    torch.testing.assert_close(denoiser(x_t, level), x0_hat)
    torch.testing.assert_close(fraction, torch.sigmoid(0.6 + x_t))


def test_range_is_refused_where_there_is_none():
    level = variance_preserving(torch.tensor([0.0]))
    with pytest.raises(ValueError, match="no learned range"):
        Denoiser(Scale(), "v").with_range(torch.zeros(1, 3), level)
    with pytest.raises(ValueError, match="learned_range = True"):
        Denoiser(Scale(), "categorical", codec=Bits(4, ()), learned_range=True)


def test_input_is_left_as_it_is_without_scaling():
    net, x_t = Scale(), torch.randn(2, 3)
    level = Level(torch.tensor([-4.0, 1.0]), torch.ones(2), torch.tensor([7.4, 0.6]))
    Denoiser(net, "eps", data_std=0.5, scale_input=False)(x_t, level)
    assert torch.equal(net.seen[-1][0], x_t)
    Denoiser(net, "eps", data_std=0.5)(x_t, level)
    c_in = 1 / (level.sigma**2 + 0.25).sqrt()  # EDM's
    torch.testing.assert_close(net.seen[-1][0], c_in[:, None] * x_t)


def test_range_sees_the_condition_and_the_estimate_before():
    class Adds(nn.Module):
        def forward(self, x: Tensor, logsnr: Tensor, condition: Tensor, previous: Tensor) -> Tensor:
            return torch.cat([previous + condition, x], -1)

    denoiser = Denoiser(Adds(), "x0", self_condition=True, learned_range=True)
    x_t, level = torch.randn(2, 3), variance_preserving(torch.tensor([-3.0, 2.0]))
    condition, previous = torch.tensor([[1.0], [2.0]]), torch.randn(2, 3)
    x0_hat, _ = denoiser.with_range(x_t, level, condition, previous)
    torch.testing.assert_close(x0_hat, previous + condition)
    torch.testing.assert_close(denoiser(x_t, level, condition, previous), x0_hat)
