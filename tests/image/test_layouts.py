"""Layouts of files: read, refused where they are wrong, and followed by models."""

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor

from image.captions import shown
from image.data import DataFacts, load_pictures, read_facts
from image.data_config import DataConfig
from image.editing import low_of
from image.export import to_diffusers
from image.figures import source
from image.figures.layout import layouts
from image.figures.world import PARTS, samples
from image.guides import load_guide
from image.layouts import part_colours
from image.learners import build_learner
from image.pipeline import Pipeline
from shared.cli import main
from shared.errors import ConfigError, DataError
from shared.learner import DiffusionLearner
from shared.requests import SampleRequest
from shared.runs import open_run
from tests.image.conftest import image_config, opened_learner
from tests.image.test_figure_runs import FIGURES
from tests.image.test_source import png
from tests.test_command import assert_refused, diptych, told
from text.panel import PANEL as TEXT

SIDE = 8
PLACES = (0, 9, 41, SIDE**2)  # some columns of a row of ids; the last one is the class
CLASSES = datasets.ClassLabel(names=["dim", "bright"])


def write(path: Path, images: list[Any], maps: list[Any], labels: list[int] | None = None) -> Path:
    """A parquet file with a second column of pictures."""
    kinds: dict[str, Any] = {"image": datasets.Image(), "map": datasets.Image(), "label": CLASSES}
    rows = {"image": images, "map": maps, "label": labels or [0] * len(images)}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(rows, schema=datasets.Features(kinds).arrow_schema), path)
    return path


def config(name: Path, **more: Any) -> DataConfig:
    settings = {"layout_column": "map", "layout_classes": 2, "size": SIDE} | more
    return DataConfig(name=str(name), **settings)


def blocks(n: int, seed: int) -> np.ndarray:
    """Layouts (n, 8, 8) of blocks of 2 x 2, each of part 1 or 2."""
    drawn = np.random.default_rng(seed).integers(1, 3, (n, 4, 4))
    return drawn.repeat(2, 1).repeat(2, 2).astype(np.uint8)


def pictures_of(maps: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Dark where part 1 is and light where 2 is, all of it darker or lighter by class."""
    noise = np.random.default_rng(9).integers(-20, 21, maps.shape)
    shade = 70 + 110 * (maps == 2) + 50 * (labels[:, None, None] == 1)
    return (shade + noise).clip(0, 255).astype(np.uint8)


# -- reading -----------------------------------------------------------------------------------


def test_a_row_is_the_numbers_of_the_parts_and_the_class(tmp_path: Path):
    maps = blocks(4, 0)
    maps[2, :, 3] = 0
    grey = [png(np.full((SIDE, SIDE), 20 * i, np.uint8)) for i in range(4)]
    write(tmp_path / "train.parquet", grey, [png(each) for each in maps], [1, 0, 1, 0])
    found = load_pictures(config(tmp_path))
    data, condition = found.take(torch.tensor([2, 0]))
    assert data[:, 0, 0, 0].tolist() == [40, 0]
    assert condition is not None
    assert (condition.shape, condition.dtype) == ((2, SIDE**2 + 1), torch.int64)
    assert condition[:, :-1].tolist() == maps[[2, 0]].reshape(2, -1).tolist()
    assert condition[:, -1].tolist() == [2, 2]
    assert (found.classes, found.conditions) == (("dim", "bright"), 3)
    judged = shown(found).condition
    assert judged is not None
    assert judged.tolist() == [[2], [1], [2], [1]]
    plain = load_pictures(config(tmp_path, label_column=None, layout_classes=5))
    assert plain.condition is not None
    assert not plain.condition[:, -1].any()
    assert (plain.classes, plain.conditions, shown(plain).condition) == ((), 6, None)


def test_groups_are_the_layout_and_the_class():
    both = config(Path("x")).condition_groups()
    assert both == {"layout": tuple(range(SIDE**2)), "class": (SIDE**2,)}
    assert list(config(Path("x"), label_column=None).condition_groups()) == ["layout"]
    rates = "diffusion.drop_condition={all: 0.1, layout: 0.1, class: 0.1}"
    given = ("data.name=x", "data.layout_column=map", "data.layout_classes=2", "data.size=8")
    assert image_config(*given, rates).diffusion.drop_condition == {
        "all": 0.1, "layout": 0.1, "class": 0.1
    }  # fmt: skip
    with pytest.raises(ConfigError, match=r"expected one of all, layout$"):
        image_config(*given, "data.label_column=null", rates)


def test_layouts_are_cropped_and_scaled_as_their_pictures_are_and_never_blended(tmp_path: Path):
    wide = np.zeros((16, 40), np.uint8)
    wide[:, 20:] = 9
    wide[:, :12] = wide[:, 28:] = 4  # the sides, which a square leaves out
    picture = np.where(wide == 9, 255, 0).astype(np.uint8)
    write(tmp_path / "train.parquet", [png(picture)], [png(wide)])
    found = load_pictures(config(tmp_path, layout_classes=9))
    assert found.condition is not None
    layout = found.condition[0, :-1].view(SIDE, SIDE)
    assert layout.unique().tolist() == [0, 9]
    assert torch.equal(layout == 9, found.images[0, 0] > 127)
    assert layout[:, :4].eq(0).all()


def test_numbers_are_those_of_a_palette_or_of_grey_or_of_black_and_white(tmp_path: Path):
    maps = np.arange(4, dtype=np.uint8).reshape(2, 2) % 2
    indexed = Image.fromarray(maps, "P")
    indexed.putpalette([255, 0, 0, 0, 0, 255])
    indexed.info["transparency"] = 0
    kinds = [Image.fromarray(maps), indexed, Image.fromarray(maps * 255).convert("1")]
    for i, picture in enumerate(kinds):
        picture.save(tmp_path / f"{i}.png")
    files = [{"bytes": (tmp_path / f"{i}.png").read_bytes(), "path": None} for i in range(3)]
    write(tmp_path / "data" / "train.parquet", [png(maps)] * 3, files)
    found = load_pictures(config(tmp_path / "data", size=2, layout_classes=1)).condition
    assert found is not None
    assert found[:, :-1].tolist() == [[0, 1, 0, 1]] * 3


def test_a_folder_names_the_layout_of_each_picture_in_its_metadata(tmp_path: Path):
    maps, rows = blocks(3, 1), list[str]()
    (tmp_path / "maps").mkdir()
    for i in range(3):
        Image.fromarray(maps[i] * 40).save(tmp_path / f"{i}.png")
        Image.fromarray(maps[i]).save(tmp_path / "maps" / f"{i}.png")
        row = {"file_name": f"{i}.png", "map_file_name": f"maps/{i}.png", "label": "ab"[i % 2]}
        rows.append(json.dumps(row))
    (tmp_path / "metadata.jsonl").write_text("\n".join(rows))
    found = load_pictures(config(tmp_path))
    assert found.condition is not None
    assert len(found) == 2  # the first one is held out
    assert torch.equal(found.condition[:, :-1] * 40, found.images.flatten(1).long())
    Image.fromarray(maps[1][:4]).save(tmp_path / "maps" / "1.png")
    with pytest.raises(DataError, match=r"the layout in row 1 \(.*maps/1.png\) is 4 x 8, its"):
        load_pictures(config(tmp_path))


COLOURS = np.zeros((SIDE, SIDE, 3), np.uint8)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (None, "the layout in row 1 is missing"),
        (png(np.ones((SIDE, 6), np.uint8)), "the layout in row 1 is 8 x 6, its picture 8 x 8"),
        (
            png(blocks(1, 0)[0] + 1),
            "row 1 holds the number 3: expected 0 to 2, for none, hat, coat",
        ),
        (png(COLOURS), "the layout in row 1 has mode RGB: a layout is grey or has a palette"),
        (png(np.full((SIDE, SIDE), 1, np.uint16)), "the layout in row 1 has more than 8 bits"),
        ({"bytes": b"nothing", "path": None}, "the layout in row 1 is corrupt"),
    ],
)
def test_a_bad_layout_is_named_by_its_row_or_left_out_and_counted(
    tmp_path: Path, bad: Any, words: str
):
    good = png(blocks(1, 0)[0])
    write(
        tmp_path / "train.parquet", [png(np.zeros((SIDE, SIDE), np.uint8))] * 3, [good, bad, good]
    )
    with pytest.raises(DataError, match=words):
        load_pictures(config(tmp_path, layout_classes=("hat", "coat")))
    found = load_pictures(config(tmp_path, layout_classes=("hat", "coat"), skip_bad=True))
    assert (len(found), found.skipped) == (2, 1)


def test_a_column_that_holds_no_layouts_is_named(tmp_path: Path):
    write(tmp_path / "train.parquet", [png(COLOURS)], [png(COLOURS)])
    with pytest.raises(DataError, match=r"data.layout_column = 'maps': .* has image, map, label"):
        load_pictures(config(tmp_path, layout_column="maps"))
    with pytest.raises(DataError, match=r"data.layout_column = 'label': holds no pictures"):
        load_pictures(config(tmp_path, layout_column="label"))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"layout_classes": None}, "data.layout_classes = None: expected both, or neither"),
        ({"layout_column": None}, "data.layout_column = None, .* expected both, or neither"),
        ({"layout_classes": 0}, "data.layout_classes = 0: expected 1 to 255 parts"),
        ({"layout_classes": 256}, "expected 1 to 255 parts"),
        ({"layout_classes": ("hat", "hat")}, "each with a name of its own"),
        ({"name": "scene"}, "of pictures in files, data.name = 'scene'"),
        ({"name": "digits"}, "of pictures in files"),
        (
            {"caption_column": "text", "text_encoder": "y"},
            "beside captions that the network's own blocks read",
        ),
        ({"size": None}, "set data.size=PIXELS"),
        ({"flip": True}, "would be wrong of mirror images"),
    ],
)
def test_layouts_that_could_not_be_read_are_refused_before_anything_is(more, words):
    with pytest.raises(ValueError, match=words):
        DataConfig(**({"name": "x", "layout_column": "m", "layout_classes": 2, "size": 8} | more))


def test_only_models_that_draw_read_layouts():
    given = ("data.name=x", "data.layout_column=map", "data.layout_classes=2", "data.size=8")
    with pytest.raises(ConfigError, match=r"data.layout_column = 'map': of model = 'diffusion'"):
        image_config(*given, "model=classifier")


def test_parts_have_colours_of_their_own():
    seen = part_colours(torch.arange(40).view(1, 5, 8), 40)
    assert seen.shape == (1, 3, 5, 8)
    assert len(seen[0].flatten(1).T.unique(dim=0)) == 40
    assert seen[0, :, 0, 0].tolist() == [255, 255, 255]


# -- a trained model ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(make_run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model of layouts and classes."""
    folder = tmp_path_factory.mktemp("laid") / "data"
    for split, n, seed in (("train", 400, 2), ("test", 40, 3)):
        maps, labels = blocks(n, seed), np.arange(n) % 2
        images = [png(each) for each in pictures_of(maps, labels)]
        write(folder / f"{split}.parquet", images, [png(each) for each in maps], labels.tolist())
    return make_run(
        f"data.name={folder}", "data.layout_column=map", "data.layout_classes=[low, high]",
        f"data.size={SIDE}", "diffusion.self_condition=false", "net.dim=32",
        "diffusion.drop_condition={all: 0.1, layout: 0.1, class: 0.1}", "train.steps=250",
        "train.batch=32", "train.lr=0.01", "train.ema=0.9",
    )  # fmt: skip


def drawn(pipe: Pipeline, maps: np.ndarray, **more: Any) -> Tensor:
    """Pictures (n, 8, 8) in [0, 1] of layouts."""
    settings: dict[str, Any] = {"num_inference_steps": 10, "output_type": "np"} | more
    images = pipe(layout=list(maps), seeds=list(range(len(maps))), **settings).images
    return torch.from_numpy(images[..., 0])


def correlation(images: Tensor, maps: np.ndarray) -> float:
    both = torch.stack([images.flatten().double(), torch.from_numpy(maps).flatten().double()])
    return float(torch.corrcoef(both)[0, 1])


def test_pictures_follow_new_layouts_and_no_others(run: Path):
    pipe, maps = Pipeline.from_pretrained(run), blocks(60, 77)
    images = drawn(pipe, maps)
    assert correlation(images, maps) > 0.9
    assert abs(correlation(images, np.roll(maps, 1, 0))) < 0.2
    assert abs(correlation(images, maps.transpose(0, 2, 1).copy())) < 0.35


def test_layout_and_class_are_told_and_guided_each_by_itself(run: Path):
    pipe, maps = Pipeline.from_pretrained(run), blocks(30, 78)
    dim, bright = (drawn(pipe, maps, class_labels=name) for name in ("dim", "bright"))
    assert float((bright - dim).mean()) > 0.1  # 50 of 255 as learned
    for images in (dim, bright):
        assert correlation(images, maps) > 0.9
    one = drawn(pipe, maps, class_labels="dim", guidance_scale={"layout": 1.0, "class": 1.0})
    torch.testing.assert_close(one, dim, atol=2e-2, rtol=0)
    either = drawn(pipe, maps, class_labels="bright", guidance_scale={"layout": 1.0, "class": 0.0})
    assert float(dim.mean()) + 0.03 < float(either.mean()) < float(bright.mean()) - 0.03
    assert correlation(either, maps) > 0.9
    none = drawn(pipe, maps, class_labels="bright", guidance_scale={"layout": 0.0, "class": 0.0})
    assert abs(correlation(none, maps)) < 0.2
    alone = pipe(class_labels="bright", seeds=[1, 2, 3], output_type="np").images
    assert alone.std() > 0.05


def test_the_command_draws_what_the_call_draws_and_saves_the_layouts(run: Path, tmp_path: Path):
    maps = blocks(2, 5)
    names = [str(tmp_path / f"{i}.png") for i in range(2)]
    for name, each in zip(names, maps, strict=True):
        Image.fromarray(each).save(name)
    words = ["sample", str(run), "-n", "3", "--steps", "4", "--seed", "7", "--class", "bright"]
    out = ["--out", str(tmp_path / "out"), "--guidance", "layout=2,class=3"]
    assert main([*words, "--layout", *names, *out]) == 0
    saved = np.load(tmp_path / "out" / "samples.npz")
    pipe = Pipeline.from_pretrained(run)
    how: dict[str, Any] = {
        "class_labels": "bright", "seeds": [7, 8, 9], "num_inference_steps": 4,
        "guidance_scale": {"layout": 2, "class": 3}, "output_type": "np",
    }  # fmt: skip
    for same in (names, list(maps), [Image.fromarray(each) for each in maps]):
        images = pipe(layout=same, **how).images
        assert np.array_equal((images * 255).round(), saved["images"].transpose(0, 2, 3, 1))
    asked = saved["condition"]
    assert np.array_equal(asked[:, :-1].reshape(3, SIDE, SIDE), maps[[0, 1, 0]])
    assert asked[:, -1].tolist() == [2, 2, 2]
    assert (tmp_path / "out" / "layouts.png").is_file()
    written = json.loads((tmp_path / "out" / "samples.json").read_text())
    assert written["settings"]["layout"] == names
    assert written["condition"] == [[2]] * 3
    assert len(pipe(layout=names, num_inference_steps=1).images) == 2


def test_a_run_with_layouts_is_evaluated_on_held_out_ones_and_its_classes_judged(run: Path):
    assert main(["evaluate", str(run), "-n", "20", "--steps", "4", "--likelihood"]) == 0
    found = json.loads((run / "evaluation.json").read_text())
    assert found["class_agreement"] > 0.7
    assert found["samples"] == 20
    assert found["likelihood"]["pictures"] == 20


def test_a_run_of_layouts_alone_has_a_likelihood_and_no_judge(run: Path, make_run):
    name = open_run(run).config.data.name
    alone = make_run(
        f"data.name={name}", "data.layout_column=map", "data.layout_classes=2", "data.size=8",
        "data.label_column=null", "diffusion.self_condition=false",
    )  # fmt: skip
    words = ("evaluate", alone, "-n", "20", "--steps", "2")
    assert_refused(diptych(*words), 2, "data.label_column = null", "--features")
    assert "class_agreement" not in told(diptych(*words, "--likelihood", "--json"))


UNET = (
    "network=unet", "unet.channels=[8, 16]", "unet.layers=1", "unet.attention=[1]",
    "unet.head_dim=8",
)  # fmt: skip


@pytest.mark.parametrize("network", [(), UNET, ("codec.kind=bits",)])
def test_every_network_draws_a_layout_alone_as_in_a_batch(network: tuple[str, ...]):
    laid = image_config(
        "data.name=x", "data.layout_column=map", "data.layout_classes=2", "data.size=8",
        "data.label_column=null", *network,
    )  # fmt: skip
    facts = DataFacts(9, (1, 8, 8), 256, (), 3, 0.7)
    learner = opened_learner(laid, facts, seed=0, spread=0.1)
    pipe, maps = Pipeline(learner, facts, laid), list(blocks(3, 1))
    how: dict[str, Any] = {"num_inference_steps": 3, "output_type": "latent", "guidance_scale": 2}
    together = pipe(layout=maps, seeds=[4, 4, 4], **how).images
    for i in range(3):
        alone = pipe(layout=maps[i], seeds=[4], **how).images
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-4, rtol=1e-4)
    assert float((together[1:] - together[:1]).abs().amax((1, 2, 3)).min()) > 1e-3
    with pytest.raises(ConfigError, match="trained without classes"):
        pipe("bright", layout=maps[0])


# -- what is refused ---------------------------------------------------------------------------


def test_layouts_that_a_model_cannot_read_are_refused_by_the_command(
    run: Path, make_run, tmp_path: Path
):
    def save(name: str, picture: Image.Image) -> Path:
        picture.save(tmp_path / name)
        return tmp_path / name

    good = save("good.png", Image.fromarray(blocks(1, 0)[0]))
    words = ("sample", run, "-n", "1", "--steps", "1", "--out", tmp_path / "out", "--layout")
    small = save("small.png", Image.new("L", (6, 4)))
    assert_refused(diptych(*words, small), 2, "small.png: 4 x 6 pixels", "layouts of 8 x 8")
    many = save("many.png", Image.new("L", (8, 8), 3))
    assert_refused(diptych(*words, many), 3, "many.png", "number 3", "0 to 2, for none, low, high")
    coloured = save("coloured.png", Image.new("RGB", (8, 8)))
    assert_refused(diptych(*words, coloured), 3, "coloured.png has mode RGB", "has a palette")
    (tmp_path / "broken.png").write_bytes(b"nothing")
    assert_refused(diptych(*words, tmp_path / "broken.png"), 3, "layout =", "corrupt")
    assert_refused(diptych(*words, tmp_path / "absent.png"), 3, "layout =", "no such file")
    assert_refused(diptych(*words, good, "--class", "brigt"), 2, "did you mean bright?")
    assert_refused(diptych(*words, good, "--classifier", run), 2, "reads a layout beside the class")
    assert_refused(diptych(*words, good, "--guidance", "layot=2"), 2, "did you mean layout?")
    words = ("sample", make_run(), "-n", "1", "--steps", "1", "--out", tmp_path / "out")
    assert_refused(diptych(*words, "--layout", good), 2, "layout: this model was trained without")
    for data in (None, DataConfig(name="x"), config(Path("x"), size=16)):
        with pytest.raises(ConfigError, match="one of the two models reads a layout"):
            load_guide(run, read_facts(run), torch.device("cpu"), None, data)
    load_guide(run, read_facts(run), torch.device("cpu"), None, config(Path("x")))


def test_layouts_from_python_are_refused_by_kind(run: Path):
    pipe = Pipeline.from_pretrained(run)
    with pytest.raises(ConfigError, match="layout: expected one or more"):
        pipe(layout=[])
    with pytest.raises(ConfigError, match=r"layout: an array \(8, 8\) of int64: expected uint8"):
        pipe(layout=blocks(1, 0)[0].astype(np.int64))
    with pytest.raises(ConfigError, match="layout: this model was trained without layouts"):
        Pipeline(pipe.learner, pipe.facts, None)(layout=blocks(1, 0)[0])  # others trained it
    with pytest.raises(ConfigError, match="prompt: this model was trained without captions"):
        pipe(prompt="a hat", layout=blocks(1, 0)[0])


def test_sentences_and_the_first_runs_of_cascades_take_no_layout(run: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="layout: for pictures"):
        TEXT.sample(tmp_path, SampleRequest(layout=(Path("a.png"),)), tmp_path)
    first = SampleRequest(low=tmp_path, layout=(Path("a.png"),))
    with pytest.raises(ConfigError, match="layout: that run is not told of the layout"):
        low_of(Pipeline.from_pretrained(run), first)


def test_diffusers_has_no_place_for_a_layout():
    given = (
        "data.name=x", "data.layout_column=map", "data.layout_classes=2", "data.size=8",
        "diffusion.self_condition=false", "diffusion.scale_input=false", "network=unet",
        "unet.channels=[8, 16]", "unet.layers=1", "unet.attention=[]",
    )  # fmt: skip
    facts = DataFacts(9, (1, 8, 8), 256, ("a", "b"), 3, 0.7)
    for network in (given, (*given[:4], "patch=2")):
        learner = build_learner(image_config(*network), facts, Path("unused"))
        assert isinstance(learner, DiffusionLearner)
        with pytest.raises(ConfigError, match=r"not representable in diffusers: .*layout"):
            to_diffusers(learner, facts)


# -- figures -----------------------------------------------------------------------------------


def test_figures_take_a_layout_in_place_of_a_drawn_one(make_run, tmp_path: Path):
    run = make_run(*FIGURES)
    maps = layouts(samples(5, 0, 60))
    worn = torch.stack([(maps == PARTS.index(k)).flatten(1).any(1) for k in ("lower", "outer")])
    plain = maps[(worn[0] & ~worn[1]).nonzero()[0, 0]]
    Image.fromarray(plain.byte().numpy()).save(tmp_path / "plain.png")
    words = ["sample", str(run), "-n", "2", "--steps", "2", "--out", str(tmp_path / "out")]
    words += ["--layout", str(tmp_path / "plain.png"), "--guidance", "layout=2,texture=3"]
    assert main([*words, "--class", "stripe upper, denim lower"]) == 0
    found, textures = source.from_ids(torch.from_numpy(read(tmp_path / "out")))
    assert torch.equal(found, plain.expand(2, -1, -1))
    assert textures.tolist() == [[1, 4, -1]] * 2
    assert (tmp_path / "out" / "layouts.png").is_file()
    assert main(words) == 0  # textures left open
    assert source.from_ids(torch.from_numpy(read(tmp_path / "out")))[1].eq(-1).all()
    coat = diptych(*words, "--class", "stripe upper, plaid outer")
    assert_refused(coat, 2, "the layout of picture 0 has no outer, which is 6 in layouts")
    assert_refused(diptych(*words, "--class", "all"), 2, "say what it wears")
    assert_refused(diptych(*words, "--class", "strip upper"), 2, "did you mean stripe?")
    Image.fromarray(np.full((32, 32), 8, np.uint8)).save(tmp_path / "plain.png")
    assert_refused(diptych(*words), 3, "the number 8", "0 to 7, for background, face")


def read(folder: Path) -> np.ndarray:
    return np.load(folder / "samples.npz")["condition"]
