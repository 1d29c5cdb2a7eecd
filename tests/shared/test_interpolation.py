"""slerp goes along the arc: its norm, its angles, its ends."""

import math

import pytest
import torch

from shared.interpolation import lerp, slerp
from tests.guided import f64, normals


def test_slerp_keeps_the_norm_and_turns_by_equal_angles():
    a, b = normals(1, 3, 5), normals(1, 3, 5, seed=1)
    b = b * (a.norm() / b.norm())
    share = torch.linspace(0, 1, 9, dtype=torch.float64)
    path = slerp(a, b, share)
    torch.testing.assert_close(path.flatten(1).norm(dim=1), a.norm().expand(9), rtol=1e-12, atol=0)
    unit = path.flatten(1) / a.norm()
    angles = (unit[1:] * unit[:-1]).sum(1).clamp(max=1).acos()
    whole = float((unit[0] @ unit[-1]).acos())
    torch.testing.assert_close(angles, torch.full_like(angles, whole / 8), rtol=1e-6, atol=0)
    torch.testing.assert_close(path[[0, -1]], torch.cat([a, b]))


def test_slerp_in_the_plane():
    a, b = f64([3.0, 0.0]), f64([0.0, 2.0])
    got = slerp(a[None], b[None], f64(1 / 3))
    expected = math.sin(math.pi / 3) * a + math.sin(math.pi / 6) * b
    torch.testing.assert_close(got[0], expected)


def test_slerp_of_nearly_the_same_is_a_line_and_of_opposites_none():
    a = normals(2, 4)
    b = a + 1e-7 * normals(2, 4, seed=1)
    torch.testing.assert_close(
        slerp(a, b, f64(0.3, 0.6)), lerp(a, b, f64(0.3, 0.6)), rtol=1e-12, atol=0
    )
    torch.testing.assert_close(slerp(a, a, f64(0.3, 0.6)), a, rtol=1e-14, atol=0)
    with pytest.raises(ValueError, match="opposite"):
        slerp(a, -a, f64(0.5, 0.5))
    with pytest.raises(ValueError, match="numbers in"):
        slerp(a, b, f64(0.5, 1.5))


def test_each_sample_has_its_own_arc_and_share():
    a, b, share = normals(3, 2, 5), normals(3, 2, 5, seed=1), f64(0.1, 0.5, 0.8)
    for path in (slerp, lerp):
        together = path(a, b, share)
        for i in range(3):
            torch.testing.assert_close(
                path(a[i : i + 1], b[i : i + 1], share[i : i + 1])[0], together[i]
            )
