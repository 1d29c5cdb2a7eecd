"""Network + prediction + self-conditioning = an estimate of E[x0 | x_t].

Solvers, guidance and likelihoods know only `Denoise`: (x_t, level, condition, previous) -> x0_hat.
`previous` is the last x0_hat of the sampling loop (Chen et al. 2022); nothing is hidden
in the network.
"""

from typing import Protocol, runtime_checkable

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


@runtime_checkable
class RangeDenoise(Protocol):
    """A Denoise that also says which variance its ancestral step should have."""

    def with_range(
        self,
        x_t: Tensor,
        level: Level,
        condition: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """As a Denoise -> x0_hat (B, ...) and fraction (B, ...) in [0, 1]: ln variance = fraction
        ln(the larger of DDPM's two) + (1 - fraction) ln(the smaller) (Nichol & Dhariwal 2021,
        eq. 15)."""
        ...


@runtime_checkable
class Tempered(Protocol):
    """A Denoise whose logits can be divided."""

    def tempered(self, temperature: float) -> Denoise:
        """The estimate from logits / temperature. ValueError where there are none."""
        ...


def unit_scaled(x_t: Tensor, level: Level, data_std: float) -> Tensor:
    """x_t (B, ...) over its standard deviation at a level, of x0 with root mean square data_std."""
    wide = level.widen(x_t.ndim)
    return x_t * torch.rsqrt(wide.sigma**2 + (wide.alpha * data_std) ** 2)


def estimate(
    prediction: str, output: Tensor, x_t: Tensor, level: Level, data_std: float, codec: Codec | None
) -> Tensor:
    """Network output (B, ...) at x_t (B, ...) -> x0_hat (B, ...): a row of `PREDICTIONS`, or the
    posterior mean of a codec of discrete data, whose logits "categorical" outputs are."""
    if prediction == "categorical":
        assert isinstance(codec, DiscreteCodec)
        return codec.mean(output)
    return to_x0(prediction, output, x_t, level.widen(x_t.ndim), data_std)


class Denoiser(nn.Module):
    """A network as a Denoise: x_t's dtype outside; inside, `autocast` (bfloat16) if given.

    net(x, logsnr, condition, previous) takes x (B, ...) scaled to unit variance (or as it is, as in
    the older papers, without `scale_input`), logsnr (B,), and, with self-conditioning, the last
    estimate (zeros at first). With `prediction="categorical"` its
    output is logits, and x0_hat is the posterior mean `codec.mean(logits)`; with `evidence` it is
    what the network adds to the exact logits of independent data (the matched filter of CoBit
    2026), which suits fixed codes and not learned ones: a table learns where nothing is given.
    With `learned_range` the network has twice the channels (the last axis): the second half is the
    fraction of a RangeDenoise, through sigmoid(2 v), where the paper has (1 + v) / 2: the same near
    v = 0, but never outside [0, 1].
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
        scale_input: bool = True,
        learned_range: bool = False,
    ) -> None:
        super().__init__()
        if prediction == "categorical" and not isinstance(codec, DiscreteCodec):
            raise ValueError(
                "prediction = 'categorical' needs a codec of discrete data (bits, embedding); "
                f"got {type(codec).__name__}: use 'v', 'eps' or 'x0'"
            )
        if prediction == "categorical" and learned_range:
            raise ValueError(
                "learned_range = True: a categorical prediction has no second half for it; use "
                "'v', 'eps' or 'x0'"
            )
        self.net = net
        self.prediction = prediction
        self.data_std = data_std
        self.self_condition = self_condition
        self.codec = codec
        self.autocast = autocast
        self.evidence = evidence
        self.scale_input, self.learned_range = scale_input, learned_range

    def output(
        self,
        x_t: Tensor,
        level: Level,
        condition: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> Tensor:
        """The output F of the network at x_t (B, ...): the prediction, or logits."""
        output = self._network(x_t, level, condition, previous)
        if self.learned_range:
            output = output.chunk(2, dim=-1)[0]
        if self.evidence:
            assert isinstance(self.codec, DiscreteCodec)
            evidence = self.codec.evidence(x_t, level)
            output = output + evidence.clamp(-self.evidence_max, self.evidence_max)
        return output

    def _network(
        self, x_t: Tensor, level: Level, condition: Tensor | None, previous: Tensor | None
    ) -> Tensor:
        """All that the network says, in x_t's dtype."""
        x = unit_scaled(x_t, level, self.data_std) if self.scale_input else x_t
        if self.self_condition:
            last = torch.zeros_like(x_t) if previous is None else previous / self.data_std
        else:
            last = None
        logsnr = level.logsnr.reshape(-1).expand(x_t.shape[0])
        with torch.autocast(x_t.device.type, self.autocast, enabled=self.autocast is not None):
            output = self.net(x, logsnr, condition, last)
        return output.to(x_t.dtype)

    def estimate(self, output: Tensor, x_t: Tensor, level: Level) -> Tensor:
        """Network output (B, ...) -> x0_hat (B, ...)."""
        return estimate(self.prediction, output, x_t, level, self.data_std, self.codec)

    def with_range(
        self,
        x_t: Tensor,
        level: Level,
        condition: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """x0_hat (B, ...) and fraction (B, ...) of a RangeDenoise, from one evaluation.

        ValueError without `learned_range`.
        """
        if not self.learned_range:
            raise ValueError(
                "this denoiser has no learned range: build it with learned_range = True around a "
                "network with twice the channels, or give a fixed fraction"
            )
        output, free = self._network(x_t, level, condition, previous).chunk(2, dim=-1)
        return self.estimate(output, x_t, level), torch.sigmoid(2 * free)

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
