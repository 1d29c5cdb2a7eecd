"""Commands run one after the other, each in a process of its own, none of them twice.

What is done is kept in FOLDER/steps.json with its command and seconds. A step is left out when it
ended well with the same command before, what it made is still there, and nothing before it had to
be done again. An interrupted step is started again, and its seconds so far still count.
"""

import json
import os
import resource
import socket
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console

from shared.errors import CheckpointError
from shared.exhibits import read_json
from shared.files import write_text

RECORD = "steps.json"


class StepFailed(Exception):
    """A step ended with `code`; it has told why on stderr."""

    def __init__(self, step: str, code: int) -> None:
        super().__init__(f"{step} failed with exit code {code}; its message is above")
        self.code = code


@dataclass
class Step:
    """What is known of a step."""

    command: list[str]
    done: bool = False
    seconds: float = 0.0


class Steps:
    """The steps of one folder, in the order in which `run` is called."""

    def __init__(self, folder: Path, console: Console) -> None:
        """CheckpointError when the record of earlier steps does not read."""
        self.folder, self.console = folder, console
        self.peak_bytes = 0
        self.known: dict[str, Step] = {}
        self.called: list[str] = []
        self.again = False  # whether a step was done anew, so that all later ones must be, too
        path = folder / RECORD
        if path.is_file():
            record = read_json(path)
            try:
                self.known = {name: Step(**step) for name, step in record["steps"].items()}
                self.peak_bytes = int(record["peak_bytes"])
            except (KeyError, TypeError, AttributeError) as error:
                raise CheckpointError(f"{path}: not a record of steps ({error!r})") from None

    def run(self, name: str, words: list[str], makes: Path, procs: int = 1) -> None:
        """`diptych WORDS`, on `procs` processes of DeepSpeed's launcher; StepFailed carries its
        exit code. Its progress and messages go to stderr, its result, which `makes` holds, is not
        shown."""
        self.called.append(name)
        step = self.known.get(name)
        if step is None or step.command != words:
            step = self.known[name] = Step(words)
        if step.done and makes.exists() and not self.again:
            self.console.print(f"{name}: done before, in {step.seconds:.0f} s", markup=False)
            return
        self.again, step.done = True, False
        began = time.monotonic()
        try:
            code = _call([*command(procs), *words])
            step.done = code == 0
        finally:
            step.seconds += time.monotonic() - began
            self.peak_bytes = max(self.peak_bytes, peak_of_children())
            self._save()
        if code:
            raise StepFailed(name, code)
        self.console.print(f"{name}: {step.seconds:.0f} s", markup=False)

    def seconds(self) -> float:
        """Seconds of the steps called so far, whenever they were done."""
        return sum(self.known[name].seconds for name in self.called)

    def _save(self) -> None:
        steps = {name: asdict(step) for name, step in self.known.items()}
        record = {"peak_bytes": self.peak_bytes, "steps": steps}
        write_text(self.folder / RECORD, json.dumps(record, indent=1))


def command(procs: int) -> list[str]:
    """How `diptych` is started with this interpreter: alone, or by DeepSpeed's launcher."""
    if procs == 1:
        return [sys.executable, "-m", "diptych"]
    launcher = [sys.executable, "-m", "deepspeed.launcher.runner"]
    where = ["--num_accelerators", str(procs), "--master_port", str(_free_port())]
    return [*launcher, *where, "--module", "diptych"]


def peak_of_children() -> int:
    """The largest resident set, in bytes, of any process that has ended below this one."""
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _call(words: list[str]) -> int:
    """The exit code of a command; as a shell gives it, 128 + n, when signal n ended it."""
    environment = dict(os.environ)
    if not torch.cuda.is_available():
        environment.setdefault("DS_ACCELERATOR", "cpu")  # the launcher counts accelerators
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, env=environment)
    try:
        code = process.wait()
    except KeyboardInterrupt:  # it saves what it has, and must not go on alone
        process.terminate()
        process.wait()
        raise
    return code if code >= 0 else 128 - code


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
