"""Data order as a pure function of (seed, global sample index).

Sample g of a run is row permutation(seed, g // N)[g mod N]: number of processes, micro batch and
accumulation drop out, and to resume is to know one integer.
"""

import torch
from torch import Tensor


class Order:
    """The endless shuffled order of `size` rows."""

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed = size, seed
        self._epochs: dict[int, Tensor] = {}

    def _permutation(self, epoch: int) -> Tensor:
        if epoch not in self._epochs:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            kept = {e: p for e, p in self._epochs.items() if e == epoch - 1}
            self._epochs = kept | {epoch: torch.randperm(self.size, generator=generator)}
        return self._epochs[epoch]

    def rows(self, indices: Tensor) -> Tensor:
        """Global sample indices (B,) -> row numbers (B,)."""
        epochs, places = indices // self.size, indices % self.size
        rows = torch.empty_like(indices)
        for epoch in epochs.unique().tolist():
            now = epochs == epoch
            rows[now] = self._permutation(epoch)[places[now]]
        return rows
