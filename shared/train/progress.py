"""What a run says while it trains: one live line on a terminal, plain lines elsewhere, and
`log.jsonl`, append-only, the record that reports and resumed runs read."""

import json
import math
import os
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from shared.files import write_text

PLAIN_EVERY = 10.0  # seconds between lines when there is no terminal


class Log:
    """`log.jsonl` of a run, and the same as TensorBoard's files with a folder for `events`.

    Opening it at a step drops what a killed run wrote after that step; `loss` is that of the last
    row left, nan when there is none.
    """

    def __init__(self, path: Path, step: int, events: Path | None = None) -> None:
        kept = [row for row in read_log(path) if row["step"] <= step]
        write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
        self.loss: float = kept[-1]["loss"] if kept else math.nan
        self._file = path.open("a", encoding="utf-8")
        self._events = None if events is None else _open_events(events, step)

    def write(self, row: dict[str, Any]) -> None:
        """Append one row and hand it to the operating system."""
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        if self._events is not None:
            for name in row.keys() - {"step"}:
                self._events.add_scalar(f"train/{name}", row[name], row["step"])
            self._events.flush()

    def close(self) -> None:
        """Sync and close."""
        if self._events is not None:
            self._events.close()
        os.fsync(self._file.fileno())
        self._file.close()


def _open_events(folder: Path, step: int) -> Any:
    """A SummaryWriter, whose readers drop what an earlier one wrote after this step."""
    from torch.utils.tensorboard.writer import SummaryWriter  # a second of TensorBoard

    return SummaryWriter(str(folder), purge_step=step + 1)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The rows of a log; an unfinished last line, left by a kill, is ignored."""
    if not path.is_file():
        return []
    rows: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


class TrainProgress:
    """The progress line of rank 0: step, loss, speed, time left."""

    def __init__(self, label: str, step: int, steps: int, quiet: bool) -> None:
        self._console = Console(stderr=True)
        self._live = not quiet and self._console.is_terminal
        self._quiet, self._label, self._steps = quiet, label, steps
        self._last, self._start, self._first = time.monotonic(), time.monotonic(), step
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.4f}  {task.fields[speed]:,.0f} samples/s"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._live,
        )
        self._task = self._bar.add_task(label, total=steps, completed=step, loss=0.0, speed=0.0)

    def __enter__(self) -> "TrainProgress":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, t: TracebackType | None
    ) -> None:
        self._bar.stop()

    def say(self, message: str) -> None:
        """One line, whatever the output is."""
        if not self._quiet:
            self._console.print(message, highlight=False)

    def show(self, step: int, loss: float, speed: float) -> None:
        """Update the line after `step` steps; loss as logged, speed in samples/s."""
        self._bar.update(self._task, completed=step, loss=loss, speed=speed)
        now = time.monotonic()
        if self._live or self._quiet or (now - self._last < PLAIN_EVERY and step < self._steps):
            return
        self._last = now
        left = (now - self._start) / max(step - self._first, 1) * (self._steps - step)
        print(
            f"{self._label}  step {step}/{self._steps}  loss {loss:.4f}  "
            f"{speed:,.0f} samples/s  {left:,.0f} s left",
            file=sys.stderr,
            flush=True,
        )
