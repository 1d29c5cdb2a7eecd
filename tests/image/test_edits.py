"""Given pictures against closed forms: on a Gaussian every edit has an exact answer."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from image.codec import Pixels
from image.data import DataFacts
from image.edits import (
    Colourise,
    Edit,
    Inpaint,
    Interpolate,
    Invert,
    Measured,
    Posterior,
    Replace,
    Upscale,
    Vary,
)
from image.measurements import LUMA
from image.pipeline import Pipeline
from shared import noise
from shared.denoiser import Denoise
from shared.errors import ConfigError
from shared.interpolation import slerp
from shared.oracle import GaussianMixture
from shared.sampling import Sampling
from shared.schedule import Cosine, Level, Schedule
from tests.guided import normals
from tests.image.conftest import image_config
from tests.image.test_cascade import opened

SHAPE, D = (3, 2, 4), 24
MEANS = 0.15 * normals(3, D, seed=8)  # of "none" and of two classes
FACTOR = 0.1 * torch.eye(D, dtype=torch.float64) + 0.03 * normals(D, D, seed=9)
COVARIANCE = FACTOR @ FACTOR.T
FACTS = DataFacts(1, SHAPE, 256, ("ape", "bee"), 3, 0.2)
PICTURE = (np.arange(24).reshape(2, 4, 3) * 4 + 80).astype(np.uint8)
X = torch.from_numpy(PICTURE).double().permute(2, 0, 1) / 127.5 - 1
FINE: dict[str, Any] = {"solver": "heun", "grid": "logsnr", "output_type": "latent"}
PLAIN: dict[str, Any] = FINE | {"solver": "dpmpp_2m"}


class Gaussians(nn.Module):
    """Pictures of two classes, Gaussians of one covariance, as a trained model."""

    data_std = 0.2
    schedule: Schedule = Cosine(-8.0, 12.0)

    def __init__(self, codec: Any = None) -> None:
        super().__init__()
        self.groups: dict[str, Any] = {}
        self.codec = codec or Pixels(256, SHAPE)
        self.device = nn.Parameter(torch.zeros(1))
        self.laws = [
            GaussianMixture(torch.ones(1).double(), m[None], COVARIANCE[None]) for m in MEANS
        ]

    @property
    def denoiser(self) -> Denoise:
        return self.estimate

    def estimate(
        self,
        x_t: Tensor,
        level: Level,
        condition: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> Tensor:
        ids = torch.zeros(len(x_t), dtype=torch.long) if condition is None else condition[:, 0]
        wide = Level(*(part.double() for part in vars(level).values()))
        x = self.turned(x_t.double().flatten(1))
        label = int(ids[0])  # all samples of a call are of one here
        return self.back(self.laws[label].denoise(x, wide)).view(x_t.shape).to(x_t)

    def turned(self, x: Tensor) -> Tensor:
        return x

    def back(self, x: Tensor) -> Tensor:
        return x

    def drops(self, names: Any = ()) -> bool:
        return True

    def own_times(self, steps: int) -> None:
        return None


def pipe(model: Gaussians | None = None) -> Pipeline:
    return Pipeline(model or Gaussians(), FACTS, None)


def root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T


def flow(x_t: Tensor, time: float, label: int = 0) -> Tensor:
    """The exact end of the probability-flow ODE from x_t (n, D): it keeps the z-score."""
    level = Gaussians.schedule(torch.tensor(time, dtype=torch.float64))
    spread = level.alpha**2 * COVARIANCE + level.sigma**2 * torch.eye(D, dtype=torch.float64)
    ahead = root(COVARIANCE) @ torch.linalg.inv(root(spread))
    return MEANS[label] + (x_t - level.alpha * MEANS[label]) @ ahead.T


GREY = torch.kron(torch.tensor(LUMA).double()[None], torch.eye(8, dtype=torch.float64))
MASK = np.array([[255, 255, 0, 255], [255, 255, 255, 0]], np.uint8)
KEPT = torch.from_numpy(MASK < 128).expand(3, 2, 4).flatten()


def blocks() -> Tensor:
    """Means of 2 x 2 pixels of (3, 2, 4), as a matrix (6, 24)."""
    rows = torch.zeros(6, *SHAPE, dtype=torch.float64)
    for i, (channel, place) in enumerate((c, j) for c in range(3) for j in range(2)):
        rows[i, channel, :, 2 * place : 2 * place + 2] = 0.25
    return rows.flatten(1)


def conditional(A: Tensor, y: Tensor, std: float) -> tuple[Tensor, Tensor]:
    """Mean and covariance of x given y = A x + std noise."""
    gain = COVARIANCE @ A.T @ torch.linalg.inv(A @ COVARIANCE @ A.T + std**2 * torch.eye(len(y)))
    return MEANS[0] + gain @ (y - A @ MEANS[0]), COVARIANCE - gain @ A @ COVARIANCE


def cases() -> dict[str, tuple[Edit, Tensor, float]]:
    exact, rough = Posterior(0.0, 8), Posterior(0.1, 8)
    kept = torch.eye(D, dtype=torch.float64)[KEPT]
    return {
        "colourise with noise": (Colourise(PICTURE, rough), GREY, 0.1),
        "upscale": (Upscale(PICTURE, 2, exact), blocks(), 0.0),
        "inpaint": (Inpaint(PICTURE, MASK, exact), kept, 0.0),
    }


N = 300


@pytest.mark.parametrize("name", cases())
def test_samples_of_an_inverse_problem_follow_the_exact_posterior(name: str):
    """Means and variances within five standard errors; what was measured is met."""
    edit, A, std = cases()[name]
    y = A @ X.flatten()
    got = pipe()(edit=edit, seeds=range(N), num_inference_steps=20, **PLAIN).images
    x = got.flatten(1).double()
    mean, covariance = conditional(A, y, std)
    spread = covariance.diagonal().clamp_min(0).sqrt()
    slack = 5 * spread / math.sqrt(N) + 0.006  # bytes are rounded to 1 / 127.5
    assert bool(((x.mean(0) - mean).abs() < slack).all()), (x.mean(0) - mean).abs() / slack
    error = (x.T.cov() - covariance).abs()
    excess = error - 5 * 1.5 * spread[:, None] * spread / math.sqrt(N)
    assert float(excess.max()) < 4e-4
    assert float((mean - MEANS[0]).abs().max()) > 0.1  # the measurement says something
    if not std:
        assert float((x @ A.T - y).abs().max()) < 0.007


class Turned(Gaussians):
    """The same pictures as a codec of latents that an invertible matrix decodes."""

    mix = torch.linalg.qr(normals(D, D, seed=3)).Q

    def __init__(self) -> None:
        super().__init__(TurnedCodec())

    def turned(self, x: Tensor) -> Tensor:
        return x @ self.mix.T

    def back(self, x: Tensor) -> Tensor:
        return x @ self.mix


class TurnedCodec(Pixels):
    def __init__(self) -> None:
        super().__init__(256, SHAPE)

    def pictures(self, x0: Tensor) -> Tensor:
        return (x0.flatten(1) @ Turned.mix.T.to(x0)).view(x0.shape)

    def encode(self, data: Tensor) -> Tensor:
        x = super().encode(data)
        return (x.flatten(1) @ Turned.mix.to(x)).view(x.shape)

    def decode(self, x0: Tensor) -> Tensor:
        return super().decode(self.pictures(x0))


def test_through_a_decoder_the_posterior_is_that_of_the_pictures():
    edit, A, std = Colourise(PICTURE, Posterior(0.0, 8)), GREY, 0.0
    model = Turned()
    settings: dict[str, Any] = PLAIN | {"seeds": range(N), "num_inference_steps": 20}
    x = model.codec.pictures(pipe(model)(edit=edit, **settings).images).flatten(1).double()
    mean, covariance = conditional(A, A @ X.flatten(), std)
    slack = 5 * covariance.diagonal().clamp_min(0).sqrt() / math.sqrt(N) + 0.006
    assert bool(((x.mean(0) - mean).abs() < slack).all())
    assert float((x @ A.T - A @ X.flatten()).abs().max()) < 0.007


def test_any_measurement_may_be_given_from_python():
    A = normals(5, D, seed=4)
    y = (A @ X.flatten())[None]
    by = Posterior(0.0, 8)
    edit = Measured(y, lambda x: x.flatten(1) @ A.T.to(x), by)
    x = pipe()(edit=edit, seeds=range(30), num_inference_steps=20, **PLAIN).images
    torch.testing.assert_close(x.flatten(1).double() @ A.T, y.expand(30, 5), atol=1e-4, rtol=0)
    with pytest.raises(ConfigError, match=r"measured \(4,\).*gives \(5,\)"):
        pipe()(edit=Measured(y[:, :4], lambda x: x.flatten(1) @ A.T.to(x), by))


def test_replacement_keeps_the_known_and_comes_nearer_to_the_posterior_with_resampling():
    kept = torch.eye(D, dtype=torch.float64)[KEPT]
    mean, _ = conditional(kept, kept @ X.flatten(), 0.0)
    errors = []
    for resamplings in (1, 8):
        edit = Inpaint(PICTURE, MASK, Replace(resamplings))
        settings: dict[str, Any] = FINE | {"solver": "ancestral", "grid": None}
        x = pipe()(edit=edit, seeds=range(100), num_inference_steps=25, **settings).images.flatten(
            1
        )
        torch.testing.assert_close(x[:, KEPT], X.flatten()[KEPT].float().expand(100, -1))
        errors.append(float((x.double().mean(0) - mean).norm()))
    assert errors[1] < 0.65 * errors[0], errors


@pytest.mark.parametrize("by", [Posterior(), Replace(2)])
def test_known_pixels_come_out_as_they_went_in(by: Any):
    images = pipe()(edit=Inpaint(PICTURE, MASK, by), seeds=range(5), solver="ancestral").images
    arrays = np.stack([np.asarray(image) for image in images])
    assert np.array_equal(arrays[:, MASK < 128], np.broadcast_to(PICTURE[MASK < 128], (5, 2, 3)))
    assert (arrays[:, MASK > 128] != PICTURE[MASK > 128]).any()


def test_grey_and_small_pictures_are_met_by_replacement_too():
    for edit, A in (
        (Colourise(PICTURE, Replace(2)), GREY),
        (Upscale(PICTURE, 2, Replace(2)), blocks()),
    ):
        x = pipe()(edit=edit, seeds=range(4), num_inference_steps=8, **FINE).images.flatten(1)
        error = x.double() @ A.T - A @ X.flatten()
        assert float(error.abs().max()) < 0.007


def test_misfit_is_how_far_what_is_measured_is_from_what_was_given():
    """Of the picture itself, and of one that is a quarter brighter everywhere."""
    x0 = torch.stack([X, X + 0.25]).float()
    measured = (Colourise(PICTURE), Colourise(PICTURE, Replace(2)), Upscale(PICTURE, 2))
    for edit in (*measured, Inpaint(PICTURE, MASK)):
        misfit = pipe().enter(edit, [0, 1], Sampling(steps=2)).misfit
        assert misfit is not None
        torch.testing.assert_close(misfit(x0), torch.tensor([0.0, 0.25]), atol=0.005, rtol=0)
    assert pipe().enter(Vary(PICTURE, 0.5), [0], Sampling(steps=2)).misfit is None


def test_variations_begin_at_the_noised_picture():
    """Sample by sample the exact flow of the state that the seed's noise makes."""
    time, seeds = 0.55, [3, 8, 5]
    level = Gaussians.schedule(torch.tensor(time, dtype=torch.float64))
    drawn = noise.normal(seeds, 0, SHAPE).double().flatten(1)
    expected = flow(level.alpha * X.flatten() + level.sigma * drawn, time)
    got = pipe()(edit=Vary(PICTURE, time), seeds=seeds, num_inference_steps=60, **FINE).images
    torch.testing.assert_close(got.flatten(1).double(), expected, atol=5e-3, rtol=0)


@pytest.mark.parametrize(("solver", "least", "most"), [("ddim", 0.8, 0.1), ("heun", 1.6, 0.005)])
@pytest.mark.parametrize("strength", [1.0, 0.7])
def test_a_picture_inverted_and_drawn_again_is_the_same_to_the_solvers_error(
    solver: str, least: float, most: float, strength: float
):
    errors = []
    for steps in (30, 60):
        how: dict[str, Any] = FINE | {"solver": solver, "num_inference_steps": steps}
        got = pipe()("ape", 2, edit=Invert(PICTURE, "ape", strength=strength), **how).images
        errors.append(float((got.double() - X).abs().max()))
        assert torch.equal(got[0], got[1])
    assert errors[1] < most
    assert math.log2(errors[0] / errors[1]) > least, errors


def test_another_class_moves_an_inverted_picture_by_the_difference_of_the_means():
    """Laws of one covariance: the flow keeps the z-score, whichever way it goes."""
    edit = Invert(PICTURE, "ape")
    got = pipe()("bee", edit=edit, num_inference_steps=100, **FINE).images
    expected = X.flatten() + MEANS[2] - MEANS[1]
    torch.testing.assert_close(got[0].flatten().double(), expected, atol=5e-3, rtol=0)


def test_between_two_seeds_the_ends_are_their_samples_and_the_middle_flows_from_the_arc():
    how: dict[str, Any] = FINE | {"num_inference_steps": 40}
    path = pipe()(num_images=5, edit=Interpolate(11, 4), **how).images
    ends = pipe()(seeds=[11, 4], **how).images
    torch.testing.assert_close(path[[0, -1]], ends, atol=1e-5, rtol=0)
    a, b = noise.normal([11, 4], 0, SHAPE).double().flatten(1).split(1)
    middle = flow(slerp(a, b, torch.tensor([0.5]).double()), 1.0)
    torch.testing.assert_close(path[2].flatten().double(), middle[0], atol=5e-3, rtol=0)


def test_between_two_pictures_the_ends_are_the_pictures():
    other = PICTURE[::-1, ::-1].copy()
    path = pipe()(num_images=3, edit=Interpolate(PICTURE, other), num_inference_steps=80, **FINE)
    for got, expected in ((path.images[0], X), (path.images[2], X.flip(1, 2))):
        torch.testing.assert_close(got.double(), expected, atol=5e-3, rtol=0)
    straight = ((X + X.flip(1, 2)) / 2).float()
    assert float((path.images[1] - straight).abs().max()) > 0.01  # an arc is no line


def test_between_two_pictures_in_latents_all_are_noised_by_one_noise():
    other, time = PICTURE[::-1].copy(), 0.5
    level = Gaussians.schedule(torch.tensor(time, dtype=torch.float64))
    how: dict[str, Any] = FINE | {"num_inference_steps": 60, "seeds": [6, 7, 8]}
    path = pipe()(edit=Interpolate(PICTURE, other, strength=time), **how).images
    drawn = noise.normal([6], 0, SHAPE).double()
    for i, share in enumerate((0.0, 0.5, 1.0)):
        x0 = (1 - share) * X + share * X.flip(1)
        expected = flow((level.alpha * x0 + level.sigma * drawn).flatten(1), time)[0]
        torch.testing.assert_close(path[i].flatten().double(), expected, atol=5e-3, rtol=0)


def edits() -> dict[str, Callable[[], Edit]]:
    picture = (np.arange(64).reshape(8, 8) * 3 + 20).astype(np.uint8)
    mask = np.where(np.arange(8) < 4, 255, 0).astype(np.uint8)[None].repeat(8, 0)
    return {
        "inpaint": lambda: Inpaint(picture, mask),
        "repaint": lambda: Inpaint(picture, mask, Replace(2)),
        "upscale": lambda: Upscale(picture, 2),
        "vary": lambda: Vary(picture),
        "invert": lambda: Invert(picture, 1),
    }


@pytest.mark.parametrize("name", edits())
def test_an_edit_alone_is_that_of_a_batch(name: str):
    """With a network, guided: no sample knows of the others."""
    model, edit = opened(image_config("patch=2")), edits()[name]()
    how: dict[str, Any] = {"num_inference_steps": 5, "output_type": "latent", "edit": edit}
    how |= {"guidance_scale": 1.5}
    seeds = [4, 5, 6, 7]
    together = model([1, 2, 3, 4], seeds=seeds, **how).images
    for i in (0, 3):
        alone = model(i + 1, seeds=[seeds[i]], **how).images
        assert float((together[i] - alone[0]).abs().max()) < 1e-5


@pytest.mark.parametrize(
    ("edit", "settings", "words"),
    [
        (Inpaint(PICTURE, MASK[:, :3]), {}, "mask_image: 2 x 3 pixels, the picture has 2 x 4"),
        (Inpaint(PICTURE, 0 * MASK), {}, "100% of the picture is black"),
        (Inpaint(PICTURE, 0 * MASK + 255), {}, "0% of the picture is black"),
        (Upscale(PICTURE, 3), {}, "downscale = 3: expected 2 or more, a divisor of the model's 2"),
        (Vary(PICTURE, 0.0), {}, r"strength = 0.0: expected a number in \(0, 1\]"),
        (Invert(PICTURE, strength=1.2), {}, "strength = 1.2"),
        (Invert(PICTURE), {"solver": "ancestral"}, "solver = 'ancestral': draws noise"),
        (Interpolate(1, 2), {"solver": "ddim_eta"}, "solver = 'ddim_eta': draws noise"),
        (Interpolate(1, PICTURE, 0.5), {}, "between two pictures"),
        (Vary(PICTURE.astype(float)), {}, r"image: an array \(2, 4, 3\) of float64"),
    ],
)
def test_what_cannot_be_edited_is_refused(edit: Edit, settings: dict[str, Any], words: str):
    with pytest.raises(ConfigError, match=words):
        pipe()(edit=edit, **settings)


def test_a_grey_model_has_no_colours_and_a_cascade_edits_nothing():
    with pytest.raises(ConfigError, match="this model draws grey pictures"):
        opened(image_config("patch=2"))(edit=Colourise(PICTURE))
    with pytest.raises(ConfigError, match="this model enlarges a picture"):
        opened(image_config("patch=2", "upscale.factor=2"))(edit=Vary(PICTURE))
    with pytest.raises(ConfigError, match="no smooth function of its latents"):
        opened(image_config("patch=2", "codec.kind=bits"))(edit=Upscale(PICTURE, 2))
