"""Network + prediction + self-conditioning = an estimate of E[x0 | x_t].

Solvers, guidance and likelihoods know only `Denoise`: (x_t, level, condition, previous) -> x0_hat.
`previous` is the last x0_hat of the sampling loop (Chen et al. 2022); nothing is hidden
in the network.
"""

from typing import Protocol

import torch
from torch import Tensor, nn

from shared.codec import Codec, DiscreteCodec
from shared.prediction import to_x0
from shared.schedule import Level


class Denoise(Protocol):
    """x_t (B, ...), its level, a condition and the last estimate -> x0_hat (B, ...)."""

    def __call__(
        self,
        x_t: Tensor,
        level: Level,
        condition: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> Tensor: ...


class Denoiser(nn.Module):
    """A network as a Denoise: x_t's dtype outside; inside, `autocast` (bfloat16) if given.

    net(x, logsnr, condition, previous) takes x (B, ...) scaled to unit variance, logsnr (B,), and,
    with self-conditioning, the last estimate (zeros at first). With `prediction="categorical"` its
    output is logits, and x0_hat is the posterior mean `codec.mean(logits)`; with `evidence` it is
    what the network adds to the exact logits of independent data (the matched filter of CoBit
    2026), which suits fixed codes and not learned ones: a table learns where nothing is given.
    """

    evidence_max = 30.0  # nats; float32 sigmoids and softmaxes are saturated well before

    def __init__(
        self,
        net: nn.Module,
        prediction: str = "v",
        data_std: float = 1.0,
        self_condition: bool = False,
        codec: Codec | None = None,
        autocast: torch.dtype | None = None,
        evidence: bool = False,
    ) -> None:
        super().__init__()
        if prediction == "categorical" and not isinstance(codec, DiscreteCodec):
            raise ValueError(
                "prediction = 'categorical' needs a codec of discrete data (bits, embedding); "
                f"got {type(codec).__name__}: use 'v', 'eps' or 'x0'"
            )
        self.net = net
        self.prediction = prediction
        self.data_std = data_std
        self.self_condition = self_condition
        self.codec = codec
        self.autocast = autocast
        self.evidence = evidence

    def output(
        self, x_t: Tensor, level: Level, condition: Tensor | None, previous: Tensor | None
    ) -> Tensor:
        """The raw output F of the network at x_t (B, ...): the prediction, or logits."""
        wide = level.widen(x_t.ndim)
        scale = torch.rsqrt(wide.sigma**2 + (wide.alpha * self.data_std) ** 2)
        if self.self_condition:
            last = torch.zeros_like(x_t) if previous is None else previous / self.data_std
        else:
            last = None
        logsnr = level.logsnr.reshape(-1).expand(x_t.shape[0])
        with torch.autocast(x_t.device.type, self.autocast, enabled=self.autocast is not None):
            output = self.net(x_t * scale, logsnr, condition, last)
        output = output.to(x_t.dtype)
        if self.evidence:
            assert isinstance(self.codec, DiscreteCodec)
            evidence = self.codec.evidence(x_t, level)
            output = output + evidence.clamp(-self.evidence_max, self.evidence_max)
        return output

    def estimate(self, output: Tensor, x_t: Tensor, level: Level) -> Tensor:
        """Network output (B, ...) -> x0_hat (B, ...)."""
        if self.prediction == "categorical":
            assert isinstance(self.codec, DiscreteCodec)
            return self.codec.mean(output)
        return to_x0(self.prediction, output, x_t, level.widen(x_t.ndim))

    def forward(
        self,
        x_t: Tensor,
        level: Level,
        condition: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> Tensor:
        return self.estimate(self.output(x_t, level, condition, previous), x_t, level)

    def tempered(self, temperature: float) -> Denoise:
        """The estimate from logits / temperature: below 1 every posterior p(class | x_t) is
        sharper, and samples vary less (Dieleman et al. 2022, sec. 3.1). ValueError unless it is
        positive and the prediction categorical."""
        if not temperature > 0:
            raise ValueError(f"temperature = {temperature}: expected a number above 0")
        if self.prediction != "categorical":
            raise ValueError(
                f"temperature = {temperature}: it divides logits, and prediction = "
                f"{self.prediction!r} has none; leave it at 1"
            )

        def denoise(
            x_t: Tensor,
            level: Level,
            condition: Tensor | None = None,
            previous: Tensor | None = None,
        ) -> Tensor:
            logits = self.output(x_t, level, condition, previous)
            return self.estimate(logits / temperature, x_t, level)

        return denoise
