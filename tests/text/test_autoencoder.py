"""Sentence autoencoders: their loss, collapse, codec, and the run that keeps one."""

import dataclasses
import math
import shutil
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from shared import noise
from shared.errors import CheckpointError, ConfigError, DataError
from shared.gaussian import Gaussian, kl
from shared.learner import DiffusionLearner
from shared.requests import EvaluateRequest
from shared.runs import load_learner
from shared.schedule import variance_preserving
from shared.tokenizer import BOS, EOS, PAD
from tests.largest import Largest
from tests.text.conftest import text_config
from text.autoencoder.codec import MEASURED, Measured, SentenceCodec, load_codec, read_measured
from text.autoencoder.health import ROOM, Health, examine, information
from text.autoencoder.install import check_health
from text.autoencoder.learner import AutoencoderLearner, kl_terms, rise
from text.autoencoder.network import SentenceNetwork
from text.config import AutoencoderConfig, TextConfig
from text.panel import PANEL
from text.pipeline import Pipeline

SIZE, LENGTH, LATENTS, DIM = 7, 5, 2, 3
AUTOENCODER = ("model=autoencoder", "autoencoder.dim=6", "autoencoder.beta=0.02", "train.lr=3e-3")
TOLD = ("data.source=scene", "net.cross_attention=true", "net.source_depth=1")
PLAIN = ("diffusion.prediction=v", "diffusion.fit_density=false", "codec.kind=sentence")


@pytest.fixture(scope="module")
def network() -> SentenceNetwork:
    torch.manual_seed(0)
    settings = AutoencoderConfig(latents=LATENTS, dim=DIM)
    net = text_config("net.dim=16", "net.depth=2").net
    made = SentenceNetwork(SIZE, LENGTH, settings, net).eval()
    for p in made.parameters():  # far from uniform, so that a mistake shows
        p.data.mul_(4.0)
    return made


@pytest.fixture(scope="module")
def points(make_run) -> Path:
    return make_run(*AUTOENCODER)


@pytest.fixture(scope="module")
def writer(make_run, points: Path) -> Path:
    return make_run(*PLAIN, f"codec.run={points}")


def test_kl_terms_are_the_divergence_from_the_unit_gaussian():
    mean, log_variance = torch.tensor([[0.3, -2.0]]), torch.tensor([[-1.0, 0.4]])
    q = Gaussian.of(mean[0].double(), torch.diag(log_variance[0].double().exp()))
    exact = kl(q, Gaussian.isotropic(torch.zeros(2).double(), 1.0))
    assert float(kl_terms(mean, log_variance).sum()) == pytest.approx(float(exact), rel=1e-5)


def test_beta_waits_then_rises_then_stays():
    assert [rise(s, 0.2, 0.4) for s in (0.0, 0.19, 0.4, 0.6, 1.0)] == pytest.approx(
        [0, 0, 0.5, 1, 1]
    )
    assert rise(0.2, 0.2, 0.0) == 1.0


@torch.no_grad()
def test_the_loss_is_nats_and_paid_divergence(network: SentenceNetwork):
    ids, keys = torch.tensor([[4, 5, EOS, PAD, PAD], [6, EOS, PAD, PAD, PAD]]), torch.arange(2)
    mean, log_variance = network.encode(ids)
    terms = kl_terms(mean, log_variance).flatten(1)
    free = float(terms.median())
    config = AutoencoderConfig(
        latents=LATENTS, dim=DIM, beta=0.7, free_bits=free, plain=0, ramp=0.5
    )
    learner = AutoencoderLearner(network, config, steps=8).eval()
    learner.begin_step(2)  # half way up
    losses, _ = learner(ids, None, keys, keys.float())
    paid = torch.where(terms > free, terms, torch.full_like(terms, free)).sum(1)
    nats = network.nll(ids, mean).sum(1)
    assert_close(losses, (nats + 0.35 * paid) / LENGTH)


@torch.no_grad()
def test_nll_is_normalised_over_sentences_and_depends_on_the_latent(network: SentenceNetwork):
    """Rows of two tokens: with those that hold PAD, whose nats are not counted, they sum to one."""
    z = torch.randn(1, LATENTS, DIM, generator=torch.Generator().manual_seed(1))
    rows = torch.cartesian_prod(torch.arange(SIZE), torch.arange(SIZE))
    before = torch.tensor([[BOS, i] for i in range(SIZE)])
    many = z.expand(SIZE, -1, -1)
    given = torch.cat([network.memory(many), network._embedded(before, many)], dim=1)
    log_p = network.decoder(inputs_embeds=given).logits[:, LATENTS:].log_softmax(-1)
    first, second = log_p[0, 0], log_p[:, 1]
    kept = rows[(rows != PAD).all(1)]
    nll = network.nll(kept, z.expand(len(kept), -1, -1))
    assert_close(nll[:, 0], -first[kept[:, 0]], atol=1e-4, rtol=1e-4)
    pads = first[PAD].exp() + (first[1:] + second[1:, PAD]).exp().sum()
    assert float(torch.exp(-nll.sum(1)).sum() + pads) == pytest.approx(1, abs=1e-4)
    assert not torch.allclose(nll, network.nll(kept, -z.expand(len(kept), -1, -1)))


def test_writing_takes_the_likeliest_token_each_time_or_draws_by_seed(network: SentenceNetwork):
    z = torch.randn(9, LATENTS, DIM, generator=torch.Generator().manual_seed(2))
    rows = network.write(z)
    for i, row in enumerate(rows.tolist()):
        for place, token in enumerate(row):
            if token == PAD:
                break
            nll = []
            for other in range(SIZE):
                tried = torch.tensor([[*row[:place], other]])
                nats = network.nll(tried, z[i : i + 1])[0, place]
                nll.append(math.inf if other in (PAD, BOS) else float(nats))
            assert nll[token] == pytest.approx(min(nll), abs=1e-4)
    drawn = network.write(z, range(30, 39))
    assert torch.equal(drawn[4:5], network.write(z[4:5], [34]))
    cold = network.write(z, range(9), temperature=1e-4)
    assert torch.equal(cold, rows)


def test_padding_does_not_change_a_latent(network: SentenceNetwork):
    short, padded = torch.tensor([[4, 6, EOS]]), torch.tensor([[4, 6, EOS, PAD, PAD]])
    assert_close(network.encode(short)[0], network.encode(padded)[0], atol=1e-5, rtol=1e-5)
    assert network.encode(short)[0].shape == (1, LATENTS, DIM)


def test_information_is_that_of_separate_points_and_of_one():
    """N posteriors that do not overlap: ln N. All alike: 0."""
    generator = torch.Generator().manual_seed(0)
    mean = 50.0 * torch.arange(40)[:, None] * torch.ones(1, 3)
    log_variance = torch.zeros(40, 3)
    z = mean + torch.randn(40, 3, generator=generator)
    assert information(mean, log_variance, z) == pytest.approx(math.log(40), abs=1e-6)
    noise = torch.randn(40, 3, generator=generator)
    assert information(torch.zeros(40, 3), log_variance, noise) == pytest.approx(0, abs=1e-9)


def test_information_of_a_gaussian_channel_is_its_capacity():
    """x ~ N(0, s^2), z given x ~ N(x, 1): ln(1 + s^2) / 2."""
    generator = torch.Generator().manual_seed(0)
    mean = 2.0 * torch.randn(4000, 1, generator=generator)
    z = mean + torch.randn(4000, 1, generator=generator)
    found = information(mean, torch.zeros(4000, 1), z)
    assert found == pytest.approx(math.log(5) / 2, abs=0.05)


def collapsed_network() -> SentenceNetwork:
    settings, net = AutoencoderConfig(dim=DIM), text_config("net.dim=16").net
    made = SentenceNetwork(SIZE, LENGTH, settings, net).eval()
    for name in ("weight", "bias"):
        getattr(made.head, name).data.zero_()  # q(z | x) = N(0, 1) whatever x
    return made


def test_information_takes_little_memory_at_once_and_is_its_formula():
    mean, log_variance = torch.randn(2, 300, 64, generator=torch.Generator().manual_seed(0)) / 9
    with Largest() as largest:
        found = information(mean, log_variance, mean + 0.1)
    assert largest.numel <= ROOM < 256 * mean.numel()
    q = torch.distributions.Normal(mean.double(), (log_variance.double() / 2).exp())
    log_q = torch.stack([q.log_prob(z).sum(1) for z in mean.double() + 0.1])
    expected = (log_q.diagonal() - log_q.logsumexp(1)).mean() + math.log(300)
    assert found == pytest.approx(float(expected), abs=1e-5)


def test_one_sentence_has_no_health(network: SentenceNetwork):
    with pytest.raises(DataError, match=r"1 sentence: .* measured on two or more; give more"):
        examine(network, torch.tensor([[4, 5, EOS, PAD, PAD]]))


def test_collapse_is_seen_and_named_with_its_nats():
    ids = torch.randint(4, SIZE, (60, LENGTH), generator=torch.Generator().manual_seed(0))
    health = examine(collapsed_network(), ids)
    assert health.collapsed
    assert (health.kl_nats, health.active_units) == pytest.approx((0, 0), abs=1e-6)
    assert health.information_nats == pytest.approx(0, abs=1e-5)
    with pytest.raises(CheckpointError, match=r"posterior collapse.*KL 0 nats, 0 of 3 units"):
        check_health(health, "runs/points")


def test_a_decoder_that_does_not_listen_is_named():
    deaf = SentenceNetwork(SIZE, LENGTH, AutoencoderConfig(), text_config("net.dim=16").net).eval()
    for layer in (deaf.memory, deaf.told):
        layer.weight.data.zero_()
    deaf.head.weight.data.mul_(30)
    ids = torch.randint(4, SIZE, (60, LENGTH), generator=torch.Generator().manual_seed(0))
    health = examine(deaf, ids)
    assert not health.collapsed
    assert health.ignored
    assert health.gain_nats == pytest.approx(0, abs=1e-4)
    with pytest.warns(UserWarning, match="its decoder ignores the latents"):
        check_health(health, "runs/points")


def test_the_codec_standardises_and_comes_back(network: SentenceNetwork):
    health = Health(2, 1.0, 1, 6, 1.0, 1.0)
    shift = [float(i) / 3 for i in range(LATENTS * DIM)]
    codec = SentenceCodec(network, Measured("x", 2, shift, 2.5, "d", health))
    ids = torch.tensor([[4, 5, EOS, PAD, PAD]])
    x0 = codec.encode(ids)
    assert x0.shape == (1, *codec.latent_shape)
    mean = network.encode(ids)[0]
    assert_close(x0, (mean - torch.tensor(shift).view(LATENTS, DIM)) / 2.5)
    assert_close(codec.latents(x0), mean, atol=1e-5, rtol=1e-5)
    assert torch.equal(codec.encode(x0), x0)  # what is encoded passes
    assert torch.equal(codec.decode(x0), network.write(mean))
    level = variance_preserving(torch.tensor(1.3))
    z_0 = level.alpha * x0 + level.sigma * 0.4
    at = codec.latents(z_0 / level.alpha)
    assert_close(codec.log_prob(ids, z_0, level), -network.nll(ids, at).sum(1))
    with pytest.raises(ValueError, match=r"expected integers in \[0, 7\)"):
        codec.encode(torch.tensor([[7]]))


def test_training_teaches_the_decoder_to_use_the_latent(make_run):
    """Two words in random order: a short run already gets them from the latent."""
    run = make_run(*AUTOENCODER, "train.steps=60", "data.limit=200")
    evaluation = PANEL.evaluate(run, EvaluateRequest(n=40))
    assert evaluation["sentences"] == 40
    assert not evaluation["collapsed"]
    assert 0 <= evaluation["exact"] <= evaluation["token_accuracy"] <= 1
    assert evaluation["kl_nats"] > 0.5
    assert evaluation["units"] == 6
    assert len(evaluation["reconstructions"]) == 20


def test_a_run_on_latents_keeps_its_autoencoder(writer: Path, points: Path, tmp_path: Path):
    alone = tmp_path / "alone"
    shutil.copytree(writer, alone)
    measured = read_measured(alone)
    x0 = PANEL.examples(Pipeline.from_pretrained(alone).config, alone).take(torch.arange(300))[0]
    assert_close(x0.flatten(1).mean(0), torch.zeros(6), atol=0.1, rtol=0)
    assert float(x0.square().mean()) == pytest.approx(1, abs=0.1)
    assert measured.health.units == 6
    assert measured.source == str(points)
    text = dataclasses.replace(Pipeline.from_pretrained(alone).config.codec, run="nowhere")
    assert text.run == "nowhere"  # the path is told, not needed: what follows has no such folder
    source = points.rename(tmp_path / "gone")
    try:
        pipe = Pipeline.from_pretrained(alone)
        first = pipe(n=3, seeds=[3, 4, 5], num_inference_steps=4, solver="ddim").texts
        again = pipe(n=1, seeds=[4], num_inference_steps=4, solver="ddim").texts
        assert first[1:2] == again
        assert len(first) == 3
    finally:
        source.rename(points)


def test_what_is_frozen_is_not_in_the_checkpoint(writer: Path):
    learner = load_learner(writer)
    assert not [key for key in learner.state_dict() if "frozen" in key or "shift" in key]
    assert not [p for p in learner.parameters() if p is load_codec(writer).shift]


def test_the_likelihood_bound_goes_through_the_codec(writer: Path, monkeypatch, tmp_path: Path):
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path))
    result = PANEL.evaluate(
        writer, EvaluateRequest(n=6, steps=3, solver="ddim", likelihood=True, draws=2)
    )
    bound = result["likelihood"]
    assert bound["nats_per_sentence"] > bound["nats_per_sentence_floor"]
    assert math.isfinite(bound["reconstruction_nats_per_sentence"])


def _codec(run: Path) -> SentenceCodec:
    learner = load_learner(run)
    assert isinstance(learner, DiffusionLearner)
    assert isinstance(learner.codec, SentenceCodec)
    return learner.codec


def test_words_may_be_drawn_given_the_latent(writer: Path, points: Path, make_run):
    warm = make_run(*PLAIN, f"codec.run={points}", "codec.temperature=1.0")
    greedy, drawing = _codec(writer), _codec(warm)
    x0 = torch.zeros(20, 1, 6)
    assert len(set(map(tuple, greedy.words(x0, range(20)).tolist()))) == 1
    drawn = drawing.words(x0, range(20)).tolist()
    assert len(set(map(tuple, drawn))) > 1
    assert drawing.words(x0[:1], [7]).tolist()[0] == drawn[7]


def test_words_are_drawn_apart_from_the_noise_that_latents_begin_with(network: SentenceNetwork):
    """Of one z, the first token rises with its uniform, and the radius of a pair of normals falls
    with its own: they go together when the two uniforms are one number."""
    seeds, z = range(500), torch.zeros(500, LATENTS, DIM)
    first = network.write(z, seeds)[:, 0]
    assert len(first.unique()) > 3
    start = noise.normal(seeds, 0, (LATENTS * DIM,)).unflatten(1, (2, -1))
    radius = start.square().sum(1)[:, 0]
    assert abs(float(torch.stack([first.float(), radius]).corrcoef()[0, 1])) < 5 / 500**0.5


def test_several_latent_vectors_are_a_choice(make_run):
    points = make_run(*AUTOENCODER, "autoencoder.latents=3", "train.steps=8")
    writer = make_run(*PLAIN, f"codec.run={points}", "train.steps=4")
    assert load_codec(writer).latent_shape == (3, 6)
    assert len(Pipeline.from_pretrained(writer)(n=2, num_inference_steps=2).texts) == 2


def test_a_collapsed_autoencoder_is_refused_with_its_nats(points: Path, make_run, tmp_path: Path):
    dead = make_run(*AUTOENCODER, "autoencoder.beta=300", "autoencoder.free_bits=0",
                    "autoencoder.plain=0", "autoencoder.ramp=0", "train.steps=80",
                    "train.lr=2e-2")  # fmt: skip
    assert PANEL.evaluate(dead, EvaluateRequest(n=40))["collapsed"]
    with pytest.raises(CheckpointError, match=r"posterior collapse.*KL .* nats"):
        make_run(*PLAIN, f"codec.run={dead}")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("codec.kind=sentence",), "codec.run = null"),
        (("codec.run=x",), "codec.run = x: of sentences' latents"),
        (("codec.kind=sentence", "codec.run=x"), "a sentence's latents are no words"),
        (("autoencoder.dim=5",), "add model=autoencoder"),
        (("model=autoencoder", "autoencoder.plain=0.9", "autoencoder.ramp=0.2"), "sum of 1"),
        (("model=autoencoder", *TOLD), "reads sentences alone"),
        (
            ("model=autoencoder", "data.name=x", "data.picture={}", "data.source=picture"),
            "reads sentences alone",
        ),
        (("model=operator",), "needs a column of labels"),
        (("data.label_column=tone",), "nothing else reads one"),
        (("model=operator", "data.label_column=tone"), "set codec.kind=sentence"),
    ],
)
def test_configurations_that_do_not_go_together_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        text_config(*settings)


def test_bad_sources_of_latents_are_named(make_run, points: Path, tmp_path: Path):
    causal = make_run("model=causal")
    with pytest.raises(ConfigError, match="expected a text run of model: autoencoder"):
        make_run(*PLAIN, f"codec.run={causal}")
    with pytest.raises(ConfigError, match=r"data.length = 30: the autoencoder .* reads 24"):
        make_run(*PLAIN, f"codec.run={points}", "data.length=30")
    with pytest.raises(ConfigError, match="it writes nothing by itself"):
        Pipeline.from_pretrained(points)


def test_sources_whose_words_the_tokenizer_of_the_latents_lacks_are_refused(points: Path, make_run):
    with pytest.raises(
        ConfigError, match=r"not know 5 of .* 'child', .*train that autoencoder with"
    ):
        make_run(*PLAIN, *TOLD, f"codec.run={points}")


def test_latents_follow_sources_whose_words_their_tokenizer_has_learned(make_run):
    """The loss of the training sentences is lower beside their own sources than beside others'."""
    made = make_run(*AUTOENCODER, "data.source=scene", "data.limit=60", "train.steps=60")
    run = make_run(
        *PLAIN, *TOLD, f"codec.run={made}", "data.limit=60", "train.steps=200", "train.batch=60"
    )
    pipe = Pipeline.from_pretrained(run)
    assert len(pipe(n=1, prompt="formal child , red star", num_inference_steps=2).texts) == 1
    x0, sources = PANEL.examples(pipe.config, run).take(torch.arange(60))
    assert sources is not None
    keys, t = torch.arange(60), torch.full((60,), 0.7)
    learner = load_learner(run).eval()
    with torch.no_grad():
        own, others = (
            float(learner(x0, rows, keys, t)[0].mean()) for rows in (sources, sources.roll(1, 0))
        )
    assert own < 0.5 * others


def test_damaged_measures_are_named(writer: Path, tmp_path: Path):
    copy = tmp_path / "run"
    shutil.copytree(writer, copy)
    (copy / MEASURED).write_text("{}")
    with pytest.raises(CheckpointError, match=r"latents.json: missing or damaged"):
        load_codec(copy)


def test_word_controls_are_refused_on_latents(writer: Path):
    pipe = Pipeline.from_pretrained(writer)
    assert isinstance(pipe.config, TextConfig)
    with pytest.raises(ConfigError, match="steer it with diptych control --operator"):
        pipe(n=1, given="a [MASK]*", num_inference_steps=2)
