"""Pictures that stand beside the noisy one as a condition of their own: dropped in training and
guided towards by themselves."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.testing import assert_close

from image.beside import Beside, BesideNet, BesidePictures, beside_conditions
from image.cascade import Small
from image.data import DataFacts
from image.learners import build_learner
from image.pipeline import Pipeline
from image.sketch import Sketch
from shared.cli import main
from shared.errors import ConfigError
from shared.learner import DiffusionLearner
from shared.objective import drop_condition, sample_keys
from tests.image.conftest import image_config, opened_learner

RATES = "diffusion.drop_condition={all: 0.1, class: 0.2, sketch: 0.3}"
SKETCH = ("sketch=true", "patch=2", "diffusion.self_condition=false")
FACTS = DataFacts(9, (1, 8, 8), 17, ("a", "b", "c"), 4, 0.7)
SMALL = Small((3, 4, 8), 256, 2, 0.5, optional=True)


@pytest.mark.parametrize("beside", [Sketch((3, 4, 8), 256, optional=True), SMALL])
def test_none_is_zeros_that_a_grey_picture_is_not(beside: Beside):
    ids, n = torch.tensor([[5, 0], [7, 300]]), 2
    grey = beside.row(torch.zeros(n, *beside.shape), torch.zeros(n), ids, torch.arange(n))
    none = beside.none(ids, n)
    assert none.shape == grey.shape == (n, 2 + beside.size)
    assert not none[:, 2:].any()
    for row, there in ((grey, 1.0), (none, 0.0)):
        read, channels = beside.read(row)
        assert read is not None
        assert torch.equal(read, ids)
        assert channels.shape == (n, beside.channels, 4, 8)
        assert torch.equal(channels[:, -1], torch.full((n, 4, 8), there))
        assert float(channels[:, :-1].abs().max()) < 1e-6
    assert torch.equal(beside.none(None, n), none[:, 2:])
    assert torch.equal(
        beside.under(torch.tensor([[1, 2]]), grey[:1])[:, :2], torch.ones(1, 2).cumsum(1)
    )


def heard_in_training(*settings: str, n: int = 4000) -> tuple[Tensor, Tensor]:
    """Of each sample the id and the channels beside that the network is told in training."""
    learner = build_learner(image_config(*SKETCH, *settings), FACTS, Path("unused"))
    assert isinstance(learner, DiffusionLearner)
    heard: list[tuple[Tensor, Tensor]] = []
    inner = nn.Module()
    inner.forward = lambda x, logsnr, ids, previous, beside: heard.append((ids, beside)) or x
    learner.denoiser.net.net = inner
    data = torch.randint(17, (n, 1, 8, 8), generator=torch.Generator().manual_seed(1))
    keys = sample_keys(3, torch.arange(n))
    learner.train()(data, torch.full((n, 1), 2), keys, torch.full((n,), 0.5))
    return heard[0][0][:, 0], heard[0][1]


def test_training_drops_the_picture_by_itself_and_with_all_of_it():
    """Five standard errors of 4,000 samples; what is dropped of the class does not change."""
    n = 4000
    ids, channels = heard_in_training(RATES)
    gone, there = ids == 0, channels[:, 1].amax((1, 2))
    assert torch.equal(there, channels[:, 1].amin((1, 2)))
    assert torch.equal(there == 0, (channels == 0).flatten(1).all(1))
    expected = {
        "class": (gone, 0.1 + 0.9 * 0.2),
        "sketch": (there == 0, 0.1 + 0.9 * 0.3),
        "both": (gone & (there == 0), 0.1 + 0.9 * 0.06),
    }
    for name, (rows, p) in expected.items():
        error = 5 * math.sqrt(p * (1 - p) / n)
        assert float(rows.float().mean()) == pytest.approx(p, abs=error), name
    keys = sample_keys(3, torch.arange(n))
    alone = drop_condition(torch.full((n, 1), 2), keys, {"all": 0.1, "class": 0.2}, {"class": (0,)})
    assert torch.equal(gone, alone[:, 0] == 0)


def test_a_picture_that_is_not_named_is_never_dropped_nor_said_to_be_there():
    ids, channels = heard_in_training("diffusion.drop_condition={all: 0.1, class: 0.2}")
    assert channels.shape[1] == 1
    assert 0.2 < float((ids == 0).float().mean()) < 0.36
    assert not (channels == 0).flatten(1).all(1).any()


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    """Follows sketches of three classes, where there is one; nothing in it is zero."""
    config = image_config(*SKETCH, RATES)
    return Pipeline(opened_learner(config, FACTS, seed=2, spread=0.1), FACTS, config)


DRAWING = np.full((8, 8), 255, np.uint8)
DRAWING[2:7, 4] = 0


def drawn(pipe: Pipeline, **asked: Any) -> Tensor:
    """Latents of two seeds."""
    how: dict[str, Any] = {"num_inference_steps": 3, "output_type": "latent", "seeds": [4, 9]}
    images = pipe(**(how | asked)).images
    assert isinstance(images, Tensor)
    return images


def test_scales_of_picture_and_class_are_those_of_the_chain_rule(pipe: Pipeline):
    both: dict[str, Any] = {"class_labels": "b", "sketch": DRAWING}
    ends = {
        (0.0, 0.0): drawn(pipe),
        (1.0, 0.0): drawn(pipe, sketch=DRAWING),
        (1.0, 1.0): drawn(pipe, **both),
    }
    for (picture, label), expected in ends.items():
        found = drawn(pipe, **both, guidance_scale={"sketch": picture, "class": label})
        assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert_close(
        drawn(pipe, **both, guidance_scale={"class": 1.0, "sketch": 0.0}),
        drawn(pipe, class_labels="b"), atol=1e-4, rtol=1e-4,
    )  # fmt: skip
    apart = [(a - b).abs().max() for a in ends.values() for b in ends.values() if a is not b]
    assert float(min(apart)) > 1e-2
    once = {"num_inference_steps": 1, "solver": "ddim"}  # one step is linear in the estimate
    none, lines, all_of_it = (
        drawn(pipe, **once, **asked) for asked in ({}, {"sketch": DRAWING}, both)
    )
    found = drawn(pipe, **once, **both, guidance_scale={"sketch": 2.0, "class": 1.5})
    expected = none + 2 * (lines - none) + 1.5 * (all_of_it - lines)
    assert_close(found, expected, atol=1e-3, rtol=1e-4)


def test_one_scale_departs_from_neither_picture_nor_class(pipe: Pipeline):
    none = drawn(pipe, class_labels="b", sketch=DRAWING, guidance_scale=0.0)
    assert_close(none, drawn(pipe), atol=1e-5, rtol=1e-5)
    found = drawn(pipe, sketch=DRAWING, guidance_scale=2.0)
    by_name = drawn(pipe, sketch=DRAWING, guidance_scale={"sketch": 2.0})
    assert_close(found, by_name, atol=1e-4, rtol=1e-4)
    assert float((found - drawn(pipe, sketch=DRAWING)).abs().max()) > 1e-2


def test_what_cannot_be_guided_is_named(pipe: Pipeline):
    with pytest.raises(ConfigError, match=r"guidance: no group .sketh. .* did you mean sketch"):
        drawn(pipe, sketch=DRAWING, guidance_scale={"sketh": 2.0})
    with pytest.raises(ConfigError, match="without a class or prompt there is nothing to guide"):
        drawn(pipe, sketch=DRAWING, guidance_scale={"class": 2.0, "sketch": 2.0})
    with pytest.raises(ConfigError, match="without a class or prompt there is nothing to guide"):
        drawn(pipe, guidance_scale={"sketch": 2.0})
    config = image_config(*SKETCH, "diffusion.drop_condition={all: 0.1, class: 0.2}")
    always = Pipeline(opened_learner(config, FACTS, seed=2, spread=0.1), FACTS, config)
    words = r"guidance: sketch: this model has seen one .*=\{sketch: 0.1\}, or leave it out"
    with pytest.raises(ConfigError, match=words):
        drawn(always, class_labels="b", sketch=DRAWING, guidance_scale={"sketch": 2.0})
    rare = image_config(*SKETCH, "diffusion.drop_condition={all: 0.1, sketch: 0.0}")
    never = Pipeline(opened_learner(rare, FACTS, seed=2, spread=0.1), FACTS, rare)
    with pytest.warns(UserWarning, match="was trained without diffusion.drop_condition"):
        drawn(never, class_labels="b", sketch=DRAWING, guidance_scale={"sketch": 2.0})


@pytest.mark.parametrize(
    ("settings", "known"),
    [
        (("sketch=true",), "all, class, sketch"),
        (("upscale.factor=2", "data.label_column=null"), "all, low"),
        ((), "all, class"),
    ],
)
def test_groups_are_what_a_model_is_told(settings: tuple[str, ...], known: str):
    with pytest.raises(ConfigError, match=f"expected one of {known}$"):
        image_config(*settings, "diffusion.drop_condition={layout: 0.1}")


def test_a_negative_prompt_alone_stands_in_front_of_the_same_picture():
    """Without a prompt too: what is drawn is under "none"."""
    sketch = Sketch((1, 4, 8), 17)
    shown = BesidePictures(torch.linspace(-1, 1, 32).view(1, 1, 4, 8), 0.0)
    negative = torch.tensor([[3, 0, 0], [5, 6, 0]])
    rows, base = beside_conditions(sketch, shown, None, negative, [1, 2])
    assert base is not None
    for row, ids in ((rows, torch.zeros_like(negative)), (base, negative)):
        read, channels = sketch.read(row)
        assert read is not None
        assert torch.equal(read, ids)
        assert torch.equal(channels, shown.pictures.expand(2, -1, -1, -1))


def test_a_cascade_without_a_small_picture_and_solver_auto_draw_as_of_none():
    config = image_config(
        "upscale.factor=2", "patch=2", "diffusion.self_condition=false",
        "diffusion.drop_condition={low: 0.1}",
    )  # fmt: skip
    pipeline = Pipeline(opened_learner(config, FACTS, seed=3, spread=0.1), FACTS, config)
    assert isinstance(pipeline.learner, DiffusionLearner)
    net = pipeline.learner.denoiser.net
    assert isinstance(net, BesideNet)
    heard: list[Tensor] = []
    net.net.register_forward_pre_hook(lambda _, given: heard.append(given[4]))
    drawn(pipeline, solver="auto")
    drawn(pipeline, class_labels="b")
    assert not any(channels.any() for channels in heard)
    drawn(pipeline, class_labels="b", low=np.full((4, 4), 200, np.uint8), low_noise=0.0)
    assert torch.equal(heard[-1][:, -1], torch.ones(2, 8, 8))


def test_a_run_that_may_be_shown_nothing_is_used_from_the_command_line(make_run, tmp_path: Path):
    run = make_run(*SKETCH, RATES, "data.limit=60")
    Image.fromarray(DRAWING).save(tmp_path / "drawing.png")
    words = ["sample", str(run), "-n", "2", "--steps", "2", "--out", str(tmp_path / "out")]
    scales = ["--class", "1", "--guidance", "sketch=2,class=1.5"]
    assert main([*words, *scales, "--sketch", str(tmp_path / "drawing.png")]) == 0
    assert (tmp_path / "out" / "grid.png").is_file()
    assert main(words) == 0
    assert main(["evaluate", str(run), "-n", "5", "--steps", "2", "--likelihood"]) == 0
    with pytest.raises(ConfigError, match=r"named or not in diffusion.drop_condition"):
        Pipeline.from_pretrained(run)(
            0, sketch=DRAWING, guidance_scale=2, guide=str(make_run(*SKETCH))
        )
