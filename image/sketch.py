"""A model that draws pictures after a sketch, which stands beside the noisy picture as one channel.

    sketch = 1 - 2 min(1, |g|),    g = Sobel's gradient of the grey picture, of levels in [0, 1]

so 1 is white paper and -1 a line as dark as the edge between black and white (Sobel's 3 x 3 kernels
over 4: that edge has |g| = 1; borders are repeated, grey is ITU-R 601's). In training it is made of
the picture itself; a drawing that is given is read as it is, dark lines on white. As a condition it
stands behind the ids of the picture, in one row of floats (B, M + H W).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from image.beside import Beside
from image.measurements import luma


class Sketch(Beside):
    """The lines of the picture, without noise: rows hold ids, sketch."""

    name, task = "sketch", "follows a sketch"

    def __init__(self, shape: tuple[int, int, int], levels: int, optional: bool = False) -> None:
        super().__init__((1, *shape[1:]), levels, channels=1, optional=optional)

    def made(self, data: Tensor, keys: Tensor) -> Tensor:
        return self.seen(data)

    def measure(self, images: Tensor, originals: Tensor, keys: Tensor) -> dict[str, Any]:
        return likeness(self, images, originals)

    def seen(self, data: Tensor) -> Tensor:
        """Their sketches."""
        return sketched(self.signed(data))

    def numbers(self, pictures: Tensor, a: Tensor, keys: Tensor) -> Tensor:
        return pictures.flatten(1)

    def planes(self, numbers: Tensor) -> Tensor:
        return numbers.unflatten(1, self.shape)


def sketched(x: Tensor) -> Tensor:
    """Pictures (B, C, H, W) in [-1, 1], grey or RGB -> sketches (B, 1, H, W) in [-1, 1]."""
    grey = (x if x.shape[1] == 1 else luma(x)) / 2
    kernel = x.new_tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 4
    g = F.conv2d(F.pad(grey, (1, 1, 1, 1), "replicate"), torch.stack([kernel, kernel.T])[:, None])
    return 1 - 2 * g.square().sum(1, keepdim=True).sqrt().clamp(max=1)


def likeness(sketch: Sketch, images: Tensor, originals: Tensor) -> dict[str, float]:
    """Of pictures (n, C, H, W) of levels drawn after the sketches of others: how far their own
    sketches are from those, root mean square, of 255."""
    apart = sketch.seen(images) - sketch.seen(originals)
    return {"sketch_error": 127.5 * float(apart.double().square().mean().sqrt())}
