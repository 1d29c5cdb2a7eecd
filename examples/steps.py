"""Commands as steps, each in a process of its own, none of them done twice.

What is done is kept in FOLDER/steps.json with its command and seconds. A step is left out when it
ended well with the same command before, what it made is still there, and nothing before it had to
be done again. An interrupted step is started again, and its seconds so far still count. Steps that
do not need each other run side by side, in lanes: two processes of one thread each use two cores
better than one process of two threads does on networks as small as the demo's.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console

from shared.errors import CheckpointError
from shared.exhibits import read_json
from shared.files import write_text
from shared.train.engine import free_port

RECORD = "steps.json"
POLL = 0.05  # seconds between looks at the processes of lanes


class StepFailed(Exception):
    """A step ended with `code`; it has told why on stderr."""

    def __init__(self, step: str, code: int) -> None:
        super().__init__(f"{step} failed with exit code {code}; its message is above")
        self.code = code


@dataclass(frozen=True)
class Task:
    """A step to do: `diptych WORDS`, on `procs` processes, whose result `makes` holds."""

    name: str
    words: list[str]
    makes: Path
    procs: int = 1


@dataclass
class Step:
    """What is known of a step."""

    command: list[str]
    done: bool = False
    seconds: float = 0.0


@dataclass
class Lane:
    """Tasks still to do in turn; the first one is in progress while there is a process."""

    tasks: list[Task]
    again: bool  # whether a step was done anew, so that all later ones must be, too
    process: subprocess.Popen[bytes] | None = None
    began: float = 0.0


class Steps:
    """The steps of one folder, in the order in which `run` is called."""

    def __init__(self, folder: Path, console: Console) -> None:
        """CheckpointError when the record of earlier steps does not read."""
        self.folder, self.console = folder, console
        self.peak_bytes = 0
        self.known: dict[str, Step] = {}
        self.groups: list[list[list[str]]] = []  # names in lanes that ran side by side
        self.again = False
        path = folder / RECORD
        if path.is_file():
            record = read_json(path)
            try:
                self.known = {name: Step(**step) for name, step in record["steps"].items()}
                self.peak_bytes = int(record["peak_bytes"])
            except (KeyError, TypeError, AttributeError) as error:
                raise CheckpointError(f"{path}: not a record of steps ({error!r})") from None

    def run(self, *lanes: Sequence[Task]) -> None:
        """Do the tasks of each lane in turn, and the lanes side by side. Progress and messages go
        to stderr. StepFailed carries the exit code of a task that failed; the others are stopped,
        and save what they have."""
        self.groups.append([[task.name for task in lane] for lane in lanes])
        under_way = [Lane(list(tasks), self.again) for tasks in lanes]
        environment = _environment(len(lanes))
        try:
            while any(lane.tasks for lane in under_way):
                for lane in under_way:
                    self._advance(lane, environment)
                time.sleep(POLL)
        finally:
            for lane in under_way:
                if lane.process is not None:  # it saves what it has, and must not go on alone
                    lane.process.terminate()
                    self._note(lane, lane.process.wait())
        self.again = any(lane.again for lane in under_way)

    def seconds(self) -> float:
        """Seconds of the steps called so far, whenever they were done: of the longest lane, where
        several ran side by side."""
        return sum(
            max(sum(self.known[name].seconds for name in lane) for lane in lanes)
            for lanes in self.groups
        )

    def _advance(self, lane: Lane, environment: dict[str, str]) -> None:
        if lane.process is not None:
            code = lane.process.poll()
            if code is not None:
                task = self._note(lane, code)
                if code:  # as a shell tells it: 128 + n when signal n ended it
                    raise StepFailed(task.name, code if code > 0 else 128 - code)
                spent = self.known[task.name].seconds
                self.console.print(f"{task.name}: {spent:.0f} s", markup=False)
        elif lane.tasks:
            self._start(lane, environment)

    def _start(self, lane: Lane, environment: dict[str, str]) -> None:
        task = lane.tasks[0]
        step = self.known.get(task.name)
        if step is None or step.command != task.words:
            step = self.known[task.name] = Step(task.words)
        if step.done and task.makes.exists() and not lane.again:
            self.console.print(f"{task.name}: done before, in {step.seconds:.0f} s", markup=False)
            del lane.tasks[0]
            return
        lane.again, step.done = True, False
        lane.began = time.monotonic()
        words = [*command(task.procs), *task.words]
        lane.process = subprocess.Popen(words, stdout=subprocess.DEVNULL, env=environment)

    def _note(self, lane: Lane, code: int) -> Task:
        """Record the end of the task that a lane had in progress; returns it."""
        task, lane.process = lane.tasks.pop(0), None
        step = self.known[task.name]
        step.seconds += time.monotonic() - lane.began
        step.done = code == 0
        self.peak_bytes = max(self.peak_bytes, peak_of_children())
        steps = {name: asdict(step) for name, step in self.known.items()}
        record = {"peak_bytes": self.peak_bytes, "steps": steps}
        write_text(self.folder / RECORD, json.dumps(record, indent=1))
        return task


def command(procs: int) -> list[str]:
    """How `diptych` is started with this interpreter: alone, or by DeepSpeed's launcher."""
    if procs == 1:
        return [sys.executable, "-m", "diptych"]
    launcher = [sys.executable, "-m", "deepspeed.launcher.runner"]
    where = ["--num_accelerators", str(procs), "--master_port", str(free_port())]
    return [*launcher, *where, "--module", "diptych"]


def peak_of_children() -> int:
    """The largest resident set, in bytes, of any process that has ended below this one."""
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _environment(lanes: int) -> dict[str, str]:
    """The environment of processes of which several run at a time."""
    environment = dict(os.environ)
    if not torch.cuda.is_available():
        environment.setdefault("DS_ACCELERATOR", "cpu")  # the launcher counts accelerators
    if lanes > 1:
        environment.setdefault("OMP_NUM_THREADS", "1")
        environment["TTY_COMPATIBLE"] = "0"  # plain lines: two live ones would overwrite each other
    return environment
