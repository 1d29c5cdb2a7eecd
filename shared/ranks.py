"""Several processes of one launch as one command: what costs is shared out, the rest rank 0 does.

All of them run the same lines. Where they meet (`share_out`, `on_rank_zero`) each hands over what
it has, or its error, which is then raised on all; `together` also hands over what is raised between
two meetings. So a command ends with the same exit code everywhere, and none waits for one that has
ended. Without a process group every call is plain, as if there were no others.
"""

import contextlib
import itertools
import os
from collections.abc import Callable, Generator
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch.distributed as dist

from shared.errors import ConfigError, DataError, DiptychError
from shared.train import engine

# A meeting waits for the slowest part of hours of drawing; gloo tells by itself of a lost process.
PATIENCE = timedelta(days=7)
T = TypeVar("T")


class _Meeting:
    """Where processes meet: a group (None: that of training), and the last error told to all."""

    group: Any = None
    error: Exception | None = None


def together(act: Callable[[], T]) -> T:
    """act() on every process of the launch, alone where there is one. Ranks other than 0 are
    silent, and an error of any is raised on all. One may stand in another. Afterwards too, meetings
    have the patience of those in it."""
    if engine.world_size() == 1:
        return act()
    engine.set_up()
    if _Meeting.group is None:
        _Meeting.group = dist.new_group(backend="gloo", timeout=PATIENCE)
    try:
        with _silence():
            result = act()
    except Exception as error:
        if error is not _Meeting.error:
            _exchange(None, error)
        raise
    _exchange(None, None)
    return result


def refuse_many(verb: str) -> None:
    """ConfigError in a launch of several processes, for a verb whose work they cannot share."""
    if engine.world_size() > 1:
        raise ConfigError(
            f"{verb} does not share its work: run it as one process, without a launcher, not as "
            f"{engine.world_size()}"
        )


def share_out(n: int, act: Callable[[slice], T]) -> list[T]:
    """What act(rows) gives for the parts of n rows that the processes take, one each, on all of
    them, in the order of rows. With fewer rows than processes there are n parts."""
    size = _size()
    if size == 1:
        return [act(slice(0, n))]
    bounds = [-(-n * i // size) for i in range(size + 1)]  # the first row is for rank 0
    parts = [slice(a, b) for a, b in itertools.pairwise(bounds)]
    own = parts[dist.get_rank()]
    found = _meet(lambda: act(own) if own.start < own.stop else None)
    return [
        cast(T, each) for each, rows in zip(found, parts, strict=True) if rows.start < rows.stop
    ]


def on_rank_zero(act: Callable[[], T]) -> T:
    """What act() gives on rank 0, which alone does it, on all processes. In it are no meetings."""
    if _size() == 1:
        return act()
    return cast(T, _meet(act if dist.get_rank() == 0 else lambda: None)[0])


def _size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _meet(act: Callable[[], T]) -> list[T]:
    """What act() gives on each process, in the order of ranks."""
    value, failed = None, None
    try:
        value = act()
    except Exception as error:
        failed = error
    return cast(list[T], _exchange(value, failed))


def _exchange(value: Any, failed: Exception | None) -> list[Any]:
    """The values of all processes. An error of any is raised on all; of several, that of the lowest
    rank, but one of ours before a bug: that may be no more than to have waited for the other."""
    found: list[Any] = [None] * _size()
    own = (value, None if failed is None else _plain(failed))
    dist.all_gather_object(found, own, group=_Meeting.group)
    errors = [(rank, error) for rank, (_, error) in enumerate(found) if error is not None]
    for rank, error in sorted(errors, key=lambda each: not isinstance(each[1], DiptychError)):
        told: Exception = failed if failed and rank == dist.get_rank() else error
        _Meeting.error = told
        raise told
    return [each for each, _ in found]


def _plain(error: Exception) -> Exception:
    """An error that can be sent: one of ours; one of the system, which has their exit code; of a
    bug what it says, its traceback is shown where it is."""
    if isinstance(error, DiptychError):
        return error
    if isinstance(error, OSError):
        return DataError(str(error))
    return RuntimeError(f"rank {dist.get_rank()}: {error!r}")


@contextlib.contextmanager
def _silence() -> Generator[None]:
    """Nothing is printed on ranks other than 0."""
    if dist.get_rank() == 0:
        yield
        return
    with (
        open(os.devnull, "w", encoding="utf-8") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield
