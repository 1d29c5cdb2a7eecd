"""Judges: models trained on a run's own data, by the same engine, kept between runs in the cache.

A judge is a run like any other, in a folder named by the digest of what it depends on: one serves
every run on the same data, and an interrupted one goes on. Of two evaluations that need the same
one at once, the second waits for the first. The processes of one evaluation train it together.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor, nn

from shared.files import cache_dir
from shared.ranks import on_rank_zero
from shared.runs import load_learner
from shared.task import Panel, RunConfig
from shared.train import checkpoint
from shared.train.loop import train

VERSION = 1  # of what judges are; raise it when their architecture or training changes


def judge_folder(stated: dict[str, Any], data: Sequence[Tensor], panel: Panel) -> Path:
    """Where the judge of these settings and data is kept, trained or not; see `trained_judge`."""
    digest = hashlib.sha256(json.dumps([VERSION, stated], sort_keys=True).encode())
    for tensor in data:
        digest.update(tensor.contiguous().cpu().view(torch.uint8).numpy().data)
    return cache_dir() / f"{panel.name}-judge-{digest.hexdigest()[:12]}"


def trained_judge(
    config: RunConfig, stated: dict[str, Any], data: Sequence[Tensor], panel: Panel
) -> tuple[nn.Module, Path, dict[str, Any]]:
    """(module in eval mode, its run folder, facts for a report): from the cache, or trained now.

    `stated` are the settings that make this judge, as plain values, and `data` what it learns from:
    together they name it.
    """
    run = judge_folder(stated, data, panel)
    run.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run.parent / f"{run.name}.lock")

    def trained() -> int | None:
        """The steps of a judge that is in the cache, once no other evaluation is training it."""
        lock.acquire()
        found = checkpoint.newest(run)
        return None if found is None or found[1] < config.train.steps else found[1]

    try:
        steps = on_rank_zero(trained)
        if steps is None:
            steps = train(config, run, panel)["step"]
    finally:
        lock.release()
    module = load_learner(run)
    parameters = sum(p.numel() for p in module.parameters())
    return module, run, {"name": run.name, "parameters": parameters, "steps": steps}
