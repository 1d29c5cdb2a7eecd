"""Seeds that are drawn."""

import torch

from shared.seeds import chosen_seeds
from tests.drawn import NamedDevices


def test_seeds_are_drawn_where_their_generator_is():
    with NamedDevices() as draws:
        drawn = chosen_seeds(5, generator=torch.Generator().manual_seed(3))
    again = chosen_seeds(5, generator=torch.Generator().manual_seed(3))
    assert draws.count == 1
    assert drawn == again
    assert len({*drawn, *chosen_seeds(5, generator=torch.Generator().manual_seed(4))}) == 10
