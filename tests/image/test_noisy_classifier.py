"""The classifier of noisy pictures: what it is told, and what it does to samples."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import image
from image.classifier import Block
from image.codec import build_codec
from image.config import CodecConfig, ImageConfig, JudgeConfig
from image.data import DataFacts, Pictures
from image.evaluation import _check_samples
from image.noisy_classifier import NoisyClassifier, accuracy_by_level
from image.panel import PANEL
from shared import noise
from shared.config import DiffusionConfig
from shared.errors import ConfigError
from shared.guidance.gradients import gradient
from shared.objective.streams import NOISE
from shared.requests import EvaluateRequest, SampleRequest
from shared.runs import load_learner
from shared.schedule import straight_flow, variance_exploding, variance_preserving
from shared.schema import override, validate
from tests.image.conftest import TINY

FACTS = DataFacts(9, (2, 8, 6), 17, ("a", "b", "c"), 4, 0.6)
SCENES = DataFacts(9, (2, 8, 6), 17, (), 6, 0.6)


def build(facts: DataFacts = FACTS, **settings: Any) -> NoisyClassifier:
    """One whose every weight counts."""
    config = ImageConfig(
        model="classifier", noisy=True, judge=JudgeConfig(width=8, dropout=0.0), **settings
    )
    torch.manual_seed(0)
    codec = build_codec(config.codec, facts.levels, facts.shape)
    model = NoisyClassifier(config, facts, codec)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def some(B: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randint(17, (B, 2, 8, 6), generator=generator),
        torch.randint(1, 4, (B, 1), generator=generator),
    )


def test_loss_is_the_cross_entropy_at_the_noised_latent_of_each_key():
    model, (images, condition) = build(), some()
    keys, t = torch.tensor([4, 9, 2, 77, 5]), torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9])
    losses, logsnr = model(images, condition, keys, t)
    level = DiffusionConfig().base_schedule()(t)
    wide = level.widen(4)
    x_t = wide.alpha * (images / 8 - 1) + wide.sigma * noise.normal(keys, NOISE, (2, 8, 6))
    log_probs = model.logits(x_t, level).log_softmax(1)
    torch.testing.assert_close(losses, -log_probs[torch.arange(5), condition[:, 0] - 1])
    torch.testing.assert_close(logsnr, level.logsnr)
    torch.testing.assert_close(model.log_prob(x_t, level, condition), -losses)


def test_log_prob_of_several_ids_asks_for_all_of_them():
    model, (images, _) = build(SCENES), some(2)
    condition = torch.tensor([[1, 4, 0], [5, 2, 3]])
    level = variance_preserving(torch.tensor([0.3, -1.0]))
    logits = model.logits(images / 8 - 1, level)
    p = torch.sigmoid(logits)
    expected = torch.stack([p[0, 0] * p[0, 3], p[1, 4] * p[1, 1] * p[1, 2]]).log()
    torch.testing.assert_close(model.log_prob(images / 8 - 1, level, condition), expected)
    losses, _ = model(images, condition, torch.arange(2), torch.rand(2))
    assert losses.shape == (2,)


def test_one_noise_level_is_one_answer_in_every_family():
    """x_t and its level of variance-preserving, -exploding and flow differ by one factor."""
    model, logsnr = build(), torch.tensor([2.0, -1.0])
    x0, eps = torch.randn(2, 2, 8, 6), torch.randn(2, 2, 8, 6)
    said = []
    for family in (variance_preserving, variance_exploding, straight_flow):
        wide = family(logsnr).widen(4)
        said.append(model.logits(wide.alpha * x0 + wide.sigma * eps, family(logsnr)))
    for other in said[1:]:
        torch.testing.assert_close(other, said[0], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_level_is_heard_and_a_scalar_one_is_that_of_all():
    model, x = build(), torch.randn(3, 2, 8, 6)
    clean, noisy = (variance_preserving(torch.tensor(v)) for v in (4.0, -4.0))
    assert float((model.logits(x, clean) - model.logits(x, noisy)).abs().max()) > 1e-3
    rows = variance_preserving(torch.full((3,), 4.0))
    torch.testing.assert_close(model.logits(x, rows), model.logits(x, clean))


def test_gradient_of_its_log_prob_is_that_of_finite_differences():
    model, (_, condition) = build(), some(3)
    x, direction = torch.randn(2, 3, 2, 8, 6)
    level = variance_preserving(torch.tensor([1.0, -0.5, 3.0]))
    slope = gradient(model.log_prob, x, level, condition)
    step = 1e-2
    up, down = (model.log_prob(x + sign * step * direction, level, condition) for sign in (1, -1))
    along = (slope * direction).flatten(1).sum(1)
    torch.testing.assert_close((up - down) / (2 * step), along, atol=2e-3, rtol=2e-2)


def test_bits_are_read_as_channels():
    model = build(codec=CodecConfig(kind="bits"))
    images, condition = some()
    losses, _ = model(images, condition, torch.arange(5), torch.rand(5))
    assert bool(losses.isfinite().all())


def test_a_block_is_at_first_told_nothing_and_the_judges_blocks_have_no_place_for_it():
    block, x = Block(8, 16, 2, told=3), torch.randn(2, 8, 6, 6)
    torch.testing.assert_close(block(x, torch.randn(2, 3)), block(x, torch.zeros(2, 3)))
    assert not any("modulate" in name for name in Block(8, 16, 2).state_dict())


# -- runs --------------------------------------------------------------------------------------

NOISY = ("model=classifier", "noisy=true", "train.steps=60", "train.lr=5e-3", "train.warmup=5")


def request(**settings: Any) -> SampleRequest:
    values: dict[str, Any] = {"n": 12, "steps": 6, "condition": "3"} | settings
    return SampleRequest(**values)


def drawn(run: Path, out: Path, **settings: Any) -> np.ndarray:
    PANEL.sample(run, request(**settings), out)
    return np.load(out / "samples.npz")["images"]


@pytest.mark.parametrize("extra", [(), ("data.label_column=null",)])
def test_a_classifier_pulls_samples_towards_the_class_it_is_asked_for(
    extra: tuple[str, ...], make_run, tmp_path: Path
):
    """With classes and without; the classifier itself is more often sure of the class."""
    classifier = make_run(*NOISY)
    run = make_run("train.steps=40", *extra)
    named = {"classifier": str(classifier)}
    plain = drawn(run, tmp_path / "0", **named, classifier_scale=0.0)
    pulled = drawn(run, tmp_path / "1", **named, classifier_scale=6.0)
    model = load_learner(classifier)
    assert isinstance(model, NoisyClassifier)
    level = variance_preserving(torch.tensor(6.0))
    ids = torch.full((12, 1), 4)
    with torch.no_grad():
        sure = [
            float(model.log_prob(torch.tensor(images / 255 * 2 - 1).float(), level, ids).mean())
            for images in (plain, pulled)
        ]
    assert sure[1] > sure[0] + 0.1, sure
    told = json.loads((tmp_path / "1" / "samples.json").read_text())
    assert told["settings"]["classifier"] == str(classifier)
    assert told["settings"]["classifier_scale"] == 6.0


def test_evaluation_measures_samples_under_a_classifier(make_run):
    """Each sample is pulled towards its own class: the judge, another network, sees more of it."""
    classifier, run = make_run(*NOISY), make_run("train.steps=40")
    named = EvaluateRequest(n=60, steps=6, classifier=str(classifier))
    alone, pulled = (
        PANEL.evaluate(run, replace(named, classifier_scale=scale)) for scale in (0.0, 6.0)
    )
    assert pulled["class_agreement"] > alone["class_agreement"] + 0.1
    assert pulled["settings"]["classifier_scale"] == 6.0
    plain = PANEL.evaluate(run, EvaluateRequest(n=60, steps=6))
    assert plain["class_agreement"] == alone["class_agreement"]


@pytest.mark.parametrize("condition", [None, torch.ones(4, 3, dtype=torch.long)])
def test_evaluation_under_a_classifier_needs_classes(condition: Tensor | None):
    """Refused before anything is trained or drawn."""
    pictures = Pictures(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), condition, 17, (), 0)
    asked = EvaluateRequest(n=4, classifier="runs/c")
    with pytest.raises(ConfigError, match="towards which class"):
        _check_samples(asked, pictures, pictures, "test", features=True)


def test_scale_0_is_the_model_alone(make_run, tmp_path: Path):
    run, classifier = make_run(), make_run(*NOISY)
    alone = drawn(run, tmp_path / "0")
    zero = drawn(run, tmp_path / "1", classifier=str(classifier), classifier_scale=0.0)
    assert np.array_equal(alone, zero)


def test_a_sample_does_not_depend_on_its_neighbours_under_a_classifier(make_run):
    pipeline = image.Pipeline.from_pretrained(make_run())
    settings: dict[str, Any] = {
        "classifier": str(make_run(*NOISY)), "classifier_scale": 2.0, "num_inference_steps": 3,
        "output_type": "latent",
    }  # fmt: skip
    together = pipeline([3, 5], seeds=list(range(70)), **settings).images
    alone = pipeline(5, seeds=[67], **settings).images
    torch.testing.assert_close(together[67:68], alone, atol=1e-5, rtol=0)


def test_evaluating_one_tells_its_accuracy_by_level(make_run):
    found = PANEL.evaluate(make_run(*NOISY), EvaluateRequest(n=8))
    by_level = found["accuracy"]
    assert list(by_level) == [f"logsnr {x}" for x in (6, 3, 0, -3, -6)]
    assert by_level["logsnr 6"] > by_level["logsnr -6"]


def test_what_cannot_guide_is_refused(make_run, tmp_path: Path):
    run, noisy = make_run(), make_run(*NOISY)
    other = tmp_path / "other"
    shutil.copytree(noisy, other)
    facts = json.loads((other / "data.json").read_text())
    (other / "data.json").write_text(json.dumps(facts | {"classes": facts["classes"][::-1]}))
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"classifier": str(make_run("model=classifier"))}, "a classifier of noisy pictures"),
        ({"classifier": str(run)}, "a classifier of noisy pictures"),
        ({"classifier": str(other)}, "expected the same data"),
        ({"classifier": str(noisy), "condition": None}, "towards which class"),
        ({"classifier": str(noisy), "condition": "13"}, "expected 0 to 9"),
    ]
    for settings, words in wrong:
        with pytest.raises(ConfigError, match=words):
            PANEL.sample(run, request(**settings), tmp_path / "out")
    bits = make_run("codec.kind=bits", "diffusion.prediction=categorical")
    with pytest.raises(ConfigError, match=r"codec.kind = 'pixels', the model draws others"):
        PANEL.sample(bits, request(classifier=str(noisy)), tmp_path / "out")
    with pytest.raises(ConfigError, match=r"classifier_scale = 2.0: of a classifier"):
        request(classifier_scale=2.0)


def test_noisy_belongs_to_a_classifier_with_a_fixed_schedule():
    def read(*assignments: str) -> ImageConfig:
        return validate(ImageConfig, override({"panel": "image"}, (*TINY, *assignments)), "test")

    with pytest.raises(ConfigError, match="noisy = true: of a classifier"):
        read("noisy=true")
    learned = ("diffusion.schedule=learned", "diffusion.integral=true")
    with pytest.raises(ConfigError, match="does not learn its schedule"):
        read("noisy=true", "model=classifier", *learned)


@torch.no_grad()
def test_accuracy_is_counted_over_all_pictures(monkeypatch: pytest.MonkeyPatch):
    from image.data import Pictures

    model = build()
    images, condition = some(300)
    found = accuracy_by_level(model, Pictures(images, condition, 17, FACTS.classes, 4))
    level = variance_preserving(torch.tensor(6.0))
    eps = noise.normal(range(300), NOISE, (2, 8, 6))
    said = model.logits(level.alpha * (images / 8 - 1) + level.sigma * eps, level).argmax(1) + 1
    assert found["logsnr 6"] == pytest.approx(float((said == condition[:, 0]).double().mean()))
