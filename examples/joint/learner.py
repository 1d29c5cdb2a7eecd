"""The joint objective: one noise level for each side, at independent times.

    L = E_{x, t^0, t^1, eps^0, eps^1} [ l^0 + l^1 ]

with t^0 and t^1 independent and uniform, each side's loss l^i at its own level and from one
evaluation of the network that sees both (Bao et al. 2023, eq. 5). Their l^i is the squared error of
eps; here it is the side's own weighting of the error of x0 (`eps` gives theirs), or the
cross-entropy of a side of words. Those have different units, and words' is by far the larger, so
each is divided by what it can be expected to be (`Balance`).

`alone` trains one side only, the other one clean: the dedicated model of the same size that a joint
one is measured against.
"""

import torch
from torch import Tensor, nn

from examples.joint.modes import Alone, Mode, Together
from examples.joint.sides import NOTHING, Levels, Pair, PairCodec, PairDenoiser, Previous
from shared import noise
from shared.objective import NOISE, OTHER_NOISE, OTHER_TIME, first_rows, output_losses
from shared.objective.moment import noised
from shared.schedule import Schedule


def pair_losses(denoiser: PairDenoiser, data: Pair, levels: Levels, keys: Tensor) -> Pair:
    """The losses (B,) of both sides of data, a pair of (B, *data_shape), each at its level (B,).

    The noise of the sides is independent, a function of keys (B,). With self-conditioning a sample
    sees the first side's last estimate if bit 0 of its key is 0, the second's if bit 1 is 0: every
    mode of sampling has been trained, those that have one estimate too.
    """
    first, second = (side.codec.encode(one) for side, one in zip(denoiser.both, data, strict=True))
    x_t = noised(first, levels[0], keys, NOISE), noised(second, levels[1], keys, OTHER_NOISE)
    previous = _first_estimates(denoiser, x_t, levels, keys)
    outputs = denoiser.outputs(x_t, levels, previous)
    losses = [
        output_losses(side, side.codec, output, one, x0, state, level, side.weighting)
        for side, output, one, x0, state, level in zip(
            denoiser.both, outputs, data, (first, second), x_t, levels, strict=True
        )
    ]
    return losses[0], losses[1]


def _first_estimates(denoiser: PairDenoiser, x_t: Pair, levels: Levels, keys: Tensor) -> Previous:
    """x0_hat without gradient where the key asks for it, zeros elsewhere."""
    if not denoiser.self_condition:
        return NOTHING
    asked = [(keys >> bit) % 2 == 0 for bit in (0, 1)]
    rows, passed = first_rows(asked[0] | asked[1])
    with torch.no_grad():
        at = levels[0].take(passed), levels[1].take(passed)
        found = denoiser((x_t[0][passed], x_t[1][passed]), at)
    last: list[Tensor] = []
    for estimate, state, asks in zip(found, x_t, asked, strict=True):
        whole = torch.zeros_like(state)
        whole[rows] = estimate[: len(rows)]
        last.append(whole * asks.view(-1, *[1] * (state.ndim - 1)))
    return Previous(*last)


class Balance(nn.Module):
    """sum_i l^i / e^(u_i) + u_i with learned u (Kendall et al. 2018, eq. 7, up to constants): least
    at u_i = ln E[l^i], where each side has the gradient of its relative error."""

    RATE = 16  # of u beside its parameters, which AdamW moves by about the learning rate a step

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(2))

    def forward(self, losses: Pair) -> Tensor:
        """Losses of both sides (B,) -> (B,)."""
        u = self.RATE * self.weights
        (first, second), share = losses, torch.exp(-u)
        return first * share[0] + u[0] + second * share[1] + u[1]


class JointLearner(nn.Module):
    """forward(data (B, N0 + N1), None, keys (B,), t (B,)) -> losses (B,) and None.

    t, uniform in [0, 1], is the first side's time; the second's is a function of the key. With
    `balance` both losses are weighed by a learned `Balance`. ValueError for rows that are no pairs,
    and for a condition, which a pair has none of.
    """

    def __init__(
        self,
        denoiser: PairDenoiser,
        codec: PairCodec,
        schedule: Schedule,
        alone: int | None = None,
        balance: bool = False,
    ) -> None:
        super().__init__()
        self.denoiser, self.codec, self.schedule = denoiser, codec, schedule
        self.alone, self.balance = alone, Balance() if balance else None

    def forward(
        self, data: Tensor, condition: Tensor | None, keys: Tensor, t: Tensor
    ) -> tuple[Tensor, None]:
        if condition is not None:
            raise ValueError("condition: pairs have none; one side is the condition of the other")
        losses = pair_losses(self.denoiser, self.codec.data(data), self.levels(keys, t), keys)
        if self.alone is not None:
            return losses[self.alone], None
        return losses[0] + losses[1] if self.balance is None else self.balance(losses), None

    def levels(self, keys: Tensor, t: Tensor) -> Levels:
        """The levels (B,) of both sides: at independent times, or one of them clean."""
        if self.alone is not None:
            here, clean = self.schedule(t), self.schedule(torch.zeros_like(t))
            return (here, clean) if self.alone == 0 else (clean, here)
        return self.schedule(t), self.schedule(noise.uniform(keys, OTHER_TIME))

    def together(self) -> Mode:
        """The joint distribution, to be drawn from."""
        first, second = self.denoiser.both
        total = first.size * first.data_std**2 + second.size * second.data_std**2
        data_std = (total / (first.size + second.size)) ** 0.5
        denoise = Together(self.denoiser, self.codec)
        return Mode(denoise, self.codec, self.schedule, data_std, self, {})

    def one(self, which: int) -> Mode:
        """One side alone or given the other, to be drawn from; see `Alone` for the condition."""
        side = self.denoiser.both[which]
        denoise = Alone(self.denoiser, self.codec, self.schedule, which)
        return Mode(denoise, side.codec, self.schedule, side.data_std, self, {})
