"""The variational bound on -log p(data): three terms, in nats per datum.

prior           KL(q(x_1 | x0) || N(0, sigma_1^2 I)) = SNR_1 |x0|^2 / 2
diffusion       in continuous time 1/2 E over t ~ p of -SNR'(t) / p(t) |x0 - x0_hat|^2 (Kingma et
                al. 2021); on a grid the sum of KLs of its steps (Sohl-Dickstein et al. 2015; Ho et
                al. 2020, eq. 5), which for an exact denoiser falls to it from above
reconstruction  -log p(data | z_0), from the codec, with z_0 the noisy latent at the cleanest level
"""

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from shared import noise
from shared.codec import Codec
from shared.denoiser import Denoise, RangeDenoise
from shared.objective.moment import moment, noised
from shared.objective.streams import CHAIN, CLEANEST, NOISE, TIME
from shared.objective.times import TimeSampler, uniform_times
from shared.schedule import Level, Schedule


@dataclass(frozen=True)
class Bound:
    """Three terms (B,), nats per datum."""

    prior: Tensor
    diffusion: Tensor
    reconstruction: Tensor

    @property
    def total(self) -> Tensor:
        """An upper bound on -log p(data), in the mean over noise: (B,)."""
        return self.prior + self.diffusion + self.reconstruction


def elbo_terms(
    denoise: Denoise,
    codec: Codec,
    data: Tensor,
    schedule: Schedule,
    keys: Tensor,
    condition: Tensor | None = None,
    uniform: Tensor | None = None,
    times: TimeSampler = uniform_times,
    cleanest: float = 0.0,
    passes: int = 1,
) -> Bound:
    """One unbiased draw of the continuous-time bound per datum.

    data (B, *data_shape); keys (B,) key all noise, so other keys are other draws. `uniform` (B,):
    the random numbers behind the times (stratified ones have less variance; default: by key), in
    [cleanest, 1]. `passes` = 2 for a self-conditioned denoiser: the estimate at the same x_t, held
    fixed, becomes `previous`. NFE = passes. Differentiable: a learned schedule takes the gradient
    of the bound at its ends and that of the squared diffusion term in between.

    Raises ValueError when the level at `cleanest` has no noise.
    """
    x0 = codec.encode(data)
    prior, reconstruction = _ends(codec, data, x0, schedule, keys, cleanest)
    if uniform is None:
        uniform = noise.uniform(keys, TIME)
    t, density = times(uniform.double().to(x0.device))
    at = moment(schedule, cleanest + (1 - cleanest) * t)
    level = at.level.to(x0)
    x_t = noised(x0, level, keys, NOISE)
    x0_hat = _estimate(denoise, x_t, level, condition, passes)
    gain = torch.exp(at.level.logsnr) / 2 * at.rate * (1 - cleanest) / density
    diffusion = gain.to(x0) * (x0 - x0_hat).square().flatten(1).sum(1)
    at.descend_on_square(diffusion)
    return Bound(prior, diffusion, reconstruction)


def discrete_bound(
    denoise: Denoise,
    codec: Codec,
    data: Tensor,
    schedule: Schedule,
    keys: Tensor,
    steps: int = 1000,
    condition: Tensor | None = None,
    fraction: float | None = 0.0,
    cleanest: float = 0.0,
    passes: int = 1,
) -> Bound:
    """The bound of the ancestral chain on a uniform grid of `steps` steps from 1 to `cleanest`: all
    KLs, one draw of noise each.

    `fraction` chooses the variance of the steps, 0 the posterior's (the smaller of DDPM's two), 1
    beta's (the larger), geometrically in between; None: the network's own, `denoise` then being a
    RangeDenoise. A T-step chain `FromBetas` is taken whole by steps = T - 1, cleanest = 1 / T.
    NFE = steps x passes.

    Raises ValueError when steps < 1, when the level at `cleanest` has no noise, and for fraction =
    None without a learned range.
    """
    if steps < 1:
        raise ValueError(f"steps = {steps}: a chain needs one step or more")
    if fraction is None and not isinstance(denoise, RangeDenoise):
        raise ValueError("fraction = None: needs a denoiser with a learned range; give 0 or 1")
    x0 = codec.encode(data)
    prior, reconstruction = _ends(codec, data, x0, schedule, keys, cleanest)
    levels = schedule(torch.linspace(1, cleanest, steps + 1, dtype=torch.float64, device=x0.device))
    points = [
        Level(*parts) for parts in zip(levels.logsnr, levels.alpha, levels.sigma, strict=True)
    ]
    total = torch.zeros_like(prior)
    for i, (at, to) in enumerate(itertools.pairwise(points)):
        x_t = noised(x0, at.to(x0), keys, CHAIN - i)
        if fraction is None:
            assert isinstance(denoise, RangeDenoise)
            previous = _previous(denoise, x_t, at.to(x0), condition, passes)
            x0_hat, share = denoise.with_range(x_t, at.to(x0), condition, previous)
        else:
            x0_hat, share = _estimate(denoise, x_t, at.to(x0), condition, passes), fraction
        total = total + step_kl(x0, x0_hat, at, to, share)
    return Bound(prior, total, reconstruction)


def step_kl(
    x0: Tensor, x0_hat: Tensor, at: Level, to: Level, fraction: Tensor | float = 0.0
) -> Tensor:
    """KL(q(x_s | x_t, x0) || p(x_s | x_t)) of one ancestral step, nats, (B,), summed over a datum.

    x0, x0_hat (B, ...); `to` is cleaner than `at`, scalar or (B,). With the posterior's variance it
    is (SNR_s - SNR_t) |x0 - x0_hat|^2 / 2; larger by a factor e^w, w = fraction ln(sigma_t^2 /
    sigma_s^2), it is (w + e^-w - 1) / 2 per element and the error's share shrinks by e^-w
    (Nichol & Dhariwal 2021, eq. 15).
    """
    at, to = at.widen(x0.ndim), to.widen(x0.ndim)
    gain = -torch.exp(to.logsnr) * torch.expm1(at.logsnr - to.logsnr) / 2
    wider = fraction * 2 * (torch.log(at.sigma) - torch.log(to.sigma))
    kl = gain * torch.exp(-wider) * (x0 - x0_hat).square() + (wider + torch.expm1(-wider)) / 2
    return kl.flatten(1).sum(1).to(x0.dtype)


def _ends(
    codec: Codec, data: Tensor, x0: Tensor, schedule: Schedule, keys: Tensor, cleanest: float
) -> tuple[Tensor, Tensor]:
    """The prior term and the reconstruction term, (B,) each."""
    if not 0 <= cleanest < 1:
        raise ValueError(f"cleanest = {cleanest}: expected a time in [0, 1)")
    ends = schedule(torch.tensor([cleanest, 1.0], dtype=torch.float64, device=x0.device))
    if not math.isfinite(float(ends.logsnr[0].detach())):
        raise ValueError(
            f"cleanest = {cleanest}: no noise is left there, so the bound is infinite; give the "
            "time of the cleanest noisy level (1 / T of a chain of T steps)"
        )
    level_0 = Level(ends.logsnr[0], ends.alpha[0], ends.sigma[0]).to(x0)
    z_0 = noised(x0, level_0, keys, CLEANEST)
    prior = torch.exp(ends.logsnr[1]).to(x0) / 2 * x0.square().flatten(1).sum(1)
    return prior, -codec.log_prob(data, z_0, level_0)


def _previous(
    denoise: Denoise, x_t: Tensor, level: Level, condition: Tensor | None, passes: int
) -> Tensor | None:
    """What a self-conditioned denoiser is shown: the estimate of its pass before, held fixed."""
    if passes not in (1, 2):
        raise ValueError(f"passes = {passes}: expected 1, or 2 for a self-conditioned denoiser")
    if passes == 1:
        return None
    with torch.no_grad():
        return denoise(x_t, level, condition, None)


def _estimate(
    denoise: Denoise, x_t: Tensor, level: Level, condition: Tensor | None, passes: int
) -> Tensor:
    previous = _previous(denoise, x_t, level, condition, passes)
    return denoise(x_t, level, condition, previous)
