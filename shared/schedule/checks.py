"""What every schedule asks of its numbers: errors that name the argument and the value."""

import difflib
import math
from collections.abc import Iterable, Sequence


def check_ends(low_name: str, low: float, high_name: str, high: float) -> None:
    """ValueError unless both are finite and low < high."""
    if not -math.inf < low < high < math.inf:
        raise ValueError(
            f"schedule: {low_name} = {low} must be below {high_name} = {high}, both finite"
        )


def check_positive(name: str, value: float) -> None:
    """ValueError unless value is finite and above 0."""
    if not 0 < value < math.inf:
        raise ValueError(f"schedule: {name} = {value}: expected a finite number above 0")


def check_name(name: str, known: Sequence[str]) -> None:
    """ValueError, with the nearest known one, for a schedule that is none."""
    if name not in known:
        raise ValueError(
            f"schedule = {name!r}: expected one of {', '.join(known)}{_hint(name, known)}"
        )


def check_options(name: str, options: Iterable[str], known: Sequence[str]) -> None:
    """ValueError, with the nearest known one, for an option that `name` has not."""
    for key in options:
        if key not in known:
            expected = f"expected one of {', '.join(known)}" if known else "it has none"
            raise ValueError(f"{name} has no option {key}: {expected}{_hint(key, known)}")


def _hint(given: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(given, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""
