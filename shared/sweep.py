"""One setting at several values, as it is asked for: `temperature=0.7,0.8,0.9`."""

from collections.abc import Callable
from dataclasses import dataclass

from shared.errors import ConfigError

# What of shared.sampling.Sampling trades likeness for variety, or either for time.
SETTINGS: dict[str, Callable[[str], float]] = {"temperature": float, "steps": int, "td": float}


@dataclass(frozen=True)
class Sweep:
    """A setting by name, and its values in the order given."""

    name: str
    values: tuple[float, ...]


def parse_sweep(key: str, asked: str) -> Sweep:
    """`NAME=VALUE,VALUE,...`, asked for as `key` -> Sweep. ConfigError names what is wrong: no
    values, an unknown setting, a value that is no number or there twice."""
    name, equals, listed = (part.strip() for part in asked.partition("="))
    words = [word.strip() for word in listed.split(",")] if listed else []
    if not equals or not words:
        raise ConfigError(
            f"{key} = {asked!r}: expected a setting and its values, such as temperature=0.7,0.8,0.9"
        )
    if name not in SETTINGS:
        raise ConfigError(f"{key} = {asked!r}: expected one of {', '.join(SETTINGS)}, got {name!r}")
    values = tuple(_value(key, asked, name, word) for word in words)
    if len(set(values)) < len(values):
        raise ConfigError(f"{key} = {asked!r}: a value is there twice")
    return Sweep(name, values)


def _value(key: str, asked: str, name: str, word: str) -> float:
    kind = SETTINGS[name]
    try:
        return kind(word)
    except ValueError:
        expected = "whole numbers" if kind is int else "numbers"
        raise ConfigError(
            f"{key} = {asked!r}: {name} takes {expected} with commas between them, got {word!r}"
        ) from None
