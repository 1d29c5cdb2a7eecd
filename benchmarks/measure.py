"""How time is measured: interleaved, so that what else the machine does falls on all alike.

One thread on a CPU is measured in CPU time of the process, which waiting for a busy core does not
lengthen; several threads, and CUDA, in wall time. The minimum is what the code can do; a ratio is
the median over rounds in which both sides ran next to each other.
"""

import os
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.utils.flop_counter import (
    FlopCounterMode,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

from shared.provenance import provenance

ROUNDS = 5  # at least, whatever the time allowed
GEMM_SIZES = (256, 512, 1024, 2048)
GEMM_SHARE = 2e9  # multiply-adds that one timing of a GEMM takes, in FLOPs

Task = Callable[[], object]
Times = dict[str, list[float]]


def clock_name() -> str:
    """What `now` reads: the process's CPU time, or wall time."""
    alone = torch.get_num_threads() == 1 and not torch.cuda.is_available()
    return "CPU time" if alone else "wall time"


def now() -> float:
    """Seconds, with all that was asked of the device done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.process_time() if clock_name() == "CPU time" else time.perf_counter()


def interleave(tasks: Mapping[str, Task], seconds: float) -> Times:
    """Run the tasks in turn for about `seconds`; seconds of each run, after one to warm up."""
    for task in tasks.values():
        task()
    times: Times = {name: [] for name in tasks}
    end, rounds = time.monotonic() + seconds, 0
    while rounds < ROUNDS or time.monotonic() < end:
        for name, task in tasks.items():
            began = now()
            task()
            times[name].append(now() - began)
        rounds += 1
    return times


def ratio(over: list[float], under: list[float]) -> tuple[float, float]:
    """(ratio of the minima, median of the ratios of neighbouring runs)."""
    return min(over) / min(under), median(a / b for a, b in zip(over, under, strict=True))


def gemm_tasks(dtype: torch.dtype) -> dict[str, Task]:
    """Square products by name: the hardware's speed as torch can reach it."""

    def product(n: int) -> Task:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
        out = torch.empty_like(a)

        def run() -> None:
            for _ in range(_repeats(n)):
                torch.mm(a, b, out=out)

        return run

    return {f"gemm {n}": product(n) for n in GEMM_SIZES}


def gemm_speed(times: Times, best: Callable[[list[float]], float] = min) -> float:
    """FLOP/s of the fastest size among the GEMMs of `times`."""
    return max(2 * n**3 * _repeats(n) / best(times[f"gemm {n}"]) for n in GEMM_SIZES)


def _repeats(n: int) -> int:
    return max(1, round(GEMM_SHARE / (2 * n**3)))


def flops(task: Task) -> int:
    """Floating-point operations of matrix products and attention in one run of the task."""
    aten = torch.ops.aten
    on_cpu = {  # torch counts the kernels of CUDA only
        aten._scaled_dot_product_flash_attention_for_cpu: _attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    }
    with FlopCounterMode(display=False, custom_mapping=on_cpu) as counter:
        task()
    return counter.get_total_flops()


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(grad, query, key, value)


def peak_memory_mib() -> float:
    """The largest resident set of this process so far, MiB. Not getrusage: a child inherits that
    from its parent."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("/proc/self/status names no VmHWM: peak memory is measured on Linux only")


def facts(seconds: float | None = None) -> dict[str, Any]:
    """Machine, versions, commit: what the numbers depend on; and how long one measurement takes,
    where that was asked for."""
    return {
        "threads": torch.get_num_threads(),
        "clock": clock_name(),
        **({} if seconds is None else {"seconds_per_measurement": seconds}),
        "load_average_at_start": round(os.getloadavg()[0], 1),
        "date": datetime.now(UTC).date().isoformat(),
    } | provenance()
