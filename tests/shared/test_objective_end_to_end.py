"""The end-to-end objective of Diffusion-LM: a transcription of the paper, term by term, float64."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from shared import noise
from shared.denoiser import Denoiser
from shared.objective import EndToEnd, Terms
from shared.objective.streams import LATENT, NOISE
from shared.schedule import from_betas, sqrt_betas
from text.codec import Embedding

SIZE, LENGTH, DIM, STEPS = 7, 3, 5, 10
DATA = torch.tensor([[0, 4, 6], [2, 2, 5], [1, 0, 3], [6, 6, 6]])
KEYS = torch.tensor([3, 4, 8, 1])
AT = [1, 2, 10, 1]  # the step of each datum
T = torch.tensor([0.03, 0.15, 1.0, 0.0])
TERMS = ("denoising", "rounding", "prior")


class Mix(nn.Module):
    """F mixes places and coordinates, by the level."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.matrix = nn.Parameter(torch.randn(DIM, DIM, generator=generator) / 3)

    def forward(
        self, x: Tensor, logsnr: Tensor, condition: None, previous: Tensor | None
    ) -> Tensor:
        told = torch.sigmoid(logsnr)[:, None, None]
        last = 0 if previous is None else previous / 5
        return (x + x.roll(1, dims=1) / 2) @ self.matrix * told + last


def parts(self_condition: bool = False) -> tuple[EndToEnd, Denoiser, Embedding]:
    torch.manual_seed(0)
    codec = Embedding(SIZE, LENGTH, DIM, unit_norm=False).double()
    objective = EndToEnd(SIZE, from_betas(sqrt_betas(STEPS))).double()
    nn.init.normal_(objective.bias)
    net = Mix().double()
    return objective, Denoiser(net, "x0", self_condition=self_condition, codec=codec), codec


def transcribed(objective: EndToEnd, denoiser: Denoiser, table: Tensor) -> dict[str, Tensor]:
    """The paper's terms, datum by datum, with its betas from its alpha_bar."""
    betas, product = [], 1.0
    for i in range(1, STEPS + 1):
        here, before = (1 - math.sqrt(j / STEPS + 1e-4) for j in (i, i - 1))
        betas.append(min(1 - here / before, 0.999))
    alpha_bar = []
    for beta in betas:
        product *= 1 - beta
        alpha_bar.append(product)
    found: dict[str, list[Tensor]] = {name: [] for name in TERMS}
    for i, step in enumerate(AT):
        first, second = (
            noise.normal(KEYS[i : i + 1], stream, (LENGTH, DIM))[0].double()
            for stream in (LATENT, NOISE)
        )
        emb = table[DATA[i]]
        x_0 = emb + math.sqrt(1 - alpha_bar[0]) * first
        signal = alpha_bar[step - 1]
        x_t = math.sqrt(signal) * x_0 + math.sqrt(1 - signal) * second
        logsnr = torch.tensor([math.log(signal / (1 - signal))], dtype=torch.float64)
        f = denoiser.net(x_t[None], logsnr, None, None)[0]
        target = emb if step == 1 else x_0
        found["denoising"].append(((target - f) ** 2).sum() / (LENGTH * DIM))
        nats = torch.zeros((), dtype=torch.float64)
        for place, word in enumerate(DATA[i].tolist()):
            scores = torch.stack([table[v] @ x_0[place] + objective.bias[v] for v in range(SIZE)])
            nats = nats - torch.log(scores[word].exp() / scores.exp().sum())
        found["rounding"].append(nats / LENGTH)
        mean = math.sqrt(alpha_bar[-1]) * x_0
        found["prior"].append((mean**2).sum() / (LENGTH * DIM))
    return {name: torch.stack(values) for name, values in found.items()}


def terms_of(objective: EndToEnd, denoiser: Denoiser, codec: Embedding) -> Terms:
    return objective(denoiser, codec, DATA, None, T, KEYS)[0]


@pytest.mark.parametrize("name", TERMS)
def test_each_term_and_its_gradients_are_the_papers(name: str):
    objective, denoiser, codec = parts()
    got = getattr(terms_of(objective, denoiser, codec), name)
    expected = transcribed(objective, denoiser, codec.weight)[name]
    assert_close(got, expected, rtol=1e-10, atol=1e-14)
    weights = {
        "table": codec.weight,
        "bias": objective.bias,
        **dict(denoiser.net.named_parameters()),
    }
    one, other = (
        torch.autograd.grad(loss.sum(), list(weights.values()), allow_unused=True)
        for loss in (got, expected)
    )
    for key, a, b in zip(weights, one, other, strict=True):
        assert (a is None) == (b is None), key
        if a is not None and b is not None:
            assert_close(a, b, rtol=1e-8, atol=1e-14)
    table = one[0]
    assert table is not None
    for datum in DATA:  # of every word in it
        assert bool((table[datum].abs().sum(1) > 0).all())


def test_the_loss_is_the_sum_of_the_terms_and_the_levels_are_those_of_the_steps():
    objective, denoiser, codec = parts()
    terms, level = objective(denoiser, codec, DATA, None, T, KEYS)
    assert_close(terms.total, sum(getattr(terms, name) for name in TERMS))
    knots = objective.chain(torch.tensor(AT, dtype=torch.float64) / STEPS)
    assert_close(level.logsnr, knots.logsnr)
    assert_close(level.sigma, knots.sigma)


def test_every_step_of_the_chain_has_an_equal_share_of_the_times():
    objective, denoiser, codec = parts()
    times = (torch.arange(4 * STEPS) + 0.5) / (4 * STEPS)
    data, keys = DATA[:1].expand(len(times), LENGTH), torch.arange(len(times))
    level = objective(denoiser, codec, data, None, times, keys)[1]
    knots = objective.chain(torch.arange(1, STEPS + 1, dtype=torch.float64) / STEPS)
    assert_close(level.logsnr, knots.logsnr.repeat_interleave(4))


def test_self_conditioning_shows_even_keys_their_first_estimate():
    objective, denoiser, codec = parts()
    plain = terms_of(objective, denoiser, codec)
    conditioned = terms_of(*parts(self_condition=True))
    changed = (plain.denoising - conditioned.denoising).abs() > 1e-6
    assert torch.equal(changed, KEYS % 2 == 0)
    assert_close(plain.rounding, conditioned.rounding)


def test_without_the_rounding_term_the_points_fall_together_and_with_it_they_do_not():
    spread: dict[bool, float] = {}
    for rounding in (True, False):
        objective, denoiser, codec = parts()
        moving = [codec.weight, objective.bias, *denoiser.parameters()]
        optimizer = torch.optim.Adam(list({id(p): p for p in moving}.values()), lr=0.03)
        for step in range(300):
            keys = torch.arange(len(DATA)) + step * len(DATA)
            terms = objective(denoiser, codec, DATA, None, (T + step / 7) % 1, keys)[0]
            loss = terms.total if rounding else terms.denoising + terms.prior
            optimizer.zero_grad()
            loss.mean().backward()
            optimizer.step()
        spread[rounding] = float(torch.pdist(codec.weight.detach()).median())
    assert spread[False] < 0.3
    assert spread[True] > 1.5
