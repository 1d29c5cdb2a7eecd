"""Between two points: on the arc for noise, on the line for latents."""

import torch
from torch import Tensor

STRAIGHT = 1e-4  # radians: below, an arc is a line to within float64


def slerp(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """a and b (n, ...) or (1, ...), share (n,) in [0, 1] -> (n, ...), sample by sample

        sin((1 - s) theta) / sin(theta) a + sin(s theta) / sin(theta) b,

    theta the angle between them (Shoemake 1985; Song, Meng & Ermon 2021, eq. 67). It keeps the norm
    of two points that have the same, so noise stays as noisy as noise is. ValueError for shares
    beyond [0, 1], or points that are opposite, which have no one arc between them.
    """
    if not bool(((share >= 0) & (share <= 1)).all()):
        raise ValueError(f"share = {share.tolist()}: expected numbers in [0, 1]")
    wide = (-1, *[1] * (a.ndim - 1))
    u, v, s = a.double().flatten(1), b.double().flatten(1), share.double().view(wide)
    u, v = (x / x.norm(dim=1, keepdim=True) for x in (u, v))
    # the half-angle form: arccos of a product has no digits near 0
    theta = 2 * torch.atan2((u - v).norm(dim=1), (u + v).norm(dim=1)).view(wide)
    if bool((theta > torch.pi - STRAIGHT).any()):
        raise ValueError(
            "slerp: the two points are opposite: every arc leads from one to the other"
        )
    near = theta < STRAIGHT
    sine = torch.where(near, torch.ones_like(theta), theta.sin())
    first = torch.where(near, 1 - s, ((1 - s) * theta).sin() / sine)
    second = torch.where(near, s, (s * theta).sin() / sine)
    return (first * a + second * b).to(a.dtype)


def lerp(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """a and b (n, ...) or (1, ...), share (n,) -> (1 - s) a + s b, (n, ...)."""
    s = share.view(-1, *[1] * (a.ndim - 1)).to(a)
    return (1 - s) * a + s * b
