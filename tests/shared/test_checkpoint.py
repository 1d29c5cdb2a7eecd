"""Checkpoints and files: whole or not there, verified before use, damage named."""

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from shared.errors import CheckpointError
from shared.files import write_atomic, write_text
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
