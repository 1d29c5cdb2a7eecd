"""The training loop: one for both panels, for one process and for many.

Which samples a step sees, their times, noise and dropped conditions are functions of (seed, step,
global sample index), so the run does not depend on how many processes share a batch, and resuming
needs nothing but the step.
"""

import contextlib
import math
import shutil
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn

from shared import runs
from shared.config import TrainConfig
from shared.errors import ConfigError, DataError, DiptychError, NonFinite, Preempted
from shared.learner import DiffusionLearner
from shared.objective import sample_keys, stratified_times
from shared.ranks import on_rank_zero, together
from shared.task import Examples, RunConfig, Stepwise, Trainable
from shared.train import checkpoint, engine
from shared.train.layout import convolutions
from shared.train.order import Order
from shared.train.preempt import StopRequest
from shared.train.progress import Log, TrainProgress


def train(config: RunConfig, run: Path, panel: Trainable, quiet: bool = False) -> dict[str, Any]:
    """Train `config` in the folder `run`, or go on with it from its newest valid checkpoint.

    Every process of a launch calls this; an error of one before the first step, or of rank 0 as it
    saves, is raised on all. Returns {"run", "step", "loss", "seconds"}. Raises ConfigError,
    DataError and CheckpointError before a step is taken; NonFinite when the loss or a gradient is
    no number; Preempted after a signal, with everything saved.
    """
    engine.micro_batch(config.train)
    device = engine.set_up()
    random = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=random), contextlib.ExitStack() as held:
        together(lambda: held.enter_context(_alone(run)))
        with _nothing_left(run):
            settings, learner, examples = together(lambda: _begun(config, run, panel))
        step, parts = together(lambda: _newest(run, learner))
        return Trainer(settings, run, learner, examples, device, step, parts, quiet).run()


def _begun(
    config: RunConfig, run: Path, panel: Trainable
) -> tuple[TrainConfig, nn.Module, Examples]:
    """What is trained, with fresh weights, and on what, of a run that is begun or goes on."""
    on_rank_zero(lambda: _prepare(config, run, panel))
    config = runs.read_config(run, panel)
    examples = panel.examples(config, run)
    if len(examples) == 0:
        raise DataError("the training data holds no examples")
    torch.manual_seed(config.train.seed)
    learner = panel.learner(config, run)
    if config.train.channels_last:
        convolutions(learner)
    return config.train, learner, examples


def _prepare(config: RunConfig, run: Path, panel: Trainable) -> None:
    runs.begin(config, run, panel)
    panel.prepare(config, run)


def _newest(run: Path, learner: nn.Module) -> tuple[int, dict[str, dict[str, Tensor]] | None]:
    """Step and parts of the checkpoint that a run goes on from, its weights in the learner."""
    found = checkpoint.newest(run)
    if found is None:
        return 0, None
    folder, step = found
    parts = {part: checkpoint.load(folder, part) for part in checkpoint.PARTS}
    checkpoint.assign(learner.state_dict(), parts["model"], str(run))
    return step, parts


class Trainer:
    """One run in progress on this process."""

    def __init__(
        self,
        config: TrainConfig,
        folder: Path,
        learner: nn.Module,
        examples: Examples,
        device: torch.device,
        step: int,
        start: dict[str, dict[str, Tensor]] | None,
        quiet: bool,
    ) -> None:
        self.config, self.folder, self.learner, self.examples = config, folder, learner, examples
        self.device, self.step, self.saved = device, step, step
        self.order = Order(len(examples), config.seed)
        if config.compile:
            compile_blocks(learner)
        self.engine = engine.Engine(learner.train(), config, device, step, start)
        self.diffusion = learner if isinstance(learner, DiffusionLearner) else None
        self.loss = math.nan
        self.main = engine.rank() == 0
        self.quiet = quiet or not self.main

    def run(self) -> dict[str, Any]:
        """Train to `train.steps`, saving and logging on the way."""
        began = time.monotonic()
        events = self.folder / "tensorboard" if self.config.tensorboard else None
        log = Log(self.folder / "log.jsonl", self.step, events) if self.main else None
        label = self.folder.name
        try:
            with (
                StopRequest() as stop,
                TrainProgress(label, self.step, self.config.steps, self.quiet) as progress,
            ):
                if log is not None:
                    self.loss = log.loss
                if self.step == self.config.steps:
                    progress.say(f"{label}: all {self.step} steps were done before")
                elif self.step:
                    progress.say(f"{label}: goes on from step {self.step}")
                self._loop(stop, log, progress, began)
        finally:
            if log is not None:
                log.close()
            self.engine.close()
        seconds = time.monotonic() - began
        return {"run": str(self.folder), "step": self.step, "loss": self.loss, "seconds": seconds}

    def _loop(
        self, stop: StopRequest, log: Log | None, progress: TrainProgress, began: float
    ) -> None:
        losses: list[float] = []
        since = time.monotonic()
        while self.step < self.config.steps:
            loss, stopping = self.update(stop.asked)
            losses.append(loss)
            last = self.step == self.config.steps
            saves = stopping or last or self.step % self.config.save_every == 0
            if saves or self.step % self.config.log_every == 0:
                self.loss = sum(losses) / len(losses)
                now = time.monotonic()
                speed = len(losses) * self.config.batch / (now - since)
                row = self._row(speed, now - began)
                if log is not None:
                    log.write(row)
                progress.show(self.step, self.loss, speed)
                losses, since = [], now
            if saves:
                self._save()
                since = time.monotonic()
            if stopping and not last:
                raise Preempted(
                    f"{self.folder}: stopped by a signal and saved at step {self.step}; "
                    "the same command goes on"
                )

    def _row(self, speed: float, seconds: float) -> dict[str, Any]:
        return {
            "step": self.step,
            "loss": self.loss,
            "lr": learning_rate(self.config, self.step - 1),
            "gradient_norm": self.engine.gradient_norm(),
            "samples_per_s": round(speed, 2),
            "seconds": round(seconds, 3),
        }

    def update(self, stop: bool = False) -> tuple[float, bool]:
        """One update of the weights, from `step` to the next. Returns the global batch's mean loss,
        and whether any process was asked to `stop`."""
        config, step = self.config, self.step
        if self.diffusion is not None:
            self.diffusion.retime()
        if isinstance(self.learner, Stepwise):
            self.learner.begin_step(step)
        torch.manual_seed((config.seed * 1_000_003 + step) * 4096 + engine.rank())  # dropout only
        micro = engine.micro_batch(config)
        lr = learning_rate(config, step)
        facts = torch.zeros(0)
        for part in range(config.accumulation):
            first = (part * engine.world_size() + engine.rank()) * micro
            losses, logsnr = self._forward(step, torch.arange(first, first + micro))
            self.engine.backward(losses.mean())
            new = self._facts(losses.detach(), logsnr, stop)
            facts = new if part == 0 else facts + new
            if part == config.accumulation - 1:
                facts = self._agree(facts)
            self.engine.step(lr)
        if not math.isfinite(self.engine.gradient_norm()):
            raise self._not_finite("a gradient")
        self.engine.update_average(step)
        self.step += 1
        return float(facts[0]) / config.batch, bool(facts[1] > 0)

    def _forward(self, step: int, positions: Tensor) -> tuple[Tensor, Tensor | None]:
        """Losses (B,) of the samples at these places of the global batch of a step."""
        indices = step * self.config.batch + positions
        data, condition = self.examples.take(self.order.rows(indices))
        if self.config.channels_last and data.ndim == 4:
            data = data.contiguous(memory_format=torch.channels_last)
        keys = sample_keys(self.config.seed, indices).to(self.device)
        t = stratified_times(self.config.seed, step, positions).to(self.device)
        condition = None if condition is None else condition.to(self.device)
        return self.engine(data.to(self.device), condition, keys, t)

    def _facts(self, losses: Tensor, logsnr: Tensor | None, stop: bool) -> Tensor:
        """What all processes must know of a step: loss sum, stop flag, statistics of the loss."""
        facts = torch.stack([losses.sum().float(), losses.new_tensor(float(stop))])
        if self.diffusion is None or self.diffusion.density is None or logsnr is None:
            return facts
        plain = self.diffusion.unweighted(losses, logsnr)
        return torch.cat([facts, self.diffusion.density.statistics(plain, logsnr).flatten()])

    def _agree(self, facts: Tensor) -> Tensor:
        """Sum over processes, before the weights move: all of them stop at a bad loss."""
        if engine.world_size() > 1:
            torch.distributed.all_reduce(facts)
        if not math.isfinite(float(facts[0])):
            raise self._not_finite("the loss")
        if self.diffusion is not None and self.diffusion.density is not None:
            self.diffusion.density.update(facts[2:].reshape(2, -1))
        return facts

    def _not_finite(self, what: str) -> NonFinite:
        first = self.step * self.config.batch
        return NonFinite(
            f"{self.folder}: {what} is not finite at step {self.step} (samples {first} to "
            f"{first + self.config.batch - 1} of the data order); the checkpoint of step "
            f"{self.saved} is intact. Lower train.lr or train.clip, or look at the data"
        )

    def _save(self) -> None:
        parts = self.engine.state()
        bad = [k for k, value in parts["model"].items() if not bool(torch.isfinite(value).all())]
        if bad:
            raise self._not_finite(f"weight {bad[0]}")
        on_rank_zero(lambda: checkpoint.save(self.folder, self.step, parts, self.config.keep))
        self.saved = self.step


def compile_blocks(module: nn.Module) -> None:
    """torch.compile of what stands in the outermost lists of blocks, in place: weights keep their
    names. Blocks of one kind share what is compiled."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            for block in child:
                block.compile(dynamic=False)
        else:
            compile_blocks(child)


def learning_rate(config: TrainConfig, step: int) -> float:
    """The rate of a step (from 0), a pure function so that resuming needs no state: linear
    warm-up, then linear or cosine decay to zero at `train.steps`, or none."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    share = (step - config.warmup) / max(config.steps - config.warmup, 1)
    factors = {
        "none": 1.0,
        "linear": 1 - share,
        "cosine": (1 + math.cos(math.pi * share)) / 2,
    }
    return config.lr * factors[config.decay]


@contextlib.contextmanager
def _alone(run: Path) -> Generator[None]:
    """Hold the run folder's lock on rank 0: two jobs on one folder would destroy each other."""
    if engine.rank() != 0:
        yield
        return
    run.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(
            f"{run} is in use by another process: wait for it, or choose another run=FOLDER"
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _nothing_left(run: Path) -> Generator[None]:
    """What is refused before its first step leaves the folder as it was, so that the same command,
    put right, begins anew."""
    before = set(run.iterdir()) if engine.rank() == 0 else set[Path]()
    try:
        yield
    except DiptychError:
        for path in set(run.iterdir()) - before if engine.rank() == 0 else ():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise
