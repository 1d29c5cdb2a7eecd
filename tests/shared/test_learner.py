"""The learner: what a configuration says becomes the loss, and trains what it should."""

import pytest
import torch
from torch import Tensor, nn

from shared.codec import Identity
from shared.config import DiffusionConfig
from shared.denoiser import Denoiser
from shared.learner import DiffusionLearner, build_schedule
from shared.objective import LogitNormal, LogNormal, diffusion_loss
from shared.schedule import Edm, Learned, Warped


class Scale(nn.Module):
    """F = gain x: half of what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.5))
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor, logsnr: Tensor, condition: None, previous: None) -> Tensor:
        self.seen.append(x)
        return self.gain * x


def learner(**words: object) -> DiffusionLearner:
    config = DiffusionConfig(self_condition=False, **words)  # type: ignore[arg-type]
    return DiffusionLearner(Scale(), Identity((3,)), config, data_std=0.5)


def batch() -> tuple[Tensor, None, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(6, 3, generator=generator),
        None,
        torch.arange(6),
        torch.linspace(0.1, 0.9, 6),
    )


@pytest.mark.parametrize(
    ("times", "sampler"),
    [
        ("log_normal", LogNormal(Edm(), -0.4, 1.2)),
        ("logit_normal", LogitNormal(-0.4, 1.0)),
    ],
)
def test_times_are_made_of_the_uniform_ones_that_are_given(times: str, sampler: LogNormal):
    model = learner(schedule="edm", times=times, times_options={"mean": -0.4}, weighting="edm")
    data, _, keys, t = batch()
    losses, logsnr = model(data, None, keys, t)
    expected, level = diffusion_loss(
        model.denoiser, Identity((3,)), data, None, sampler(t)[0], keys, Edm(), "edm"
    )
    torch.testing.assert_close(losses, expected)
    torch.testing.assert_close(logsnr, level.logsnr)


def test_integral_divides_by_the_density_of_the_times():
    some = {"schedule": "edm", "times": "log_normal", "weighting": "elbo", "integral": True}
    model = learner(**some)
    data, _, keys, uniform = batch()
    losses, _ = model(data, None, keys, uniform)
    t, density = LogNormal(Edm())(uniform)
    expected, _ = diffusion_loss(
        model.denoiser, Identity((3,)), data, None, t, keys, Edm(), "elbo", density
    )
    torch.testing.assert_close(losses, expected)


def test_uncertainty_wraps_the_loss_and_learns():
    model = learner(uncertainty=True)
    plain = learner()(*batch())[0]
    losses, logsnr = model(*batch())
    torch.testing.assert_close(losses, plain)
    assert model.uncertainty is not None
    with torch.no_grad():
        model.uncertainty.weights.fill_(0.1)
    losses, _ = model(*batch())
    u = model.uncertainty.u(logsnr)
    torch.testing.assert_close(losses, plain / u.exp() + u)
    assert "uncertainty.weights" in model.state_dict()


def test_input_scale_follows_the_configuration():
    for scale_input in (True, False):
        model = learner(scale_input=scale_input)
        denoiser = Denoiser(Scale(), "v", 0.5, scale_input=scale_input)
        level = build_schedule(DiffusionConfig())(torch.linspace(0.1, 0.9, 6))
        x_t = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(model.denoiser(x_t, level), denoiser(x_t, level))


def test_learned_schedule_trains_with_the_learner_and_is_kept_once():
    model = learner(schedule="learned", weighting="elbo", integral=True)
    model(*batch())[0].mean().backward()
    assert isinstance(model.schedule, Learned)
    assert model.schedule is model.base
    for p in (model.schedule.slope, model.schedule.height, model.schedule.middle):
        assert p.grad is not None
        assert bool(p.grad.abs().sum() > 0)
    names = [name for name in model.state_dict() if "height" in name]
    assert names == ["base.height"]


def test_schedule_is_the_fitted_one_after_it_is_retimed():
    model = learner(fit_density=True, weighting="x0")
    assert model.density is not None
    model.density.start = 1
    model.retime()
    assert model.schedule is model.base
    model.density.update(model.density.statistics(torch.rand(50), torch.linspace(-12, 12, 50)))
    model.retime()
    assert isinstance(model.schedule, Warped)
