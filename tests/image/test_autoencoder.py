"""Autoencoders as they are trained: each term of the loss, its gradients, and the common loop."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.vq_model import VQModel
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from image.autoencoder.config import AdversarialConfig, AutoencoderConfig
from image.autoencoder.critic import SMALL, PatchDiscriminator, last_layer_norms, verdict
from image.autoencoder.evaluation import perplexity
from image.autoencoder.learner import AutoencoderLearner
from image.autoencoder.network import build_network, chosen, nearest, posterior
from image.autoencoder.perceptual import Perceptual
from image.classifier import Block, Classifier
from image.config import ImageConfig
from image.panel import PANEL
from shared import noise
from shared.configs import load_config
from shared.errors import CheckpointError, ConfigError
from shared.objective.streams import ENCODE
from shared.train.checkpoint import load, newest
from shared.train.loop import train
from shared.train.progress import read_log
from tests.image.conftest import image_config
from tests.test_command import assert_refused, diptych, told

B, LEVELS, SHAPE = 3, 17, (2, 8, 12)
ADVERSARIAL = AdversarialConfig(weight=0.5, width=4, layers=1)


def build(adversarial: AdversarialConfig | None = None, **settings: Any) -> AutoencoderLearner:
    """Random weights under which posteriors are wide and every term counts."""
    torch.manual_seed(0)
    config = AutoencoderConfig(
        channels=(4, 8),
        latent_channels=3,
        adversarial=adversarial or AdversarialConfig(),
        **settings,
    )
    learner = AutoencoderLearner(build_network(config, SHAPE[0]), LEVELS, SHAPE, config)
    return learner.eval()


def data(seed: int = 1) -> Tensor:
    return torch.randint(LEVELS, (B, *SHAPE), generator=torch.Generator().manual_seed(seed))


def test_loss_of_a_gaussian_autoencoder_is_l1_and_the_kl_divergence():
    learner = build(kl_weight=0.3)
    assert isinstance(learner.network, AutoencoderKL)
    losses, logsnr = learner(data(), None, torch.arange(B), torch.rand(B))
    x = data() / 8 - 1
    said: Any = learner.network.encode(x)
    found = said.latent_dist
    standard = Normal(torch.zeros(()), torch.ones(()))
    kl = kl_divergence(Normal(found.mean, found.std), standard).flatten(1).sum(1)
    assert learner.network.post_quant_conv is not None
    x_hat = learner.network.decoder(learner.network.post_quant_conv(found.mean))
    expected = ((x - x_hat).abs().flatten(1).sum(1) + 0.3 * kl) / (2 * 8 * 12)
    assert logsnr is None
    assert float(kl.detach().min()) > 1
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-6)


def test_training_draws_latents_from_the_posterior_by_key_alone():
    learner, keys = build(), torch.arange(B) * 7
    assert isinstance(learner.network, AutoencoderKL)
    x = learner.pixels.encode(data())
    z, _ = learner.encode(x, keys)
    found = posterior(learner.network, x)
    assert float(found.std.mean()) > 0.3
    torch.testing.assert_close(z, found.mean + found.std * noise.normal(keys, ENCODE, (3, 4, 6)))
    torch.testing.assert_close(learner.encode(x)[0], found.mean)
    losses = learner.train()(data(), None, keys, torch.rand(B))[0]
    assert not torch.allclose(losses, learner.eval()(data(), None, keys, torch.rand(B))[0])


@pytest.mark.parametrize("kind", ["kl", "vq"])
@pytest.mark.parametrize("adversarial", [None, ADVERSARIAL])
def test_loss_and_gradient_of_a_sample_do_not_depend_on_its_neighbours(kind: str, adversarial):
    learner, keys, t = build(adversarial, kind=kind).train(), torch.arange(B) * 7, torch.rand(B)
    learner.begin_step(0)
    together = learner(data(), None, keys, t)[0]
    parameters = list(learner.parameters())
    gradients = torch.autograd.grad(together[1], parameters, allow_unused=True)
    alone = learner(data()[1:2], None, keys[1:2], t[1:2])[0]
    torch.testing.assert_close(alone[0], together[1], rtol=1e-5, atol=1e-6)
    for a, b in zip(
        gradients, torch.autograd.grad(alone[0], parameters, allow_unused=True), strict=True
    ):
        if a is not None and b is not None:
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


def test_nearest_code_is_that_of_brute_force():
    generator = torch.Generator().manual_seed(0)
    z, codes = torch.randn(2, 3, 4, 5, generator=generator), torch.randn(7, 3, generator=generator)
    found = nearest(z, codes)
    e = chosen(codes, found)
    for b in range(2):
        for h in range(4):
            for w in range(5):
                apart = [float((z[b, :, h, w] - code).square().sum()) for code in codes]
                assert int(found[b, h, w]) == apart.index(min(apart))
                assert torch.equal(e[b, :, h, w], codes[found[b, h, w]])


def test_gradients_pass_straight_through_codes_and_move_both_sides_together():
    """Of what the decoder is given, to the encoder as they are; of the two squares, each to its
    side."""
    learner = build(kind="vq", codes=5, commitment=0.3)
    assert isinstance(learner.network, VQModel)
    table = learner.network.quantize.embedding.weight
    with torch.no_grad():
        table.normal_(generator=torch.Generator().manual_seed(2))
    x = learner.pixels.encode(data())
    latents: list[Tensor] = []

    def keep(_: nn.Module, given: Any, out: Tensor) -> None:
        latents.append(out)
        out.retain_grad()

    learner.network.quant_conv.register_forward_hook(keep)
    given, regular = learner.encode(x)
    z = latents[0]
    e = chosen(table, nearest(z, table)).detach()
    torch.testing.assert_close(given, e, rtol=1e-5, atol=1e-6)
    weights = torch.randn_like(given)
    to_z, to_table = torch.autograd.grad(
        (given * weights).sum(), (z, table), retain_graph=True, allow_unused=True
    )
    torch.testing.assert_close(to_z, weights, rtol=1e-5, atol=1e-6)
    assert to_table is None or not bool(to_table.any())
    n = z[0].numel()
    expected = 1.3 * (z - e).square().flatten(1).sum(1) / n
    torch.testing.assert_close(regular, expected.detach(), rtol=1e-5, atol=1e-6)
    to_z, to_table = torch.autograd.grad(regular.sum(), (z, table))
    torch.testing.assert_close(to_z, 2 * 0.3 * (z - e) / n, rtol=1e-4, atol=1e-6)
    rows = nearest(z, table).flatten()
    pull = (2 * (e - z) / n).movedim(1, -1).flatten(0, 2)
    moved = torch.zeros_like(table).index_add(0, rows, pull)
    torch.testing.assert_close(to_table, moved, rtol=1e-4, atol=1e-6)


def test_last_layer_norms_are_those_of_each_samples_gradient():
    generator = torch.Generator().manual_seed(0)
    layer = nn.Conv2d(5, 2, 3, padding=1)
    hidden = torch.randn(B, 5, 4, 6, generator=generator)
    pull = torch.randn(B, 2, 4, 6, generator=generator)
    found = last_layer_norms(hidden, pull)
    for i in range(B):
        loss = (layer(hidden[i : i + 1]) * pull[i : i + 1]).sum()
        expected = torch.autograd.grad(loss, layer.weight)[0].norm()
        torch.testing.assert_close(found[i], expected)


def test_adversarial_terms_move_each_side_by_its_own_loss():
    torch.manual_seed(0)
    critic, layer = PatchDiscriminator(2, 4, 1), nn.Conv2d(5, 2, 3, padding=1)
    x, hidden, pull = torch.randn(B, 2, 8, 12), torch.randn(B, 5, 8, 12), torch.randn(B, 2, 8, 12)
    x_hat = layer(hidden)
    said = verdict(critic, x, x_hat, pull, hidden, AdversarialConfig(weight=0.7, width=4, layers=1))
    fooling = -critic(x_hat).mean(1)
    torch.testing.assert_close(said.fooling, said.weight * fooling)
    for i in range(B):
        rec = torch.autograd.grad((x_hat[i] * pull[i]).sum(), layer.weight, retain_graph=True)[0]
        adv = torch.autograd.grad(fooling[i], layer.weight, retain_graph=True)[0]
        ratio = 0.7 * rec.norm() / (adv.norm() + SMALL)  # Esser et al. 2021, eq. 7
        torch.testing.assert_close(said.weight[i], ratio)
        ours = torch.autograd.grad(said.fooling[i], layer.weight, retain_graph=True)[0]
        torch.testing.assert_close(ours, ratio * adv)
    inside = list(critic.parameters())
    to_critic = torch.autograd.grad(
        said.fooling.sum(), inside, retain_graph=True, allow_unused=True
    )
    assert all(each is None for each in to_critic)
    fixed = x_hat.detach()
    hinge = (1 - critic(x)).clamp(min=0).mean(1) + (1 + critic(fixed)).clamp(min=0).mean(1)
    torch.testing.assert_close(said.telling, hinge / 2)
    to_layer = torch.autograd.grad(
        said.telling.sum(), layer.weight, retain_graph=True, allow_unused=True
    )
    assert to_layer[0] is None
    ours = torch.autograd.grad(said.telling.sum(), inside)
    for a, b in zip(ours, torch.autograd.grad((hinge / 2).sum(), inside), strict=True):
        torch.testing.assert_close(a, b)


def test_gradient_of_the_whole_loss_is_reconstruction_regular_and_weighted_adversarial():
    learner = build(ADVERSARIAL, kl_weight=0.3)
    assert learner.critic is not None
    learner.begin_step(0)
    x = learner.pixels.encode(data())
    inside = list(learner.network.parameters())
    ours = torch.autograd.grad(learner(data(), None, torch.arange(B), None)[0].sum(), inside)
    z, regular = learner.encode(x)
    hidden: list[Tensor] = []
    learner.network.decoder.conv_out.register_forward_pre_hook(
        lambda _, given: hidden.append(given[0])
    )
    x_hat = learner.decode(z)
    losses = learner.apart(x, x_hat)
    pull = torch.autograd.grad(losses.sum(), x_hat, retain_graph=True)[0]
    said = verdict(learner.critic, x, x_hat, pull, hidden[0], ADVERSARIAL)
    adversarial = said.weight.detach() * -learner.critic(x_hat).mean(1)
    assert float(said.weight.min()) > 1e-3
    total = (losses + regular + adversarial).sum()
    for a, b in zip(ours, torch.autograd.grad(total, inside), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_discriminator_joins_at_its_step():
    learner = build(AdversarialConfig(weight=0.5, start=4, width=4, layers=1))
    plain = learner(data(), None, torch.arange(B), None)[0]
    learner.begin_step(3)
    assert torch.equal(learner(data(), None, torch.arange(B), None)[0], plain)
    learner.begin_step(4)
    assert not torch.allclose(learner(data(), None, torch.arange(B), None)[0], plain)


def test_perceptual_distance_is_that_of_unit_features_at_every_stage():
    torch.manual_seed(0)
    classifier = Classifier(SHAPE, LEVELS, 4, several=False, width=8)
    perceptual = Perceptual(classifier)
    x, y = torch.rand(2, B, *SHAPE) * 2 - 1
    expected, stages, a, b = torch.zeros(B), 0, x, y
    for layer in classifier.body:
        a, b = layer(a), layer(b)
        if isinstance(layer, Block):
            stages += 1
            for i in range(B):
                apart = [
                    (a[i, :, h, w] / a[i, :, h, w].norm() - b[i, :, h, w] / b[i, :, h, w].norm())
                    .square()
                    .sum()
                    for h in range(a.shape[2])
                    for w in range(a.shape[3])
                ]
                expected[i] += torch.stack(apart).mean()
    assert stages > 1
    torch.testing.assert_close(perceptual(x, y), expected / stages)
    assert perceptual(x, x).tolist() == [0.0] * B
    assert not list(perceptual.parameters())
    assert not perceptual.state_dict()


def test_perplexity_counts_codes_as_if_they_were_equally_frequent():
    assert perplexity(torch.tensor([3, 0, 3, 3])) == pytest.approx(3)
    assert perplexity(torch.tensor([7, 0])) == pytest.approx(1)
    assert perplexity(torch.tensor([1, 3])) == pytest.approx(4 / 3**0.75)


def test_autoencoder_of_stable_diffusion_has_its_size():
    _, _, config, _ = load_config("image/autoencoder_kl_f8", [])
    assert isinstance(config, ImageConfig)
    with torch.device("meta"):
        network = build_network(config.autoencoder, 3)
        assert isinstance(network, AutoencoderKL)
        said: Any = network.encode(torch.zeros(1, 3, 256, 256))
        z = said.latent_dist.mean
    assert tuple(z.shape) == (1, 4, 32, 32)
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(83.65e6, rel=0.01)


TINY = (
    "model=autoencoder", "autoencoder.channels=[8, 16]", "autoencoder.latent_channels=2",
    "autoencoder.codes=16", "train.decay=none", "train.log_every=1",
)  # fmt: skip
BESIDE = (
    "autoencoder.adversarial.weight=0.5", "autoencoder.adversarial.start=3",
    "autoencoder.adversarial.width=8", "autoencoder.adversarial.layers=1",
)  # fmt: skip


@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_interrupted_run_goes_on_bit_for_bit_into_adversarial_training(kind: str, tmp_path: Path):
    words = (*TINY, *BESIDE, f"autoencoder.kind={kind}")
    train(image_config(*words), tmp_path / "whole", PANEL, quiet=True)
    for steps in (2, 4):
        part = image_config(*words, f"train.steps={steps}")
        train(part, tmp_path / "parts", PANEL, quiet=True)
    found = [newest(tmp_path / name) for name in ("whole", "parts")]
    for part in ("model", "ema", "optimizer"):
        whole, resumed = (load(each[0], part) for each in found if each is not None)
        for name in whole:
            assert torch.equal(whole[name], resumed[name]), name
    moved = load(found[0][0], "optimizer") if found[0] else {}
    assert any("critic" in name and bool(moved[name].any()) for name in moved)


def test_stages_of_zero_and_accumulation_give_one_loss_curve(tmp_path: Path):
    words = (*TINY, *BESIDE, "autoencoder.kind=vq", "train.steps=6")
    curves: list[list[float]] = []
    for i, more in enumerate(
        ([], ["train.zero_stage=2"], ["train.zero_stage=3"], ["train.accumulation=2"])
    ):
        run = tmp_path / str(i)
        train(image_config(*words, *more), run, PANEL, quiet=True)
        curves.append([row["loss"] for row in read_log(run / "log.jsonl")])
    for curve in curves[1:]:
        assert curve == pytest.approx(curves[0], abs=1e-4)


def test_the_command_learns_to_give_digits_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Better than their mean, by the numbers and in the picture it writes."""
    import numpy as np
    from PIL import Image

    from image.data import load_pictures

    words = [
        *TINY, "train.steps=150", "train.batch=32", "train.lr=5e-3", "train.warmup=5",
        "judge.width=16", "judge.train.steps=60", "judge.train.warmup=5",
    ]  # fmt: skip
    run = tmp_path / "run"
    told(
        diptych("train", "image/autoencoder_kl", f"run={run}", "data.name=digits", *words, "--json")
    )
    result = told(diptych("evaluate", run, "-n", "100", "--json"))
    config = image_config("data.name=digits").data
    train_split, held_out = (load_pictures(config, held_out=at) for at in (False, True))
    mean = train_split.images.double().mean(0)
    error = (held_out.images.double() - mean).square().flatten(1).mean(1)
    baseline = float((10 * torch.log10(16**2 / error)).mean())
    assert result["images"] == 100
    assert result["psnr_db"] > baseline + 1
    assert 0 < result["kl_nats_per_dim"] < 20
    assert result["latent_shape"] == [2, 4, 4]
    assert result["reconstruction_frechet_distance"] > 0
    assert result["frechet"]["features"] == result["judge"]["name"]
    other = told(diptych("evaluate", run, "-n", "9", "--split", "train", "--json"))
    assert (result["split"], other["split"]) == ("test", "train")
    assert_refused(diptych("evaluate", run, "-n", "1"), 2, "n = 1: expected 2 pictures or more")
    assert_refused(diptych("evaluate", run, "--guidance", "2"), 2, "guidance: an autoencoder")
    for words in (["--prompt", "a hat"], ["--guidance", "2"], ["--class", "3"], ["--clip", "no"]):
        assert_refused(diptych("sample", run, *words), 2, f"{words[0][2:]}: an autoencoder draws")
    told(diptych("sample", run, "-n", "6", "--seed", "3", "--json"))
    arrays = np.load(run / "samples" / "reconstructions.npz")
    originals, made = (arrays[name].astype(float) for name in ("originals", "reconstructions"))
    assert originals.shape == made.shape == (6, 1, 8, 8)
    assert np.array_equal(originals, np.round(held_out.images[arrays["rows"]].numpy() * (255 / 16)))
    grid = np.asarray(Image.open(run / "samples" / "reconstructions.png"))
    assert np.array_equal(grid[2:50:6, 2:50:6], arrays["originals"][0, 0])
    assert np.array_equal(grid[2:50:6, 52:100:6], arrays["reconstructions"][0, 0])
    assert np.square(originals - made).mean() < np.square(originals - originals.mean(0)).mean()


def test_a_named_classifier_is_compared_in_and_kept_with_the_run(make_run, tmp_path: Path):
    judge_run = tmp_path / "judge"
    shutil.copytree(make_run("model=classifier"), judge_run)
    run = tmp_path / "run"
    words = (*TINY, f"autoencoder.perceptual={judge_run}")
    train(image_config(*words, "train.steps=2"), run, PANEL, quiet=True)
    shutil.rmtree(judge_run)
    train(image_config(*words), run, PANEL, quiet=True)
    plain = tmp_path / "plain"
    train(image_config(*TINY), plain, PANEL, quiet=True)
    with_it, without = (read_log(each / "log.jsonl")[0]["loss"] for each in (run, plain))
    assert with_it > without + 0.01
    noisy = make_run("model=classifier", "noisy=true")
    for number, (named, error, what) in enumerate(
        (
            (plain, ConfigError, "expected a run of model: classifier"),
            (noisy, ConfigError, "learned from noisy pictures"),
            (judge_run, CheckpointError, "no such folder"),
        )
    ):
        config = image_config(*TINY, f"autoencoder.perceptual={named}")
        with pytest.raises(error, match=what):
            train(config, tmp_path / str(number), PANEL, quiet=True)


def test_pictures_that_cannot_be_halved_are_refused(tmp_path: Path):
    words = (*TINY, "autoencoder.channels=[8, 8, 8, 8, 8]")
    with pytest.raises(ConfigError, match=r"8 x 8 pixels are no multiple of 16"):
        train(image_config(*words), tmp_path / "run", PANEL, quiet=True)


def test_settings_of_an_autoencoder_are_for_autoencoders():
    with pytest.raises(ConfigError, match="does not read it"):
        image_config("autoencoder.codes=8")
    with pytest.raises(ConfigError, match=r"autoencoder\.kind"):
        image_config("model=autoencoder", "autoencoder.kind=vqq")
    with pytest.raises(ConfigError, match="expected one of them"):
        image_config("codec.kind=autoencoder")
    with pytest.raises(ConfigError, match=r"codec\.kind = 'pixels'"):
        image_config("codec.cache_latents=true")
    with pytest.raises(ConfigError, match="leave codec out"):
        image_config("model=autoencoder", "codec.kind=autoencoder", "codec.run=x")
