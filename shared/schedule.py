"""Noise schedules: maps from t in [0, 1] (0 data, 1 noise) to falling logsnr, in nats.

x_t = alpha x0 + sigma eps,   logsnr = ln(alpha^2 / sigma^2).

A schedule is a monotone function and its inverse; a family turns logsnr into alpha and sigma. Both
schedules here are variance preserving, alpha^2 + sigma^2 = 1 (Kingma et al. 2021, sec. 3.2).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Level:
    """A noise level: three tensors of one shape, () or (B,), or widened against x: (B, 1, ...)."""

    logsnr: Tensor
    alpha: Tensor
    sigma: Tensor

    def widen(self, ndim: int) -> "Level":
        """A level of shape (B,) -> (B, 1, ..., 1) with ndim axes; a scalar level stays as it is."""
        if self.logsnr.ndim == 0:
            return self
        shape = (-1,) + (1,) * (ndim - 1)
        return Level(*(x.reshape(shape) for x in (self.logsnr, self.alpha, self.sigma)))

    def to(self, like: Tensor) -> "Level":
        """The same level on the device and in the dtype of `like`."""
        return Level(*(x.to(like) for x in (self.logsnr, self.alpha, self.sigma)))


def variance_preserving(logsnr: Tensor) -> Level:
    """alpha^2 + sigma^2 = 1; sigmoid does not overflow at either end."""
    return Level(logsnr, alpha=torch.sigmoid(logsnr).sqrt(), sigma=torch.sigmoid(-logsnr).sqrt())


class Schedule(Protocol):
    """t in [0, 1] -> noise level, strictly falling in logsnr, and its inverse."""

    def logsnr(self, t: Tensor) -> Tensor:
        """t in [0, 1], any shape -> logsnr (nats), same shape."""
        ...

    def time(self, logsnr: Tensor) -> Tensor:
        """The inverse of logsnr: logsnr, any shape -> t in [0, 1]."""
        ...

    def __call__(self, t: Tensor) -> Level:
        """t, any shape -> the Level there, same shape."""
        ...


@dataclass(frozen=True)
class Cosine:
    """logsnr = -2 ln tan(pi t / 2) (Nichol & Dhariwal 2021, eq. 17 with s = 0), cut at both ends.

    `shift` is added to logsnr: 2 ln(64 / d) suits d x d pictures (Hoogeboom et al. 2023).
    """

    logsnr_min: float = -15.0
    logsnr_max: float = 15.0
    shift: float = 0.0

    def __post_init__(self) -> None:
        _check_ends(self.logsnr_min, self.logsnr_max, self.shift)

    def _angles(self) -> tuple[float, float]:
        start, end = (math.atan(math.exp(-x / 2)) for x in (self.logsnr_max, self.logsnr_min))
        return start, end

    def logsnr(self, t: Tensor) -> Tensor:
        start, end = self._angles()
        return self.shift - 2 * torch.log(torch.tan(start + t * (end - start)))

    def time(self, logsnr: Tensor) -> Tensor:
        start, end = self._angles()
        return (torch.atan(torch.exp((self.shift - logsnr) / 2)) - start) / (end - start)

    def __call__(self, t: Tensor) -> Level:
        return variance_preserving(self.logsnr(t))


@dataclass(frozen=True)
class Linear:
    """ln alpha^2 = -(b1 - b0) u^2 / 2 - b0 u (Song et al. 2021, app. C): DDPM's continuum limit.

    u = 0 would be clean (logsnr infinite): t = 0 stands for the u at which logsnr is logsnr_max,
    t = 1 for u = 1, where it is -10.05 for the default betas.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    logsnr_max: float = 15.0

    def __post_init__(self) -> None:
        if not 0 < self.beta_min < self.beta_max:
            raise ValueError(
                f"schedule: beta_min = {self.beta_min}, beta_max = {self.beta_max}: "
                "expected 0 < beta_min < beta_max"
            )
        end = float(self._log_alpha2(torch.tensor(1.0, dtype=torch.float64)))
        _check_ends(end - math.log(-math.expm1(end)), self.logsnr_max)

    def _log_alpha2(self, u: Tensor) -> Tensor:
        return -(self.beta_max - self.beta_min) * u**2 / 2 - self.beta_min * u

    def _u_of(self, log_alpha2: Tensor) -> Tensor:
        # the positive root of (b1 - b0) u^2 / 2 + b0 u + log_alpha2 = 0, free of cancellation
        slope, b0 = self.beta_max - self.beta_min, self.beta_min
        return -2 * log_alpha2 / (b0 + torch.sqrt(b0**2 - 2 * slope * log_alpha2))

    def _u_min(self) -> float:
        top = torch.tensor(self.logsnr_max, dtype=torch.float64)
        return float(self._u_of(torch.nn.functional.logsigmoid(top)))

    def logsnr(self, t: Tensor) -> Tensor:
        u_min = self._u_min()
        log_alpha2 = self._log_alpha2(u_min + t * (1 - u_min))
        return log_alpha2 - torch.log(-torch.expm1(log_alpha2))

    def time(self, logsnr: Tensor) -> Tensor:
        u_min = self._u_min()
        u = self._u_of(torch.nn.functional.logsigmoid(logsnr))
        return (u - u_min) / (1 - u_min)

    def __call__(self, t: Tensor) -> Level:
        return variance_preserving(self.logsnr(t))


@dataclass(frozen=True)
class Warped:
    """A schedule re-timed by a piecewise linear density over logsnr (CDCD; Dieleman et al. 2022).

    t is the share of the density above logsnr, so uniform t spends its samples where the density
    is: `knots` are logsnr values at t = 0, 1/n, ..., 1, strictly falling.
    """

    knots: tuple[float, ...]

    def __post_init__(self) -> None:
        pairs = zip(self.knots, self.knots[1:], strict=False)
        if len(self.knots) < 2 or any(not -math.inf < b < a < math.inf for a, b in pairs):
            raise ValueError(
                "schedule: knots must be two or more strictly falling, finite logsnr values"
            )

    def logsnr(self, t: Tensor) -> Tensor:
        knots = torch.tensor(self.knots, dtype=t.dtype, device=t.device)
        place = t.clamp(0, 1) * (len(self.knots) - 1)
        left = place.floor().long().clamp(max=len(self.knots) - 2)
        return torch.lerp(knots[left], knots[left + 1], place - left)

    def time(self, logsnr: Tensor) -> Tensor:
        rising = torch.tensor(self.knots[::-1], dtype=logsnr.dtype, device=logsnr.device)
        right = torch.searchsorted(rising, logsnr.contiguous()).clamp(1, len(self.knots) - 1)
        share = (logsnr - rising[right - 1]) / (rising[right] - rising[right - 1])
        return 1 - (right - 1 + share.clamp(0, 1)) / (len(self.knots) - 1)

    def __call__(self, t: Tensor) -> Level:
        return variance_preserving(self.logsnr(t))


def _check_ends(logsnr_min: float, logsnr_max: float, shift: float = 0.0) -> None:
    if not -math.inf < logsnr_min < logsnr_max < math.inf:
        raise ValueError(
            f"schedule: logsnr_min = {logsnr_min} must be below logsnr_max = {logsnr_max}, "
            "both finite"
        )
    if not math.isfinite(shift):
        raise ValueError(f"schedule: shift = {shift}: expected a finite number")


SCHEDULES: dict[str, Callable[[], Schedule]] = {"cosine": Cosine, "linear": Linear}
