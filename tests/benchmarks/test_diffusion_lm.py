"""Diffusion-LM's step beside ours: their network is theirs, and all take turns on the same size."""

import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from benchmarks.diffusion_lm import OURS, THEIRS, Step, Theirs, run
from shared.config import NetConfig
from shared.errors import ConfigError

WORDS, DIM, LENGTH = 11, 5, 7
SIZE = NetConfig(dim=16, depth=2, heads=2)


def test_the_paper_s_network_has_its_size():
    with torch.device("meta"):
        model = Theirs(11_043, 128, NetConfig(dim=768, depth=12, heads=12), 64)
    count = sum(p.numel() for p in model.parameters())
    assert count == pytest.approx(88.7e6, rel=0.01)  # their file, with these numbers


def test_the_loss_is_their_three_terms(monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    model = Theirs(WORDS, DIM, SIZE, LENGTH).eval()
    ids = torch.randint(WORDS, (3, LENGTH))
    t, noises = torch.tensor([0, 700, 1999]), [torch.randn(3, LENGTH, DIM) for _ in range(2)]
    drawn = iter(noises)
    monkeypatch.setattr(torch, "randint", lambda *_, **__: t)
    monkeypatch.setattr(torch, "randn_like", lambda *_: next(drawn))
    found = model(ids).detach()
    kept_at = [1.0]
    for s in range(2000):  # their betas_for_alpha_bar, of 1 - sqrt(t + 0.0001)
        here, there = (1 - math.sqrt(at / 2000 + 1e-4) for at in (s, s + 1))
        kept_at.append(kept_at[-1] * (1 - min(1 - there / here, 0.999)))
    for i in range(3):
        kept = [kept_at[s + 1] for s in (0, int(t[i]), 1999)]
        mean = model.embedding.weight[ids[i]]
        x0 = mean + math.sqrt(1 - kept[0]) * noises[0][i]
        x_t = math.sqrt(kept[1]) * x0 + math.sqrt(1 - kept[1]) * noises[1][i]
        out = model.network(x_t[None], t[i : i + 1])[0]
        error = ((mean if i == 0 else x0) - out).square().mean()
        rounding = F.cross_entropy(x0 @ model.embedding.weight.T + model.readout.bias, ids[i])
        prior = kept[2] * x0.square().mean()
        expected = (error + prior + rounding).detach()
        assert float(found[i]) == pytest.approx(float(expected), rel=1e-5)


def test_steps_train_it():
    torch.manual_seed(0)
    step = Step(Theirs(WORDS, DIM, SIZE, LENGTH), torch.randint(WORDS, (64, LENGTH)), torch.float32)
    step.optimizer.param_groups[0]["lr"] = 1e-2
    losses = [step() for _ in range(40)]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_all_steps_take_turns(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "steps.json"
    small = ("net.dim=16", "net.depth=1", "net.heads=2")
    small += ("data.name=scene", "data.column=text", "data.min_count=1", "data.limit=400")
    run(batch=2, seconds=0, overrides=small, json_file=file)
    rows = json.loads(file.read_text())["rows"]
    assert [row["step"] for row in rows] == [THEIRS, *OURS]
    assert (rows[0]["speed"], rows[0]["speed_median"]) == (1, 1)
    for row in rows:
        assert row["tokens_per_s"] == pytest.approx(2 * 64 / row["seconds"])
        assert row["speed"] == pytest.approx(rows[0]["seconds"] / row["seconds"])
    assert "Training steps at Diffusion-LM's size" in capsys.readouterr().out


def test_an_unknown_precision_is_refused():
    with pytest.raises(ConfigError, match="precision = 'fp16'"):
        run(precision="fp16")
