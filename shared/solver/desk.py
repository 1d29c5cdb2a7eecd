"""The loop's desk: evaluations, noise and memory for the steps (`shared.solver.step.Desk`)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from shared import noise as stateless
from shared.denoiser import Denoise, RangeDenoise
from shared.schedule import Level
from shared.solver.plan import Plan
from shared.solver.step import Point

# Streams of noise under a seed: the start takes 0, the loop's own noise of move i takes i + 1, and
# further draws of a step lie above 2^32, those of hooks above 2^48. Training takes negative ones.
_FURTHER, _HOOKS = 1 << 32, 1 << 48


class LoopDesk:
    """One run's. All memory is like x (B, ...), contiguous, and taken when first asked for."""

    def __init__(
        self,
        plan: Plan,
        denoise: Denoise,
        x: Tensor,
        condition: Tensor | None,
        seeds: Sequence[int] | None,
        stop: bool,
    ) -> None:
        self.denoise, self.condition, self.seeds, self.stop = denoise, condition, seeds, stop
        self.ranged = denoise if plan.learns_range and isinstance(denoise, RangeDenoise) else None
        self.move = 0  # of the plan, re-noising moves included: what noise is keyed by
        self.step = 0  # evaluated steps so far
        self.nfe = 0
        self.fraction: Tensor | None = None
        self.previous: Tensor | None = None
        self._like = x
        self._one = x.new_ones(1)
        self._buffers: list[Tensor] = []
        self._slots: list[Tensor] = []
        self._ring, self._count = plan.solver.memory + 1, 0
        self._normals: stateless.Normals | None = None
        self._noise: Tensor | None = None
        self._mean: Tensor | None = None
        self._levels = plan.levels(x)
        self._flat = x.view(1, -1)
        self._shape = x.shape

    def level(self, point: Point) -> Level:
        found = self._levels.get(point)
        if found is None:  # an adaptive step finds its own levels
            found = Level(
                *(self._like.new_full((), v) for v in (point.logsnr, point.alpha, point.sigma))
            )
        return found

    def evaluate(self, x: Tensor, point: Point) -> Tensor:
        level = self.level(point)
        if self.ranged is None:
            x0_hat = self.denoise(x, level, self.condition, self.previous)
        else:
            x0_hat, fraction = self.ranged.with_range(x, level, self.condition, self.previous)
            self.fraction = fraction
        if x0_hat.shape != self._shape:
            raise ValueError(
                f"denoise gave {tuple(x0_hat.shape)} for x_t {tuple(self._shape)}: expected an "
                "estimate of the same shape"
            )
        if x0_hat.data_ptr() == x.data_ptr():  # the step is about to overwrite x
            x0_hat = x0_hat.clone()
        if x0_hat.dtype != x.dtype:
            x0_hat = x0_hat.to(x.dtype)
        if self.stop and not bool(torch.isfinite(x0_hat).all()):
            raise FloatingPointError(
                f"x0_hat is not finite at step {self.step}, logsnr {point.logsnr:.3f}"
            )
        self.nfe += 1
        self.previous = x0_hat
        return x0_hat

    def normal(self, k: int) -> Tensor:
        if self._normals is None:
            self._normals = stateless.Normals(
                self._given_seeds(), tuple(self._shape[1:]), self._like.device
            )
        drawn = self._normals.draw(self.move + 1 + k * _FURTHER)
        if drawn.dtype == self._like.dtype:
            return drawn
        if self._noise is None:
            self._noise = torch.empty_like(self._like)
        return self._noise.copy_(drawn)

    def uniform(self, k: int) -> Tensor:
        stream = self.move + 1 + k * _FURTHER
        drawn = stateless.uniform(self._given_seeds(), stream, device=self._like.device)
        return drawn.to(self._like.dtype)

    def hook_draw(self, k: int) -> Tensor:
        """`Taken.draw` of this step."""
        shape, on = tuple(self._shape[1:]), self._like.device
        stream = self.move + 1 + k * _FURTHER + _HOOKS
        return stateless.normal(self._given_seeds(), stream, shape, on).to(self._like.dtype)

    def buffer(self, k: int) -> Tensor:
        while len(self._buffers) <= k:
            self._buffers.append(torch.empty_like(self._like))
        return self._buffers[k]

    def slot(self) -> Tensor:
        if len(self._slots) < self._ring:
            self._slots.append(torch.empty_like(self._like))
        self._count += 1
        return self._slots[(self._count - 1) % self._ring]

    def mean_of(self, x: Tensor) -> Tensor:
        """A copy of x before its noise, for hooks."""
        if self._mean is None:
            self._mean = torch.empty_like(self._like)
        return self._mean.copy_(x)

    def mix(self, x: Tensor, a: float, y: Tensor, b: float) -> Tensor:
        if a + b == 1:
            return x.lerp_(y, b)
        if not y.is_contiguous():
            return x.mul_(a).add_(y, alpha=b)
        # an outer product with (1,) is the one operation of torch that scales both in one pass
        flat = self._flat if x is self._like else x.view(1, -1)
        flat.addr_(self._one, y.view(-1), beta=a, alpha=b)
        return x

    def _given_seeds(self) -> Sequence[int]:
        if self.seeds is None:
            raise ValueError("a hook draws noise: give seeds, one integer per sample")
        return self.seeds
