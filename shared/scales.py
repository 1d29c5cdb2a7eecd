"""Guidance scales as they are asked for: `3`, or one for each group of a condition's columns,
`layout=2,texture=3`."""

import math
from typing import Annotated

from tyro.constructors import PrimitiveConstructorSpec

Scales = float | dict[str, float]


def parse_scales(asked: str) -> Scales:
    """A number, or NAME=NUMBER with commas between. ValueError for anything else."""
    if "=" not in asked:
        return _number(asked, asked)
    scales: dict[str, float] = {}
    for part in asked.split(","):
        name, _, value = (word.strip() for word in part.partition("="))
        if not name or name in scales:
            raise ValueError(f"{asked!r}: expected each group once, such as layout=2,texture=3")
        scales[name] = _number(value, asked)
    return scales


def finite(scales: Scales) -> bool:
    """Whether all of it are finite numbers, and there are some."""
    values = scales.values() if isinstance(scales, dict) else [scales]
    return bool(values) and all(map(math.isfinite, values))


def _number(word: str, asked: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise ValueError(
            f"{asked!r}: expected a number, or one for each group, such as layout=2,texture=3"
        ) from None


def _written(scales: Scales) -> list[str]:
    if isinstance(scales, dict):
        return [",".join(f"{name}={value}" for name, value in scales.items())]
    return [str(scales)]


ScalesArgument = Annotated[
    Scales,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="SCALE|GROUP=SCALE,...",
        instance_from_str=lambda words: parse_scales(words[0]),
        is_instance=lambda value: isinstance(value, int | float | dict),
        str_from_instance=_written,
    ),
]
