"""The figure world: what is drawn how often, where its parts are; pictures are read back."""

from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from image.figures import source, world
from image.figures.layout import layouts
from image.figures.reader import read
from image.figures.render import palette, patterns, render
from image.figures.world import CHOICES, GARMENTS, LOWER, NOT_WORN, OUTER, PARTS, TEXTURES


def noise(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def as_bytes(picture: Tensor) -> Tensor:
    return picture.round().clamp(0, 255).to(torch.uint8)


def test_figures_are_a_function_of_seed_and_index():
    whole = world.samples(5, 0, 23)
    parts = world.join([world.samples(5, 0, 9), world.samples(5, 9, 14)])
    for name in ("choices", "poses", "textures", "phases"):
        assert torch.equal(getattr(whole, name), getattr(parts, name)), name
    assert not torch.equal(whole.choices, world.samples(6, 0, 23).choices)


def test_choices_have_their_probabilities():
    n = 20_000
    figures = world.samples(1, 0, n)
    for name, count in CHOICES.items():
        expected = world.probabilities(name)
        assert expected.sum().item() == pytest.approx(1)
        found = figures.choice(name).bincount(minlength=count)
        chi_square = ((found - n * expected) ** 2 / (n * expected)).sum().item()
        assert chi_square < 23.5, name  # 4 degrees of freedom or fewer: 1 in 10,000
    for garment, bare in (("lower", ("dress", LOWER)), ("outer", ("none", OUTER))):
        without = figures.choice(garment) == bare[1].index(bare[0])
        assert torch.equal(figures.wears(garment), ~without)
    assert figures.wears("upper").all()


def test_textures_that_are_worn_are_equally_likely():
    textures = world.samples(2, 0, 20_000).textures
    for k in range(3):
        worn = textures[textures[:, k] != NOT_WORN, k]
        expected = len(worn) / len(TEXTURES)
        found = worn.bincount(minlength=len(TEXTURES))
        assert ((found - expected) ** 2 / expected).sum() < 23.5


def test_unseen_pairs_are_five_of_25_one_of_each_texture_in_each_garment():
    pairs = torch.cartesian_prod(torch.arange(5), torch.arange(5), torch.tensor([NOT_WORN, 3]))
    pairs = pairs[world.unseen(pairs)]
    assert len(pairs) == 10  # whatever the outer garment
    assert pairs[:, 0].bincount().tolist() == pairs[:, 1].bincount().tolist() == [2] * 5
    dresses = torch.tensor([[k, NOT_WORN, 0] for k in range(5)])
    assert not world.unseen(dresses).any()


def test_splits_are_disjoint_in_their_layouts_and_90_to_5_to_5():
    figures = world.samples(0, 0, 4000)
    rows = [row.numpy().tobytes() for row in layouts(figures)]
    splits = source.splits(figures)
    of: dict[bytes, set[str]] = {}
    for row, split in zip(rows, splits, strict=True):
        of.setdefault(row, set()).add(split)
    assert all(len(found) == 1 for found in of.values())
    share = Counter(splits)["train"] / len(splits)
    assert abs(share - 0.9) < 4 * (0.9 * 0.1 / 4000) ** 0.5
    train, test = source.draw("train", 300), source.draw("test", 60)
    assert set(source.splits(train)) == {"train"}
    assert set(source.splits(test)) == {"test"}


def test_every_part_is_there_and_a_garment_only_where_it_is_worn():
    figures = world.samples(4, 0, 500)
    found = layouts(figures)
    assert found.shape == (500, 32, 32)
    there = torch.stack([(found == k).flatten(1).any(1) for k in range(len(PARTS))], 1)
    for k, part in enumerate(PARTS):
        expected = figures.wears(part) if part in GARMENTS else torch.ones(500, dtype=torch.bool)
        assert torch.equal(there[:, k], expected), part


def test_layouts_vary_and_do_not_depend_on_colours_or_textures():
    figures = world.samples(4, 0, 300)
    found = layouts(figures)
    assert len({row.numpy().tobytes() for row in found}) == 300
    other = world.Figures(figures.choices, figures.poses, 0 * figures.textures, figures.phases)
    assert torch.equal(layouts(other), found)
    # twice the pixels, the same areas
    fine = layouts(figures, 64).flatten().bincount()
    assert torch.allclose(fine / fine.sum(), found.flatten().bincount() / found.numel(), atol=0.003)


def test_patterns_repeat_and_show_their_share_of_the_second_colour():
    table, of, which = patterns(96)  # 96 pixels: 3 a unit
    areas = {"pure": 0.0, "stripe": 1 / 2, "plaid": 1 - (3 / 4) ** 2, "denim": 1 / 3}
    for texture, area in areas.items():
        own = which[TEXTURES.index(texture)].unique()
        assert (of[own] == TEXTURES.index(texture)).all()
        block = table[own][:, :36, :36].float().mean((1, 2))  # one whole period
        assert torch.allclose(block, torch.tensor(area), atol=0.02), texture
    counts = [len(which[k].unique()) for k in range(len(TEXTURES))]
    assert counts == [1, 4, 16, 16, 3]
    moved = table[which[:, 1, 2]]  # 1 to the right, 2 down: 3 and 6 pixels
    assert torch.equal(moved[:, 6:, 3:], table[which[:, 0, 0]][:, :-6, :-3])


def test_colours_of_different_parts_are_far_apart():
    colours, parts, _ = palette()
    apart = torch.cdist(colours.float(), colours.float())
    assert apart[parts[:, None] != parts].min() > 37


@pytest.mark.parametrize("size", [32, 64])
def test_clean_renderings_are_read_exactly(size: int):
    figures = world.samples(3, 0, 600)
    reading = read(render(figures, size))
    assert reading.readable.all()
    assert torch.equal(reading.layouts, layouts(figures, size))
    right = (reading.textures == figures.textures).all(1).double().mean().item()
    assert right == 1.0


def test_noisy_renderings_are_read():
    figures = world.samples(3, 0, 300)
    pictures = render(figures)
    noisy = as_bytes(pictures + 6 * noise(*pictures.shape, seed=1))
    reading = read(noisy)
    assert (reading.layouts == layouts(figures)).double().mean() > 0.9995
    assert (reading.textures == figures.textures).all(1).double().mean() >= 0.99


def test_a_garment_with_the_texture_of_another_is_read_as_it_looks():
    figures = world.samples(8, 0, 200)
    worn = figures.textures != NOT_WORN
    other = ((figures.textures + 1) % len(TEXTURES)).where(worn, NOT_WORN)
    changed = world.Figures(figures.choices, figures.poses, other, figures.phases)
    assert torch.equal(read(render(changed)).textures, other)


def test_a_garment_of_two_textures_has_none():
    figures = world.samples(9, 0, 400)
    bare = figures[(figures.choice("outer") == 0) & (figures.choice("lower") == 4)]
    pure, stripe = (
        render(world.Figures(bare.choices, bare.poses, k + 0 * bare.textures, bare.phases))
        for k in (0, 1)
    )
    left = torch.arange(32) % 8 < 4
    mixed = torch.where(left, pure, stripe)
    assert (read(mixed).textures[:, 0] == NOT_WORN).double().mean() > 0.5


NOISES = {
    "uniform": lambda n, s: (
        255 * torch.rand(n, 3, s, s, generator=torch.Generator().manual_seed(1))
    ),
    "gaussian": lambda n, s: 127.5 + 60 * noise(n, 3, s, s, seed=3),
    "gaussian of a model at logsnr -inf": lambda n, s: 127.5 + 127.5 * noise(n, 3, s, s, seed=4),
    "flat shades": lambda n, s: torch.linspace(0, 255, n).view(n, 1, 1, 1).expand(n, 3, s, s),
    "flat colours": lambda n, s: (
        palette()[0][torch.arange(n) % len(palette()[0])].view(n, 3, 1, 1).expand(n, 3, s, s)
    ),
    "ground with noise 20": lambda n, s: (
        torch.tensor([222.0, 230, 238]).view(3, 1, 1) + 20 * noise(n, 3, s, s, seed=5)
    ),
    "colours at random": lambda n, s: palette()[0][
        torch.randint(
            len(palette()[0]), (n, s, s), generator=torch.Generator().manual_seed(6)
        )
    ].movedim(-1, 1),
    "clouds": lambda n, s: F.interpolate(
        127.5 + 60 * noise(n, 3, 4, 4, seed=8), size=s, mode="bilinear"
    ),
}  # fmt: skip


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("kind", NOISES)
def test_noise_is_unreadable(kind: str, size: int):
    reading = read(as_bytes(NOISES[kind](96, size).float()))
    assert not reading.readable.any()
    assert (reading.textures == NOT_WORN).all()


@pytest.mark.parametrize(
    "pictures",
    [
        torch.zeros(2, 3, 32, 32),
        torch.zeros(2, 1, 32, 32, dtype=torch.uint8),
        torch.zeros(2, 3, 32, 64, dtype=torch.uint8),
        torch.zeros(2, 3, 48, 48, dtype=torch.uint8),
    ],
)
def test_what_is_no_batch_of_pictures_is_refused(pictures: Tensor):
    with pytest.raises(ValueError, match="expected"):
        read(pictures)


@pytest.mark.parametrize("size", [0, 16, 33, -32])
def test_other_sizes_are_refused(size: int):
    with pytest.raises(ValueError, match="multiple of 32"):
        render(world.samples(0, 0, 1), size)
