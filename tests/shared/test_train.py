"""The trainer: resuming, processes, ZeRO stages, signals, failures. Losses are compared exactly."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import deepspeed.runtime.engine
import pytest
import torch
from filelock import FileLock
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from shared import runs
from shared.errors import CheckpointError, ConfigError, NonFinite
from shared.train import checkpoint, engine, loop, precision
from shared.train.loop import learning_rate, train
from shared.train.progress import Log, read_log
from tests.ranks import launch
from tests.toy import ToyConfig, ToyPanel, toy_config

ROOT = Path(__file__).resolve().parents[2]
ALONE = ["-m", "tests.toy"]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
ON_TWO = [*TORCHRUN, "2", *ALONE]


def run_toy(
    *words: str, start: list[str] = ALONE, **environment: str
) -> subprocess.CompletedProcess[str]:
    """The toy panel in a process of its own, or in two."""
    return subprocess.run(
        [sys.executable, *start, *words],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in read_log(run / "log.jsonl")]


def tensors(run: Path) -> dict[str, Tensor]:
    """Everything the newest checkpoint holds."""
    found = checkpoint.newest(run)
    assert found is not None
    return {
        f"{part}.{name}": value
        for part in checkpoint.PARTS
        for name, value in checkpoint.load(found[0], part).items()
    }


def assert_same_run(a: Path, b: Path) -> None:
    assert losses(a) == losses(b)
    one, other = tensors(a), tensors(b)
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    result = run_toy(str(folder), "net.dropout=0.1")
    assert result.returncode == 0, result.stderr
    return folder


@pytest.mark.parametrize("step", [13, 10])
def test_run_killed_at_a_step_goes_on_bit_for_bit(tmp_path: Path, uninterrupted: Path, step: int):
    run = tmp_path / "run"
    killed = run_toy(str(run), "net.dropout=0.1", TOY_SIGNAL="9", TOY_AT=str(step))
    assert killed.returncode == -signal.SIGKILL
    assert len(losses(run)) == step
    resumed = run_toy(str(run), "net.dropout=0.1")
    assert resumed.returncode == 0, resumed.stderr
    assert_same_run(run, uninterrupted)


def test_stop_signal_saves_exits_75_and_the_run_goes_on_bit_for_bit(
    tmp_path: Path, uninterrupted: Path
):
    run = tmp_path / "run"
    stopped = run_toy(str(run), "net.dropout=0.1", TOY_SIGNAL="15", TOY_AT="6")
    assert stopped.returncode == 75, stopped.stderr
    assert "saved at step" in stopped.stderr
    found = checkpoint.newest(run)
    assert found is not None
    assert found[1] in (7, 8)
    assert run_toy(str(run), "net.dropout=0.1").returncode == 0
    assert_same_run(run, uninterrupted)


def test_damaged_newest_checkpoint_falls_back_to_the_one_before(
    tmp_path: Path, uninterrupted: Path
):
    run = tmp_path / "run"
    assert run_toy(str(run), "net.dropout=0.1").returncode == 0
    weights = run / "checkpoints/step-00000020/model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    assert run_toy(str(run), "net.dropout=0.1").returncode == 0
    assert_same_run(run, uninterrupted)


def test_two_processes_give_the_losses_of_one_at_every_zero_stage_for_200_steps(tmp_path: Path):
    steps = ["train.steps=200", "train.save_every=100"]
    one = tmp_path / "one"
    assert run_toy(str(one), *steps).returncode == 0
    two = [f"{tmp_path / f'two-{stage}'}:train.zero_stage={stage}" for stage in range(4)]
    result = run_toy(*two, *steps, start=ON_TWO)
    assert result.returncode == 0, result.stderr[-3000:]
    for stage in range(4):
        curve = losses(tmp_path / f"two-{stage}")
        assert len(curve) == 200
        apart = max(abs(a - b) for a, b in zip(curve, losses(one), strict=True))
        assert apart < 1e-4, f"stage {stage}: {apart}"


def test_run_goes_on_with_other_processes_and_another_zero_stage(tmp_path: Path):
    """One process, then two under ZeRO-3, two under ZeRO-1, one under ZeRO-2: one loss curve."""
    one, moved = tmp_path / "one", tmp_path / "moved"
    constant = "train.decay=none"  # the decay would depend on train.steps, which the legs change
    assert run_toy(str(one), constant, "train.steps=30").returncode == 0
    legs = [(ALONE, 8, 0), (ON_TWO, 16, 3), (ON_TWO, 23, 1), (ALONE, 30, 2)]
    for start, steps, stage in legs:
        words = [constant, f"train.steps={steps}", f"train.zero_stage={stage}"]
        result = run_toy(str(moved), *words, start=start)
        assert result.returncode == 0, result.stderr[-3000:]
    assert losses(moved) == pytest.approx(losses(one), abs=1e-5)
    whole, pieces = tensors(one), tensors(moved)
    for name in whole:
        torch.testing.assert_close(pieces[name], whole[name], rtol=1e-4, atol=1e-5)


SAVING = """
import json, sys
from pathlib import Path
import torch
from shared.errors import NonFinite
from shared.train import engine, loop
from tests.toy import ToyPanel, toy_config

rank, found = int(sys.argv[1]), {}
device = engine.set_up()
for stage in (0, 1, 3):
    config, run = toy_config("train.batch=4", f"train.zero_stage={stage}"), Path()
    learner = ToyPanel().learner(config, run)
    size = sum(p.numel() for p in learner.parameters())
    trainer = loop.Trainer(
        config.train, run, learner, ToyPanel().examples(config, run), device, 0, None, True
    )
    trainer.update()
    state, names = trainer.engine.state(), trainer.engine.names
    kept = [sum(state[part][name].numel() for name in names) for part in ("model", "ema")]
    kept.append(sum(value.numel() for value in state["optimizer"].values()) // 2)
    found[stage] = [each / (len(names) if rank else size) for each in kept]
    if stage == 3:
        if rank == 1:
            max(trainer.engine._live(), key=torch.Tensor.numel).fill_(torch.nan)
        try:
            trainer._save()
        except NonFinite as error:
            found["refused"] = "is not finite" in str(error)
    trainer.engine.close()
print(json.dumps(found))
"""


def test_only_rank_0_keeps_what_is_saved_and_all_refuse_what_one_has_spoilt():
    """Rank 0 keeps all numbers of weights, average and each moment, rank 1 one a tensor. Under
    ZeRO-3 each holds a half of a weight: that of rank 1 is not finite then."""
    for done in launch(SAVING, "0", "1"):
        assert done.returncode == 0, done.stderr[-3000:]
        found = json.loads(done.stdout.splitlines()[-1])
        assert found.pop("refused") is True
        assert found == {stage: [1.0, 1.0, 1.0] for stage in "013"}


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_every_update_goes_through_deepspeed(
    tmp_path: Path, stage: int, monkeypatch: pytest.MonkeyPatch
):
    calls = {"backward": 0, "step": 0}
    kind = deepspeed.runtime.engine.DeepSpeedEngine
    for name in calls:
        original = getattr(kind, name)

        def counted(self, *inputs, name=name, original=original, **named):
            calls[name] += 1
            return original(self, *inputs, **named)

        monkeypatch.setattr(kind, name, counted)
    words = ["train.steps=3", "train.accumulation=2", f"train.zero_stage={stage}"]
    train(toy_config(*words), tmp_path / "run", ToyPanel(), quiet=True)
    assert calls == {"backward": 6, "step": 6}


def test_accumulated_micro_batches_give_the_losses_of_the_whole_batch(tmp_path: Path):
    for accumulation in (1, 4):
        config = toy_config(f"train.accumulation={accumulation}")
        train(config, tmp_path / str(accumulation), ToyPanel(), quiet=True)
    assert losses(tmp_path / "4") == pytest.approx(losses(tmp_path / "1"), abs=1e-5)


def test_moving_average_follows_the_weights_as_stated(tmp_path: Path):
    config = toy_config("train.steps=1", "train.ema=0.9")
    train(config, tmp_path / "run", ToyPanel(), quiet=True)
    after = tensors(tmp_path / "run")
    with torch.random.fork_rng():
        torch.manual_seed(config.train.seed)
        before = ToyPanel().learner(config, tmp_path).state_dict()
    weights = [name for name in before if name.startswith("denoiser.net")]
    assert weights
    for name in weights:  # after one step the decay is still 1 / 10
        expected = torch.lerp(before[name], after[f"model.{name}"], 0.9)
        torch.testing.assert_close(after[f"ema.{name}"], expected)


def test_diverging_run_stops_with_exit_code_4_and_keeps_good_checkpoints_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = tmp_path / "run"
    monkeypatch.setattr(loop, "learning_rate", lambda config, step: 1e30 if step >= 5 else 1e-3)
    with pytest.raises(NonFinite, match=r"not finite at step [56]") as caught:
        train(toy_config("train.save_every=4"), run, ToyPanel(), quiet=True)
    assert caught.value.code == 4
    found = checkpoint.newest(run)
    assert found is not None
    assert found[1] == 4
    assert all(bool(value.isfinite().all()) for value in tensors(run).values())


def test_run_with_muon_goes_on_bit_for_bit(tmp_path: Path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    words = ["train.optimizer=muon", "train.decay=none"]
    train(toy_config(*words), whole, ToyPanel(), quiet=True)
    for steps in (10, 20):
        train(toy_config(*words, f"train.steps={steps}"), parts, ToyPanel(), quiet=True)
    assert_same_run(parts, whole)
    plain = tmp_path / "plain"
    train(toy_config("train.decay=none"), plain, ToyPanel(), quiet=True)
    assert losses(plain)[1:] != losses(whole)[1:]


def test_second_job_on_a_run_folder_is_refused(tmp_path: Path):
    run = tmp_path / "run"
    run.mkdir()
    with FileLock(run / ".lock"), pytest.raises(ConfigError, match="in use by another process"):
        train(toy_config(), run, ToyPanel(), quiet=True)


def test_another_configuration_is_refused_by_key_and_what_may_change_is_not(tmp_path: Path):
    run = tmp_path / "run"
    train(toy_config("train.steps=2"), run, ToyPanel(), quiet=True)
    with pytest.raises(ConfigError, match=r"train\.lr: was 0\.001, now 0\.5"):
        train(toy_config("train.steps=2", "train.lr=0.5"), run, ToyPanel(), quiet=True)
    result = train(toy_config("train.steps=4", "train.log_every=2"), run, ToyPanel(), quiet=True)
    assert result["step"] == 4


def test_precision_auto_is_settled_where_the_run_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """On a machine where bfloat16 pays the run is one of bf16, also when it goes on elsewhere."""
    auto, panel, run = toy_config("train.precision=auto"), ToyPanel(), tmp_path / "run"
    monkeypatch.setattr(runs, "faster_precision", lambda: "bf16")
    runs.begin(auto, run, panel)
    monkeypatch.setattr(runs, "faster_precision", lambda: "fp32")
    runs.begin(auto, run, panel)
    assert runs.read_config(run, panel).train.precision == "bf16"
    with pytest.raises(ConfigError, match=r"train\.precision: was bf16, now fp32"):
        runs.begin(toy_config("train.precision=fp32"), run, panel)
    runs.begin(auto, tmp_path / "other", panel)
    assert runs.read_config(tmp_path / "other", panel).train.precision == "fp32"


def test_a_precision_that_is_given_is_not_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(runs, "faster_precision", lambda: pytest.fail("nothing to find"))
    runs.begin(toy_config("train.precision=fp32"), tmp_path / "run", ToyPanel())


def test_a_run_is_written_for_tensorboard_too_and_goes_on_there(tmp_path: Path):
    """The same numbers as log.jsonl has."""
    words = ("train.log_every=2", "train.tensorboard=true")
    for steps in (4, 8):
        config = toy_config(f"train.steps={steps}", *words)
        train(config, tmp_path / "run", ToyPanel(), quiet=True)
    seen = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    rows = read_log(tmp_path / "run" / "log.jsonl")
    assert [row["step"] for row in rows] == [2, 4, 6, 8]
    for name in ("loss", "lr", "gradient_norm"):
        told = [(event.step, event.value) for event in seen.Scalars(f"train/{name}")]
        assert told == [(row["step"], pytest.approx(row[name], rel=1e-6)) for row in rows]


def test_what_a_killed_run_told_tensorboard_after_its_checkpoint_is_dropped(tmp_path: Path):
    for step, first, loss in ((0, 2, 1.0), (4, 6, 0.5)):
        log = Log(tmp_path / "log.jsonl", step, tmp_path / "events")
        for at in range(first, 9, 2):
            log.write({"step": at, "loss": loss})
        log.close()
    seen = EventAccumulator(str(tmp_path / "events")).Reload()
    told = [(event.step, event.value) for event in seen.Scalars("train/loss")]
    assert told == [(2, 1.0), (4, 1.0), (6, 0.5), (8, 0.5)]
    assert [(row["step"], row["loss"]) for row in read_log(tmp_path / "log.jsonl")] == told


@pytest.mark.parametrize(
    ("narrow", "wide", "expected"), [(0.5, 1.0, "bf16"), (0.9, 1.0, "fp32"), (2.0, 1.0, "fp32")]
)
def test_bfloat16_is_chosen_where_it_clearly_saves_time(
    monkeypatch: pytest.MonkeyPatch, narrow: float, wide: float, expected: str
):
    seconds = {torch.bfloat16: narrow, torch.float32: wide}
    monkeypatch.setattr(precision, "_seconds", seconds.__getitem__)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert precision.faster_precision() == expected


def test_folder_that_is_not_a_run_is_refused_and_left_alone(tmp_path: Path):
    (tmp_path / "notes.md").write_text("mine")
    with pytest.raises(ConfigError, match="not a run folder"):
        train(toy_config(), tmp_path, ToyPanel(), quiet=True)
    assert not (tmp_path / "config.yaml").exists()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_run_that_was_killed_as_it_began_begins_anew(tmp_path: Path):
    run = tmp_path / "run"
    child = os.fork()
    if child == 0:  # dies with config.yaml written beside its place, as by SIGKILL
        os.replace = lambda *_: os._exit(9)  # type: ignore[assignment]
        try:
            runs.begin(toy_config(), run, ToyPanel())
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert [path.name.split(".tmp-")[0] for path in run.iterdir()] == [".config.yaml"]
    runs.begin(toy_config(), run, ToyPanel())
    assert [path.name for path in run.iterdir()] == ["config.yaml"]


def test_checkpoint_of_another_architecture_is_named(tmp_path: Path):
    run = tmp_path / "run"
    train(toy_config("train.steps=2"), run, ToyPanel(), quiet=True)
    edited = (run / "config.yaml").read_text().replace("dim: 24", "dim: 32")
    (run / "config.yaml").write_text(edited)
    with pytest.raises(CheckpointError, match="another architecture"):
        train(toy_config("train.steps=4", "net.dim=32"), run, ToyPanel(), quiet=True)


def test_checkpoint_without_moments_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = tmp_path / "run"
    train(toy_config("train.steps=2"), run, ToyPanel(), quiet=True)
    load = checkpoint.load
    monkeypatch.setattr(
        checkpoint, "load", lambda folder, part: {} if part == "optimizer" else load(folder, part)
    )
    with pytest.raises(CheckpointError, match=r"optimizer.safetensors: lacks (\d+) of \1 tensors"):
        train(toy_config("train.steps=4"), run, ToyPanel(), quiet=True)


def test_global_batch_that_processes_cannot_share_is_refused(tmp_path: Path):
    result = run_toy(str(tmp_path / "run"), "train.batch=9", start=ON_TWO)
    assert "train.batch = 9 is the global batch" in result.stderr
    assert result.returncode != 0
    assert not (tmp_path / "run").exists()  # so that the command, put right, begins the run


def test_launcher_of_one_process_trains(tmp_path: Path):
    words = [str(tmp_path / "run"), "train.steps=2"]
    result = run_toy(*words, start=[*TORCHRUN, "1", *ALONE])
    assert result.returncode == 0, result.stderr[-3000:]
    assert len(losses(tmp_path / "run")) == 2


def test_process_that_sees_one_device_only_takes_it(monkeypatch: pytest.MonkeyPatch):
    """As the third of a node under `srun --gpus-per-task=1`."""
    joined: list[str] = []
    stub = SimpleNamespace(init_distributed=lambda backend, **_: joined.append(backend))
    slurm = {"SLURM_PROCID": "6", "SLURM_LOCALID": "2", "SLURM_STEP_NUM_TASKS": "8"}
    slurm |= {"MASTER_ADDR": "there", "MASTER_PORT": "1"}
    monkeypatch.setattr(os, "environ", slurm)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: False)
    for name, value in (("is_available", True), ("device_count", 1), ("set_device", None)):
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    monkeypatch.setattr(engine, "_deepspeed", lambda: stub)
    assert engine.set_up() == torch.device("cuda", 0)
    assert joined == ["nccl"]
    assert (slurm["LOCAL_RANK"], slurm["RANK"]) == ("0", "6")  # DeepSpeed reads both


class Still(nn.Module):
    """Weights that no loss depends on."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(
        self, data: Tensor, condition: Tensor, keys: Tensor, t: Tensor
    ) -> tuple[Tensor, None]:
        return 1 + 0 * self.layer(data[:, :3].float()).sum(1), None


class StillPanel(ToyPanel):
    def learner(self, config: ToyConfig, run: Path) -> Any:
        return Still()


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_gradient_of_zero_is_a_number(tmp_path: Path, stage: int):
    config = toy_config("train.steps=2", f"train.zero_stage={stage}")
    train(config, tmp_path, StillPanel(), quiet=True)
    assert [row["gradient_norm"] for row in read_log(tmp_path / "log.jsonl")] == [0, 0]


def test_random_state_of_devices_that_are_not_used_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    before = torch.random.get_rng_state()
    assert train(toy_config("train.steps=1"), tmp_path, ToyPanel(), quiet=True)["step"] == 1
    assert torch.equal(torch.random.get_rng_state(), before)


def test_learning_rate_warms_up_and_decays_to_zero():
    config = toy_config("train.steps=105", "train.warmup=5", "train.lr=0.1").train
    assert learning_rate(config, 0) == pytest.approx(0.02)
    assert learning_rate(config, 4) == pytest.approx(0.1)
    assert learning_rate(config, 55) == pytest.approx(0.05)
    assert learning_rate(config, 105) == pytest.approx(0.0)


def test_finished_run_trains_no_more_and_tells_the_loss_it_ended_with(tmp_path: Path):
    first, again = (
        train(toy_config("train.steps=2", "train.log_every=2"), tmp_path, ToyPanel(), quiet=True)
        for _ in range(2)
    )
    assert again["step"] == first["step"] == 2
    assert again["loss"] == first["loss"]
    assert len(losses(tmp_path)) == 1


def test_process_leaves_its_group_before_it_ends():
    """Callbacks run in reverse order, so that the first one sees what the others left."""
    code = (
        "import atexit, torch.distributed as dist\n"
        "atexit.register(lambda: print('in a group:', dist.is_initialized()))\n"
        "from shared.train.engine import set_up\n"
        "set_up()\n"
        "print('in a group:', dist.is_initialized())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["in a group: True", "in a group: False"]
