"""Random crops of training pictures: a window in a place of its own each time (ADM's random_crop;
Dhariwal & Nichol 2021, its code).

They are read `data.crop` pixels larger than `data.size` for it; what is measured or judged is read
at that size, whole. Where a sample's window is is a function of its key, as in `image.flips`.
"""

import torch
from torch import Tensor

from shared import noise
from shared.objective.streams import CROP


def cropped(data: Tensor, keys: Tensor, size: int) -> Tensor:
    """data (B, C, H, W) and keys (B,) -> windows of so many pixels along a side (B, C, size, size),
    every place of them as often."""
    windows = data.unfold(2, size, 1).unfold(3, size, 1)  # a view, (B, C, down, across, size, size)
    places = torch.tensor(windows.shape[2:4], device=data.device)
    corner = (noise.uniform(keys, CROP, (2,)).to(data.device) * places).long().minimum(places - 1)
    return windows[torch.arange(len(data)), :, corner[:, 0], corner[:, 1]]
