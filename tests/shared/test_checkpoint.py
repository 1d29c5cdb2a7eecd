"""Checkpoints and files: whole or not there, verified before use, damage named."""

import json
import os
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from shared.errors import CheckpointError
from shared.files import clear_temporary, make_folder, temporary_name, write_atomic, write_text
from shared.train import checkpoint
from shared.train.order import Order


def parts(value: float) -> dict[str, dict[str, Tensor]]:
    tensors = {"net.weight": torch.full((3, 5), value), "net.bias": torch.arange(7.0)}
    return {name: dict(tensors) for name in checkpoint.PARTS}


def test_newest_of_what_was_saved_comes_back_exactly(tmp_path: Path):
    for step in (3, 12, 7):
        checkpoint.save(tmp_path, step, parts(step / 3), keep=5)
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert found == (tmp_path / "checkpoints/step-00000012", 12)
    for name in checkpoint.PARTS:
        loaded = checkpoint.load(found[0], name)
        assert torch.equal(loaded["net.weight"], torch.full((3, 5), 4.0))


def test_only_the_newest_are_kept_and_leftovers_of_a_kill_are_removed(tmp_path: Path):
    leftover = tmp_path / "checkpoints/.step-00000001.tmp-1"
    leftover.mkdir(parents=True)
    for step in (1, 2, 3, 4):
        checkpoint.save(tmp_path, step, parts(step), keep=2)
    names = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-00000003", "step-00000004"]


def test_no_checkpoint_is_none(tmp_path: Path):
    assert checkpoint.newest(tmp_path) is None


def test_every_flipped_bit_is_refused_with_the_file_named(tmp_path: Path):
    folder = checkpoint.save(tmp_path, 1, parts(1.0), keep=2)
    chance = random.Random(0)
    for _ in range(120):
        path = chance.choice(sorted(folder.glob("*.safetensors")))
        original = path.read_bytes()
        damaged = bytearray(original)
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=path.name):
            checkpoint.verify(folder)
        path.write_bytes(original)
    assert checkpoint.verify(folder) == 1


def test_flipped_bits_of_the_manifest_are_refused(tmp_path: Path):
    """Each bit of format and step, which no digest covers, and every 17th of the rest."""
    folder = checkpoint.save(tmp_path, 100, parts(1.0), keep=2)
    path = folder / "manifest.json"
    original = path.read_bytes()
    head = 8 * original.index(b"files")
    for place in [*range(head), *range(head, 8 * len(original), 17)]:
        damaged = bytearray(original)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="step-00000100"):
            checkpoint.verify(folder)
    path.write_bytes(original)
    assert checkpoint.verify(folder) == 100


@pytest.mark.parametrize("change", ["a part less", "a file more", "facts of another kind"])
def test_manifest_that_does_not_list_exactly_the_parts_is_refused(tmp_path: Path, change: str):
    folder = checkpoint.save(tmp_path, 1, parts(1.0), keep=2)
    manifest = json.loads((folder / "manifest.json").read_text())
    if change == "a part less":
        del manifest["files"]["optimizer.safetensors"]
    elif change == "a file more":
        manifest["files"]["../../config.yaml"] = manifest["files"]["ema.safetensors"]
    else:
        manifest["files"]["ema.safetensors"] = 7
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=r"manifest\.json"):
        checkpoint.verify(folder)


def test_file_that_cannot_be_read_is_damage_like_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A disk that fails on the newest checkpoint must not hide the one before."""
    for step in (1, 2):
        checkpoint.save(tmp_path, step, parts(step), keep=2)
    whole = checkpoint._digest

    def failing(path: Path) -> str:
        if path.parent.name == "step-00000002":
            raise OSError(5, "Input/output error")
        return whole(path)

    monkeypatch.setattr(checkpoint, "_digest", failing)
    assert checkpoint.newest(tmp_path) == (tmp_path / "checkpoints/step-00000001", 1)


def test_leftover_of_a_killed_process_with_our_number_does_not_stop_a_save(tmp_path: Path):
    """In a container every run of the trainer may have the same process id."""
    leftover = temporary_name(tmp_path / "checkpoints/step-00000002")
    leftover.mkdir(parents=True)
    (leftover / "model.safetensors").write_bytes(b"half")
    assert checkpoint.verify(checkpoint.save(tmp_path, 2, parts(2.0), keep=2)) == 2


def dying_at(last: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A wrapper for several functions: the process dies at their `last`-th call in all."""
    count = 0

    def wrap(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **settings: Any) -> Any:
            nonlocal count
            count += 1
            if count == last:
                os._exit(9)
            return call(*arguments, **settings)

        return wrapped

    return wrap


def save_and_die(run: Path, last: int) -> int:
    """Save step 2 in a fork that dies at the `last`-th call for the disk; returns its exit code."""
    child = os.fork()
    if child == 0:
        try:
            wrap = dying_at(last)
            for owner, name in (
                (os, "replace"),
                (os, "fsync"),
                (shutil, "rmtree"),
                (checkpoint, "save_file"),
            ):
                setattr(owner, name, wrap(getattr(owner, name)))
            checkpoint.save(run, 2, parts(2.0), keep=1)
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_crash_at_any_call_of_a_save_leaves_a_whole_checkpoint(tmp_path: Path):
    """What is newest afterwards is the old checkpoint or the new one, whole; the next save tidies
    up. (A killed process keeps the page cache: this shows order, not durability.)"""
    codes: list[int] = []
    while not codes or codes[-1] != 0:
        run = tmp_path / str(len(codes))
        checkpoint.save(run, 1, parts(1.0), keep=2)
        codes.append(save_and_die(run, len(codes) + 1))
        found = checkpoint.newest(run)
        assert found is not None
        assert found[1] in (1, 2)
        checkpoint.save(run, 3, parts(3.0), keep=1)
        assert [p.name for p in (run / "checkpoints").iterdir()] == ["step-00000003"]
    assert codes[:-1] == [9] * len(codes[:-1])
    assert len(codes) > 10  # three files and their syncs, the manifest, renames, a removal


def damage(folder: Path, how: str) -> None:
    model, ema = folder / "model.safetensors", folder / "ema.safetensors"
    if how == "truncated":
        model.write_bytes(model.read_bytes()[:-3])
    elif how == "empty":
        model.write_bytes(b"")
    elif how == "missing":
        model.unlink()
    elif how == "swapped":
        model.write_bytes((folder.parent / "step-00000001/model.safetensors").read_bytes())
    elif how == "no manifest":
        (folder / "manifest.json").unlink()
    elif how == "broken manifest":
        (folder / "manifest.json").write_text('{"schema": 1, "st')
    elif how == "foreign schema":
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps(manifest | {"schema": 99}))
    assert ema.exists()


@pytest.mark.parametrize(
    "how",
    [
        "truncated",
        "empty",
        "missing",
        "swapped",
        "no manifest",
        "broken manifest",
        "foreign schema",
    ],
)
def test_damaged_newest_falls_back_and_all_damaged_is_an_error(tmp_path: Path, how: str):
    checkpoint.save(tmp_path, 1, parts(1.0), keep=2)
    damage(checkpoint.save(tmp_path, 2, parts(2.0), keep=2), how)
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert found[1] == 1
    shutil.rmtree(found[0])
    with pytest.raises(CheckpointError, match="no checkpoint is usable"):
        checkpoint.newest(tmp_path)


def test_full_disk_keeps_the_old_checkpoint_and_leaves_nothing_half_written(tmp_path: Path):
    """A process that may write files of 4 KiB at most saves one of 40 KB."""
    checkpoint.save(tmp_path, 1, parts(1.0), keep=2)
    code = (
        "import resource, sys, torch; from pathlib import Path\n"
        "from shared.train import checkpoint; from shared.errors import CheckpointError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "big = {name: {'w': torch.zeros(10_000)} for name in checkpoint.PARTS}\n"
        "try: checkpoint.save(Path(sys.argv[1]), 2, big, 2)\n"
        "except CheckpointError as error: print(error); sys.exit(error.code)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 3, result.stderr
    assert "bytes are free" in result.stdout
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]
    assert checkpoint.verify(tmp_path / "checkpoints/step-00000001") == 1


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_error_of_the_disk_is_told_with_the_room_left_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
):
    checkpoint.save(tmp_path, 1, parts(1.0), keep=2)

    def failing(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, failing)
    with pytest.raises(CheckpointError, match=r"No space left on device.*bytes are free"):
        checkpoint.save(tmp_path, 2, parts(2.0), keep=2)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]


def record(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is synced and renamed from here on, in order, by name."""
    done: list[str] = []
    replace, fsync = os.replace, os.fsync

    def recorded_fsync(descriptor: int) -> None:
        done.append("sync " + Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    def recorded_replace(source: Path, target: Path) -> None:
        done.append("rename " + Path(target).name)
        replace(source, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "replace", recorded_replace)
    return done


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/fd").exists(), reason="names of open files are read from /proc"
)


@needs_proc
def test_every_file_is_synced_before_the_rename_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What a power cut needs, and no killed process shows."""
    done = record(monkeypatch)
    checkpoint.save(tmp_path, 5, parts(1.0), keep=2)
    ours = f"tmp-{socket.gethostname()}-{os.getpid()}"
    temporary = f".step-00000005.{ours}"
    assert done == [
        "sync model.safetensors",
        "sync ema.safetensors",
        "sync optimizer.safetensors",
        f"sync .manifest.json.{ours}",
        "rename manifest.json",
        f"sync {temporary}",
        "rename step-00000005",
        "sync checkpoints",
    ]


@needs_proc
def test_file_is_replaced_whole_and_a_reader_keeps_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "file"
    write_text(path, "old")
    done = record(monkeypatch)
    with path.open() as reader:
        write_text(path, "new")
        assert reader.read() == "old"
    assert path.read_text() == "new"
    ours = f"tmp-{socket.gethostname()}-{os.getpid()}"
    assert done == [f"sync .file.{ours}", "rename file", f"sync {tmp_path.name}"]


@needs_proc
def test_folder_is_synced_with_what_is_in_it_before_it_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fill(folder: Path) -> None:
        (folder / "part").touch()

    done = record(monkeypatch)
    make_folder(tmp_path / "whole", fill)
    temporary = temporary_name(tmp_path / "whole").name
    assert done == ["sync part", f"sync {temporary}", "rename whole", f"sync {tmp_path.name}"]


def test_processes_of_one_number_on_two_hosts_write_apart_and_what_they_leave_is_cleared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Containers on a shared disk, both at the same file."""
    path = tmp_path / "file"

    def write(temporary: Path) -> None:
        temporary.write_text("ours")
        monkeypatch.setattr(socket, "gethostname", lambda: "other")
        write_text(path, "theirs")
        assert path.read_text() == "theirs"

    write_atomic(path, write)
    assert path.read_text() == "ours"
    temporary_name(path).touch()
    monkeypatch.setattr(socket, "gethostname", lambda: "third")
    temporary_name(path).mkdir()
    clear_temporary(path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"a": torch.zeros(3)}, "1 tensors missing, 0 unknown"),
        ({"a": torch.zeros(3), "b": torch.zeros(2), "c": torch.zeros(1)}, "0 tensors missing, 1"),
        ({"a": torch.zeros(3), "b": torch.zeros(5)}, r"b has shape \(5,\)"),
    ],
)
def test_other_architecture_is_named_by_what_does_not_fit(source: dict[str, Tensor], message: str):
    target = {"a": torch.ones(3), "b": torch.ones(2)}
    with pytest.raises(CheckpointError, match=message):
        checkpoint.assign(target, source, "run")
    assert bool(target["a"].all())  # nothing was copied


def test_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path):
    path = tmp_path / "file"
    write_text(path, "old")

    def fails(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        write_atomic(path, fails)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_order_is_a_new_permutation_each_epoch_and_needs_no_past():
    order, n = Order(11, seed=3), 11
    epochs = [order.rows(torch.arange(k * n, (k + 1) * n)).tolist() for k in range(4)]
    assert all(sorted(epoch) == list(range(n)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    across = torch.arange(2 * n - 3, 2 * n + 4)
    assert Order(11, seed=3).rows(across).tolist() == (epochs[1] + epochs[2] + epochs[3])[8:15]
    assert Order(11, seed=4).rows(torch.arange(n)).tolist() != epochs[0]
