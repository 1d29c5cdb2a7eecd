import itertools

import pytest
import torch

from image import render
from image.reader import read
from shared import scene
from shared.scene import PLACES, SHAPES, SIZES, Scene, Thing


def one(shape="circle", colour="red", texture="solid", size="large", place="centre") -> Scene:
    return Scene((Thing(shape, colour, texture, size, place),))


@pytest.mark.parametrize("size", [32, 64, 96])
def test_pictures_are_bytes_of_the_size_asked_for(size):
    picture = render.render([one(), one("moon")], size)
    assert picture.shape == (2, 3, size, size)
    assert picture.dtype == torch.uint8
    assert torch.equal(picture[:, :, 0, 0], torch.tensor([render.BACKGROUND] * 2).byte())


@pytest.mark.parametrize("size", [0, 16, 33, -32])
def test_other_sizes_are_refused(size):
    with pytest.raises(ValueError, match="multiple of 32"):
        render.render([one()], size)


@pytest.mark.parametrize(("k", "place"), list(enumerate(PLACES)))
def test_a_thing_is_in_its_place_and_nowhere_else(k, place):
    size = 64
    empty = torch.tensor(render.BACKGROUND).view(3, 1, 1)
    changed = (render.render([one(place=place)], size)[0] != empty).any(0).nonzero().float()
    row, column = divmod(k, 3)
    assert changed.mean(0).tolist() == pytest.approx(
        [31.5 + 20 * (row - 1), 31.5 + 20 * (column - 1)], abs=0.01
    )
    assert changed.amax(0).sub(changed.amin(0)).max() < 20


def test_coverage_of_a_disc_is_its_area():
    # pi r^2 of the cell for the fine grid of 160 x 160 points; 0.5 % covers its coarseness
    for size, radius in zip(SIZES, (0.29, 0.38, 0.49), strict=True):
        red, ground = torch.tensor(render.RGB["red"]), torch.tensor(render.BACKGROUND)
        cell = render.cell_table(64)[render.cell_id("circle", "red", "solid", size)].float()
        covered = ((cell[1] - ground[1]) / (red[1] - ground[1])).mean()  # green differs most
        assert covered.item() == pytest.approx(torch.pi * radius**2, rel=0.005)


def test_edges_are_anti_aliased():
    picture = render.render([one("circle", "black")], 32)[0, 0]
    extremes = (picture == render.RGB["black"][0]) | (picture == render.BACKGROUND[0])
    assert (~extremes).sum() > 12


def test_all_cells_differ_visibly():
    # The nearest two cells differ by 4.4 grey levels RMS at 32: 8 standard deviations of noise
    # with standard deviation 5 along the line between them.
    for size, least in ((32, 4.0), (64, 6.0)):
        cells = render.cell_table(size).float().flatten(1)
        distance = torch.cdist(cells, cells).fill_diagonal_(torch.inf).min()
        assert distance / cells.shape[1] ** 0.5 > least


def test_the_order_of_a_batch_does_not_matter():
    scenes = scene.samples(0, 0, 7)
    together = render.render(scenes, 32)
    for sampled, picture in zip(scenes, together, strict=True):
        assert torch.equal(render.render([sampled], 32)[0], picture)


def test_a_layout_names_the_shape_where_the_picture_shows_it():
    scenes = scene.samples(2, 0, 40)
    for size in (32, 64):
        layout, picture = render.layout(scenes, size), render.render(scenes, size)
        assert layout.shape == (40, size, size)
        assert layout.dtype == torch.int64
        ground = torch.tensor(render.BACKGROUND).view(1, 3, 1, 1)
        assert (picture != ground).any(1)[layout > 0].all()
        for sampled, found in zip(scenes, layout, strict=True):
            assert set(found.unique().tolist()) == {0} | {
                1 + SHAPES.index(thing.shape) for thing in sampled.things
            }


def test_a_layout_covers_what_the_thing_covers():
    for size, radius in zip(SIZES, (0.29, 0.38, 0.49), strict=True):
        area = (render.layout([one("circle", size=size)], 96) > 0).sum().item() / 30**2
        assert area == pytest.approx(torch.pi * radius**2, rel=0.03)  # whole pixels


def test_pictures_of_a_split_are_those_of_its_scenes():
    pictures, scenes = render.pictures("test", 9, size=32, seed=3)
    assert scenes == list(itertools.islice(scene.stream(3, "test"), 9))
    assert torch.equal(pictures, render.render(scenes, 32))
    assert all(scene.split_of_scene(s) == "test" for s in scenes)


@pytest.mark.parametrize("size", [32, 64])
def test_every_cell_is_read_as_what_it_is(size):
    kinds = itertools.product(
        scene.SHAPES, scene.COLOURS, scene.TEXTURES, scene.SIZES, ["centre", "bottom left"]
    )
    scenes = [Scene((Thing(*kind),)) for kind in kinds]
    assert read(render.render(scenes, size)) == [s.things for s in scenes]
