"""The patch network: what goes where."""

import pytest
import torch

from image.net import PatchNet
from shared.config import NetConfig
from shared.errors import ConfigError
from shared.nets.patches import patchify, unpatchify

TINY = NetConfig(dim=8, depth=1, heads=2)


def test_unpatchify_inverts_patchify():
    x = torch.randn(2, 3, 4, 6)
    tokens = patchify(x, 2)
    assert tokens.shape == (2, 6, 12)
    assert torch.equal(unpatchify(tokens, 2, 4, 6), x)


def test_a_token_is_one_square_of_the_picture_counted_along_rows():
    x = torch.randn(2, 3, 4, 6)
    tokens = patchify(x, 2)
    for row in range(2):
        for column in range(3):
            square = x[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            assert torch.equal(tokens[:, 3 * row + column], square.flatten(1))


def open_net(latent_shape: tuple[int, ...], patch: int, **settings) -> PatchNet:
    """A net whose zero-initialised layers are opened, so that its output depends on everything."""
    torch.manual_seed(0)
    net = PatchNet(latent_shape, patch, TINY, True, **settings)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return net.eval()


@pytest.mark.parametrize("latent_shape", [(3, 4, 6), (3, 4, 6, 5)])
def test_output_has_the_shape_of_the_latent_and_depends_on_every_input(latent_shape):
    net = open_net(latent_shape, 2, conditions=7)
    x, previous = torch.randn(2, 2, *latent_shape)
    logsnr, condition = torch.tensor([-1.0, 2.0]), torch.tensor([[3], [5]])
    out = net(x, logsnr, condition, previous)
    assert out.shape == x.shape
    for changed in (
        net(x + 0.1, logsnr, condition, previous),
        net(x, logsnr + 1, condition, previous),
        net(x, logsnr, condition + 1, previous),
        net(x, logsnr, condition, previous + 0.1),
    ):
        assert not torch.allclose(out, changed, atol=1e-4)
    assert torch.allclose(
        net(x, logsnr, condition, None), net(x, logsnr, condition, torch.zeros_like(x))
    )


def test_rotary_angles_alone_tell_rows_from_columns():
    """Without the table of places, a net is blind to the order of patches unless it turns them."""
    x, logsnr = torch.randn(1, 1, 4, 6), torch.tensor([0.5])
    mirrored, turned = x.flip(-2), x.flip(-1)

    def moved(net: PatchNet, y: torch.Tensor, axis: int) -> float:
        net.trunk.place.data.zero_()
        back = net(y, logsnr, None, None).flip(axis)
        return float((back - net(x, logsnr, None, None)).detach().abs().max())

    for rotary in (False, True):
        net = open_net((1, 4, 6), 1, rotary=rotary)
        for y, axis in ((mirrored, -2), (turned, -1)):
            assert (moved(net, y, axis) > 1e-3) == rotary


def test_numbers_of_a_pixel_return_to_the_pixel_and_channel_they_came_from():
    """A trunk that hands tokens through (without self-conditioning) leaves x as it is."""
    latent_shape = (3, 4, 6, 5)
    net = PatchNet(latent_shape, 2, TINY, False)
    net.trunk.forward = lambda x, logsnr, condition=None: x  # type: ignore[method-assign]
    x = torch.randn(2, *latent_shape)
    assert torch.equal(net(x, torch.zeros(2), None, None), x)


def test_previous_stands_behind_x_on_the_channels():
    net = PatchNet((2, 4, 6), 2, TINY, True)
    seen = []
    net.trunk.forward = lambda x, logsnr, condition=None: seen.append(x) or x[..., :8]  # type: ignore[method-assign]
    x, previous = torch.randn(2, 1, 2, 4, 6)
    net(x, torch.zeros(1), None, previous)
    assert torch.equal(seen[0], patchify(torch.cat([x, previous], 1), 2))


def test_patch_that_does_not_divide_the_picture_is_refused():
    with pytest.raises(ConfigError, match=r"patch = 3: expected a divisor .* 8 x 6"):
        PatchNet((1, 8, 6), 3, TINY, True)
