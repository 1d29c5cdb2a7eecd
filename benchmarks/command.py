"""The command line of a benchmark: its function's arguments, and errors as `diptych` tells them."""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import tyro

from shared.cli import exit_code


def command(run: Callable[..., int | None], arguments: Sequence[str] | None = None) -> int:
    """Run as the arguments (default: the process's own) say; returns the exit code."""
    flags = (tyro.conf.FlagCreatePairsOff,)
    call = partial(tyro.cli, run, args=arguments, config=flags)
    return exit_code(Path(inspect.getfile(run)).stem, call)
