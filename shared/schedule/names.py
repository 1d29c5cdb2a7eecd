"""Schedules by name, for configurations and the command."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from shared.schedule.checks import check_name, check_options
from shared.schedule.closed import Cosine, Edm, Flow, Sigmoid, Sqrt, Ve
from shared.schedule.decay import Linear, ScaledLinear, SubVp
from shared.schedule.learned import Learned
from shared.schedule.level import Schedule

# `warped` has no name here: its knots are fitted, not written down
SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "cosine": Cosine,
    "linear": Linear,
    "scaled_linear": ScaledLinear,
    "sqrt": Sqrt,
    "sigmoid": Sigmoid,
    "ve": Ve,
    "sub_vp": SubVp,
    "edm": Edm,
    "flow": Flow,
    "learned": Learned,
}

# what a number cannot say, or what a training run may not choose (see Learned)
_UNNAMED = ("family", "learn_ends")


def schedule_options(name: str) -> list[str]:
    """The names of a schedule's numbers, as its constructor has them."""
    return [key for key in inspect.signature(SCHEDULES[name]).parameters if key not in _UNNAMED]


def named_schedule(name: str, options: Mapping[str, Any]) -> Schedule:
    """The schedule of this name in SCHEDULES; `options` are its constructor's numbers.

    ValueError for a name or an option that is not known, with the nearest, and for a bad number.
    """
    check_name(name, list(SCHEDULES))
    check_options(name, options, schedule_options(name))
    return SCHEDULES[name](**options)
