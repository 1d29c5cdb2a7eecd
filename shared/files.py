"""Files that are whole or not there: temporary name, sync, rename, sync of the folder."""

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path


def write_atomic(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place of `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        write(temporary)
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write text atomically, UTF-8."""

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")

    write_atomic(path, write)


def make_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Let `fill` write into a temporary folder beside `path`, then put it in its place, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        fill(temporary)
        for each in (*temporary.rglob("*"), temporary):
            sync(each)
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def clear_temporary(path: Path) -> None:
    """Take away what killed processes, of any host, have left of a file or folder; of those that
    write it, the caller is the only one."""
    for left in path.parent.glob(f".{path.name}.tmp-*"):
        shutil.rmtree(left) if left.is_dir() else left.unlink()


def temporary_name(path: Path) -> Path:
    """Where this process writes what will be `path`: containers that share a disk may share numbers
    of processes, but not the name of their host."""
    return path.with_name(f".{path.name}.tmp-{socket.gethostname()}-{os.getpid()}")


def sync(path: Path) -> None:
    """fsync a file or a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cache_dir() -> Path:
    """What is kept between runs, trained judges and the statistics of features: DIPTYCH_CACHE, or
    ~/.cache/diptych."""
    return Path(os.environ.get("DIPTYCH_CACHE", "~/.cache/diptych")).expanduser()
