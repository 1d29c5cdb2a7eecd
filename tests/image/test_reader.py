import pytest
import torch
from torch import Tensor

from image import render
from image.reader import read
from shared import scene
from shared.scene import ATTRIBUTES


def noise(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def as_bytes(picture: Tensor) -> Tensor:
    return picture.round().clamp(0, 255).to(torch.uint8)


def accuracy(found, scenes) -> dict[str, float]:
    """Share of things of which each attribute was read; a picture not read, or with another number
    of things, counts as all wrong."""
    right, total = dict.fromkeys(ATTRIBUTES, 0), 0
    for things, truth in zip(found, scenes, strict=True):
        total += len(truth.things)
        if things is not None and len(things) == len(truth.things):
            for a, b in zip(things, truth.things, strict=True):
                for name in right:
                    right[name] += getattr(a, name) == getattr(b, name)
    return {name: count / total for name, count in right.items()}


@pytest.mark.parametrize("size", [32, 64, 96])
def test_clean_renderings_are_read_exactly(size):
    pictures, scenes = render.pictures("test", 300, size)
    assert read(pictures) == [s.things for s in scenes]


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("std", [10, 20])
def test_noisy_renderings_are_read(size, std):
    pictures, scenes = render.pictures("test", 500, size)
    noisy = as_bytes(pictures + std * noise(*pictures.shape, seed=size))
    assert min(accuracy(read(noisy), scenes).values()) >= 0.995


def test_a_rendering_that_is_a_little_blurred_and_pale_is_read():
    pictures, scenes = render.pictures("test", 200, 64)
    ground = torch.tensor(render.BACKGROUND).view(1, 3, 1, 1)
    blurred = torch.nn.functional.avg_pool2d(pictures.float(), 3, 1, 1, count_include_pad=False)
    pale = ground + 0.9 * (0.5 * pictures + 0.5 * blurred - ground)
    assert min(accuracy(read(as_bytes(pale)), scenes).values()) >= 0.97


GROUND = torch.tensor(render.BACKGROUND).view(1, 3, 1, 1).float()
NOISES = {
    "uniform": lambda n, s: (
        255 * torch.rand(n, 3, s, s, generator=torch.Generator().manual_seed(1))
    ),
    "grey uniform": lambda n, s: (
        255 * torch.rand(n, 1, s, s, generator=torch.Generator().manual_seed(2))
    ).expand(n, 3, s, s),
    "gaussian": lambda n, s: 127.5 + 60 * noise(n, 3, s, s, seed=3),
    "gaussian of a model at logsnr -inf": lambda n, s: 127.5 + 127.5 * noise(n, 3, s, s, seed=4),
    "blank": lambda n, s: GROUND.expand(n, 3, s, s),
    "blank with noise 10": lambda n, s: GROUND + 10 * noise(n, 3, s, s, seed=5),
    "blank with noise 30": lambda n, s: GROUND + 30 * noise(n, 3, s, s, seed=6),
    "blank with noise 60": lambda n, s: GROUND + 60 * noise(n, 3, s, s, seed=7),
    "flat shades": lambda n, s: torch.linspace(0, 255, n).view(n, 1, 1, 1).expand(n, 3, s, s),
    # a shade near which, at 32, nine pale pink squares lie
    "blank with a pink shade": lambda n, s: (
        GROUND + torch.tensor([29.0, -28.0, -29.0]).view(1, 3, 1, 1)
    ).expand(n, 3, s, s),
    "clouds": lambda n, s: torch.nn.functional.interpolate(
        127.5 + 60 * noise(n, 3, 4, 4, seed=8), size=s, mode="bilinear"
    ),
}


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("kind", NOISES)
def test_noise_is_unreadable(kind, size):
    assert read(as_bytes(NOISES[kind](96, size))) == [None] * 96


def test_a_picture_with_one_broken_cell_is_unreadable():
    pictures, scenes = render.pictures("train", 20, 32)
    broken = pictures.clone()
    broken[:, :, 1:11, 1:11] = as_bytes(127.5 + 60 * noise(20, 3, 10, 10, seed=9))
    assert read(broken) == [None] * 20
    edge = pictures.clone()
    edge[:, :, 0] = 0
    edge[:, :, -1] = 0
    assert read(edge) == [None] * 20
    assert read(pictures) == [s.things for s in scenes]


def test_what_makes_no_scene_is_still_read():
    first, second = (
        scene.Thing("star", "red", "dots", "large", place) for place in ("left", "right")
    )
    left, right = render.render([scene.Scene((first,)), scene.Scene((second,))], 32)
    both = torch.cat([left[..., :16], right[..., 16:]], dim=-1)
    (things,) = read(both[None])
    assert things is not None
    assert things == (first, second)
    assert not scene.possible(things)


@pytest.mark.parametrize(
    "pictures",
    [
        torch.zeros(2, 3, 32, 32),
        torch.zeros(3, 32, 32, dtype=torch.uint8),
        torch.zeros(2, 1, 32, 32, dtype=torch.uint8),
        torch.zeros(2, 3, 32, 64, dtype=torch.uint8),
        torch.zeros(2, 3, 48, 48, dtype=torch.uint8),
    ],
)
def test_what_is_no_batch_of_pictures_is_refused(pictures):
    with pytest.raises(ValueError, match="expected"):
        read(pictures)
