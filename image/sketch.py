"""A model that draws pictures after a sketch, which stands beside the noisy picture as one channel.

    sketch = 1 - 2 min(1, |g|),    g = Sobel's gradient of the grey picture, of levels in [0, 1]

so 1 is white paper and -1 a line as dark as the edge between black and white (Sobel's 3 x 3 kernels
over 4: that edge has |g| = 1; borders are repeated, grey is ITU-R 601's). In training it is made of
the picture itself; a drawing that is given is read as it is, dark lines on white. As a condition it
stands behind the ids of the picture, in one row of floats (B, M + H W).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from image.measurements import luma


class Sketch(nn.Module):
    """What sketches are and how they are told; without weights. As `image.cascade.Small`:

    forward(data (B, C, H, W) of levels, ids (B, M) or None, keys (B,)) -> the condition of
    training, (B, M + H W).
    """

    name, task, channels, augment = "sketch", "follows a sketch", 1, 0.0

    def __init__(self, shape: tuple[int, int, int], levels: int) -> None:
        super().__init__()
        self.shape, self.levels = (1, *shape[1:]), levels

    def forward(self, data: Tensor, ids: Tensor | None, keys: Tensor) -> Tensor:
        return self.told(self.seen(data), torch.zeros(len(data)), ids, keys)

    def seen(self, data: Tensor) -> Tensor:
        """Levels (B, C, H, W) -> their sketches (B, 1, H, W) in [-1, 1]."""
        return sketched(2 * data.float() / (self.levels - 1) - 1)

    def told(self, sketch: Tensor, a: Tensor, ids: Tensor | None, keys: Tensor) -> Tensor:
        """Sketches (B, 1, H, W), ids (B, M) or None -> the condition. `a` is 0: they have no noise,
        and keys (B,) are not read."""
        flat = sketch.flatten(1)
        return flat if ids is None else torch.cat([ids.to(flat), flat], dim=1)

    def read(self, condition: Tensor) -> tuple[Tensor | None, Tensor]:
        """A condition -> ids (B, M) or None, and the sketch (B, 1, H, W)."""
        M = condition.shape[1] - math.prod(self.shape)
        ids = condition[:, :M].round().long() if M else None
        return ids, condition[:, M:].unflatten(1, self.shape)

    def unnamed(self, condition: Tensor) -> Tensor:
        """The same sketches under ids of "none": what guidance departs from."""
        M = condition.shape[1] - math.prod(self.shape)
        return torch.cat([torch.zeros_like(condition[:, :M]), condition[:, M:]], dim=1)


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
