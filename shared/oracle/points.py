"""Weighted points: the exact denoiser of a finite training set, and of independent tokens.

x0 is point k with probability w_k (plus std noise, if wanted: a mixture of equal round Gaussians).
With v = alpha^2 std^2 + sigma^2,

    log p(k | x_t) = log w_k + (alpha <x_t, p_k> - alpha^2 |p_k|^2 / 2) / v + const,

and, m being the mean of the points under it, score = (alpha m - x_t) / v and
E[x0 | x_t] = m + (alpha std^2 / v) (x_t - alpha m). With std = 0 that is what a network trained on
the set tends to, if it could fit it without error.

At logsnr 20 sigma^2 is 2e-9 and the digits that decide between two near points are beyond float32:
everything is computed in float64, whatever comes in, and returned in x's dtype.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from shared.oracle.protocol import refuse_condition
from shared.schedule import Level


class PointMixture:
    """points (K, *event), weights (K,) (default: equal), std >= 0; x is (B, *places, *event).

    Each of the `places` (none by default) draws its point independently: a table of embeddings
    (K, d) with places (L,) is a sentence of L independent words. Points are taken `chunk` at a
    time: denoise, score and log_prob hold B x chunk numbers, never B x K x event.

    Raises ValueError when shapes disagree, a weight is not positive, std is negative, a point is
    not finite, or chunk < 1.
    """

    def __init__(
        self,
        points: Tensor,
        weights: Tensor | None = None,
        std: float = 0.0,
        places: tuple[int, ...] = (),
        chunk: int = 1024,
    ) -> None:
        if points.ndim < 2 or len(points) == 0:
            raise ValueError(f"oracle: points {tuple(points.shape)}: expected (K, *event), K >= 1")
        if weights is None:
            weights = torch.ones(len(points), device=points.device)
        if weights.shape != points.shape[:1] or not bool((weights > 0).all()):
            raise ValueError(
                f"oracle: weights {tuple(weights.shape)} for {len(points)} points: "
                "expected one positive number each"
            )
        if not 0 <= std < math.inf:
            raise ValueError(f"oracle: std = {std}: expected 0 or a positive number")
        if not bool(points.isfinite().all()):
            raise ValueError("oracle: a point is not finite")
        if chunk < 1:
            raise ValueError(f"oracle: chunk = {chunk}: expected 1 or more points at a time")
        self.points, self.std, self.chunk = points, std, chunk
        self.shape = (*places, *points.shape[1:])
        self.places = places
        self.log_weights = torch.log(weights.double() / weights.double().sum())

    def _rows(self, x: Tensor, level: Level) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, *shape) -> one row a place (N, E), its alpha and its variance v, (N, 1)."""
        if x.shape[1:] != self.shape:
            raise ValueError(
                f"oracle: x of shape {tuple(x.shape)}, expected (B, {str(self.shape)[1:]}"
            )
        rows = x.double().reshape(-1, self.points[0].numel())
        per_sample = math.prod(self.places)
        alpha, sigma = (
            part.double().reshape(-1, 1).expand(len(x), per_sample).reshape(-1, 1)
            for part in (level.alpha, level.sigma)
        )
        return rows, alpha, (alpha * self.std) ** 2 + sigma**2

    def _chunks(self, rows: Tensor, alpha: Tensor, v: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Points (C, E) and log w_k N(x; alpha p_k, v) less a term that all points share (N, C)."""
        flat = self.points.flatten(1)
        for start in range(0, len(flat), self.chunk):
            points = flat[start : start + self.chunk].double()
            log_w = self.log_weights[start : start + self.chunk]
            match = rows @ points.mT - alpha * points.square().sum(1) / 2
            yield points, log_w + alpha / v * match

    def _moments(self, rows: Tensor, alpha: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """log of the summed joint (N, 1), less the shared term, and the points' mean under the
        posterior (N, E): a softmax-weighted sum whose maximum may still grow with each chunk."""
        peak = rows.new_full((len(rows), 1), -math.inf)
        total = torch.zeros_like(peak)
        mean = torch.zeros_like(rows)
        for points, logits in self._chunks(rows, alpha, v):
            top = torch.maximum(peak, logits.detach().amax(-1, keepdim=True))
            kept, weights = torch.exp(peak - top), torch.exp(logits - top)
            total = kept * total + weights.sum(-1, keepdim=True)
            mean = kept * mean + weights @ points
            peak = top
        return peak + total.log(), mean / total

    def log_posterior(self, x_t: Tensor, level: Level) -> Tensor:
        """log p_t(point | x_t), nats, (B, *places, K): the exact categorical posterior."""
        logits = torch.cat([part for _, part in self._chunks(*self._rows(x_t, level))], -1)
        return logits.log_softmax(-1).reshape(len(x_t), *self.places, -1).to(x_t)

    def log_prob(self, x: Tensor, level: Level) -> Tensor:
        """x (B, *shape) at a level -> log p_t(x), nats, (B,), summed over the places."""
        rows, alpha, v = self._rows(x, level)
        log_sum, _ = self._moments(rows, alpha, v)
        shared = rows.square().sum(-1, keepdim=True) / v + rows.shape[1] * (2 * math.pi * v).log()
        return (log_sum - shared / 2).reshape(len(x), -1).sum(-1).to(x)

    def denoise(
        self,
        x_t: Tensor,
        level: Level,
        condition: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> Tensor:
        """E[x0 | x_t], (B, *shape)."""
        refuse_condition("a mixture of points", condition)
        rows, alpha, v = self._rows(x_t, level)
        _, mean = self._moments(rows, alpha, v)
        x0_hat = mean + alpha * self.std**2 / v * (rows - alpha * mean)
        return x0_hat.reshape(x_t.shape).to(x_t)

    def score(self, x: Tensor, level: Level) -> Tensor:
        """grad log p_t(x), (B, *shape)."""
        rows, alpha, v = self._rows(x, level)
        _, mean = self._moments(rows, alpha, v)
        return ((alpha * mean - rows) / v).reshape(x.shape).to(x)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """n draws (n, *shape) of x0."""
        count = n * math.prod(self.places)
        weights = self.log_weights.exp()
        k = torch.multinomial(weights, count, replacement=True, generator=generator)
        x0 = self.points[k].reshape(n, *self.shape)
        if self.std == 0:
            return x0
        noise = torch.randn(x0.shape, generator=generator, dtype=x0.dtype, device=x0.device)
        return x0 + self.std * noise
