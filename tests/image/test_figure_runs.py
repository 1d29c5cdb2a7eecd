"""Figures as conditions: rows of ids, the layout beside the latent, words, runs, measures."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from image.config import UnetConfig
from image.data import load_pictures, unseen_pictures
from image.data_config import DataConfig
from image.figures import source, world
from image.figures.agreement import figure_agreement, unseen_figure_agreement
from image.figures.layout import layouts
from image.figures.render import render
from image.figures.words import outfit_rows, parse_outfit, spell
from image.figures.world import NOT_WORN, TEXTURES
from image.layout_reader import CHANNELS, LayoutReader
from image.net import PatchNet
from image.panel import PANEL
from image.pipeline import Pipeline
from image.unet import Unet
from shared.config import NetConfig
from shared.errors import ConfigError
from shared.requests import EvaluateRequest, SampleRequest
from tests.image.conftest import image_config

FIGURES = (
    "data.name=figures", "data.limit=40", "data.compositional=true", "patch=8",
    "data.groups={texture: [upper, lower, outer]}", "net.cross_attention=true",
    "diffusion.self_condition=false",
    "diffusion.drop_condition={all: 0.1, layout: 0.1, texture: 0.1}", "train.lr=0.03",
)  # fmt: skip


def test_rows_of_ids_say_layout_and_textures_and_nothing_else():
    figures = world.samples(0, 0, 50)
    rows = source.ids(figures, 32)
    assert rows.shape == (50, 32 * 32 + 3)
    assert 0 <= int(rows.min()) <= int(rows.max()) < source.NUM_IDS == 24
    found, textures = source.from_ids(rows)
    assert torch.equal(found, layouts(figures))
    assert torch.equal(textures, figures.textures)
    for name, columns in source.columns(32).items():
        ids = rows[:, list(columns)]
        expected = {"layout": (1, 8), "upper": (9, 13), "lower": (0, 18), "outer": (0, 23)}[name]
        assert (int(ids.min()), int(ids.max())) == expected


def test_groups_are_the_layout_and_textures_joined():
    config = DataConfig(name="figures", groups={"texture": ("upper", "lower", "outer")})
    groups = config.condition_groups()
    assert list(groups) == ["texture", "layout"]
    assert groups["texture"] == (1024, 1025, 1026)
    assert groups["layout"] == tuple(range(1024))
    with pytest.raises(ValueError, match=r"lowr.*did you mean lower"):
        DataConfig(name="figures", groups={"texture": ("lowr",)})
    with pytest.raises(ValueError, match="figures have no captions"):
        DataConfig(name="figures", caption_column="text")


def test_compositional_pairs_are_absent_from_training_and_all_that_is_tried():
    config = DataConfig(name="figures", limit=400, compositional=True)
    for held_out in (False, True):
        condition = load_pictures(config, held_out=held_out).condition
        assert condition is not None
        _, textures = source.from_ids(condition)
        assert not world.unseen(textures).any()
    train, test = (load_pictures(config, held_out=each).images for each in (False, True))
    assert not {x.numpy().tobytes() for x in train} & {x.numpy().tobytes() for x in test}
    new = unseen_pictures(config, 30)
    assert new.condition is not None
    assert world.unseen(source.from_ids(new.condition)[1]).all()
    whole = load_pictures(replace(config, compositional=False)).condition
    assert whole is not None
    share = world.unseen(source.from_ids(whole)[1]).double().mean().item()
    assert abs(share - 0.8 / 5) < 0.08  # a fifth of those who do not wear a dress


def test_agreement_counts_pixels_and_garments():
    figures = source.draw("test", 40)
    pictures, asked = source.pictures(figures, 32)
    found = unseen_figure_agreement(pictures, asked)
    assert set(found.values()) == {1.0}
    other = pictures.clone()
    other[:10] = torch.randint(256, (10, 3, 32, 32)).to(torch.uint8)
    found = figure_agreement(other, asked)
    layout, textures = source.from_ids(asked)
    hair = layout == 2
    assert found["readable"] == found["outfit_agreement"] == 0.75
    assert found["hair_iou"] == pytest.approx((hair[10:].sum() / hair.sum()).item())
    worn = textures != NOT_WORN
    assert found["texture_agreement"] == pytest.approx((worn[10:].sum() / worn.sum()).item())


def test_iou_of_a_shifted_figure_is_intersection_over_union():
    figures = source.draw("test", 20)
    pictures, asked = source.pictures(figures, 32)
    layout, _ = source.from_ids(asked)
    moved = torch.roll(layout, 1, 2)
    found = figure_agreement(torch.roll(pictures, 1, 3), asked)
    ious = []
    for k, part in enumerate(world.PARTS):
        a, b = layout == k, moved == k
        ious.append(((a & b).sum() / (a | b).sum()).item())
        assert found[f"{part}_iou"] == pytest.approx(ious[-1]), part
    assert found["layout_iou"] == pytest.approx(sum(ious) / len(ious))


def test_agreement_tells_a_wrong_texture():
    figures = source.draw("test", 60)
    wrong = figures.textures.clone()
    wrong[:15, 0] = (wrong[:15, 0] + 2) % len(TEXTURES)
    changed = world.Figures(figures.choices, figures.poses, wrong, figures.phases)
    found = figure_agreement(render(changed), source.ids(figures, 32))
    assert (found["upper_texture"], found["layout_iou"]) == (0.75, 1.0)
    assert (found["lower_texture"], found["outfit_agreement"]) == (1.0, 0.75)


def test_layout_becomes_channels_in_its_place():
    reader = LayoutReader(5, (2, 4), (1, 2))
    condition = torch.tensor([[1, 1, 2, 3, 1, 1, 4, 3, 0, 4]])
    channels, rest = reader(condition, 1)
    assert channels.shape == (1, CHANNELS, 1, 2)
    e = reader.embed.weight
    assert torch.allclose(channels[0, :, 0, 0], e[1])
    assert torch.allclose(channels[0, :, 0, 1], (e[2] + 2 * e[3] + e[4]) / 4)
    assert rest is not None
    assert rest.tolist() == [[0, 4]]
    none, rest = reader(None, 3)
    assert rest is None
    assert torch.allclose(none, e[0][None, :, None, None].expand(3, -1, 1, 2))
    with pytest.raises(ValueError, match="expected 2 x 4 ids and more"):
        reader(condition[:, :8], 1)


@pytest.mark.parametrize("network", ["transformer", "unet"])
def test_networks_see_each_pixel_of_a_layout(network: str):
    torch.manual_seed(0)
    shape = (3, 8, 8)
    if network == "unet":
        config = UnetConfig(channels=(8, 16), layers=1, attention=(), head_dim=8)
        net = Unet(shape, config, False, 24, (8, 8))
    else:
        net = PatchNet(shape, 2, NetConfig(dim=16, depth=1, heads=2), False, 24, (8, 8))
    for parameter in net.parameters():  # branches start at zero
        torch.nn.init.normal_(parameter, std=0.2)
    x, logsnr = torch.randn(2, *shape), torch.zeros(2)
    condition = torch.cat([torch.ones(2, 64), torch.full((2, 3), 9)], 1).long()
    out = net(x, logsnr, condition, None)
    assert out.shape == x.shape
    for column in (0, 37, 64):
        changed = condition.clone()
        changed[1, column] += 1
        apart = (net(x, logsnr, changed, None) - out).abs().amax((1, 2, 3))
        assert apart[0] < 1e-5 < apart[1], column
    assert torch.allclose(
        net(x, logsnr, 0 * condition, None), net(x, logsnr, None, None), atol=1e-5
    )


def test_outfits_are_said_in_words():
    assert parse_outfit("Denim lower; upper stripe") == (1, 4, NOT_WORN)
    for textures in ((1, 4, NOT_WORN), (3, NOT_WORN, 2), (0, 0, 0)):
        assert parse_outfit(spell(textures)) == textures
    rows = outfit_rows(["stripe upper, denim lower", "floral upper"], 5, "test", 32)
    _, textures = source.from_ids(rows)
    one, other = [1, 4, NOT_WORN], [3, NOT_WORN, NOT_WORN]
    assert textures.tolist() == [one, other, one, other, one]
    assert len({row.numpy().tobytes() for row in rows}) == 5


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stripes upper", "unknown word 'stripes'; did you mean stripe?"),
        ("stripe uper", "did you mean upper?"),
        ("wooly upper", "figures read like"),
        ("stripe", r"expected a texture \(pure, "),
        ("stripe upper lower", "expected a texture"),
        ("stripe upper, plaid upper", "upper is there twice"),
        ("stripe lower", "no upper"),
        ("", "expected a texture"),
    ],
)
def test_outfits_that_are_not_there_are_refused(text: str, words: str):
    with pytest.raises(ConfigError, match=words) as caught:
        parse_outfit(text)
    assert caught.value.code == 2


def test_a_run_of_figures_is_drawn_from_words_and_guided_by_layout_and_texture(make_run, tmp_path):
    run = make_run(*FIGURES)
    ask: dict[str, Any] = {"n": 3, "steps": 2, "condition": "stripe upper, denim lower"}
    request = SampleRequest(**ask, guidance={"layout": 2.0, "texture": 3.0})
    PANEL.sample(run, request, tmp_path)
    assert (tmp_path / "layouts.png").is_file()
    saved = np.load(tmp_path / "samples.npz")
    assert (saved["images"].shape, saved["condition"].shape) == ((3, 3, 32, 32), (3, 1027))
    pipe = Pipeline.from_pretrained(run)
    more: dict[str, Any] = {
        "seeds": [3], "num_inference_steps": 2, "output_type": "latent",
        "class_labels": "pure upper",
    }  # fmt: skip
    plain = pipe(**more).images
    ones = pipe(guidance_scale={"layout": 1.0, "texture": 1.0}, **more).images
    assert torch.equal(plain, ones)
    assert not torch.equal(plain, pipe(guidance_scale={"layout": 1, "texture": 9}, **more).images)
    with pytest.raises(ConfigError, match="say what they wear"):
        pipe(3)
    with pytest.raises(ConfigError, match="did you mean denim"):
        pipe("demin upper")


def test_a_run_of_figures_is_evaluated_on_held_out_and_on_unseen_pairs(make_run):
    found = PANEL.evaluate(make_run(*FIGURES), EvaluateRequest(n=12, steps=2))
    for facts in (found, found["compositional"]):
        assert {"layout_iou", "face_iou", "upper_texture", "texture_agreement"} <= set(facts)
        assert {"readable", "outfit_agreement"} <= set(facts)
    assert "unseen_pairs" in found["compositional"]


def test_figures_of_another_size_or_split_are_refused(tmp_path: Path):
    for change, words in ((("data.size=40",), "multiple of 32"), (("data.split=valid",), "valid")):
        with pytest.raises(ConfigError, match=words):
            PANEL.prepare(image_config(*FIGURES, *change), tmp_path)
