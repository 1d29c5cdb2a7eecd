"""Judges in the cache: one serves every evaluation, and is trained by one of them."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from shared import judges


def test_evaluations_at_once_wait_for_the_one_that_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path / "cache"))
    inside, most = 0, 0

    def train(config: Any, run: Path, panel: Any) -> dict[str, Any]:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.1)
        inside -= 1
        return {"step": 7}

    monkeypatch.setattr(judges, "train", train)
    monkeypatch.setattr(judges, "load_learner", lambda run: nn.Linear(2, 3))

    def find(data: float) -> str:
        panel: Any = SimpleNamespace(name="toy")
        facts = judges.trained_judge(panel, {"of": 1}, (torch.tensor([data]),), panel)[2]
        assert (facts["parameters"], facts["steps"]) == (9, 7)
        return facts["name"]

    with ThreadPoolExecutor() as pool:
        names = list(pool.map(find, [1.0, 1.0, 1.0]))
    assert most == 1
    assert len(set(names)) == 1
    assert find(2.0) != names[0]
