"""The density of the probability-flow ODE (Song et al. 2021), and the bound it gives on any data.

In y = x / q, q^2 = alpha^2 s^2 + sigma^2, along logsnr (s: std of the data), the flow is

    dy / dlogsnr = alpha (x0_hat - c x) / (2 q),   c = alpha s^2 / q^2
    log p(x_0) = log N(y_1; 0, I) - D log q_0 + integral from logsnr_0 to logsnr_1 of
                 alpha / 2 (tr dx0_hat/dx - c D) dlogsnr

with 0 the cleanest level and 1 the noisiest, where the model is N(0, q_1^2 I), as for `sample`. The
slope is zero for Gaussian data of that std and falls as sigma and as alpha at the two ends, where a
slope in t grows without bound: adaptive steps get long there instead of short.

Data are noised once, to z_0 at the cleanest level, so that integers have a density too:

    -log p(data) <= E_q [-log p(z_0) + log q(z_0 | data) - log p(data | z_0)]
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torchdiffeq import odeint

from shared import noise
from shared.codec import Codec
from shared.denoiser import Denoise
from shared.likelihood.bound import evaluation_keys
from shared.likelihood.checks import check, gathered
from shared.likelihood.estimate import Likelihood
from shared.likelihood.trace import Trace, hutchinson
from shared.objective.moment import noised
from shared.objective.streams import CLEANEST, PROBE
from shared.schedule import Level, Schedule

MAX_STEP = 1.0  # nats: what happens within less, where all else is still, would be jumped over
TERMS = ("flow", "noise", "reconstruction")


@dataclass(frozen=True)
class Density:
    """log p (B,) of latents, nats, float64, and how often the network was asked."""

    log_prob: Tensor
    nfe: int


def ode(
    denoise: Denoise,
    codec: Codec,
    data: Tensor,
    schedule: Schedule,
    condition: Tensor | None = None,
    draws: int = 1,
    seed: int = 0,
    cleanest: float = 0.0,
    passes: int = 1,
    data_std: float = 1.0,
    trace: Trace = hutchinson,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    batch: int = 64,
    callback: Callable[[float], None] | None = None,
) -> Likelihood:
    """The bound of the flow on -log p(data | condition): terms flow, noise and reconstruction.

    data (B, *data_shape); `noise` is log q(z_0 | data), minus an entropy: large where the cleanest
    level is clean, as the flow's density is there. On continuous data (`Identity`) noise and
    reconstruction cancel but for log alpha, and the bound is the density, seen through the noise of
    the cleanest level. The other arguments are those of `elbo` and `log_density`; so are the
    errors.
    """
    check(data, condition, draws, batch)
    parts: list[Tensor] = []
    asked, total = 0, len(data) * draws
    for rows in torch.arange(total).split(batch):
        of, done, keys = rows // draws, int(rows[0]), evaluation_keys(seed, rows)

        def heard(share: float, done: int = done, width: int = len(rows)) -> None:
            if callback is not None:
                callback((done + share * width) / total)

        z_0, level_0, log_q = _latents(codec, data[of], schedule, keys, cleanest)
        some = None if condition is None else condition[of]
        density = log_density(
            denoise, z_0, schedule, keys, some, cleanest, passes, data_std, trace, rtol, atol, heard
        )
        asked += density.nfe * len(rows)
        with torch.no_grad():
            log_p = codec.log_prob(data[of], z_0, level_0).double().cpu()
        parts.append(torch.stack([-density.log_prob.cpu(), log_q.cpu(), -log_p]))
    return Likelihood(gathered(parts, TERMS, draws), data[0].numel(), draws, asked / total)


def log_density(
    denoise: Denoise,
    z_0: Tensor,
    schedule: Schedule,
    keys: Tensor,
    condition: Tensor | None = None,
    cleanest: float = 0.0,
    passes: int = 1,
    data_std: float = 1.0,
    trace: Trace = hutchinson,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    callback: Callable[[float], None] | None = None,
) -> Density:
    """log p(z_0) of latents z_0 (B, *latent_shape) at the level of `cleanest`, under the flow.

    keys (B,) key the probes of the trace, one a sample for the whole path (Grathwohl et al. 2019).
    The error per step is rtol |y| + atol, of y and of nats per dimension, as the worst sample has
    it; steps are the batch's. `passes` = 2 for a self-conditioned denoiser: the field is then what
    it says at x_t when shown its own first estimate there, *as a function of x_t*: holding the
    first estimate fixed, as the bound may, would give the trace of another field, and no density.
    `data_std` chooses y and the width of the noisiest level, no more. `callback` hears, at every
    evaluation of the field, the share of the path that is done, in [0, 1]. NFE = passes an
    evaluation of the field, each with its trace.

    Raises ValueError for ends without noise or without signal, bad tolerances, an estimate without
    gradient; FloatingPointError naming the logsnr where the field is not finite.
    """
    if not (rtol > 0 and atol > 0 and 0 < data_std < math.inf):
        raise ValueError(
            f"rtol = {rtol}, atol = {atol}, data_std = {data_std}: expected positive numbers"
        )
    if passes not in (1, 2):
        raise ValueError(f"passes = {passes}: expected 1, or 2 for a self-conditioned denoiser")
    begin, end = _ends(schedule, cleanest)
    field = _Field(denoise, schedule, condition, passes, data_std, trace, _probe(keys, z_0))

    def slope(gone: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        if callback is not None:
            callback(float(gone) / (begin - end))
        rising, divergence = field(begin - gone, state[0])
        return -rising, -divergence

    span = torch.tensor([0.0, begin - end], dtype=torch.float64, device=z_0.device)
    q_0 = field.width(schedule.family(torch.tensor(begin, dtype=torch.float64)))
    with torch.no_grad():
        path = odeint(
            slope,
            (z_0 / q_0, z_0.new_zeros(len(z_0))),
            span,
            rtol=rtol,
            atol=atol,
            method="dopri5",
            options={
                "norm": _worst,
                "dtype": torch.float64,
                "step_t": span[1:],  # else the last step goes beyond the schedule's end
                "first_step": MAX_STEP / 16,
                "max_step": MAX_STEP,
            },
        )
    y_1, grown = (part[-1].double() for part in path)
    log_prior = -(y_1.square() + math.log(2 * math.pi)).flatten(1).sum(1) / 2
    return Density(log_prior + z_0[0].numel() * (grown - math.log(q_0)), field.nfe)


class _Field:
    """dy / dlogsnr (B, ...) and its divergence per dimension (B,); counts evaluations."""

    def __init__(
        self,
        denoise: Denoise,
        schedule: Schedule,
        condition: Tensor | None,
        passes: int,
        data_std: float,
        trace: Trace,
        probe: Tensor,
    ) -> None:
        self.denoise, self.schedule, self.condition = denoise, schedule, condition
        self.passes, self.data_std, self.trace, self.probe = passes, data_std, trace, probe
        self.nfe = 0

    def width(self, level: Level) -> float:
        """q, the std of x_t."""
        return math.hypot(float(level.alpha) * self.data_std, float(level.sigma))

    def __call__(self, logsnr: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        level = self.schedule.family(logsnr)
        alpha, q = float(level.alpha), self.width(level)
        skip = alpha * (self.data_std / q) ** 2
        at, x = level.to(y), y * q

        def estimate(x: Tensor) -> Tensor:
            previous = None
            for _ in range(self.passes):
                previous = self.denoise(x, at, self.condition, previous)
            assert previous is not None
            return previous

        x0_hat, trace = self.trace(estimate, x, self.probe)
        self.nfe += self.passes
        slope = (x0_hat - skip * x) * (alpha / (2 * q))
        if not bool(slope.isfinite().all() & trace.isfinite().all()):
            raise FloatingPointError(
                f"likelihood: the flow is not finite at logsnr = {float(logsnr):.4g}; sample with "
                "nan='stop' to see whether the network is"
            )
        return slope, (trace / y[0].numel() - skip) * (alpha / 2)


def _latents(
    codec: Codec, data: Tensor, schedule: Schedule, keys: Tensor, cleanest: float
) -> tuple[Tensor, Level, Tensor]:
    """z_0 (B, ...), its level, and log q(z_0 | data) (B,), float64."""
    logsnr = torch.tensor(_ends(schedule, cleanest)[0], dtype=torch.float64)
    with torch.no_grad():
        x0 = codec.encode(data)
    exact = schedule.family(logsnr.to(x0.device))
    level = exact.to(x0)
    eps = noise.normal(keys, CLEANEST, tuple(x0.shape[1:]), device=x0.device).double()
    log_q = -(eps.square() + math.log(2 * math.pi)).flatten(1).sum(1) / 2
    log_q = log_q - x0[0].numel() * exact.sigma.log()
    return noised(x0, level, keys, CLEANEST), level, log_q


def _ends(schedule: Schedule, cleanest: float) -> tuple[float, float]:
    """logsnr at the cleanest and at the noisiest level."""
    if not 0 <= cleanest < 1:
        raise ValueError(f"cleanest = {cleanest}: expected a time in [0, 1)")
    times = torch.tensor([cleanest, 1.0], dtype=torch.float64)
    with torch.no_grad():
        begin, end = schedule.logsnr(times).tolist()
    if not math.isfinite(begin):
        raise ValueError(
            f"cleanest = {cleanest}: no noise is left there, and the flow never arrives; give the "
            "time of the cleanest noisy level (1 / T of a chain of T steps)"
        )
    if not math.isfinite(end):
        raise ValueError(
            f"schedule: logsnr = {end} at t = 1: the flow never arrives; use one with a finite end"
        )
    return begin, end


def _probe(keys: Tensor, like: Tensor) -> Tensor:
    """+-1 (B, ...), one draw a key (B,)."""
    if keys.shape != like.shape[:1]:
        raise ValueError(f"keys {tuple(keys.shape)}: expected one a latent, ({len(like)},)")
    above = noise.uniform(keys, PROBE, tuple(like.shape[1:]), device=like.device) > 0.5
    return above.to(like) * 2 - 1


def _worst(error: tuple[Tensor, Tensor]) -> Tensor:
    """Of y (B, ...) the largest root mean square of a sample, of nats per dimension (B,) the
    largest; the larger of both."""
    y, grown = error
    return torch.maximum(y.flatten(1).square().mean(1).max().sqrt(), grown.abs().max())
