"""CoBit's recipe: bits beside their exact evidence, weighted as EDM, where the loss changes."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from shared.codec import Bits
from shared.config import DiffusionConfig
from shared.configs import load_config
from shared.denoiser import Denoiser
from shared.learner import DiffusionLearner
from shared.objective.moment import noised
from shared.objective.streams import NOISE
from shared.runs import load_learner
from shared.schedule import Edm, Level
from shared.solver import for_data, prepare
from shared.train.loop import train
from tests.text.conftest import TINY
from text.panel import PANEL
from text.pipeline import Pipeline

SIGMAS = (0.05, 0.2, 0.3, 0.5, 1.0, 3.0, 80.0)  # of bits that are 0 and 1


class Silent(nn.Module):
    """A network that says nothing."""

    def forward(
        self, x: Tensor, logsnr: Tensor, condition: Tensor | None, previous: Tensor | None
    ) -> Tensor:
        return torch.zeros_like(x)


def silent(codec: Bits) -> Denoiser:
    return Denoiser(Silent(), "categorical", codec.scale, codec=codec, evidence=True)


def level(sigma: float) -> Level:
    one = torch.tensor(1.0, dtype=torch.float64)
    return Level(-2 * torch.log(sigma * one), one, sigma * one)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_with_the_network_zeroed_the_posterior_is_that_of_fair_bits(sigma: float) -> None:
    """p(bit = 1 | x) by Bayes' rule from the densities of x = bit + sigma eps; the logits of the
    paper are (x - 1/2) / sigma^2 for bits in {0, 1}, kept within 30 nats."""
    codec = Bits(8, (5,), scale=0.5).double()
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(2, (40, 5, 3), generator=generator).double()
    x = bits + sigma * torch.randn(40, 5, 3, generator=generator, dtype=torch.float64)
    found = silent(codec)(x - 0.5, level(sigma)) + 0.5
    on, off = (torch.exp(-((x - bit) ** 2) / (2 * sigma**2)) for bit in (1, 0))
    sure = ((x - 0.5) / sigma**2).abs() > 30
    exact = torch.where(sure, (x > 0.5).double(), on / (on + off).clamp(min=1e-300))
    torch.testing.assert_close(found, exact, atol=1e-6, rtol=0)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_bit_errors_follow_the_tail_of_the_normal_law(sigma: float) -> None:
    """Q(1 / (2 sigma)), with the network zeroed, through the decoder of token ids."""
    codec = Bits(256, (1000,), scale=0.5)
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(256, (100, 1000), generator=generator)
    keys = torch.arange(100)
    x_t = noised(codec.encode(ids), level(sigma), keys, NOISE)
    read = codec.decode(silent(codec)(x_t, level(sigma)))
    wrong = (codec.signs(read) != codec.signs(ids)).double()
    expected = math.erfc(1 / (2 * sigma) / math.sqrt(2)) / 2
    error = math.sqrt(expected * (1 - expected) / wrong.numel())
    assert abs(float(wrong.mean()) - expected) <= max(3 * error, 1e-9)


def test_bits_of_one_with_twice_the_sigma_are_bits_of_zero_and_one() -> None:
    ours, theirs = Bits(8, (5,)), Bits(8, (5,), scale=0.5)
    x = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(2))
    config = load_config("text/e2e_cobit", ())[2].diffusion
    doubled, edm = config.base_schedule(), Edm()
    for t in torch.linspace(0, 1, 5):
        assert float(doubled(t).sigma) == pytest.approx(2 * float(edm(t).sigma), rel=1e-5)
        found = silent(ours).output(2 * x, doubled(t))
        torch.testing.assert_close(found, silent(theirs).output(x, edm(t)), rtol=1e-4, atol=1e-5)


def test_the_cross_entropy_is_weighted_as_in_edm_and_the_density_is_fitted_to_it_alone() -> None:
    codec = Bits(8, (5,))
    config = DiffusionConfig(
        schedule="edm",
        prediction="categorical",
        evidence=True,
        weighting="edm",
        self_condition=False,
    )
    weighted = replace(config, weigh_cross_entropy=True)
    data = torch.randint(8, (6, 5), generator=torch.Generator().manual_seed(3))
    keys, t = torch.arange(6), torch.linspace(0.3, 0.9, 6)
    plain, logsnr = DiffusionLearner(Silent(), codec, config)(data, None, keys, t)
    learner = DiffusionLearner(Silent(), codec, weighted)
    losses, again = learner(data, None, keys, t)
    sigma = torch.exp(-logsnr / 2)
    torch.testing.assert_close(again, logsnr)
    torch.testing.assert_close(losses, plain * (sigma**2 + 1) / sigma**2)
    torch.testing.assert_close(learner.unweighted(losses, logsnr), plain)


def trained(run: Path, *changes: str) -> DiffusionLearner:
    """The recipe on scenes, with a small network and few steps."""
    tiny = [word for word in TINY if not word.startswith("codec")]
    tiny += ["data.name=scene", "data.min_count=1", "train.precision=fp32", *changes]
    train(load_config("text/e2e_cobit", tiny)[2], run, PANEL, quiet=True)
    learner = load_learner(run)
    assert isinstance(learner, DiffusionLearner)
    return learner


def test_training_fits_the_density_to_losses_without_weights(tmp_path) -> None:
    """SNR, which "eps" weighs by, is 1e-4 and less where nothing but noise is seen."""
    density = trained(tmp_path / "run", "train.steps=3", "diffusion.weighting=eps").density
    assert density is not None
    assert float(density.loss()[0]) > math.log(2)  # nats of a word


def test_the_recipe_trains_and_writes_with_churn(tmp_path) -> None:
    learner = trained(tmp_path / "run")
    assert learner.density is not None
    assert len(learner.density.loss()) == 128
    plan = prepare(learner.schedule, for_data("heun_churn", 1.0), 6)
    assert len(plan.steps) > 6  # some of them are churn
    texts = Pipeline.from_pretrained(tmp_path / "run")(
        seeds=range(4), solver="heun_churn", num_inference_steps=6
    ).texts
    assert len(set(texts)) == 4
