"""Conditions of several parts: groups of the columns of a row (B, M), by name, negative ones
counted from its end.

A group can be dropped in training, and guided towards in sampling, by itself.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence

from shared.errors import ConfigError

Groups = Mapping[str, Sequence[int]]
ALL = "all"  # names whole rows among the rates of dropping groups


def check_groups(key: str, names: Iterable[str], groups: Groups) -> None:
    """ConfigError, with the nearest one, unless a condition has all groups that are named."""
    for name in names:
        if not groups:
            raise ConfigError(
                f"{key}: {name!r}, but this model's condition has no groups; give one number"
            )
        if name not in groups:
            near = difflib.get_close_matches(name, groups, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(groups)}"
            raise ConfigError(f"{key}: no group {name!r} in this model's condition; {hint}")
