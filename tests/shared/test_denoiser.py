"""Predictions, denoiser, losses: identities, exact posteriors, independence of the batch."""

import math

import pytest
import torch
from scipy.stats import kstest
from torch import Tensor, nn

from shared import noise
from shared.codec import Bits, Identity
from shared.denoiser import Denoiser
from shared.nets.transformer import Transformer
from shared.objective import (
    DROP,
    NOISE,
    TIME,
    diffusion_loss,
    drop_condition,
    sample_keys,
    stratified_times,
    weight,
)
from shared.oracle import GaussianMixture
from shared.prediction import PREDICTIONS, coefficients, from_x0, to_x0
from shared.schedule import Cosine, Level, variance_preserving

SCHEDULE = Cosine(-6, 6)


class Recorder(nn.Module):
    """A linear network that remembers what it was given."""

    def __init__(self, gain: float = 0.5) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))
        self.seen: list[tuple[Tensor, Tensor, Tensor | None, Tensor | None]] = []

    def forward(
        self, x: Tensor, logsnr: Tensor, condition: Tensor | None, previous: Tensor | None
    ) -> Tensor:
        self.seen.append((x, logsnr, condition, previous))
        out = self.gain * x
        return out if previous is None else out + 0.25 * previous


def levels(n: int) -> Level:
    return variance_preserving(torch.linspace(-4, 4, n, dtype=torch.float64))


@pytest.mark.parametrize("prediction", sorted(PREDICTIONS))
def test_each_prediction_is_what_its_name_says(prediction: str):
    level = levels(5).widen(2)
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    eps = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    x_t = level.alpha * x0 + level.sigma * eps
    meaning = {
        "x0": x0,
        "eps": eps,
        "score": -eps / level.sigma,
        "v": level.alpha * eps - level.sigma * x0,
        "velocity": eps - x0,
        "edm": level.sigma * x0 - level.alpha * eps,  # -v, since data and noise have unit variance
    }
    torch.testing.assert_close(from_x0(prediction, x0, x_t, level), meaning[prediction])
    torch.testing.assert_close(to_x0(prediction, meaning[prediction], x_t, level), x0)


@pytest.mark.parametrize("prediction", ["eps", "score"])
def test_prediction_without_signal_is_refused_by_name(prediction: str):
    dark = Level(torch.tensor(-torch.inf), torch.tensor(0.0), torch.tensor(1.0))
    with pytest.raises(ValueError, match="undefined where alpha = 0"):
        coefficients(prediction, dark)


def test_network_sees_unit_variance_and_the_scaled_previous_estimate():
    """A tenth of the tolerance covers five standard errors of 40,000 values."""
    net = Recorder()
    denoiser = Denoiser(net, "v", data_std=0.3, self_condition=True)
    level = variance_preserving(torch.linspace(-4, 4, 4))
    wide = level.widen(2)
    generator = torch.Generator().manual_seed(1)
    x0 = 0.3 * torch.randn(4, 40_000, generator=generator)
    x_t = wide.alpha * x0 + wide.sigma * torch.randn(4, 40_000, generator=generator)
    denoiser(x_t, level, None, x0)
    x, logsnr, _, previous = net.seen[-1]
    torch.testing.assert_close(x.std(1), torch.ones(4), atol=0.02, rtol=0)
    torch.testing.assert_close(logsnr, level.logsnr)
    assert previous is not None
    torch.testing.assert_close(previous, x0 / 0.3)
    denoiser(x_t, level)
    first = net.seen[-1][3]
    assert first is not None
    assert not bool(first.any())


def test_zero_network_with_evidence_is_the_exact_posterior_of_fair_bits():
    codec = Bits(8, (5,), scale=0.5)
    denoiser = Denoiser(Recorder(0.0), "categorical", codec=codec, evidence=True)
    level = variance_preserving(torch.tensor([-3.0, 1.0]))
    x_t = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(2))
    expected = 0.5 * torch.tanh(0.5 * x_t * level.widen(3).alpha / level.widen(3).sigma ** 2)
    torch.testing.assert_close(denoiser(x_t, level), expected)


def test_evidence_stays_within_thirty_nats_where_data_is_clean():
    """A network's own logits would vanish beside evidence of 1e5 nats."""
    codec = Bits(8, (5,))
    denoiser = Denoiser(Recorder(0.0), "categorical", codec=codec, evidence=True)
    x_t = codec.encode(torch.tensor([[0, 3, 5, 6, 7]]))
    logits = denoiser.output(x_t, variance_preserving(torch.tensor([12.0])), None, None)
    torch.testing.assert_close(logits, 30 * x_t)
    torch.testing.assert_close(codec.mean(logits), x_t)


def test_network_in_bfloat16_gives_float32_estimates_near_those_of_float32():
    net = nn.Linear(3, 3)

    class Net(nn.Module):
        def forward(self, x: Tensor, logsnr: Tensor, condition: None, previous: None) -> Tensor:
            out = net(x)
            seen.append(out.dtype)
            return out

    seen: list[torch.dtype] = []
    x_t, level = torch.randn(4, 3), variance_preserving(torch.linspace(-4, 4, 4))
    exact = Denoiser(Net(), "v")(x_t, level)
    rough = Denoiser(Net(), "v", autocast=torch.bfloat16)(x_t, level)
    assert seen == [torch.float32, torch.bfloat16]
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, atol=0.03, rtol=0)
    codec = Bits(8, ())
    words = Denoiser(Net(), "categorical", codec=codec, autocast=torch.bfloat16)(x_t, level)
    assert words.dtype == torch.float32


def test_each_sample_has_the_loss_it_has_alone_under_a_network_that_looks_at_everything():
    """Without its condition, its level or its first estimate every sample would have another loss;
    a micro batch of one sample with an odd key has a first pass for nothing."""
    torch.manual_seed(6)
    trunk = Transformer(6, 3, 5, dim=16, depth=1, heads=2, conditions=4, cross_attention=True)
    for p in trunk.parameters():
        if not bool(p.any()):
            nn.init.normal_(p, std=0.3)

    class Net(nn.Module):
        def forward(self, x: Tensor, logsnr: Tensor, condition: Tensor, previous: Tensor) -> Tensor:
            return trunk(torch.cat([x, previous], -1), logsnr, condition)

    denoiser, codec = Denoiser(Net(), "v", self_condition=True), Identity((5, 3))
    data, condition = torch.randn(4, 5, 3), torch.tensor([[1, 2], [3, 0], [0, 0], [2, 3]])
    keys, t = sample_keys(0, torch.tensor([1, 0, 3, 6])), torch.tensor([0.3, 0.6, 0.1, 0.45])
    together, level = diffusion_loss(denoiser, codec, data, condition, t, keys, SCHEDULE, "x0")
    wide = level.widen(3)
    x_t = wide.alpha * data + wide.sigma * noise.normal(keys, NOISE, (5, 3))
    for i in range(4):
        one = slice(i, i + 1)
        some = (data[one], condition[one], t[one], keys[one])
        alone, _ = diffusion_loss(denoiser, codec, *some, SCHEDULE, "x0")
        torch.testing.assert_close(alone[0], together[i])
        at = SCHEDULE(t[one])
        previous = denoiser(x_t[one], at, condition[one]) if int(keys[i]) % 2 == 0 else None
        x0_hat = denoiser(x_t[one], at, condition[one], previous)
        torch.testing.assert_close(together[i], (x0_hat - data[one]).square().mean())


def test_categorical_prediction_of_continuous_data_is_refused():
    with pytest.raises(ValueError, match="codec of discrete data"):
        Denoiser(Recorder(), "categorical", codec=Identity((3,)))


@pytest.mark.parametrize(("weighting", "prediction"), [("x0", "x0"), ("eps", "eps"), ("v", "v")])
def test_weighting_turns_the_error_of_x0_into_that_of_the_prediction(
    weighting: str, prediction: str
):
    level = levels(6).widen(2)
    generator = torch.Generator().manual_seed(3)
    x0, x0_hat, x_t = (
        torch.randn(6, 2, generator=generator, dtype=torch.float64) for _ in range(3)
    )
    error = from_x0(prediction, x0, x_t, level) - from_x0(prediction, x0_hat, x_t, level)
    got = weight(weighting, level) * (x0 - x0_hat) ** 2
    torch.testing.assert_close(got, error**2)


def test_clipped_weightings_follow_their_papers():
    """min(SNR, 5) on the error of x0 (Hang et al. 2023); sigmoid(2 - logsnr) on that of eps, SNR
    times as large on x0 (Kingma & Gao 2023)."""
    for logsnr in (-7.0, 0.0, 1.5, 1.7, 9.0):
        snr = math.exp(logsnr)
        at = variance_preserving(torch.tensor(logsnr, dtype=torch.float64))
        assert float(weight("min_snr", at)) == pytest.approx(min(snr, 5))
        assert float(weight("sigmoid", at)) == pytest.approx(snr / (1 + math.exp(logsnr - 2)))


def test_exact_denoiser_has_the_least_loss():
    """Its loss is the posterior variance; scaling its estimate either way raises the loss."""
    oracle = GaussianMixture(torch.ones(1), torch.zeros(1, 2), 0.4 * torch.eye(2)[None])
    keys = sample_keys(0, torch.arange(4096))
    data = oracle.sample(4096, torch.Generator().manual_seed(4))
    t = stratified_times(0, 0, torch.arange(4096))

    def loss(gain: float) -> float:
        class Net(nn.Module):
            def forward(self, x: Tensor, logsnr: Tensor, c: None, p: None) -> Tensor:
                level = variance_preserving(logsnr).widen(2)
                x_t = x * (level.sigma**2 + level.alpha**2).sqrt()
                return gain * oracle.denoise(x_t, variance_preserving(logsnr))

        denoiser = Denoiser(Net(), "x0")
        losses, level = diffusion_loss(
            denoiser, Identity((2,)), data, None, t, keys, SCHEDULE, "x0"
        )
        if gain == 1:  # Var[x0 | x_t] = 0.4 sigma^2 / (0.4 alpha^2 + sigma^2), five standard errors
            exact = 0.4 * level.sigma**2 / (0.4 * level.alpha**2 + level.sigma**2)
            assert float(losses.mean() - exact.mean()) == pytest.approx(
                0, abs=5 * float((losses - exact).std()) / 64
            )
        return float(losses.mean())

    assert loss(1.0) < min(loss(0.9), loss(1.1))


@pytest.mark.parametrize("self_condition", [False, True])
def test_losses_do_not_depend_on_how_a_batch_is_split(self_condition: bool):
    codec = Bits(8, (5,))
    denoiser = Denoiser(Recorder(), "categorical", 1.0, self_condition, codec)
    indices = torch.arange(13)
    data = torch.stack([(indices * k) % 8 for k in range(1, 6)], dim=1)
    keys, t = sample_keys(7, indices), stratified_times(7, 3, indices)

    def losses(rows: slice) -> Tensor:
        part = (data[rows], None, t[rows], keys[rows])
        return diffusion_loss(denoiser, codec, *part, SCHEDULE)[0]

    torch.testing.assert_close(
        torch.cat([losses(slice(4)), losses(slice(4, 13))]), losses(slice(13))
    )


def test_first_pass_is_taken_by_even_keys_alone_and_carries_no_gradient():
    net = Recorder()
    denoiser = Denoiser(net, "x0", self_condition=True)
    keys = sample_keys(1, torch.arange(5))
    data = torch.randn(5, 3, generator=torch.Generator().manual_seed(5))
    t = stratified_times(1, 0, torch.arange(5))
    diffusion_loss(denoiser, Identity((3,)), data, None, t, keys, SCHEDULE)
    assert len(net.seen) == 2
    assert len(net.seen[0][0]) == 3  # samples 0, 2 and 4
    previous = net.seen[1][3]
    assert previous is not None
    assert not previous.requires_grad
    assert previous.abs().sum(1).gt(0).tolist() == [True, False, True, False, True]


def test_cross_entropy_is_per_element():
    codec = Bits(4, (5,))
    denoiser = Denoiser(Recorder(0.0), "categorical", codec=codec)
    data, keys = torch.zeros(3, 5, dtype=torch.long), sample_keys(0, torch.arange(3))
    losses, _ = diffusion_loss(denoiser, codec, data, None, torch.rand(3), keys, SCHEDULE)
    torch.testing.assert_close(losses, torch.full((3,), 2 * torch.tensor(2.0).log().item()))


def test_times_are_stratified_in_the_batch_and_in_every_share_of_it():
    """Multiples of the golden ratio leave no gap above 1.895 / n on the circle (three-distance
    theorem); 16 random times leave 3.4 / 16 on average."""
    for step in range(20):
        t = stratified_times(3, step, torch.arange(64)).double()
        assert float(t.min()) >= 0
        assert float(t.max()) <= 1
        for start, n in ((0, 64), (0, 16), (16, 5), (48, 16), (31, 33)):
            some = t[start : start + n].sort().values
            gaps = torch.cat([some.diff(), some[:1] + 1 - some[-1:]])
            assert float(gaps.max()) < 1.895 / n


def test_a_samples_time_is_uniform_over_the_steps():
    """5,000 steps; p-value of 1e-6."""
    t = torch.cat([stratified_times(5, step, torch.tensor([3])) for step in range(5000)])
    assert kstest(t.numpy(), "uniform").pvalue > 1e-6


def test_times_do_not_depend_on_who_asks_for_them():
    whole = stratified_times(3, 9, torch.arange(64))
    assert torch.equal(stratified_times(3, 9, torch.arange(20, 41)), whole[20:41])


def test_times_are_a_stream_of_their_own():
    """A step's offset is not what sample 0 of the run, or a solver's seed, draws at that step."""
    for step in range(50):
        offset = float(stratified_times(0, step, torch.zeros(1)))
        assert offset != float(noise.uniform([0], step))


def test_conditions_are_dropped_whole_at_the_stated_rate():
    """20,000 rows, five standard errors."""
    keys = sample_keys(2, torch.arange(20_000))
    condition = torch.tensor([[3, 5]]).expand(20_000, 2)
    dropped = drop_condition(condition, keys, 0.1)
    gone = (dropped == 0).all(1)
    assert bool(((dropped == 0).any(1) == gone).all())
    assert float(gone.float().mean()) == pytest.approx(0.1, abs=5 * (0.09 / 20_000) ** 0.5)
    assert torch.equal(drop_condition(condition, keys, 0.0), condition)
    assert torch.equal(drop_condition(condition[:7], keys[:7], 0.1), dropped[:7])


def test_training_and_sampling_draw_from_different_streams():
    """The solvers take steps 0, 1, 2, ... under the seed itself, which is a training key too."""
    assert max(TIME, NOISE, DROP) < 0
    assert len({TIME, NOISE, DROP}) == 3


def test_keys_of_different_seeds_and_indices_differ_and_streams_are_apart():
    keys = torch.cat([sample_keys(seed, torch.arange(1000)) for seed in range(5)])
    assert len(keys.unique()) == 5000
    assert not torch.equal(noise.uniform(keys, TIME), noise.uniform(keys, TIME + 1))


def test_temperature_sharpens_the_posterior_of_every_bit():
    """tanh(logit / 2 T): the mean of a bit whose odds are taken to the power 1 / T."""
    codec = Bits(4, (3,), scale=0.7)
    denoiser = Denoiser(Recorder(), "categorical", codec=codec)
    x_t = torch.linspace(-2, 2, 30, dtype=torch.float64).reshape(5, 3, 2)
    level = levels(5)
    logits = denoiser.output(x_t, level, None, None)
    odds = torch.exp(logits) ** (1 / 0.4)
    expected = 0.7 * (odds - 1) / (odds + 1)
    torch.testing.assert_close(denoiser.tempered(0.4)(x_t, level), expected)
    torch.testing.assert_close(denoiser.tempered(1.0)(x_t, level), denoiser(x_t, level))


def test_temperature_is_refused_where_it_has_no_meaning():
    with pytest.raises(ValueError, match="temperature = 0"):
        Denoiser(Recorder(), "categorical", codec=Bits(4, (3,))).tempered(0)
    with pytest.raises(ValueError, match=r"temperature = 0\.5: it divides logits"):
        Denoiser(Recorder(), "v").tempered(0.5)
