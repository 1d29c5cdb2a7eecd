"""Tables of `datasets`, opened with errors that name the configuration's key."""

import os
from collections.abc import Mapping
from typing import Any

from shared.errors import ConfigError, DataError

HOLD_OUT_EVERY = 20  # of the rows of a source without splits


def side_of(rows: int, held_out: bool) -> list[int]:
    """Which rows of a source without splits are held out, or which are not: every 20th."""
    return [i for i in range(rows) if (i % HOLD_OUT_EVERY == 0) == held_out]


def check_split(name: str, split: str | None, divided: bool = True) -> None:
    """ConfigError for a split that is asked for of a source that has none: a single file, or what
    the caller has found not to be `divided`."""
    if split is None or (divided and not os.path.isfile(expand(name))):
        return
    raise ConfigError(
        f"split = {split}: {name} has no splits, a part of its rows is held out; leave it out"
    )


def called(name: str, split: str, undivided: bool) -> str:
    """A split in errors: data.name, and which split of it where it has any."""
    return name if undivided else f"split {split!r} of {name}"


def check_columns(name: str, table: Any, wanted: Mapping[str, str | None], hint: str = "") -> None:
    """name: as `called`; wanted: the configuration's keys, and the column that each names.
    DataError lists the columns when one of them is not there."""
    for key, column in wanted.items():
        if column is not None and column not in table.column_names:
            raise DataError(f"{key} = {column!r}: {name} has {', '.join(table.column_names)}{hint}")


def expand(name: str, key: str = "data.name") -> str:
    """$VARIABLES and ~ in the path that `key` states. ConfigError for a variable that is not
    set."""
    expanded = os.path.expanduser(os.path.expandvars(name))
    if "$" in expanded:
        raise ConfigError(
            f"{key} = {name!r}: the environment variable in it is not set; export it, or give "
            f"{key}=PATH"
        )
    return expanded


def load_table(name: str, builder: str, split: str, **where: Any) -> Any:
    """`datasets.load_dataset(builder, split=split, **where)`; DataError names data.name."""
    import datasets

    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(builder, split=split, **where)
    except Exception as error:  # the loaders of `datasets` raise what their libraries raise
        raise unreadable(name, split, error) from None


def load_saved(name: str, folder: str, split: str) -> Any:
    """`datasets.load_from_disk(folder)`; DataError names data.name."""
    import datasets

    try:
        return datasets.load_from_disk(folder)
    except Exception as error:  # as above
        raise unreadable(name, split, error) from None


def unreadable(name: str, split: str, error: Exception) -> DataError:
    """What to raise for what a loader of `datasets` raised."""
    reason = str(error.__cause__ or error).strip().splitlines() or [type(error).__name__]
    return DataError(f"data.name = {name!r}, split {split!r}: cannot be read: {reason[0]}")
