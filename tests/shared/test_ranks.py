"""Processes that work as one: parts in their order, and errors that all of them raise."""

import json

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
        }  # fmt: skip
        assert found == {
            "five": [[0, 0, 1], [1, 2, 3], [2, 4]],
            "two": [[0, 0], [1, 1]],
            "zero": 7,
            "after": [[0, 0], [1, 1], [2, 2]],
        }


def test_alone_everything_is_done_here():
    assert share_out(5, lambda rows: list(range(5))[rows]) == [[0, 1, 2, 3, 4]]
    assert together(lambda: on_rank_zero(lambda: 7)) == 7
