"""The DeepSpeed engine: set up, and its whole state by parameter name, at every ZeRO stage.

A name-keyed, unsharded state makes a checkpoint independent of stage and number of processes. The
weights are loaded before `deepspeed.initialize`, which copies its masters from them; the moments of
Adam are set afterwards, through DeepSpeed's tensor-fragment calls.
"""

import atexit
import ctypes
import logging
import math
import os
import socket
import warnings
from datetime import timedelta
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from shared.config import TrainConfig
from shared.errors import CheckpointError, ConfigError
from shared.train.layout import channels_last
from shared.train.optimizer import build_optimizer

MOMENTS = ("exp_avg", "exp_avg_sq")
TIMEOUT = timedelta(seconds=120)  # of any collective: a lost rank must not hang the others


def rank() -> int:
    """This process's number among all, 0 when it is alone."""
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")))


def world_size() -> int:
    """The number of processes, as the launcher says; of Slurm's, those of the step: a job of many
    tasks has one process where `srun` starts none."""
    return int(os.environ.get("WORLD_SIZE", os.environ.get("SLURM_STEP_NUM_TASKS", "1")))


def _local(name: str, slurm: str, default: str) -> int:
    return int(os.environ.get(name, os.environ.get(slurm, default)))


def set_up() -> torch.device:
    """Join the process group (gloo on CPU, nccl on CUDA), once; returns this process's device.

    Works alone and under `deepspeed`, `torchrun` and `srun`. No op of DeepSpeed is compiled.
    """
    cuda = torch.cuda.is_available()
    local = _local("LOCAL_RANK", "SLURM_LOCALID", "0")
    if cuda:  # of `srun --gpus-per-task=1` each process sees its own one only, as number 0
        local %= torch.cuda.device_count()
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if torch.distributed.is_initialized():
        return device
    if not cuda:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        _keep_freed_memory()
        together = _local("LOCAL_WORLD_SIZE", "SLURM_NTASKS_PER_NODE", str(world_size()))
        if together > 1 and "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // together))
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    deepspeed = _deepspeed()
    alone = {"RANK": rank(), "WORLD_SIZE": world_size(), "LOCAL_RANK": local}
    for key, value in (alone | {"MASTER_ADDR": "127.0.0.1"}).items():
        os.environ.setdefault(key, str(value))
    if world_size() == 1:
        if not _has_store():
            os.environ["MASTER_PORT"] = str(free_port())
    elif "MASTER_PORT" not in os.environ:
        raise ConfigError(
            f"{world_size()} processes but no MASTER_ADDR and MASTER_PORT: start them with "
            "`deepspeed --module diptych ...` or torchrun, or export both"
        )
    if cuda:
        os.environ["LOCAL_RANK"] = str(local)  # DeepSpeed takes its device from there
        torch.cuda.set_device(device)
    deepspeed.init_distributed("nccl" if cuda else "gloo", timeout=TIMEOUT, verbose=False)
    atexit.register(_leave)
    return device


def _has_store() -> bool:
    """Whether a launcher serves at MASTER_PORT what processes meet by, as torchrun does; any other
    MASTER_PORT of one process alone may be one that another process took from the same shell."""
    served = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return served and "MASTER_PORT" in os.environ


def _leave() -> None:
    """Leave the process group while Python still runs: its threads, if they are ended by the end of
    the process alone, can abort it after everything is done ("terminate called ...")."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _keep_freed_memory() -> None:
    """Let glibc keep the activations of one step for the next: by itself it gives them back to the
    system, and the page faults to get them again take up to a fifth of a step on a CPU."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        trim_threshold, mmap_threshold = -1, -3  # as numbered in malloc.h
        mallopt(mmap_threshold, 2**25)  # the most it takes: larger blocks are always mapped afresh
        mallopt(trim_threshold, 2**31 - 1)


def _deepspeed() -> Any:
    """Import deepspeed, quiet, with its shared-memory op declared absent: gloo does without, and
    compiling it takes minutes (and hangs for ever behind a lock that a killed run left)."""
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(torch|deepspeed)\b")
    import deepspeed
    import deepspeed.ops
    from deepspeed.utils import logger

    logger.setLevel(logging.WARNING)
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def free_port() -> int:
    """A port of this machine that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def micro_batch(config: TrainConfig) -> int:
    """Samples that a process takes at a time. ConfigError when the processes of this launch cannot
    share the batch evenly."""
    shares = world_size() * config.accumulation
    if config.batch % shares:
        raise ConfigError(
            f"train.batch = {config.batch} is the global batch: it must be a multiple of "
            f"{world_size()} processes x train.accumulation = {config.accumulation}"
        )
    return config.batch // shares


def deepspeed_config(config: TrainConfig) -> dict[str, Any]:
    """DeepSpeed's own configuration, derived: only the global batch is stated by the user."""
    return {
        "train_batch_size": config.batch,
        "train_micro_batch_size_per_gpu": micro_batch(config),
        "gradient_accumulation_steps": config.accumulation,
        # at stage 0 DeepSpeed would clip without telling the norm: `Engine.step` does both
        "gradient_clipping": config.clip if config.zero_stage else 0.0,
        "zero_optimization": {"stage": config.zero_stage},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": config.steps + 1,
    }


class Engine:
    """A module under DeepSpeed, with the moving average of its weights.

    `start` holds the parts {model, ema, optimizer} of a checkpoint at `step`, or nothing.
    """

    def __init__(
        self,
        module: nn.Module,
        config: TrainConfig,
        device: torch.device,
        step: int = 0,
        start: dict[str, dict[str, Tensor]] | None = None,
    ) -> None:
        self.config, self.module = config, module.to(device)
        self.names = [name for name, p in module.named_parameters() if p.requires_grad]
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        optimizer = build_optimizer(module, config)
        self.engine: Any = _deepspeed().initialize(
            model=self.module, optimizer=optimizer, config=deepspeed_config(config)
        )[0]
        if config.channels_last:
            channels_last(module)  # not before: DeepSpeed broadcasts weights laid out as usual
        self._norm = math.nan
        self.average = [live.clone() for live in self._live()]
        self._make_moments(step)
        if start is not None:
            self._fill_moments(start["optimizer"])
            for name, p, mean in zip(self.names, self.parameters, self.average, strict=True):
                mean.copy_(self._share(start["ema"][name].to(device), p))

    def __call__(self, *inputs: Any) -> Any:
        return self.engine(*inputs)

    def backward(self, loss: Tensor) -> None:
        """Back-propagate a micro batch's mean loss."""
        self.engine.backward(loss)

    def step(self, lr: float) -> None:
        """End a micro batch; at the end of a global one, update the weights."""
        for group in self.engine.optimizer.param_groups:
            group["lr"] = lr
        if self._zero == 0 and self.engine.is_gradient_accumulation_boundary():
            self._norm = float(nn.utils.clip_grad_norm_(self.parameters, self.config.clip))
        self.engine.step()
        if self._zero:
            norm = self.engine.get_global_grad_norm()
            self._norm = math.nan if norm is None else float(norm)

    def gradient_norm(self) -> float:
        """The norm of the last global gradient, before clipping."""
        return self._norm

    @torch.no_grad()
    def update_average(self, step: int) -> None:
        """Move the average towards the weights; its decay grows to `train.ema` as in diffusers."""
        decay = min(self.config.ema, (1 + step) / (10 + step))
        get_ema_multi_avg_fn(decay)(self.average, self._live(), None)

    @torch.no_grad()
    def state(self) -> dict[str, dict[str, Tensor]]:
        """{model, ema, optimizer}, whole tensors by name, on the CPU of rank 0; the others keep of
        each what `_kept` says, for never more than one is whole there. A collective: every rank
        must call it."""
        buffers = {n: b for n, b in self.module.state_dict().items() if n not in set(self.names)}
        named = list(zip(self.names, self.parameters, strict=True))
        weights, averaged = (
            {name: _kept(self._whole(x, p)) for (name, p), x in zip(named, parts, strict=True)}
            for parts in (self._live(), self.average)
        )
        moments = {
            f"{key}.{name}": _kept(self._moment(p, key)) for name, p in named for key in MOMENTS
        }
        return {"model": weights | buffers, "ema": averaged | buffers, "optimizer": moments}

    def close(self) -> None:
        """Release DeepSpeed's buffers and hooks."""
        self.engine.destroy()

    @property
    def _zero(self) -> int:
        return self.config.zero_stage

    def _live(self) -> list[Tensor]:
        """The working weights of this process: whole, or its shards under ZeRO-3."""
        return [p.ds_tensor if self._zero == 3 else p.data for p in self.parameters]  # type: ignore[attr-defined]

    def _whole(self, share: Tensor, parameter: nn.Parameter) -> Tensor:
        """The whole tensor of which `_share` gives each process its part."""
        if self._zero < 3:
            return share
        whole = share.new_empty(share.numel() * world_size())
        torch.distributed.all_gather(list(whole.chunk(world_size())), share)
        shape: torch.Size = parameter.ds_shape  # type: ignore[attr-defined]
        return whole[: shape.numel()].view(shape)

    def _share(self, whole: Tensor, parameter: nn.Parameter) -> Tensor:
        """This process's part of a whole tensor: all of it, or the padded slice of ZeRO-3."""
        if self._zero < 3:
            return whole
        size = parameter.ds_tensor.numel()  # type: ignore[attr-defined]
        flat = F.pad(whole.flatten(), (0, size * world_size() - whole.numel()))
        return flat[rank() * size :][:size]

    def _moment(self, parameter: nn.Parameter, key: str) -> Tensor:
        if self._zero == 0:
            return self.engine.optimizer.state[parameter][key]
        from deepspeed.utils import safe_get_full_optimizer_state

        value = safe_get_full_optimizer_state(parameter, key)
        assert value is not None
        return value

    def _make_moments(self, step: int) -> None:
        """Adam's state before its first step, zero; DeepSpeed would link the first group's only."""
        wrapper = self.engine.optimizer
        inner = wrapper if self._zero == 0 else wrapper.optimizer
        tensors = [tensor for group in inner.param_groups for tensor in group["params"]]
        if self._zero == 3:
            tensors = wrapper.fp32_partitioned_groups_flat
        for tensor in tensors:
            inner.state[tensor] = {key: torch.zeros_like(tensor) for key in MOMENTS} | {
                "step": torch.tensor(float(step), device=tensor.device)
            }
        if self._zero in (1, 2):
            wrapper._lazy_init_hp_params_optimizer_state()

    def _fill_moments(self, values: dict[str, Tensor]) -> None:
        from deepspeed.utils import (
            safe_set_full_optimizer_state,
            safe_set_local_optimizer_state,
        )

        keys = [f"{key}.{name}" for name in self.names for key in MOMENTS]
        missing = [key for key in keys if key not in values]
        if missing:
            raise CheckpointError(
                f"optimizer.safetensors: lacks {len(missing)} of {len(keys)} tensors, {missing[0]} "
                "first: a run goes on from a checkpoint with all of them"
            )
        for name, p in zip(self.names, self.parameters, strict=True):
            for key in MOMENTS:
                value = values[f"{key}.{name}"].to(p.device)
                if self._zero == 0:
                    self.engine.optimizer.state[p][key].copy_(value)
                elif self._zero == 3:
                    safe_set_local_optimizer_state(p, self._share(value, p), key)
                else:
                    safe_set_full_optimizer_state(p, value, key)


def _kept(tensor: Tensor) -> Tensor:
    """On rank 0 a copy on the CPU, laid out row by row, as files want it; on others one number, 0
    if all are finite and else NaN, so that what rank 0 refuses all do."""
    if rank() == 0:
        return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
    return (tensor.detach() - tensor.detach()).sum()
