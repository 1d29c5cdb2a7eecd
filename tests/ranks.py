"""Processes of one launch, as torchrun and deepspeed start them."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from shared.train.engine import free_port

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = """
import json, sys
from shared.cli import main
codes = [main(words) for words in json.loads(sys.argv[1])]
print(json.dumps(codes))
"""


def launch(script: str, *arguments: str) -> list[subprocess.CompletedProcess[str]]:
    """A script of Python in as many processes as there are arguments, one each."""
    shared = {"WORLD_SIZE": str(len(arguments)), "OMP_NUM_THREADS": "1"}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    begun = [
        subprocess.Popen(
            [sys.executable, "-c", script, argument],
            cwd=ROOT,
            env={**os.environ, **shared, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, argument in enumerate(arguments)
    ]
    told = [process.communicate(timeout=300) for process in begun]
    return [
        subprocess.CompletedProcess(process.args, process.returncode, *streams)
        for process, streams in zip(begun, told, strict=True)
    ]


def on_two(
    commands: Sequence[Sequence[str]], others: Sequence[Sequence[str]] | None = None
) -> list[tuple[list[int], str]]:
    """Commands one after another in two processes (rank 1: `others`, the same unless given) ->
    their exit codes on each rank, and all that each printed on stdout."""
    done = launch(COMMANDS, json.dumps(commands), json.dumps(others or commands))
    assert [each.returncode for each in done] == [0, 0], [each.stderr[-3000:] for each in done]
    lines = [each.stdout.splitlines() for each in done]
    return [(json.loads(printed[-1]), "\n".join(printed[:-1])) for printed in lines]


def assert_same_numbers(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Two reports: the same names, words, and numbers to 1e-6 of them."""
    ours, theirs = _flat(found), _flat(expected)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        number = isinstance(value, int | float)
        assert value == (pytest.approx(theirs[name], rel=1e-6) if number else theirs[name]), name


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """What stands in dictionaries and lists, by dotted name."""
    if not isinstance(values, dict | list):
        return {prefix: values}
    pairs = values.items() if isinstance(values, dict) else enumerate(values)
    return {k: v for key, value in pairs for k, v in _flat(value, f"{prefix}.{key}").items()}
