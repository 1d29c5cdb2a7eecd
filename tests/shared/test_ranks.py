"""Processes that work as one: parts in their order, and errors that all of them raise."""

import json
from pathlib import Path

import pytest
from filelock import FileLock

from shared.cli import main
from shared.ranks import on_rank_zero, share_out, together
from tests.ranks import launch

SCRIPT = """
import json, sys
from shared.cli import exit_code
from shared.errors import ConfigError, DataError
from shared.ranks import on_rank_zero, share_out, together
rank = int(sys.argv[1])

def failing(error, at):
    if rank == at:
        raise error
    return rank

def parts(n):
    return share_out(n, lambda rows: (rank, *range(n)[rows]))

def unheard():
    failing(DataError("a file"), 2)
    return parts(5)

def late():
    parts(5)
    failing(ConfigError("too late"), 0)

def caught_up():
    return parts(2) and on_rank_zero(lambda: failing(OSError("disk"), 0))

cases = {
    "five": lambda: parts(5),
    "two": lambda: parts(2),
    "zero": lambda: on_rank_zero(lambda: rank + 7),
    "part": lambda: share_out(5, lambda rows: failing(ConfigError("a key"), 1)),
    "unheard": unheard,
    "late": late,
    "system": caught_up,
    "lowest": lambda: share_out(3, lambda rows: failing([OSError, ConfigError][rank % 2](), rank)),
    "bug": lambda: share_out(3, lambda rows: failing([KeyError, DataError][rank % 2](), rank)),
    "nested": lambda: together(lambda: failing(ConfigError("inner"), 1)),
    "after": lambda: parts(3),
}
found = {}

def keep(name):
    found[name] = together(cases[name])

codes = {name: exit_code("test", lambda: keep(name)) for name in cases}
print(json.dumps([codes, found]))
"""


def test_parts_come_in_order_and_an_error_of_one_ends_all_with_its_exit_code():
    done = launch(SCRIPT, "0", "1", "2")
    assert [each.returncode for each in done] == [0, 0, 0], [each.stderr for each in done]
    for each in done:
        codes, found = json.loads(each.stdout)
        assert codes == {
            "five": 0, "two": 0, "zero": 0, "after": 0,
            "part": 2, "unheard": 3, "late": 2, "system": 3, "lowest": 3,
            "bug": 3, "nested": 2,
        }  # fmt: skip
        assert found == {
            "five": [[0, 0, 1], [1, 2, 3], [2, 4]],
            "two": [[0, 0], [1, 1]],
            "zero": 7,
            "after": [[0, 0], [1, 1], [2, 2]],
        }


TRAINING = """
import json, sys, time
from datetime import timedelta
from pathlib import Path
import torch.distributed as dist
from shared.cli import exit_code
from shared.errors import DataError
from shared.train import checkpoint, engine
from shared.train.loop import train
from tests.toy import ToyPanel, toy_config
rank, folder = json.loads(sys.argv[1])
save = checkpoint.save

class Poor(ToyPanel):
    def examples(self, config, run):
        if rank == 1:
            raise DataError("no such row")
        return super().examples(config, run)

class Slow(ToyPanel):
    def prepare(self, config, run):
        time.sleep(7)

def slowly(*inputs):
    time.sleep(7)
    return save(*inputs)

def full(*inputs):
    raise OSError("no room")

def run(name, panel, saving=save):
    checkpoint.save = saving
    config = toy_config("train.steps=2")
    return exit_code("test", lambda: train(config, Path(folder) / name, panel, True) and None)

engine.set_up()
dist.distributed_c10d._set_pg_timeout(timedelta(seconds=5))  # as if two minutes were five seconds
print(json.dumps([
    run("busy", ToyPanel()), run("poor", Poor()), run("poor", ToyPanel()),
    run("slow", Slow(), slowly), run("full", ToyPanel(), full),
]))
"""


def test_training_waits_for_what_rank_0_does_and_an_error_of_one_ends_all(tmp_path: Path):
    """A folder in use by another process; data that rank 1 cannot read, and then can; what takes
    longer than a collective of training may; a full disk."""
    (tmp_path / "busy").mkdir()
    with FileLock(tmp_path / "busy/.lock"):
        done = launch(TRAINING, *(json.dumps([rank, str(tmp_path)]) for rank in (0, 1)))
    assert [each.returncode for each in done] == [0, 0], [each.stderr[-3000:] for each in done]
    for each in done:
        assert json.loads(each.stdout) == [2, 3, 0, 0, 3]
        assert "in use by another process" in each.stderr
        assert "no such row" in each.stderr


@pytest.mark.parametrize("verb", ["edit", "control", "write", "export"])
def test_verb_that_does_not_share_its_work_is_refused_in_a_launch(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert main([verb, "no-such-run", *(["folder"] if verb == "export" else [])]) == 2
    assert f"{verb} does not share its work: run it as one process" in capsys.readouterr().err


def test_alone_everything_is_done_here():
    assert share_out(5, lambda rows: list(range(5))[rows]) == [[0, 1, 2, 3, 4]]
    assert together(lambda: on_rank_zero(lambda: 7)) == 7
