"""The joint model in latents of two autoencoders: what training sees, a run keeps, and draws."""

import contextlib
import io
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from examples.joint.__main__ import main
from examples.joint.config import JointConfig
from examples.joint.data import read_pairs
from examples.joint.learner import JointLearner
from examples.joint.modes import clean_condition
from examples.joint.net import JointNet
from examples.joint.panel import PANEL
from examples.joint.pipeline import JointPipeline
from examples.joint.sides import PairCodec, PairDenoiser, Side
from image.panel import PANEL as IMAGE_PANEL
from shared import noise
from shared.codec import Identity
from shared.config import NetConfig
from shared.drawing import draw
from shared.errors import ConfigError
from shared.sampling import Sampling
from shared.schedule import Cosine
from shared.schema import override, validate
from shared.task import Trainable
from shared.tokenizer import FILE, load_tokenizer
from shared.train.loop import train
from text.panel import PANEL as TEXT_PANEL

pytestmark = pytest.mark.filterwarnings("ignore:.*decoder ignores the latents")
FEW = ("train.steps=3", "train.batch=6", "train.warmup=1", "train.precision=fp32")
NET = ("net.dim=16", "net.depth=1", "net.heads=2")
HOW = Sampling(solver="ancestral", steps=3)
TOLD = ["a red star .", "there is a blue moon ."]


def trained(panel: Trainable, folder: Path, *assignments: str) -> Path:
    values = override({"panel": panel.name}, [*FEW, "data.name=scene", *assignments])
    train(validate(panel.config_type, values, "test"), folder, panel, quiet=True)
    return folder


@pytest.fixture(scope="module")
def autoencoders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Of pictures and of sentences, both of scenes."""
    folder = tmp_path_factory.mktemp("autoencoders")
    pictures = trained(
        IMAGE_PANEL, folder / "pictures", "model=autoencoder", "data.size=32", "data.channels=3",
        "data.limit=20", "autoencoder={channels: [8, 8, 8], layers: 1, latent_channels: 2}",
    )  # fmt: skip
    sentences = trained(
        TEXT_PANEL, folder / "sentences", "model=autoencoder", "autoencoder.dim=6",
        "train.steps=60", "train.batch=16", "train.lr=3e-3", "train.ema=0.9",
        "autoencoder.beta=0.02", "data.limit=400", "data.length=30", "net.dim=32", "net.depth=1",
        "net.heads=2",
    )  # fmt: skip
    return pictures, sentences


def in_latents(pictures: Path | None, sentences: Path | None, length: int = 24) -> JointConfig:
    named = [f"latents.image={pictures}"] if pictures else []
    named += [f"latents.text={sentences}"] if sentences else []
    words = [*FEW, *NET, "data.limit=40", f"data.length={length}", "patch=2", *named]
    return validate(JointConfig, override({"panel": "joint"}, words), "test")


@pytest.mark.parametrize("which", [(True, True), (True, False), (False, True)])
def test_training_sees_what_the_codecs_make_of_pairs(
    autoencoders: tuple[Path, Path], tmp_path: Path, which: tuple[bool, bool]
):
    pictures, sentences = (one if w else None for one, w in zip(autoencoders, which, strict=True))
    config = in_latents(pictures, sentences)
    PANEL.prepare(config, tmp_path)
    learner = PANEL.learner(config, tmp_path)
    assert isinstance(learner, JointLearner)
    rows = torch.tensor([3, 1])
    found, _ = PANEL.examples(config, tmp_path).take(rows)
    pipe = JointPipeline(learner.eval(), load_tokenizer(tmp_path / FILE), config)
    read = read_pairs(config.data)
    images, said = read.images[rows], [read.sentences[i] for i in rows.tolist()]
    codecs, data = learner.codec.codecs, learner.codec.data(found)
    for codec, seen, raw in zip(codecs, data, (images, pipe.rows(said)), strict=True):
        torch.testing.assert_close(codec.encode(seen), codec.encode(raw), atol=1e-4, rtol=1e-4)
    assert [one.is_floating_point() for one in data] == list(which)
    keys, t = torch.arange(2), torch.tensor([0.2, 0.7])
    assert learner(found, None, keys, t)[0].isfinite().all()


@pytest.fixture(scope="module")
def run(autoencoders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run whose autoencoders are gone."""
    folder = tmp_path_factory.mktemp("joint")
    copies = [Path(shutil.copytree(one, folder / one.name)) for one in autoencoders]
    train(in_latents(copies[0], copies[1]), folder / "run", PANEL, quiet=True)
    for copy in copies:
        shutil.rmtree(copy)
    return folder / "run"


def test_run_draws_in_all_modes_without_its_autoencoders(run: Path):
    pipe = JointPipeline.from_pretrained(run)
    for parameter in pipe.learner.parameters():  # as it is after three steps it says little
        torch.nn.init.normal_(parameter, std=0.2)
    images, texts = pipe.pairs([5, 6], HOW)
    assert images.shape == (2, 3, 32, 32)
    assert len(texts) == 2
    drawn, alone = pipe.images([5, 6], HOW, texts=TOLD), pipe.images([6], HOW, texts=TOLD[1:])
    assert (drawn[1].int() - alone[0].int()).abs().max() <= 1
    assert not torch.equal(drawn, pipe.images([5, 6], HOW, texts=TOLD[::-1]))
    assert pipe.texts([5, 6], HOW, images=images)[1] == pipe.texts([6], HOW, images=images[1:])[0]
    assert pipe.texts([5, 6], HOW, vary=TOLD, strength=0.01)


def test_latents_have_no_temperature(run: Path):
    pipe = JointPipeline.from_pretrained(run)
    with pytest.raises(ConfigError, match="latents have no logits"):
        pipe.texts([0], Sampling(solver="ancestral", steps=2, temperature=0.5))


def test_latents_of_pairs_and_sentences_are_not_clamped(run: Path):
    pipe, how = JointPipeline.from_pretrained(run), Sampling(steps=2, clamp=True)
    for refused in (pipe.pairs, pipe.texts):
        with pytest.raises(ConfigError, match="clamp: of words and pixels; this run has latents"):
            refused([0], how)
    assert pipe.images([0], how).shape == (1, 3, 32, 32)


def test_runs_of_another_kind_are_refused(autoencoders: tuple[Path, Path], tmp_path: Path):
    pictures, sentences = autoencoders
    for i, (config, message) in enumerate(
        (
            (in_latents(sentences, None), "latents.image = .*: expected a run of model: auto"),
            (in_latents(None, pictures), "latents.text = .*: expected a text run of model: auto"),
            (in_latents(None, sentences, length=40), "reads 30 tokens"),
        )
    ):
        with pytest.raises(ConfigError, match=message):
            PANEL.prepare(config, tmp_path / f"run{i}")


def test_more_words_than_rows_can_hold_are_refused(
    autoencoders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("examples.joint.latents.MOST_WORDS", 10)
    with pytest.raises(ConfigError, match=r"its tokenizer has \d+ ids, expected at most 10; train"):
        PANEL.prepare(in_latents(None, autoencoders[1]), tmp_path)


@pytest.mark.parametrize("told", ["embedding=8", "data.tokenizer=unigram", "data.vocabulary=99"])
def test_what_latents_bring_is_not_set(told: str):
    words = override({"panel": "joint"}, ["latents.text=runs/sentences", told])
    with pytest.raises(ConfigError, match=r"latents\.text brings its own"):
        validate(JointConfig, words, "test")


def test_command_takes_latents(autoencoders: tuple[Path, Path], tmp_path: Path):
    pictures, sentences = autoencoders
    words = [f"latents.image={pictures}", f"latents.text={sentences}", "data.limit=40"]
    words += [*FEW, *NET, f"run={tmp_path / 'run'}", "--quiet"]
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        trained_well = main(["train", "examples/joint/scene_latent.yaml", *words]) == 0
        few = ["-n", "2", "--steps", "2", "--json"]
        measured = main(["evaluate", str(tmp_path / "run"), *few]) == 0
    assert (trained_well, measured) == (True, True), told.getvalue()


def test_latents_of_both_sides_are_learned_together():
    """Both are +1 or -1 all over, and agree: drawn together and each from the other, not when the
    conditions are shuffled."""
    torch.manual_seed(0)
    picture, sentence = Identity((2, 4, 4)), Identity((1, 6))
    net = JointNet((2, 4, 4), 2, (1, 6), 6, NetConfig(dim=16, depth=2, heads=2), True)
    sides = Side(picture, "v", 1.0, "v"), Side(sentence, "v", 1.0, "v")
    codec = PairCodec((picture, sentence), ((2, 4, 4), (1, 6)), (True, True))
    denoiser = PairDenoiser(net, sides, self_condition=True)
    learner = JointLearner(denoiser, codec, Cosine(-9, 9), (0.25, 0.25), balance=True)
    optimizer = torch.optim.AdamW(learner.parameters(), lr=3e-3)
    for step in range(150):
        keys = torch.arange(64) + 64 * step
        sign = 2.0 * (noise.uniform(keys, -20) < 0.5) - 1
        losses, _ = learner(sign[:, None].expand(-1, 38), None, keys, noise.uniform(keys, -1))
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()
    learner.eval()
    seeds, how = range(64), Sampling(solver="ancestral", steps=24)
    first, second = codec.split(draw(learner.together(), seeds, how))
    assert (_sign(first) == _sign(second)).float().mean() > 0.95
    assert 0.1 < (_sign(first) > 0).float().mean() < 0.9  # both there are, and neither is rare
    asked = 2.0 * (torch.arange(64) % 2) - 1
    for which, shape in ((0, (1, 6)), (1, (2, 4, 4))):
        given = clean_condition(asked.view(-1, *[1] * len(shape)).expand(-1, *shape))
        drawn = _sign(draw(learner.one(which), seeds, how, condition=given))
        assert (drawn == asked).float().mean() > 0.95
        assert (drawn == asked.roll(1)).float().mean() < 0.05


def _sign(x0: Tensor) -> Tensor:
    return x0.flatten(1).mean(1).sign()
