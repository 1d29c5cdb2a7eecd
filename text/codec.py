"""Words as points: a learned table, and the exact head over it.

Token w is x0 = E_w, a row of a table whose rows all have length sqrt(d), so that a coordinate has
about unit variance and no word can hide from the noise by growing (Dieleman et al. 2022, sec. 3.2).
The table learns from the cross-entropy of the network's logits; with one norm for all rows it
cannot collapse the way a free table does without the rounding loss of Li et al. 2022, sec. 4.1,
with which (`shared.objective.EndToEnd`) rows may have any length.

For independent words, p(w | x_t) ~ exp(-|x_t - alpha E_w|^2 / 2 sigma^2), in logits
alpha <x_t, E_w> / sigma^2 - alpha^2 |E_w|^2 / 2 sigma^2 up to a constant: that is `evidence`. A
network that adds its own logits need only say what the *other* places tell about this one.

`Ended` is any codec of tokens for models that are told where a sentence ends.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.codec import Bits, check_range
from shared.schedule import Level
from shared.tokenizer import EOS, PAD


class Embedding(nn.Module):
    """Token ids (B, L) in [0, size) <-> x0 (B, L, dim); a PointCodec with one logit per word."""

    def __init__(self, size: int, length: int, dim: int, unit_norm: bool = True) -> None:
        super().__init__()
        if size < 2:
            raise ValueError(f"codec: size = {size}: an embedding needs two words or more")
        if dim < 1:
            raise ValueError(f"codec.dim = {dim}: expected 1 or more")
        self.size, self.dim, self.unit_norm = size, dim, unit_norm
        self.latent_shape = (length, dim)
        self.logit_channels = size
        self.weight = nn.Parameter(torch.randn(size, dim))

    def table(self) -> Tensor:
        """The points (size, dim), each of length sqrt(dim) and float32 with `unit_norm`."""
        if not self.unit_norm:
            return self.weight
        return F.normalize(self.weight.float(), dim=-1) * self.dim**0.5

    def encode(self, data: Tensor) -> Tensor:
        check_range(data, self.size)
        return F.embedding(data, self.table())

    def decode(self, x0: Tensor) -> Tensor:
        return nearness(x0, self.table()).argmax(-1)

    def evidence(self, x_t: Tensor, level: Level) -> Tensor:
        """(B, L, size), shifted so that the largest is 0: a softmax does not notice, and what
        clamps extreme logits then cuts only words that are out of the question."""
        points, level = self.table().to(x_t), level.widen(x_t.ndim)
        lengths = points.square().sum(-1)
        logits = level.alpha / level.sigma**2 * (x_t @ points.T - level.alpha / 2 * lengths)
        return logits - logits.amax(-1, keepdim=True)

    def mean(self, logits: Tensor) -> Tensor:
        return logits.softmax(-1) @ self.table().to(logits)

    def log_probs(self, logits: Tensor) -> Tensor:
        return logits.log_softmax(-1)

    def nll(self, logits: Tensor, data: Tensor) -> Tensor:
        losses = F.cross_entropy(logits.flatten(0, -2), data.flatten(), reduction="none")
        return losses.reshape(len(data), -1).sum(1)

    def log_prob(self, data: Tensor, z_0: Tensor, level_0: Level) -> Tensor:
        """Rounding: p(w | z_0) over all words, each equally likely a priori."""
        chosen = self.evidence(z_0, level_0).log_softmax(-1).gather(-1, data.unsqueeze(-1))
        return chosen.flatten(1).sum(1)


class Ended(nn.Module):
    """A DiscreteCodec of ids (B, L) in whose likelihood ends and padding have no part."""

    def __init__(self, tokens: Bits | Embedding) -> None:
        super().__init__()
        self.tokens, self.size = tokens, tokens.size
        self.latent_shape, self.logit_channels = tokens.latent_shape, tokens.logit_channels

    def encode(self, data: Tensor) -> Tensor:
        return self.tokens.encode(data)

    def decode(self, x0: Tensor) -> Tensor:
        return self.tokens.decode(x0)

    def evidence(self, x_t: Tensor, level: Level) -> Tensor:
        return self.tokens.evidence(x_t, level)

    def mean(self, logits: Tensor) -> Tensor:
        return self.tokens.mean(logits)

    def log_probs(self, logits: Tensor) -> Tensor:
        return self.tokens.log_probs(logits)

    def nll(self, logits: Tensor, data: Tensor) -> Tensor:
        each = self.tokens.nll(logits.flatten(0, 1).unsqueeze(1), data.flatten().unsqueeze(1))
        return _of_words(each, data)

    def log_prob(self, data: Tensor, z_0: Tensor, level_0: Level) -> Tensor:
        logits = self.evidence(z_0, level_0)
        return _of_words(self.log_probs(logits).gather(-1, data.unsqueeze(-1)).flatten(), data)


def _of_words(each: Tensor, data: Tensor) -> Tensor:
    """A number for each token (B L,) -> the sum (B,) over those of data (B, L) before the end."""
    return each.reshape(data.shape).masked_fill((data == PAD) | (data == EOS), 0.0).sum(1)


def nearness(x0: Tensor, points: Tensor) -> Tensor:
    """x0 (B, ..., D), points (K, D) -> (B, ..., K), largest at the nearest point:
    (|x0|^2 - |x0 - point|^2) / 2."""
    points = points.to(x0)
    return x0 @ points.T - points.square().sum(-1) / 2
