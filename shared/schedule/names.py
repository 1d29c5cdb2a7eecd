"""Schedules by name, for configurations and the command."""

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

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
    """The schedule of this name; `options` are its constructor's numbers.

    ValueError for a name or an option that there is not, with the nearest, and for a bad number.
    """
    if name not in SCHEDULES:
        raise ValueError(f"schedule = {name!r}: expected one of {_listed(name, list(SCHEDULES))}")
    known = schedule_options(name)
    for key in options:
        if key not in known:
            raise ValueError(
                f"schedule option {key}: {name} has none of that name; "
                f"expected one of {_listed(key, known)}"
            )
    return SCHEDULES[name](**options)


def _listed(given: str, choices: list[str]) -> str:
    near = difflib.get_close_matches(given, choices, n=1)
    return ", ".join(choices) + (f"; did you mean {near[0]}?" if near else "")
