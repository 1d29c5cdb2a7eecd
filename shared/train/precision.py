"""The precision that trains faster here.

Half the bits are not half the time everywhere: with AMX, or on AMD's avx512_bf16, products of
bfloat16 take about half as long as those of float32; on an Intel core without AMX twice as long.
"""

import statistics
import time
from functools import cache

import torch

SIZES = (256, 256, 1024)  # of the product that is timed: tokens, and the sides of a layer's matrix
TIMES = 9
GAIN = 0.8  # of float32's time is the most that bfloat16 may take: autocast has costs of its own


def faster_precision() -> str:
    """bf16 or fp32, from a product timed in both; on a GPU bf16 wherever it knows it."""
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    gains = _seconds(torch.bfloat16) < GAIN * _seconds(torch.float32)
    return "bf16" if gains else "fp32"


@cache
def _seconds(dtype: torch.dtype) -> float:
    rows, inner, columns = SIZES
    left, right = torch.ones(rows, inner, dtype=dtype), torch.ones(inner, columns, dtype=dtype)
    taken: list[float] = []
    for _ in range(TIMES):
        began = time.perf_counter()
        torch.mm(left, right)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)
