"""What a diffusers configuration says of a network: its levels, its timesteps, its output.

    chain   step i of T stands at t = (i + 1) / T of a schedule; the network is told i, 0 .. T - 1
    flow    alpha = 1 - sigma, sigma = t, and the network is told T sigma, 1 .. T

Both are timestep = T t - lag, with lag 1 and 0, and a network knows t from 1 / T to 1. It sees x_t
with alpha^2 + sigma^2 = 1 (chain) or alpha + sigma = 1 (flow), whatever family we sample in.
"""

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor

from shared.schedule import (
    Family,
    Flow,
    Level,
    Schedule,
    Shifted,
    cosine_betas,
    from_betas,
    linear_betas,
    named_schedule,
    scaled_linear_betas,
)

PREDICTION_TYPES = {
    "epsilon": "eps",
    "sample": "x0",
    "v_prediction": "v",
    "flow_prediction": "velocity",
}
_EDM = (
    "EDM's network sees x_t / sqrt(alpha^2 sd^2 + sigma^2) and answers F in that scale, which no "
    "prediction_type says; give its denoiser, model(x, sigma), to from_k_diffusion"
)
# What their format says in a way that we do not read, or not at all: setting -> reason.
REFUSED_SETTINGS = {
    "sigma_data": _EDM,
    "thresholding": "dynamic thresholding is not a function of one sample's estimate alone; use "
    "clip_sample, or sample_with that scheduler",
    "invert_sigmas": "its network is told T (1 - sigma)",
    "use_dynamic_shifting": "its shift depends on the size of the picture; give `shift` itself "
    "(e^mu for time_shift_type 'exponential', mu for 'linear')",
}
_LAST_BETA = 1 - 2.0**-24  # for 1 at zero terminal SNR: logsnr stays finite, and falls
_FLOW_ENDS = 60.0  # |logsnr| at the ends: t = sigma within 1e-13
_ROUNDING = 1e-3  # of a step: a float32 level of a chain misses its integer by up to 5e-4


@dataclass(frozen=True)
class Known(Schedule):
    """The part of a schedule that a network of T timesteps was trained on: u from 1 / T to 1."""

    whole: Schedule
    steps: int

    @property
    def family(self) -> Family:
        return self.whole.family

    def logsnr(self, t: Tensor) -> Tensor:
        return self.whole.logsnr((1 + t * (self.steps - 1)) / self.steps)

    def time(self, logsnr: Tensor) -> Tensor:
        return (self.whole.time(logsnr) * self.steps - 1) / (self.steps - 1)


@dataclass(frozen=True)
class Convention:
    """How a network of diffusers is asked and understood.

    `whole` is the schedule of its timesteps, t = (timestep + lag) / steps; `shift` (nats) moves the
    levels to sample at, not the timestep that a level has; x0_hat is clipped to +-clip.
    """

    whole: Schedule
    steps: int
    lag: int
    prediction: str
    shift: float = 0.0
    clip: float = math.inf

    @property
    def schedule(self) -> Schedule:
        """The levels that the network knows, for `sample`: t = 0 is its cleanest step."""
        return Known(Shifted(self.whole, self.shift) if self.shift else self.whole, self.steps)

    def timestep(self, logsnr: Tensor) -> Tensor:
        """logsnr, any shape -> what the network is told, float64: at a chain's own steps an
        integer, between them a fraction, and beyond its first and last these."""
        timestep = self.whole.time(logsnr.double()) * self.steps - self.lag
        if self.lag:
            nearest = timestep.round()
            timestep = torch.where((timestep - nearest).abs() < _ROUNDING, nearest, timestep)
        return timestep.clamp(1 - self.lag, self.steps - self.lag)

    def level(self, timestep: Tensor) -> Level:
        """timestep, any shape -> its level, float64."""
        return self.whole((timestep.double() + self.lag) / self.steps)

    def seen(self, x_t: Tensor, level: Level) -> tuple[Tensor, Level]:
        """x_t (B, ...) and its level, widened, of any family -> those of the network's family at
        the same logsnr. For flow that is alpha + sigma = 1."""
        total = torch.hypot(level.alpha, level.sigma) if self.lag else level.alpha + level.sigma
        return x_t / total, Level(level.logsnr, level.alpha / total, level.sigma / total)


def convention_of(scheduler: SchedulerMixin | Mapping[str, Any]) -> Convention:
    """Read a scheduler or its configuration (`scheduler.config`, scheduler_config.json).

    What only chooses a grid or a solver (timestep_spacing, use_karras_sigmas, solver_order, ...)
    says nothing of the network and is left aside. Keys that are missing have the defaults of the
    class `_class_name`, if that is one of diffusers'. ValueError for what cannot be understood.
    """
    settings = settings_of(scheduler)
    for key, reason in REFUSED_SETTINGS.items():
        if settings.get(key):
            raise ValueError(f"scheduler: {key} = {settings[key]!r} is refused: {reason}")
    steps = _needed(settings, "num_train_timesteps")
    if steps < 2:
        raise ValueError(f"scheduler: num_train_timesteps = {steps}: expected 2 or more")
    clip = float(settings["clip_sample_range"]) if settings.get("clip_sample") else math.inf
    if _is_flow(settings):
        prediction = settings.get("prediction_type") or "flow_prediction"
        shift = settings.get("shift") or settings.get("flow_shift") or 1.0
        whole, lag, nats = Flow(-_FLOW_ENDS, _FLOW_ENDS), 0, -2 * math.log(shift)
    else:
        prediction = _needed(settings, "prediction_type")
        whole, lag, nats = _whole(settings, steps), 1, 0.0
    return Convention(whole, steps, lag, _prediction(prediction), nats, clip)


def settings_of(scheduler: SchedulerMixin | Mapping[str, Any]) -> dict[str, Any]:
    """The configuration, completed by the defaults of its class. ValueError as `convention_of`."""
    if isinstance(scheduler, Mapping):
        given, name = dict(scheduler), scheduler.get("_class_name", "")
    else:
        given, name = dict(getattr(scheduler, "config")), type(scheduler).__name__  # noqa: B009
    found = getattr(diffusers, str(name), None)
    defaults: dict[str, Any] = {}
    if found is not None:
        parameters = inspect.signature(found.__init__).parameters.values()
        defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    if name == "ScoreSdeVeScheduler":
        raise ValueError(
            "scheduler: ScoreSdeVeScheduler is refused: its network is told sigma, not a step of a "
            "chain; give its denoiser, model(x, sigma), to from_k_diffusion"
        )
    return {"_class_name": name, **defaults, **given}


def _needed(settings: Mapping[str, Any], key: str) -> Any:
    if key not in settings:
        raise ValueError(
            f"scheduler: the configuration has no {key}: give the scheduler, its whole config, or "
            "a `_class_name` of diffusers, whose defaults then hold"
        )
    return settings[key]


def _is_flow(settings: Mapping[str, Any]) -> bool:
    named = str(settings["_class_name"]).startswith("FlowMatch")
    return named or bool(settings.get("use_flow_sigmas")) or settings.get("schedule") == "flow"


def _prediction(prediction_type: str) -> str:
    if prediction_type == "edm":
        raise ValueError(f"scheduler: prediction_type = 'edm' is refused: {_EDM}")
    if prediction_type not in PREDICTION_TYPES:
        raise ValueError(
            f"scheduler: prediction_type = {prediction_type!r}: expected one of "
            f"{', '.join(PREDICTION_TYPES)}"
        )
    return PREDICTION_TYPES[prediction_type]


def _whole(settings: Mapping[str, Any], steps: int) -> Schedule:
    name = settings.get("schedule")
    if name is None:
        return from_betas(_betas(settings, steps))
    if name == "sub_vp":
        raise ValueError(
            "scheduler: schedule = 'sub_vp' is refused: networks of diffusers see x_t with alpha^2 "
            "+ sigma^2 = 1 or alpha + sigma = 1, and sub-VP's has neither; 'linear' runs through "
            "the same alphas"
        )
    return named_schedule(name, settings.get("schedule_options") or {})


def _betas(settings: Mapping[str, Any], steps: int) -> Tensor:
    """The chain's betas (T,), float64 (theirs are float32)."""
    given = settings.get("trained_betas")
    if given is not None:
        betas = torch.as_tensor(given, dtype=torch.float64)
        if betas.shape != (steps,):
            raise ValueError(
                f"scheduler: trained_betas of shape {tuple(betas.shape)}: expected one for each of "
                f"num_train_timesteps = {steps}"
            )
    else:
        kind = _needed(settings, "beta_schedule")
        first, last = (float(_needed(settings, key)) for key in ("beta_start", "beta_end"))
        if kind == "linear":
            betas = linear_betas(steps, first, last)
        elif kind == "scaled_linear":
            betas = scaled_linear_betas(steps, first, last)
        elif kind == "squaredcos_cap_v2":
            betas = cosine_betas(steps)
        elif kind == "sigmoid":
            ramp = torch.sigmoid(torch.linspace(-6, 6, steps, dtype=torch.float64))
            betas = first + ramp * (last - first)
        else:
            raise ValueError(
                f"scheduler: beta_schedule = {kind!r}: expected linear, scaled_linear, "
                "squaredcos_cap_v2 or sigmoid; give others as trained_betas"
            )
    return _zero_terminal(betas) if settings.get("rescale_betas_zero_snr") else betas


def _zero_terminal(betas: Tensor) -> Tensor:
    """alpha moved and stretched so that it ends at 0, nearly (Lin et al. 2024, Alg. 1). (Solvers
    of diffusers end at alpha^2 = 2^-24, which is above that of the step before.)"""
    alpha = torch.cumprod(1 - betas, 0).sqrt()
    alpha2 = ((alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])) ** 2
    kept = alpha2 / torch.cat([alpha2.new_ones(1), alpha2[:-1]])
    kept[-1] = 1 - _LAST_BETA
    return 1 - kept
