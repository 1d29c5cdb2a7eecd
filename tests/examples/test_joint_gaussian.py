"""The modes of a joint model on a Gaussian of two blocks, whose exact denoiser is known for any two
levels: what is drawn has the moments of the joint law, of the conditionals and of the marginals.

Deterministic solvers are affine here, so the moments are read off exactly, without drawing.
"""

import pytest
import torch
from torch import Tensor

from examples.joint.modes import Alone, Together, clean_condition, unknown
from examples.joint.sides import NOTHING, Levels, Pair, PairCodec, Previous
from shared.codec import Identity
from shared.denoiser import Denoise
from shared.guidance import classifier_free
from shared.schedule import Cosine, Edm
from shared.solver import sample

SIZES = (2, 3)
CODEC = PairCodec((Identity((2,)), Identity((3,))), ((2,), (3,)))
SCHEDULE = Cosine(-20, 20)


class Blocks:
    """N(mean, covariance) of 2 + 3 coordinates, with E[x | x_t] for levels (a, b) of the blocks:

    mean + S A (A S A + D)^-1 (x_t - A mean),  A = diag(alpha), D = diag(sigma^2).
    """

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        root = torch.randn(5, 5, generator=generator, dtype=torch.float64)
        self.covariance = root @ root.T / 5 + 0.1 * torch.eye(5)
        self.mean = torch.randn(5, generator=generator, dtype=torch.float64)

    def __call__(
        self, x_t: Pair, levels: Levels, previous: Previous = NOTHING, temperature: float = 1.0
    ) -> Pair:
        rows = torch.cat(x_t, 1)
        each = zip(levels, SIZES, strict=True)
        alpha, sigma = (
            torch.cat([part.expand(len(rows), size) for part, size in parts], 1)
            for parts in zip(
                *(
                    ((level.alpha.reshape(-1, 1), size), (level.sigma.reshape(-1, 1), size))
                    for level, size in each
                ),
                strict=True,
            )
        )
        noisy = alpha[:, :, None] * self.covariance * alpha[:, None] + torch.diag_embed(sigma**2)
        apart = torch.linalg.solve(noisy, (rows - alpha * self.mean)[..., None])[..., 0]
        x0 = self.mean + (alpha * apart) @ self.covariance
        return x0[:, :2], x0[:, 2:]


LAW = Blocks()


def moments(denoise: Denoise, size: int, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The exact mean and covariance of what a deterministic solver makes of unit noise: it is
    affine, c + M n, and c and M are what it makes of 0 and of the unit vectors."""
    noise = torch.cat([torch.zeros(1, size), torch.eye(size)]).double()
    rows = None if condition is None else condition.expand(len(noise), -1)
    x0 = sample(denoise, noise, SCHEDULE, "dpmpp_2m", 400, condition=rows, grid="logsnr")
    root = x0[1:] - x0[:1]
    return x0[0], root.T @ root


def close(found: tuple[Tensor, Tensor], mean: Tensor, covariance: Tensor) -> None:
    torch.testing.assert_close(found[0], mean, atol=2e-3, rtol=0)
    torch.testing.assert_close(found[1], covariance, atol=2e-3, rtol=0)


def block(which: int) -> slice:
    return slice(0, 2) if which == 0 else slice(2, 5)


def conditional(which: int, value: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of one block given the other (a Schur complement)."""
    here, there = block(which), block(1 - which)
    across, within = LAW.covariance[here, there], LAW.covariance[there, there]
    gain = across @ torch.linalg.inv(within)
    mean = LAW.mean[here] + gain @ (value - LAW.mean[there])
    return mean, LAW.covariance[here, here] - gain @ across.T


def test_pairs_have_the_joint_law():
    close(moments(Together(LAW, CODEC), 5), LAW.mean, LAW.covariance)


@pytest.mark.parametrize("which", [0, 1])
def test_one_side_given_the_other_has_the_conditional_law(which: int):
    value = torch.tensor([0.7, -1.3, 0.4][: SIZES[1 - which]], dtype=torch.float64)
    side = Alone(LAW, CODEC, SCHEDULE, which)
    found = moments(side, SIZES[which], clean_condition(value[None]))
    close(found, *conditional(which, value))
    other = moments(side, SIZES[which], clean_condition(value[None] + 1))
    assert (other[0] - found[0]).abs().max() > 0.1  # the condition is used


@pytest.mark.parametrize("which", [0, 1])
def test_one_side_beside_noise_has_the_marginal_law(which: int):
    side, here = Alone(LAW, CODEC, SCHEDULE, which), block(which)
    nothing = unknown([5], SIZES[1 - which], SCHEDULE).double()
    close(moments(side, SIZES[which], nothing), LAW.mean[here], LAW.covariance[here, here])


@pytest.mark.parametrize("schedule", [SCHEDULE, Edm()])
def test_what_is_unknown_is_as_noisy_as_its_time_says(schedule):
    told = unknown(range(4000), 3, schedule)
    sigma = float(schedule(torch.tensor(1.0)).sigma)
    assert bool((told[:, 0] == 1).all())
    assert float(told[:, 1:].std()) == pytest.approx(sigma, rel=0.03)


@pytest.mark.parametrize(("scale", "as_given"), [(1.0, True), (0.0, False)])
def test_guidance_goes_from_the_marginal_to_the_conditional(scale: float, as_given: bool):
    value = torch.tensor([[0.7, -1.3, 0.4]], dtype=torch.float64)
    nothing = unknown([5], 3, SCHEDULE).double()
    denoise = classifier_free(Alone(LAW, CODEC, SCHEDULE, 0), scale, negative=nothing.expand(3, -1))
    expected = conditional(0, value[0]) if as_given else (LAW.mean[:2], LAW.covariance[:2, :2])
    close(moments(denoise, 2, clean_condition(value)), *expected)


def test_guidance_by_the_marginals_is_their_weighted_difference():
    """x0_marginal + scale (x0_conditional - x0_marginal) at one state (Bao et al. 2023)."""
    value = torch.tensor([[0.7, -1.3, 0.4]], dtype=torch.float64)
    nothing, level = (
        unknown([5], 3, SCHEDULE).double(),
        SCHEDULE(torch.tensor(0.4, dtype=torch.float64)),
    )
    side, x_t = Alone(LAW, CODEC, SCHEDULE, 0), torch.tensor([[0.3, -0.2]], dtype=torch.float64)
    marginal, told = side(x_t, level, nothing), side(x_t, level, clean_condition(value))
    guided = classifier_free(side, 2.5, negative=nothing)(x_t, level, clean_condition(value))
    torch.testing.assert_close(guided, marginal + 2.5 * (told - marginal))


def test_side_without_the_other_is_refused():
    side, level = Alone(LAW, CODEC, SCHEDULE, 0), SCHEDULE(torch.tensor(0.4))
    with pytest.raises(ValueError, match=r"condition None: expected \(1, 4\), the other side"):
        side(torch.zeros(1, 2), level)
    with pytest.raises(ValueError, match=r"condition \(1, 3\)"):
        side(torch.zeros(1, 2), level, torch.zeros(1, 3))
