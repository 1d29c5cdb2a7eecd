"""Random horizontal flips: half of the samples, by their keys, of training alone."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from image import judge
from image.autoencoder.codec import load_codec
from image.codec import Pixels
from image.data import load_pictures, read_facts
from image.flips import flipped
from image.panel import PANEL
from shared.config import DiffusionConfig
from shared.errors import ConfigError
from shared.learner import DiffusionLearner
from shared.objective import sample_keys
from shared.runs import load_learner
from shared.train.checkpoint import load, newest
from shared.train.loop import train
from shared.train.order import Order
from tests.image.conftest import image_config

FLIP = ("data.flip=true", "train.decay=none", "train.warmup=0")
AUTOENCODER = (
    "model=autoencoder", "autoencoder.channels=[8, 16]", "autoencoder.latent_channels=2",
)  # fmt: skip


def test_half_of_the_samples_are_mirrored_each_by_its_key_alone():
    torch.manual_seed(0)
    data = torch.randint(256, (1, 2, 3, 5)).expand(4000, -1, -1, -1)
    keys = sample_keys(3, torch.arange(4000))
    found = flipped(data, keys)
    mirrored = (found == data.flip(-1)).flatten(1).all(1)
    assert bool(((found == data).flatten(1).all(1) ^ mirrored).all())
    # 4,000 fair coins: within five standard errors
    assert float(mirrored.double().mean()) == pytest.approx(0.5, abs=0.04)
    order = torch.randperm(4000)
    parts = [flipped(data[rows], keys[rows]) for rows in order.split(701)]
    assert torch.equal(torch.cat(parts), found[order])
    other = flipped(data, sample_keys(3, torch.arange(4000, 8000)))  # the next time round
    assert 0.4 < float((other != found).flatten(1).any(1).double().mean()) < 0.6


def test_of_both_orientations_one_is_taken_as_of_the_picture():
    torch.manual_seed(0)
    data, keys = torch.randn(50, 2, 3, 5), torch.arange(50)
    both = torch.stack([data, data.flip(-1)], 1)
    assert torch.equal(flipped(both, keys), flipped(data, keys))


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """What is encoded in training."""
    batches: list[Tensor] = []
    plain = DiffusionLearner.forward

    def forward(self: DiffusionLearner, data: Tensor, *rest: Any) -> Any:
        encode = self.codec.encode

        def watch(levels: Tensor) -> Tensor:
            batches.append(levels.clone())
            return encode(levels)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.codec, "encode", watch)
            return plain(self, data, *rest)

    monkeypatch.setattr(DiffusionLearner, "forward", forward)
    return batches


def test_batch_splits_and_a_run_that_goes_on_flip_the_same_samples(
    seen: list[Tensor], tmp_path: Path
):
    words = (*FLIP, "train.batch=16")
    train(image_config(*words), tmp_path / "whole", PANEL, quiet=True)
    whole = torch.cat(seen)
    config, indices = image_config(*words), torch.arange(64)
    images = load_pictures(config.data).images
    rows = images[Order(len(images), config.train.seed).rows(indices)]
    assert torch.equal(whole, flipped(rows, sample_keys(config.train.seed, indices)))
    assert 16 < int((whole != rows).flatten(1).any(1).sum()) < 48
    seen.clear()
    train(image_config(*words, "train.accumulation=4"), tmp_path / "split", PANEL, quiet=True)
    assert len(seen) == 16
    assert torch.equal(torch.cat(seen), whole)
    seen.clear()
    train(image_config(*words, "train.steps=1"), tmp_path / "again", PANEL, quiet=True)
    train(image_config(*words), tmp_path / "again", PANEL, quiet=True)
    assert torch.equal(torch.cat(seen), whole)


def test_a_model_that_is_measured_sees_pictures_as_they_are(seen: list[Tensor], make_run):
    learner = load_learner(make_run(*FLIP))
    assert isinstance(learner, DiffusionLearner)
    data = load_pictures(image_config().data).images[:40]
    seen.clear()
    learner(data, None, torch.arange(40), torch.full((40,), 0.5))
    assert torch.equal(seen[0], data)
    learner.train()(data, None, torch.arange(40), torch.full((40,), 0.5))
    assert not torch.equal(seen[1], data)


def test_what_a_picture_is_told_of_itself_is_flipped_with_it():
    heard: list[Tensor] = []

    def beside(data: Tensor, condition: Tensor | None, keys: Tensor) -> None:
        heard.append(data)

    module: Any = torch.nn.Module()
    module.forward = beside
    net = torch.nn.Module()
    net.forward = lambda x, *_: x
    config = DiffusionConfig(self_condition=False)
    codec: Any = Pixels(256, (1, 3, 4))
    learner = DiffusionLearner(net, codec, config, beside=module, augment=flipped)
    data, keys = torch.randint(256, (20, 1, 3, 4)), torch.arange(20)
    learner(data, None, keys, torch.full((20,), 0.5))
    assert torch.equal(heard[0], flipped(data, keys))


def weights_of(run: Path) -> dict[str, Tensor]:
    found = newest(run)
    assert found is not None
    return load(found[0], "model")


def test_cached_latents_are_of_pictures_and_of_their_mirror_images(make_run, tmp_path: Path):
    words = (*FLIP, "codec.kind=autoencoder", f"codec.run={make_run(*AUTOENCODER)}")
    train(image_config(*words), tmp_path / "plain", PANEL, quiet=True)
    config, run = image_config(*words, "codec.cache_latents=true"), tmp_path / "cached"
    train(config, run, PANEL, quiet=True)
    examples, facts = PANEL.examples(config, run), read_facts(run)
    codec = load_codec(config.codec, facts.levels, facts.shape, run)
    moments, _ = examples.take(torch.arange(9))
    images = load_pictures(config.data).images[:9]
    assert_close(moments[:, 0], codec.moments(images), atol=1e-5, rtol=1e-5)
    assert_close(moments[:, 1], codec.moments(images.flip(-1)), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(moments[:, 1], moments[:, 0].flip(-1), atol=1e-2)
    plain, cached = weights_of(tmp_path / "plain"), weights_of(run)
    for name in plain:
        assert_close(cached[name], plain[name], rtol=1e-4, atol=1e-5)


def test_a_judge_never_flips_and_serves_runs_that_do(monkeypatch: pytest.MonkeyPatch):
    asked: list[tuple[Any, Any]] = []

    def trained(config: Any, stated: Any, *_: Any) -> Any:
        asked.append((config, stated))
        raise StopIteration

    monkeypatch.setattr(judge, "trained_judge", trained)
    pictures = load_pictures(image_config().data)
    for words in ((), FLIP):
        with pytest.raises(StopIteration):
            judge.find_judge(image_config(*words), pictures, PANEL)
    assert asked[0] == asked[1]
    assert not asked[1][0].data.flip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("data.name=scene",), "of scene says where things are"),
        (("data.name=figures",), "of figures says where things are"),
        (("model=classifier",), "of model = 'diffusion', got 'classifier'"),
        (AUTOENCODER, "of model = 'diffusion', got 'autoencoder'"),
    ],
)
def test_flips_that_would_be_wrong_or_unread_are_refused(words: tuple[str, ...], message: str):
    with pytest.raises(ConfigError, match=message):
        image_config(*words, "data.flip=true")
    assert not dataclasses.asdict(image_config(*words))["data"]["flip"]
