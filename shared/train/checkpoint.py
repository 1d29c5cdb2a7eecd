"""Checkpoints: one folder each, written aside and renamed, verified by digests before use.

    checkpoints/step-00000100/
        model.safetensors      weights by parameter name
        ema.safetensors        their exponential moving average
        optimizer.safetensors  first and second moments by parameter name, statistics of the loss
        manifest.json          step, architecture, size and SHA-256 of every file

Nothing is pickled. A reader takes the newest folder whose manifest verifies; older ones go only
after a newer one has.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from shared.errors import CheckpointError
from shared.files import sync, temporary_name, write_text

SCHEMA = 1
PARTS = ("model", "ema", "optimizer")


def save(run: Path, step: int, parts: dict[str, dict[str, Tensor]], keep: int) -> Path:
    """Write parts {model, ema, optimizer} of `step` durably.

    CheckpointError when it cannot be written; nothing half-written is left behind.
    """
    parent = run / "checkpoints"
    parent.mkdir(parents=True, exist_ok=True)
    final = parent / _name(step)
    temporary = temporary_name(final)
    try:
        if temporary.exists():  # of a killed process with our number, as in a container
            shutil.rmtree(temporary)
        temporary.mkdir()
        files: dict[str, Any] = {}
        for name, tensors in parts.items():
            path = temporary / f"{name}.safetensors"
            save_file({key: t.detach().cpu().contiguous() for key, t in tensors.items()}, path)
            sync(path)
            files[path.name] = {"bytes": path.stat().st_size, "sha256": _digest(path)}
        manifest = {"schema": SCHEMA, "step": step, "files": files}
        write_text(temporary / "manifest.json", json.dumps(manifest, indent=1))
        if final.exists():
            shutil.rmtree(final)
        os.replace(temporary, final)
        sync(parent)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        free = shutil.disk_usage(parent).free
        raise CheckpointError(
            f"{final}: could not be written ({error}); {free:,} bytes are free on that disk. "
            "Earlier checkpoints are intact: make room and run the same command again"
        ) from None
    _remove_old(parent, keep)
    return final


def _remove_old(parent: Path, keep: int) -> None:
    for old in sorted(parent.glob("step-*"))[:-keep]:
        shutil.rmtree(old)
    for leftover in parent.glob(".step-*.tmp-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def verify(folder: Path) -> int:
    """Check every file of a checkpoint against its manifest; returns the step.

    CheckpointError names the file that is missing, unreadable or damaged, by a single bit even.
    """
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        schema, step = manifest["schema"], int(manifest["step"])
        files = {k: (int(v["bytes"]), str(v["sha256"])) for k, v in manifest["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder}: no readable manifest.json ({error!r})") from None
    if schema != SCHEMA:
        raise CheckpointError(f"{folder}: written in format {schema}, this version reads {SCHEMA}")
    if files.keys() != {f"{part}.safetensors" for part in PARTS} or folder.name != _name(step):
        raise CheckpointError(
            f"{folder}: damaged (its manifest.json is of step {step} and lists {', '.join(files)})"
        )
    for name, facts in files.items():
        path = folder / name
        try:
            intact = (path.stat().st_size, _digest(path)) == facts
        except FileNotFoundError:
            raise CheckpointError(f"{path}: missing") from None
        except OSError as error:
            raise CheckpointError(f"{path}: could not be read ({error})") from None
        if not intact:
            raise CheckpointError(f"{path}: damaged (its SHA-256 is not the manifest's)")
    return step


def newest(run: Path) -> tuple[Path, int] | None:
    """The newest checkpoint of a run that verifies, with its step; None when there is none.

    Raises CheckpointError when there are checkpoints and all of them are damaged.
    """
    problems: list[str] = []
    for folder in sorted((run / "checkpoints").glob("step-*"), reverse=True):
        try:
            return folder, verify(folder)
        except CheckpointError as error:
            problems.append(str(error))
    if problems:
        raise CheckpointError("no checkpoint is usable:\n" + "\n".join(problems))
    return None


def load(folder: Path, part: str) -> dict[str, Tensor]:
    """One part of a verified checkpoint, by name."""
    try:
        return load_file(folder / f"{part}.safetensors")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder}/{part}.safetensors: {error}") from None


def assign(target: dict[str, Tensor], source: dict[str, Tensor], what: str) -> None:
    """Copy tensors by name; CheckpointError names what does not fit."""
    missing, extra = sorted(target.keys() - source.keys()), sorted(source.keys() - target.keys())
    shapes = [k for k in target.keys() & source.keys() if target[k].shape != source[k].shape]
    if missing or extra or shapes:
        problem = (
            f"{shapes[0]} has shape {tuple(source[shapes[0]].shape)}, the configuration "
            f"makes {tuple(target[shapes[0]].shape)}"
            if shapes
            else f"{len(missing)} tensors missing, {len(extra)} unknown "
            f"({', '.join((missing + extra)[:3])})"
        )
        raise CheckpointError(
            f"{what}: a checkpoint of another architecture: {problem}. Use the configuration the "
            "run was started with, or another run folder"
        )
    for key, tensor in target.items():
        tensor.copy_(source[key])


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
