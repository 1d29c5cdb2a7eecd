"""`image.Pipeline`: pictures are functions of their seed and class; wrong requests are refused."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import image
from image.codec import build_codec
from image.conditions import EXAMPLE, class_id, parse_scene
from image.config import CodecConfig, ImageConfig
from image.data import DataFacts
from image.data_config import DataConfig
from image.net import PatchNet
from image.pipeline import Glimpse, Pipeline
from shared import scene
from shared.config import DiffusionConfig, NetConfig
from shared.errors import CheckpointError, ConfigError
from shared.learner import DiffusionLearner
from shared.sampling import Sampling

FACTS = DataFacts(
    images=9, shape=(1, 4, 6), levels=17, classes=("ape", "bee", "cow"), conditions=4, data_std=0.7
)


def build(facts: DataFacts = FACTS, **settings) -> Pipeline:
    """A pipeline whose network is random but far from zero everywhere."""
    config = ImageConfig(net=NetConfig(dim=16, depth=2, heads=2), **settings)
    torch.manual_seed(1)
    codec = build_codec(config.codec, facts.levels, facts.shape)
    net = PatchNet(codec.latent_shape, config.patch, config.net, True, facts.conditions)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    learner = DiffusionLearner(net, codec, config.diffusion, facts.data_std, torch.bfloat16)
    return Pipeline(learner, facts, config)


@pytest.mark.parametrize("codec", [CodecConfig(), CodecConfig(kind="bits", gray=True)])
@pytest.mark.parametrize(("solver", "scale"), [("dpmpp_2m", 2.0), ("ancestral", 1.0)])
def test_sample_alone_is_the_sample_in_a_batch_of_64(codec, solver: str, scale: float):
    pipeline = build(codec=codec)
    settings = {
        "num_inference_steps": 8,
        "guidance_scale": scale,
        "solver": solver,
        "output_type": "latent",
    }
    seeds = [100 + i for i in range(64)]
    together = pipeline([0, 1, 2], seeds=seeds, **settings).images
    for i in (0, 37, 63):
        alone = pipeline(i % 3, seeds=[seeds[i]], **settings).images
        assert float((together[i] - alone[0]).abs().max()) < 1e-5
    assert float((together[0] - together[3]).abs().max()) > 0.1  # one class, two seeds


def test_seeds_are_drawn_from_the_generator():
    pipeline = build()
    first, again, other = (
        pipeline("bee", 3, generator=torch.Generator().manual_seed(seed), output_type="latent")
        for seed in (5, 5, 6)
    )
    assert first.seeds == again.seeds != other.seeds
    assert torch.equal(first.images, again.images)


def test_labels_are_taken_in_turn_and_all_means_every_class():
    pipeline = build()
    for labels, expected in (
        ("cow", [3, 3, 3, 3]),
        (["cow", 0], [3, 1, 3, 1]),
        ("all", [1, 2, 3, 1]),
    ):
        condition = pipeline.condition(labels, 4)
        assert condition is not None
        assert condition.flatten().tolist() == expected
    assert pipeline.condition(None, 4) is None
    assert len(pipeline(["cow", 0, "bee"], num_inference_steps=1).images) == 3
    assert len(pipeline(num_inference_steps=1).images) == 1


def test_outputs_are_pictures_arrays_and_latents_of_the_same_samples():
    pipeline = build()
    settings = {"class_labels": "ape", "seeds": [1, 2, 3], "num_inference_steps": 2}
    latents = pipeline(**settings, output_type="latent").images
    arrays = pipeline(**settings, output_type="np").images
    pictures = pipeline(**settings).images
    assert latents.shape == (3, 1, 4, 6)
    assert arrays.shape == (3, 4, 6, 1)
    levels = ((latents.clamp(-1, 1) + 1) * 8).round()
    assert np.allclose(arrays[..., 0] * 16, levels[:, 0].numpy())
    for picture, array in zip(pictures, arrays, strict=True):
        assert isinstance(picture, Image.Image)
        assert picture.mode == "L"
        assert np.array_equal(np.asarray(picture), (array[..., 0] * 255).round())


def test_colour_pictures_keep_their_channels_apart():
    facts = DataFacts(1, (3, 4, 6), 256, (), 0, 0.7)
    pipeline = build(facts)
    array = pipeline(seeds=[1], num_inference_steps=2, output_type="np").images[0]
    picture = pipeline(seeds=[1], num_inference_steps=2).images[0]
    assert array.shape == (4, 6, 3)
    assert np.array_equal(np.asarray(picture), (array * 255).round())


def test_watch_sees_the_first_picture_once_a_step_from_noise_to_the_result():
    pipeline = build()
    seen: list[Glimpse] = []
    how, condition = Sampling(steps=3), pipeline.condition("ape", 70)
    latents = pipeline.latents(range(70), condition, how, watch=seen.append)
    assert [glimpse.step for glimpse in seen] == [0, 1, 2]
    assert seen[0].logsnr == pytest.approx(-12)
    assert seen[0].logsnr < seen[1].logsnr < seen[2].logsnr
    # the last estimate is the sample: the last step goes to the clean end
    last = (pipeline.decode(latents[:1])[0] * 255 / 16).round()
    assert torch.equal(seen[-1].estimate.float(), last)


def test_scenes_are_described_in_words_or_given():
    facts = DataFacts(1, (3, 32, 32), 256, (), scene.NUM_IDS, 0.7)
    pipeline = build(facts, data=DataConfig(name="scene", limit=5), patch=8)
    told = pipeline.condition(EXAMPLE, 2)
    given = pipeline.condition([parse_scene(EXAMPLE)], 2)
    assert told is not None
    assert given is not None
    assert told.tolist() == given.tolist() == [scene.ids(parse_scene(EXAMPLE))] * 2
    every = pipeline.condition("all", 7)
    assert every is not None
    assert torch.equal(every[:2], every[5:])
    with pytest.raises(ConfigError, match="describe one in words"):
        pipeline.condition(3, 1)
    with pytest.raises(ConfigError, match="not trained on scenes"):
        build().condition(parse_scene(EXAMPLE), 1)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"class_labels": "apes"}, "did you mean ape?"),
        ({"class_labels": 3}, "expected 0 to 2"),
        ({"class_labels": []}, "expected one or more"),
        ({"num_images": 0}, "num_images = 0"),
        ({"num_images": 2, "seeds": [1]}, "2 but 1 seeds"),
        ({"seeds": []}, "0 seeds"),
        ({"seeds": [1], "generator": torch.Generator()}, "not both"),
        ({"num_inference_steps": 0}, "steps = 0"),
        ({"solver": "newton"}, "expected one of"),
        ({"output_type": "pt"}, "expected one of pil, np, latent"),
        ({"guidance_scale": 2.0}, "nothing to guide towards"),
        ({"temperature": 0.5}, "it divides logits"),
    ],
)
def test_what_cannot_be_drawn_is_refused(wrong, words: str):
    with pytest.raises(ConfigError, match=words):
        build()(**wrong)


def test_class_of_a_model_without_classes_is_refused():
    pipeline = build(DataFacts(1, (1, 4, 6), 17, (), 0, 0.7))
    for labels in ("all", "ape", 0):
        with pytest.raises(ConfigError, match="trained without classes"):
            pipeline(labels)


def test_pipeline_loads_a_run_and_refuses_what_is_none(make_run, tmp_path):
    run = make_run()
    pipeline = image.Pipeline.from_pretrained(run)
    picture = pipeline("7", num_inference_steps=2).images[0]
    assert picture.size == (8, 8)
    with pytest.raises(CheckpointError, match="not a run folder"):
        image.Pipeline.from_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="draws nothing"):
        image.Pipeline.from_pretrained(make_run("model=classifier"))


def test_classes_that_differ_in_case_alone_are_told_apart():
    classes = ("A", "a", "b")
    assert [class_id(name, classes) for name in ("A", "a", "B")] == [1, 2, 3]


def test_pipeline_computes_in_float32_whatever_it_was_trained_in():
    learner = build(diffusion=DiffusionConfig()).learner
    assert isinstance(learner, DiffusionLearner)
    assert learner.denoiser.autocast is None


def test_grid_of_auto_is_kept_with_the_run_and_made_anew_for_other_weights(make_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(make_run(), run)
    pipeline = image.Pipeline.from_pretrained(run)
    seen: list[Glimpse] = []
    first = pipeline(
        num_images=2, seeds=[3, 4], solver="auto", num_inference_steps=5, watch=seen.append
    )
    levels = [glimpse.logsnr for glimpse in seen]
    assert len(levels) == 5
    assert levels == sorted(levels)
    kept = (run / "grid.json").read_text()
    again = image.Pipeline.from_pretrained(run)(seeds=[4], solver="auto", num_inference_steps=5)
    assert again.images[0].tobytes() == first.images[1].tobytes()
    assert (run / "grid.json").read_text() == kept
    image.Pipeline.from_pretrained(run, "model")(seeds=[4], solver="auto", num_inference_steps=5)
    assert (run / "grid.json").read_text() != kept
