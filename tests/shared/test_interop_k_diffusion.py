"""k-diffusion's model(x, sigma), both ways, under its samplers and ours."""

from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.k_diffusion import k_sampling
from shared.denoiser import Denoiser
from shared.interop import from_k_diffusion, to_k_diffusion
from shared.schedule import (
    Family,
    Level,
    straight_flow,
    sub_variance_preserving,
    variance_exploding,
    variance_preserving,
)
from shared.solver import prepare, run
from tests.borders import normals, of_pictures, picture_mixture
from tests.solvers import Straight

ORACLE = of_pictures(picture_mixture())
FAMILIES = {
    "vp": variance_preserving,
    "ve": variance_exploding,
    "sub_vp": sub_variance_preserving,
    "flow": straight_flow,
}


@pytest.fixture(scope="module", name="k_sampling")
def k_diffusion() -> ModuleType:
    found = k_sampling()
    if found is None:
        pytest.skip("k-diffusion is not installed (see benchmarks/k_diffusion.py)")
    return found


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["euler", "heun", "dpmpp_2m"])
def test_their_sampler_on_our_denoiser_is_our_solver(
    name: str, family: str, k_sampling: ModuleType
):
    """Their state is x_t / alpha, at the same sigma / alpha."""
    schedule: Any = Straight(family)
    plan = prepare(schedule, name, 9, grid="karras")
    x = normals(5, 1, 2, 3, seed=4)
    sigmas = [step.at.scaled for step in plan.steps] + [0.0]
    model = to_k_diffusion(ORACLE, FAMILIES[family])
    solve = getattr(k_sampling, f"sample_{name}")
    theirs = solve(model, x / plan.start.alpha, torch.tensor(sigmas).double(), disable=True)
    torch.testing.assert_close(theirs, run(plan, ORACLE, x).x, atol=1e-6, rtol=0)


def ve_oracle(x: Tensor, sigma: Tensor, component: Tensor | None = None) -> Tensor:
    """The exact denoiser as they write theirs."""
    return ORACLE(x, Level(-2 * sigma.log(), torch.ones_like(sigma), sigma), component)


@pytest.mark.parametrize("family", FAMILIES)
def test_their_model_is_our_denoiser_at_each_samples_level(family: str):
    logsnr = torch.tensor([-3.0, 0.4, 5.0], dtype=torch.float64)
    level, x = FAMILIES[family](logsnr), normals(3, 1, 2, 3)
    got = from_k_diffusion(ve_oracle)(x, level)
    torch.testing.assert_close(got, ORACLE(x, level))
    one = Level(level.logsnr[1], level.alpha[1], level.sigma[1])
    torch.testing.assert_close(from_k_diffusion(ve_oracle)(x, one), ORACLE(x, one))


@pytest.mark.parametrize("family", FAMILIES.values())
def test_there_and_back_is_the_same_model(family: Family):
    back = to_k_diffusion(from_k_diffusion(ve_oracle, "component"), family)
    x, sigma = normals(3, 1, 2, 3), torch.tensor([0.05, 1.0, 30.0], dtype=torch.float64)
    component = torch.tensor([2, 0, 1])
    torch.testing.assert_close(back(x, sigma), ve_oracle(x, sigma))
    torch.testing.assert_close(back(x, sigma, component), ve_oracle(x, sigma, component))
    assert not torch.allclose(back(x, sigma, component), back(x, sigma))


def test_condition_wants_the_name_of_their_argument():
    level = variance_preserving(torch.tensor(0.0).double())
    with pytest.raises(ValueError, match="name the model's argument"):
        from_k_diffusion(ve_oracle)(normals(2, 1, 2, 3), level, torch.tensor([0, 1]))


def test_float32_state_is_asked_at_the_level_of_its_sigma():
    levels: list[Level] = []

    def denoise(
        x_t: Tensor, level: Level, condition: Tensor | None = None, previous: Tensor | None = None
    ) -> Tensor:
        levels.append(level)
        return x_t

    x = normals(2, 3, dtype=torch.float32)
    x0 = to_k_diffusion(denoise)(x, torch.tensor([0.5, 20.0]))
    (level,) = levels
    assert x0.dtype == torch.float32
    torch.testing.assert_close(level.sigma / level.alpha, torch.tensor([0.5, 20.0]))
    torch.testing.assert_close(x0, level.alpha[:, None] * x)


def test_self_conditioning_is_refused():
    with pytest.raises(ValueError, match=r"self-conditioning is refused: model\(x, sigma\)"):
        to_k_diffusion(Denoiser(nn.Identity(), self_condition=True))
