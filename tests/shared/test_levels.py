"""Whole levels of pictures as numbers in [-1, 1]."""

import pytest
import torch

from shared.levels import nearest, signed


def test_levels_are_spread_evenly_between_the_ends():
    assert signed(torch.tensor([0, 1, 2, 3]), 4).tolist() == pytest.approx([-1, -1 / 3, 1 / 3, 1])
    assert signed(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1, 1]


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_every_level_comes_back_from_a_third_of_a_step_away(levels: int):
    data = torch.arange(levels)
    for share in (-1 / 3, 0, 1 / 3):
        assert torch.equal(nearest(signed(data, levels) + share * 2 / (levels - 1), levels), data)


def test_what_lies_beyond_the_ends_has_the_level_of_the_end():
    x = torch.tensor([-7.0, 1.001, 40.0], dtype=torch.float64)
    assert nearest(x).tolist() == [0, 255, 255]
    assert nearest(x).dtype == torch.float64
