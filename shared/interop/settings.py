"""The settings of `DiptychScheduler`: which keys it takes, its solver, its grid."""

import difflib
import inspect
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import diffusers
import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from torch import Tensor

from shared.interop.convention import REFUSED_SETTINGS
from shared.solver.plan import solver_of
from shared.solver.step import Solver

SPACINGS = ("leading", "trailing", "linspace")
_FLOW = "give schedule = 'flow' and prediction_type = 'flow_prediction' instead"


def keys_of(scheduler: type) -> set[str]:
    """The names of a scheduler's settings."""
    return set(inspect.signature(scheduler.__init__).parameters) - {"self", "kwargs"}


def check_keys(cls: Any, given: Mapping[str, Any]) -> None:
    """ValueError for a key that neither `cls` nor a scheduler compatible with it knows, with the
    nearest of `cls`, and for a setting of theirs that may not be left aside."""
    own = keys_of(cls)
    theirs = [getattr(diffusers, name) for name in cls._compatibles]
    known = own.union(*map(keys_of, [*theirs, FlowMatchEulerDiscreteScheduler]))
    for key, value in given.items():
        if key in REFUSED_SETTINGS and value:
            raise ValueError(f"scheduler: {key} = {value!r} is refused: {REFUSED_SETTINGS[key]}")
        if key == "use_flow_sigmas" and value:
            raise ValueError(f"scheduler: use_flow_sigmas = {value!r} is refused: {_FLOW}")
        if key not in known and not key.startswith("_"):
            near = difflib.get_close_matches(key, own, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(
                f"scheduler: {key} is no setting; expected {', '.join(sorted(own))}{hint}"
            )


def with_options(solver: str, options: Mapping[str, Any]) -> Solver:
    """A solver by name with some of its fields replaced. ValueError for a field it has not."""
    chosen: Any = solver_of(solver)
    known = [field.name for field in fields(chosen)]
    for key in options:
        if key not in known:
            raise ValueError(
                f"solver_options: {solver} has no {key}; expected one of "
                f"{', '.join(known) or '(it has none)'}"
            )
    return replace(chosen, **options)


def spaced(spacing: str, count: int, steps: int, offset: int) -> Tensor:
    """Integer steps of a chain of `steps`, falling, (count,), float64: DDPMScheduler's rules (Lin
    et al. 2024, table 2). ValueError for another spacing, or more of them than the chain has."""
    if spacing not in SPACINGS:
        raise ValueError(f"timestep_spacing = {spacing!r}: expected one of {', '.join(SPACINGS)}")
    if not 1 <= count <= steps:
        raise ValueError(
            f"num_inference_steps = {count}: expected 1 to num_train_timesteps = {steps} with "
            f"timestep_spacing = {spacing!r}; a `grid` has fractions"
        )
    place = torch.arange(count, dtype=torch.float64)
    if spacing == "leading":
        chosen = place.flip(0) * (steps // count) + offset
    elif spacing == "trailing":
        chosen = (steps - place * (steps / count)).round() - 1
    else:
        chosen = torch.linspace(steps - 1, 0, count, dtype=torch.float64).round()  # 1: from noise
    if chosen[0] > steps - 1:
        raise ValueError(
            f"steps_offset = {offset}: step {int(chosen[0])} is beyond the last, {steps - 1}"
        )
    return chosen
