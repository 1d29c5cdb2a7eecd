"""What every schedule asks of its numbers: errors that name the argument and the value."""

import math


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
