"""A model that fills holes: beside the noisy picture stands the same one where a mask keeps it.

    channels = known x, known        known = 1 where the picture is given, 0 where it is to be drawn

which is how latent diffusion is trained for inpainting (Rombach et al. 2022, sec. 4.5; Stable
Diffusion's inpainting models have the mask the other way round). Training makes the masks: half of
them two boxes, half a thick stroke along a chain of points (after those of LaMa, Suvorov et al.
2022). As a condition it stands behind the ids of the picture, in one row of floats (B, M + (C + 1)
H W). Nothing known is the same as no picture.
"""

from typing import Any

import torch
from torch import Tensor

from image.beside import Beside
from shared import noise
from shared.levels import nearest
from shared.objective.streams import MASK

BOXES = 2
HALF_SIDES = (0.1, 0.35)  # of boxes, least and most, where the picture is 1 high and 1 wide
POINTS = 5  # of a chain
RADII = (0.04, 0.12)  # of a stroke


class Masked(Beside):
    """The picture where it is known, without noise: rows hold ids, known x, known."""

    name, task = "masked", "fills the holes of a picture"
    given = "give it and its mask with `diptych edit --image FILE --mask FILE`, or edit=Inpaint"
    none_is_seen = True

    def __init__(self, shape: tuple[int, int, int], levels: int, optional: bool = False) -> None:
        C, H, W = shape
        super().__init__((C + 1, H, W), levels, channels=C + 1, optional=optional)

    def made(self, data: Tensor, keys: Tensor) -> Tensor:
        return self.kept(data, self.known(keys).to(data.device))

    def known(self, keys: Tensor) -> Tensor:
        """What training gives of pictures of these keys (B,), bool (B, 1, H, W)."""
        return ~holes(keys, self.shape[1:])

    def kept(self, data: Tensor, known: Tensor) -> Tensor:
        """Levels (B, C, H, W) and what is known of them, bool (B, 1, H, W) -> pictures."""
        return torch.cat([self.signed(data) * known, known.float()], dim=1)

    def measure(self, images: Tensor, originals: Tensor, keys: Tensor) -> dict[str, Any]:
        return hole_error(images, originals, self.known(keys), self.levels)

    def finish(self, images: Tensor, pictures: Tensor) -> Tensor:
        """With what is known put back, exactly."""
        x, known = pictures[:, :-1], pictures[:, -1:] > 0.5
        return torch.where(known, nearest(x, self.levels).to(images), images)

    def numbers(self, pictures: Tensor, a: Tensor, keys: Tensor) -> Tensor:
        return pictures.flatten(1)

    def planes(self, numbers: Tensor) -> Tensor:
        return numbers.unflatten(1, self.shape)


def holes(keys: Tensor, size: tuple[int, int]) -> Tensor:
    """Random holes, bool (B, 1, H, W), a function of keys (B,): boxes or a stroke, as likely."""
    H, W = size
    y, x = ((torch.arange(n, device=keys.device) + 0.5) / n for n in size)
    places = torch.cartesian_prod(y, x)  # (H W, 2)
    u = noise.uniform(keys, MASK, (2 + 4 * BOXES + 2 * POINTS,))
    kind, width, corners, points = u.split([1, 1, 4 * BOXES, 2 * POINTS], dim=1)
    centres, sides = corners.unflatten(1, (BOXES, 4)).chunk(2, dim=2)
    boxes = in_boxes(places, centres, _between(HALF_SIDES, sides))
    stroke = along(places, points.unflatten(1, (POINTS, 2)), _between(RADII, width))
    return torch.where(kind < 0.5, boxes, stroke).view(-1, 1, H, W)


def in_boxes(places: Tensor, centres: Tensor, half_sides: Tensor) -> Tensor:
    """Places (P, 2) in any of the boxes (B, K, 2) of a sample, bool (B, P)."""
    apart = (places[:, None] - centres[:, None]).abs()  # (B, P, K, 2)
    return (apart < half_sides[:, None]).all(3).any(2)


def along(places: Tensor, points: Tensor, radius: Tensor) -> Tensor:
    """Places (P, 2) nearer than radius (B, 1) to the lines from point to point (B, K, 2), bool
    (B, P)."""
    near = torch.zeros(len(points), len(places), dtype=torch.bool, device=places.device)
    for a, b in zip(points.unbind(1), points[:, 1:].unbind(1), strict=False):
        line, to = (b - a)[:, None], places - a[:, None]  # (B, 1, 2), (B, P, 2)
        share = ((to * line).sum(2) / line.square().sum(2)).clamp(0, 1)  # of the way from a to b
        near |= (to - share[..., None] * line).norm(dim=2) < radius
    return near


def _between(ends: tuple[float, float], u: Tensor) -> Tensor:
    return ends[0] + (ends[1] - ends[0]) * u


def hole_error(images: Tensor, originals: Tensor, known: Tensor, levels: int) -> dict[str, float]:
    """How far pictures (n, C, H, W) of levels are from the originals where nothing was known of
    them, root mean square, of 255."""
    apart = (images - originals).double()[(~known).expand_as(images)]
    return {"hole_error": 255 / (levels - 1) * float(apart.square().mean().sqrt())}
