"""Models of masked pictures: the holes of training by brute force, and pictures that are filled."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.testing import assert_close

from image.beside import BesidePictures
from image.data import DataFacts, load_pictures
from image.edits import Colourise, Inpaint, Posterior, Replace
from image.learners import build_learner
from image.masked import Masked, along, hole_error, holes, in_boxes
from image.pipeline import Pipeline
from shared.cli import main
from shared.errors import ConfigError
from shared.learner import DiffusionLearner
from shared.sampling import Sampling
from tests.image.conftest import image_config, opened_learner
from tests.image.test_sketch import UNET

MASKED = ("masked=true", "patch=2", "diffusion.self_condition=false")
FACTS = DataFacts(9, (1, 8, 8), 17, ("a", "b"), 3, 0.7)
PICTURE = (np.arange(64).reshape(8, 8) * 3 + 30).astype(np.uint8)
MASK = np.zeros((8, 8), np.uint8)
MASK[2:6, 3:] = 255
FREE = torch.from_numpy(MASK > 0)


def test_a_place_is_in_a_box_or_near_a_line_as_measured_point_by_point():
    y, x = (torch.arange(n) / n for n in (7, 9))
    places = torch.cartesian_prod(y, x)
    centres, sides = torch.tensor([[[0.3, 0.2], [0.7, 0.8]]]), torch.tensor([[[0.2, 0.1]] * 2])
    points = torch.tensor([[[0.1, 0.9], [0.5, 0.4], [0.9, 0.6]]])
    shares = torch.linspace(0, 1, 2001)[:, None]
    walk = torch.cat([a + shares * (b - a) for a, b in zip(points[0], points[0, 1:], strict=False)])
    boxes, stroke = (
        in_boxes(places, centres, sides)[0],
        along(places, points, torch.tensor([[0.15]]))[0],
    )
    for i, place in enumerate(places):
        near = [bool(((place - c).abs() < torch.tensor([0.2, 0.1])).all()) for c in centres[0]]
        assert bool(boxes[i]) == any(near), place
        assert bool(stroke[i]) == bool((walk - place).norm(dim=1).min() < 0.15), place
    assert 0 < int(boxes.sum()) < 63
    assert 0 < int(stroke.sum()) < 63


def test_holes_are_functions_of_their_keys_and_leave_something_of_everything():
    keys = torch.arange(600)
    found = holes(keys, (9, 16))
    assert found.shape == (600, 1, 9, 16)
    assert torch.equal(found[[7, 300]], holes(keys[[7, 300]], (9, 16)))
    share = found.float().flatten(1).mean(1)
    assert float(share.min()) > 0
    assert float(share.max()) < 0.9
    assert 0.15 < float(share.mean()) < 0.45
    assert 0.3 < float(found.float().mean((0, 1)).amax()) < 0.7  # no place that is always hidden


@pytest.mark.parametrize("optional", [False, True])
def test_a_condition_gives_back_what_is_known_and_nothing_of_the_rest(optional: bool):
    masked, ids = Masked((3, 4, 8), 256, optional), torch.tensor([[5, 0], [7, 300]])
    data = torch.randint(256, (2, 3, 4, 8), generator=torch.Generator().manual_seed(1))
    keys = torch.tensor([3, 8])
    known = masked.known(keys)
    read, channels = masked.read(masked(data, ids, keys))
    assert read is not None
    assert torch.equal(read, ids)
    assert channels.shape == (2, 4, 4, 8)
    assert torch.equal(channels[:, 3:], known.float())
    assert_close(channels[:, :3], (data / 127.5 - 1) * known)
    other = torch.where(known, data, 255 - data)
    assert torch.equal(masked(other, ids, keys), masked(data, ids, keys))
    assert not masked.none(None, 2).any()
    restored = masked.finish(torch.full_like(data, 9), masked.made(data, keys))
    assert torch.equal(restored, torch.where(known, data, 9))
    assert hole_error(data, data, known, 256) == {"hole_error": 0.0}
    assert hole_error(other, data, ~known, 256) == {"hole_error": 0.0}
    assert hole_error(data + 3, data, known, 256)["hole_error"] == pytest.approx(3)


def test_training_is_shown_the_picture_it_sees_and_other_holes_each_time():
    config = image_config(*MASKED, "data.flip=true", "diffusion.drop_condition=0.0")
    learner = build_learner(config, FACTS, Path("unused"))
    assert isinstance(learner, DiffusionLearner)
    heard: list[Tensor] = []
    inner = nn.Module()
    inner.forward = lambda x, logsnr, ids, previous, beside: heard.append(beside) or x
    learner.denoiser.net.net = inner
    data = load_pictures(image_config().data).images[:30]
    for keys in (torch.arange(30), torch.arange(30, 60)):
        learner.train()(data, None, keys, torch.full((30,), 0.5))
        x, known = heard[-1].split(1, 1)
        plain, flipped = (2 * some.float() / 16 - 1 for some in (data, data.flip(-1)))
        seen = [(x == some * known).flatten(1).all(1) for some in (plain, flipped)]
        assert bool((seen[0] | seen[1]).all())
        assert 4 < int(seen[1].sum()) < 26
    assert not torch.equal(heard[0][:, 1], heard[1][:, 1])


@pytest.mark.parametrize("network", [(), UNET, ("codec.kind=bits",)])
def test_every_network_fills_a_hole_alone_as_in_a_batch(network: tuple[str, ...]):
    config = image_config(*MASKED, *network)
    pipe = Pipeline(opened_learner(config, FACTS, seed=0, spread=0.1), FACTS, config)
    how: dict[str, Any] = {"num_inference_steps": 3, "class_labels": "a", "guidance_scale": 2}
    edit = Inpaint(PICTURE, MASK)
    together = pipe(edit=edit, seeds=[4, 5, 6], output_type="latent", **how).images
    alone = pipe(edit=edit, seeds=[5], output_type="latent", **how).images
    assert_close(together[1:2], alone, atol=1e-4, rtol=1e-4)
    other = pipe(edit=Inpaint(255 - PICTURE, MASK), seeds=[5], output_type="latent", **how).images
    assert float((alone - other).abs().max()) > 1e-2


@pytest.fixture(scope="module")
def filler(make_run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained on pictures of one level each, dark or light."""
    folder = tmp_path_factory.mktemp("levels")
    for name in ("dark", "light"):
        (folder / name).mkdir()
    for i in range(240):
        level = 37 * i % 256
        picture = Image.fromarray(np.full((8, 8), level, np.uint8))
        picture.save(folder / ("dark" if level < 128 else "light") / f"{i}.png")
    return make_run(
        *MASKED, f"data.name={folder}", "data.size=8", "net.dim=32", "net.depth=2",
        "train.steps=150", "train.batch=32", "train.optimizer=muon", "train.lr=3e-3",
        "train.warmup=20", "train.ema=0.97",
    )  # fmt: skip


def test_a_trained_model_fills_holes_by_what_is_around_them(filler: Path):
    """Nearer to what was there than when another picture is around."""
    pipe = Pipeline.from_pretrained(filler)
    masked = pipe.beside
    assert isinstance(masked, Masked)
    images = torch.arange(5, 250, 10).view(-1, 1, 1, 1).expand(-1, 1, 8, 8)
    known = (~FREE).expand(len(images), 1, 8, 8)

    def error(around: Tensor) -> float:
        low = BesidePictures(masked.kept(around, known), 0.0)
        drawn = pipe.decode(pipe.latents(range(25), None, Sampling(steps=10), low=low))
        return hole_error(drawn, images, known, 256)["hole_error"]

    assert error(images) < 0.3 * error(images.roll(9, 0))


def test_the_command_keeps_what_is_known_exactly(filler: Path, tmp_path: Path):
    for name, picture in (
        ("picture", PICTURE),
        ("mask", MASK),
        ("large", np.full((16, 16), 255, np.uint8)),
    ):
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "none.png")
    out = tmp_path / "out"
    words = ["edit", str(filler), "--image", str(tmp_path / "picture.png"), "-n", "3"]
    words += ["--steps", "3", "--out", str(out)]
    mask = ["--mask", str(tmp_path / "mask.png")]
    assert main([*words, *mask, "--class", "1", "--guidance", "2"]) == 0
    arrays = np.load(out / "edited.npz")
    images, given = arrays["images"][:, 0], arrays["given"][0, 0]
    assert np.array_equal(images[:, MASK == 0], np.broadcast_to(given[MASK == 0], (3, 44)))
    assert not np.array_equal(images[0], images[1])
    assert json.loads((out / "edited.json").read_text())["edit"] == "Inpaint"
    for asked in (["--grey"], ["--strength", "0.5"], [*mask, "--repaint", "2"]):
        assert main([*words, *asked]) == 2
    for name in ("large", "none"):
        assert main([*words, "--mask", str(tmp_path / f"{name}.png")]) == 2
    assert main(["sample", str(filler), "-n", "1", "--steps", "1", "--out", str(out)]) == 2
    assert main(["evaluate", str(filler), "-n", "6", "--steps", "2", "--likelihood"]) == 0
    found = json.loads((filler / "evaluation.json").read_text())
    assert 0 < found["hole_error"] < 200


def test_what_a_model_of_masked_pictures_cannot_do_is_said(filler: Path, make_run):
    pipe = Pipeline.from_pretrained(filler)
    with pytest.raises(ConfigError, match=r"masked: this model fills .* 8 x 8 .* --mask FILE"):
        pipe()
    with pytest.raises(ConfigError, match=r"masked: this model fills .* solver auto"):
        pipe(edit=Inpaint(PICTURE, MASK), solver="auto")
    with pytest.raises(ConfigError, match="fills the holes of a picture and takes a mask"):
        pipe(edit=Colourise(PICTURE))
    for by in (Posterior(0.1), Replace()):
        with pytest.raises(ConfigError, match="noise_std, repaint: this model is shown"):
            pipe(edit=Inpaint(PICTURE, MASK, by))
    with pytest.raises(ConfigError, match="mask_image: 4 x 6 pixels, the picture has 8 x 8"):
        pipe(edit=Inpaint(PICTURE, np.zeros((4, 6), np.uint8)))
    with pytest.raises(ConfigError, match="mask_image: 100% of the picture is black"):
        pipe(edit=Inpaint(PICTURE, np.zeros((8, 8), np.uint8)))
    assert pipe.config is not None
    other = make_run(f"data.name={pipe.config.data.name}", "data.size=8")
    with pytest.raises(ConfigError, match=r"guide = .*do not read the same beside"):
        pipe(0, edit=Inpaint(PICTURE, MASK), guide=str(other), guidance_scale=2.0)
    with pytest.raises(ConfigError, match="upscale, sketch, masked: their pipelines show"):
        pipe.save_pretrained("unused")


def test_nothing_known_is_no_picture_and_a_picture_has_a_scale_of_its_own():
    config = image_config(*MASKED, "diffusion.drop_condition={all: 0.1, class: 0.1, masked: 0.2}")
    learner = opened_learner(config, FACTS, seed=1, spread=0.1)
    pipe = Pipeline(learner, FACTS, config)
    assert isinstance(pipe.beside, Masked)
    assert pipe.beside.channels == 2
    how: dict[str, Any] = {"num_inference_steps": 2, "seeds": [3], "output_type": "latent"}
    edit = {"edit": Inpaint(PICTURE, MASK), "class_labels": "b"}
    nothing = pipe(**how).images
    assert_close(pipe(**edit, **how, guidance_scale={"masked": 0.0, "class": 0.0}).images, nothing)
    filled = pipe(**edit, **how).images
    same = pipe(**edit, **how, guidance_scale={"masked": 1.0, "class": 1.0}).images
    assert_close(same, filled, atol=1e-5, rtol=1e-5)
    more = pipe(**edit, **how, guidance_scale={"masked": 3.0, "class": 1.0}).images
    assert float((more - filled).abs().max()) > 1e-2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("model=classifier",), "masked = true: of model = 'diffusion' with pixels or bits"),
        (("codec.kind=autoencoder", "codec.run=x"), "masked = true: of model = 'diffusion'"),
        (("upscale.factor=2",), "masked = true: .* upscale.factor = 1"),
        (("sketch=true",), "sketch, masked = true: one picture stands beside"),
    ],
)
def test_masks_that_nothing_reads_are_refused(words: tuple[str, ...], said: str):
    with pytest.raises(ConfigError, match=said):
        image_config("masked=true", *words)
