"""Captions: from a column to condition ids, prompts of pipelines, and what is measured of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.testing import assert_close

from image.agreement import caption_retrieval, scene_agreement, unseen_agreement
from image.captions import captioned, conditioned, prepare_tokenizer, shown
from image.comparison import some_rows
from image.conditions import parse_scene
from image.data import Pictures, load_pictures, read_facts, unseen_pictures
from image.data_config import DataConfig
from image.judge import Judge
from image.panel import PANEL
from image.pipeline import Pipeline
from image.render import render
from shared import scene
from shared.errors import ConfigError, DataError
from shared.requests import EvaluateRequest, PairRequest, SampleRequest
from shared.scene import COLOURS, SHAPES, Scene, Thing
from shared.tokenizer import FILE, load_tokenizer
from tests.image.conftest import image_config

READS = ("net.cross_attention=true", "net.source_depth=1", "diffusion.self_condition=false")
SCENES = ("data.name=scene", "data.caption_column=scene", "data.limit=80", "patch=8", *READS)
STAR = "small yellow solid star centre"


def write_folder(folder: Path, texts: list[Any]) -> Path:
    """Grey pictures of one level each, and what is said of them."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ""
    for i, text in enumerate(texts):
        Image.fromarray(np.full((4, 4), 2 * i, np.uint8)).save(folder / f"{i:03d}.png")
        lines += json.dumps({"file_name": f"{i:03d}.png", "text": text}) + "\n"
    (folder / "metadata.jsonl").write_text(lines, encoding="utf-8")
    return folder


def folder_config(folder: Path, **settings: Any) -> DataConfig:
    return DataConfig(name=str(folder), caption_column="text", **settings)


def test_captions_of_a_folder_stay_with_their_pictures_and_on_one_side(tmp_path: Path):
    texts = [f"picture  {i} of  {i % 7}" for i in range(60)]
    config = folder_config(write_folder(tmp_path / "a", texts))
    train, test = load_pictures(config), load_pictures(config, held_out=True)
    assert train.captions is not None
    assert test.captions is not None
    assert len(train) + len(test) == 60
    assert 0 < len(test) < 20
    for pictures in (train, test):
        levels = pictures.images[:, 0, 0, 0].tolist()
        assert list(pictures.captions or ()) == [
            f"picture {v // 2} of {v // 2 % 7}" for v in levels
        ]
    assert all(scene.split_of(caption) == "train" for caption in train.captions)
    assert not any(scene.split_of(caption) == "train" for caption in test.captions)


def test_ids_are_those_of_the_runs_own_tokenizer_and_longer_captions_are_counted(tmp_path: Path):
    images = torch.arange(3, dtype=torch.uint8).view(3, 1, 1, 1)
    labels = torch.tensor([[2], [1], [2]])
    said = ("red star", "blue star at the top", "blue")
    pictures = Pictures(images, labels, 256, ("a", "b"), 3, said, left_out=("broken",))
    config = DataConfig(name="x", caption_column="text", caption_length=3)
    tokenizer = prepare_tokenizer(pictures, config, tmp_path)
    assert len(load_tokenizer(tmp_path / FILE)) == len(tokenizer)
    found = captioned(pictures, tokenizer, config)
    assert found.condition is not None
    red, star, blue = (tokenizer.encode(word)[0] for word in ("red", "star", "blue"))
    assert found.condition.tolist() == [[red, star, 0], [blue, 0, 0]]
    assert found.images.flatten().tolist() == [0, 2]
    assert (found.skipped, found.conditions, found.classes) == (2, len(tokenizer), ())
    assert shown(found).condition is found.shows
    assert found.shows is not None
    assert found.shows.tolist() == [[2], [2]]
    tight = DataConfig(name="x", caption_column="text", caption_length=1)
    long = Pictures(images[:2], None, 256, (), 0, said[:2])
    with pytest.raises(ConfigError, match="none of 2 captions fits, the shortest has 2 tokens"):
        captioned(long, tokenizer, tight)


def test_drawn_scenes_are_told_in_their_own_words():
    config = DataConfig(name="scene", caption_column="scene", limit=9)
    pictures = load_pictures(config)
    assert pictures.captions is not None
    assert pictures.condition is not None
    for caption, row in zip(pictures.captions, pictures.condition.tolist(), strict=True):
        assert parse_scene(caption).things == scene.from_ids(row).things


def test_a_compositional_split_keeps_one_colour_of_each_shape_out_of_training():
    pairs = [
        (shape, colour)
        for shape in SHAPES
        for colour in COLOURS
        if scene.unseen(Thing(shape, colour, "solid", "small", "top"))
    ]
    assert len(pairs) == len({s for s, _ in pairs}) == len({c for _, c in pairs}) == 8
    config = DataConfig(name="scene", limit=300, compositional=True, held_out="validation")
    for pictures in (load_pictures(config), load_pictures(config, held_out=True)):
        assert pictures.condition is not None
        things = [t for row in pictures.condition.tolist() for t in scene.from_ids(row).things]
        assert not any(map(scene.unseen, things))
        assert {t.shape for t in things} == set(SHAPES)
        assert {t.colour for t in things} == set(COLOURS)
    asked = unseen_pictures(config, 40).condition
    assert asked is not None
    assert all(any(map(scene.unseen, scene.from_ids(row).things)) for row in asked.tolist())


def test_agreement_counts_each_attribute_of_each_thing_where_it_should_be():
    one = Thing("star", "red", "solid", "small", "top")
    two = Thing("circle", "red", "dots", "large", "centre")  # red circle: an unseen pair
    asked = torch.tensor([scene.ids(Scene((one, two)))] * 2 + [scene.ids(Scene((one,)))])
    drawn = [
        Scene((Thing("star", "blue", "solid", "small", "top"), two)),
        Scene((one, Thing("circle", "red", "dots", "large", "bottom"))),
        Scene((one,)),
    ]
    found = unseen_agreement(render(drawn), asked)
    expected = {
        "readable": 1.0,
        "scene_agreement": 1 / 3,
        "shape_agreement": 4 / 5,
        "colour_agreement": 3 / 5,
        "place_agreement": 4 / 5,
        "attribute_agreement": (4 * 4 + 3) / 25,
        "thing_agreement": 3 / 5,
        "unseen_pairs": 1 / 2,
    }
    assert {key: found[key] for key in expected} == pytest.approx(expected)
    assert scene_agreement(render(drawn), asked).keys() == found.keys() - {"unseen_pairs"}


class Words(nn.Module):
    """Logits of words 1 to 4: those given with the picture, which is their row."""

    def __init__(self, logits: list[list[float]]) -> None:
        super().__init__()
        self.hidden = nn.Linear(1, 1)
        self.table = torch.tensor(logits)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return self.table[images.flatten().long()]

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        return features


def test_a_caption_is_found_by_the_probability_of_its_words():
    """Three pictures: the first's own caption is likeliest, the second's ties with another, the
    third's is beaten. Words that are there twice count once; padding counts nothing."""
    model: Any = Words([[3.0, 1.0, -1.0, -1.0], [-1.0, 2.0, 2.0, -5.0], [-2.0, -2.0, -2.0, 4.0]])
    asked = torch.tensor([[1, 2, 0], [2, 2, 0], [3, 0, 0]])
    images = torch.arange(3).view(3, 1, 1, 1)
    # scores: row 0 -> 4, 1, -1; row 1 -> 1, 2, 2; row 2 -> -4, -2, -2
    assert caption_retrieval(Judge(model, "words", {}), images, asked) == pytest.approx(2 / 3)


def test_prompts_are_drawn_each_as_alone_and_depend_on_their_words(make_run):
    pipe = Pipeline.from_pretrained(make_run(*SCENES, "train.lr=0.03", "train.steps=8"))
    other = "large red solid moon top left , small blue dots star right"
    settings: dict[str, Any] = {"num_inference_steps": 3, "output_type": "latent"}
    both = pipe(prompt=[STAR, other], seeds=[4, 4], guidance_scale=3, **settings).images
    alone = pipe(prompt=other, seeds=[4], guidance_scale=3, **settings).images
    assert_close(both[1:], alone, atol=1e-5, rtol=1e-5)
    assert float((both[0] - both[1]).abs().max()) > 1e-3
    away = pipe(
        prompt=other, seeds=[4], guidance_scale=3, negative_prompt="blue", **settings
    ).images
    assert float((away - alone).abs().max()) > 1e-4
    assert len(pipe(prompt=[STAR, other], num_inference_steps=1).images) == 2


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"prompt": "small yelow star"}, "does not know 'yelow'; did you mean 'yellow'"),
        ({"prompt": "star " * 60}, "60 tokens, expected 1 to 48, this model's data.caption_length"),
        ({"prompt": ""}, "0 tokens"),
        ({"prompt": []}, "expected one or more"),
        ({"prompt": STAR, "class_labels": "star"}, "give one of them"),
        ({"class_labels": STAR}, "draws from captions; give a prompt"),
        ({"prompt": STAR, "negative_prompt": "blue"}, "guided by nothing"),
        (
            {"prompt": STAR, "negative_prompt": "bleu", "guidance_scale": 2.0},
            "negative_prompt = 'bleu'",
        ),
        ({"guidance_scale": 2.0}, "without a class or prompt"),
        ({"prompt": STAR, "guidance_scale": {"shape": 2.0}}, "no group 'shape' .* there are text"),
    ],
)
def test_what_a_model_of_captions_cannot_draw_is_refused(make_run, asked, words: str):
    with pytest.raises(ConfigError, match=words):
        Pipeline.from_pretrained(make_run(*SCENES, "train.lr=0.03", "train.steps=8"))(**asked)


def test_a_model_of_classes_refuses_prompts(make_run):
    each: list[dict[str, Any]] = [
        {"prompt": "seven"}, {"negative_prompt": "seven", "guidance_scale": 2.0}
    ]  # fmt: skip
    for asked in each:
        with pytest.raises(ConfigError, match="trained without captions"):
            Pipeline.from_pretrained(make_run())(**asked)


def test_samples_of_a_prompt_say_how_they_were_made(make_run, tmp_path: Path):
    request = SampleRequest(n=2, steps=2, prompt=STAR, negative_prompt="blue", guidance=2.0)
    PANEL.sample(make_run(*SCENES), request, tmp_path)
    told = json.loads((tmp_path / "samples.json").read_text())
    assert (told["settings"]["prompt"], told["settings"]["negative_prompt"]) == (STAR, "blue")
    assert len(told["condition"][0]) == 48
    assert told["prompts"] == [STAR, STAR]


def test_prompts_of_a_file_are_drawn_in_turn(make_run, tmp_path: Path):
    run, other = make_run(*SCENES), "large red solid moon top left"
    (tmp_path / "some.txt").write_text(f"{STAR}\n\n{other}\n")

    def drawn(n: int, prompt: str) -> Any:
        out = tmp_path / f"{n}"
        out.mkdir(exist_ok=True)
        PANEL.sample(run, SampleRequest(n=n, steps=2, prompt=prompt), out)
        return json.loads((out / "samples.json").read_text())

    told, alone = drawn(3, str(tmp_path / "some.txt")), drawn(1, STAR)
    assert told["prompts"] == [STAR, other, STAR]
    assert told["condition"][0] == told["condition"][2] == alone["condition"][0]
    assert told["condition"][1] != told["condition"][0]
    with pytest.raises(DataError, match=r"prompt = no.txt: no such file"):
        drawn(1, "no.txt")


def test_scenes_drawn_from_words_are_read_beside_pairs_never_trained_on(make_run, monkeypatch):
    run = make_run(*SCENES, "data.compositional=true", "data.held_out=validation")
    result = PANEL.evaluate(run, EvaluateRequest(n=6, steps=2))
    assert result["thing_agreement"] == result["compositional"]["unseen_pairs"] == 0.0
    assert result["compositional"]["samples"] == 6
    config = image_config(*SCENES, "data.compositional=true", "data.held_out=validation")
    held_out = load_pictures(config.data, held_out=True)
    monkeypatch.setattr(
        "image.evaluation.draw_rows", lambda *_: held_out.images[some_rows(80, 6, 0)]
    )
    result = PANEL.evaluate(run, EvaluateRequest(n=6, steps=2))
    assert result["scene_agreement"] == result["attribute_agreement"] == 1.0


def test_captions_without_classes_are_judged_by_their_words(make_run, tmp_path: Path):
    texts = [f"{('dark', 'dim', 'bright')[i // 43]} {i % 9}" for i in range(127)]
    folder = write_folder(tmp_path / "pictures", texts)
    settings = (f"data.name={folder}", "data.caption_column=text", "data.label_column=null", *READS)
    run = make_run(*settings, "data.caption_length=4", "data.size=8")
    assert read_facts(run).conditions == len(load_tokenizer(run / FILE))
    result = PANEL.evaluate(run, EvaluateRequest(n=8, steps=2))
    assert result["caption_retrieval_chance"] == 1 / 8
    assert 0 <= result["caption_retrieval"] <= 1
    assert 0 < result["judge"]["caption_retrieval"] <= 1
    assert result["judge"]["loss_nats"] < 0.693  # of not knowing a word from none


def test_scenes_are_expressed_as_pictures_that_load_again(tmp_path: Path):
    scenes = scene.samples(3, 0, 5)
    rows = PANEL.express(scenes, PairRequest(size=64), tmp_path)
    lines = [json.dumps(row | {"text": f"a {i}"}) for i, row in enumerate(rows)]
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    config = folder_config(tmp_path)
    found = {
        caption: picture
        for held_out in (False, True)
        if any((scene.split_of(f"a {i}") != "train") == held_out for i in range(5))
        for pictures in [load_pictures(config, held_out)]
        for caption, picture in zip(pictures.captions or (), pictures.images, strict=True)
    }
    for i, picture in enumerate(render(scenes, 64)):
        assert torch.equal(found[f"a {i}"], picture)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ([f"a {i}" for i in range(30)] + [None], "row 30 .*030.png.* has no caption"),
        (["  ", *[f"a {i}" for i in range(30)]], "row 0 .*000.png.* has no caption"),
        ([["a", "b"]] * 30, "expected text, row 0 holds a list"),
        ([7] * 30, "expected text, row 0 holds a int"),
    ],
)
def test_what_is_no_caption_is_named(tmp_path: Path, texts: list[Any], words: str):
    config = folder_config(write_folder(tmp_path / "a", texts))
    with pytest.raises(DataError, match=words):
        tuple(map(load_pictures, (config, config), (False, True)))


def test_captions_without_pictures_are_named_or_left_out_and_counted(tmp_path: Path):
    folder = write_folder(tmp_path / "a", [f"a {i}" for i in range(40)])
    trained = next(i for i in range(40) if scene.split_of(f"a {i}") == "train")
    (folder / f"{trained:03d}.png").unlink()
    name = f"{trained:03d}.png.*no such file.*skip_bad=true"
    with pytest.raises(DataError, match=name):
        load_pictures(folder_config(folder))
    whole = sum(scene.split_of(f"a {i}") == "train" for i in range(40))
    pictures = load_pictures(folder_config(folder, skip_bad=True))
    assert (len(pictures), pictures.skipped) == (whole - 1, 1)
    assert pictures.captions is not None
    assert f"a {trained}" not in pictures.captions


def test_training_names_the_first_of_what_it_leaves_out_and_why(tmp_path: Path, capsys):
    texts = [f"a {i} b" for i in range(30)]
    train = [i for i, text in enumerate(texts) if scene.split_of(text) == "train"]
    long = (f"{i} b c d" for i in range(9))
    texts[train[3]] = next(text for text in long if scene.split_of(text) == "train")
    folder = write_folder(tmp_path / "a", texts)
    for i in train[:3]:
        (folder / f"{i:03d}.png").write_bytes(b"no picture")
    config = image_config(
        f"data.name={folder}", "data.caption_column=text", "data.caption_length=3",
        "data.skip_bad=true", *READS,
    )  # fmt: skip
    PANEL.prepare(config, tmp_path)
    head, *lines = capsys.readouterr().err.splitlines()
    assert "4 pictures are left out" in head
    for i, line in zip(train, lines[:3], strict=False):
        assert f"row {i} ({folder / f'{i:03d}.png'}) is corrupt" in line
    assert lines[3:] == ["  and 1 more"]
    left_out = conditioned(load_pictures(config.data), config, tmp_path).left_out
    assert left_out[3] == f"data.caption_length = 3: {texts[train[3]]!r} has 4 tokens"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"caption_column": "scene"}, "digits have no captions"),
        ({"name": "scene", "caption_column": "text"}, "set 'scene', or write pairs"),
        ({"compositional": True}, "of the scene world"),
        ({"name": "x", "groups": {"layout": ("shape",)}}, "of the scene world"),
        ({"name": "scene", "groups": {"layout": ("shap",)}}, "did you mean shape"),
        ({"name": "scene", "groups": {"layout": ()}}, "expected one attribute"),
        ({"name": "scene", "groups": {"size": ("shape",)}}, "means something else"),
        ({"name": "scene", "groups": {"a": ("shape",), "b": ("shape",)}}, "in two of them"),
        (
            {"name": "scene", "caption_column": "scene", "groups": {"a": ("shape",)}},
            "a caption is one condition",
        ),
        ({"caption_length": 0}, "data.caption_length"),
        ({"tokenizer": "bpe"}, "data.tokenizer"),
        ({"vocabulary": 4}, "data.vocabulary"),
    ],
)
def test_impossible_captions_and_groups_are_refused(settings: dict[str, Any], words: str):
    with pytest.raises(ValueError, match=words):
        DataConfig(**settings)


@pytest.mark.parametrize(
    ("assignments", "words"),
    [
        (SCENES[:3], "net.cross_attention = true, net.source_depth = 2"),
        ((*SCENES[:3], "network=unet"), "unet.source_depth = 2"),
        (("network=unet", "unet.source_depth=1"), "no caption to read"),
        (("diffusion.drop_condition={shape: 0.1}",), "expected one of all"),
        (("data.name=scene", "diffusion.drop_condition={shap: 0.1}"), "did you mean shape"),
    ],
)
def test_conditions_that_nothing_reads_or_drops_are_refused(assignments, words: str):
    with pytest.raises(ConfigError, match=words):
        image_config(*assignments)


def test_groups_of_scenes_are_columns_of_their_ids():
    config = DataConfig(name="scene", groups={"layout": ("place", "shape", "size")})
    groups = config.condition_groups()
    ids = scene.ids(Scene((Thing("star", "red", "solid", "small", "top"),)))
    values = {name: [ids[column] for column in columns] for name, columns in groups.items()}
    assert set(groups) == {"layout", "manner", "colour", "texture"}
    assert sorted(c for columns in groups.values() for c in columns) == list(range(scene.ID_COUNT))
    changed = scene.ids(Scene((Thing("moon", "red", "solid", "large", "left"),)))
    for name, columns in groups.items():
        same = values[name] == [changed[column] for column in columns]
        assert same == (name != "layout"), name


def test_a_run_of_groups_is_guided_by_each(make_run):
    drop = "diffusion.drop_condition={all: 0.1, layout: 0.1, texture: 0.1}"
    layout = "data.groups={layout: [shape, size, place]}"
    run = make_run("data.name=scene", "data.limit=40", "patch=8", layout, drop, "train.lr=0.03")
    pipe = Pipeline.from_pretrained(run)
    settings: dict[str, Any] = {
        "class_labels": STAR, "seeds": [3], "num_inference_steps": 3, "output_type": "latent"
    }  # fmt: skip
    plain = pipe(**settings).images
    ones = pipe(guidance_scale={"layout": 1.0, "texture": 1.0}, **settings).images
    assert torch.equal(plain, ones)
    more = pipe(guidance_scale={"layout": 1.0, "texture": 9.0}, **settings).images
    assert not torch.equal(plain, more)
