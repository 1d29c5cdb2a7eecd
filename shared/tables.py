"""Tables of `datasets`, opened with errors that name the configuration's key."""

import os
from typing import Any

from shared.errors import ConfigError, DataError


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
