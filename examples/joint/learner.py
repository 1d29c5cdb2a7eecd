"""The joint objective: one noise level for each side, at independent times.

    L = E_{x, t^0, t^1, eps^0, eps^1} [ l^0 + l^1 ]

with t^0 and t^1 independent and uniform, each side's loss l^i at its own level and from one
evaluation of the network that sees both (Bao et al. 2023, eq. 5). Their l^i is the squared error of
eps; here it is the side's own weighting of the error of x0 (`eps` gives theirs), or the
cross-entropy of a side of words. Those have different units, and words' is by far the larger, so
each is divided by what it can be expected to be (`Balance`).

Such times seldom leave a side nearly clean, though conditional draws always have one that is. So a
share of the samples may see one side as these do, clean and at time 0; only the other side's loss
counts there. A share of 1 is the dedicated model of one direction that a joint one is measured
against.
"""

import torch
from torch import Tensor, nn

from examples.joint.modes import Alone, Mode, Together
from examples.joint.sides import NOTHING, Levels, Pair, PairCodec, PairDenoiser, Previous
from shared import noise
from shared.objective import CLEAN, NOISE, OTHER_NOISE, OTHER_TIME, first_rows, output_losses
from shared.objective.moment import noised
from shared.schedule import Schedule


def pair_losses(
    denoiser: PairDenoiser, data: Pair, levels: Levels, keys: Tensor, clean: Pair
) -> Pair:
    """The losses (B,) of both sides of data, a pair of (B, *data_shape), each at its level (B,); 0
    where a side is clean, as two booleans (B,) say: there it is not noised.

    The noise of the sides is independent, a function of keys (B,). With self-conditioning a sample
    sees the first side's last estimate if bit 0 of its key is 0, the second's if bit 1 is 0, never
    that of a clean side: every mode of sampling has been trained, those that have one estimate too.
    """
    first, second = (side.codec.encode(one) for side, one in zip(denoiser.both, data, strict=True))
    noisy = noised(first, levels[0], keys, NOISE), noised(second, levels[1], keys, OTHER_NOISE)
    x_t = _where(clean[0], first, noisy[0]), _where(clean[1], second, noisy[1])
    asked = [((keys >> bit) % 2 == 0) & ~clean[bit] for bit in (0, 1)]
    outputs = denoiser.outputs(x_t, levels, _first_estimates(denoiser, x_t, levels, asked))
    losses = [
        output_losses(side, side.codec, output, one, x0, state, level, side.weighting)
        for side, output, one, x0, state, level in zip(
            denoiser.both, outputs, data, (first, second), x_t, levels, strict=True
        )
    ]
    return losses[0].masked_fill(clean[0], 0), losses[1].masked_fill(clean[1], 0)


def _where(clean: Tensor, x0: Tensor, x_t: Tensor) -> Tensor:
    """x0 (B, ...) where it is clean (B,), x_t elsewhere."""
    return torch.where(clean.view(-1, *[1] * (x0.ndim - 1)), x0, x_t)


def _first_estimates(
    denoiser: PairDenoiser, x_t: Pair, levels: Levels, asked: list[Tensor]
) -> Previous:
    """x0_hat without gradient of the sides and samples that are asked for, zeros elsewhere."""
    if not denoiser.self_condition:
        return NOTHING
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

    def forward(self, losses: Pair, clean: Pair) -> Tensor:
        """Losses of both sides (B,), and where they are clean, which says nothing of u -> (B,)."""
        u = self.RATE * self.weights
        (first, second), share, counted = losses, torch.exp(-u), [~one for one in clean]
        return first * share[0] + u[0] * counted[0] + second * share[1] + u[1] * counted[1]


class JointLearner(nn.Module):
    """forward(data (B, N0 + N1), None, keys (B,), t (B,)) -> losses (B,) and None.

    t, uniform in [0, 1], is the first side's time; the second's is a function of the key. `shares`
    of the samples have the first side clean, and the second, also a function of the key; then t is
    the other's time. With `balance` both losses are weighed by a learned `Balance`. ValueError for
    rows that are no pairs, and for a condition, which a pair has none of.
    """

    def __init__(
        self,
        denoiser: PairDenoiser,
        codec: PairCodec,
        schedule: Schedule,
        shares: tuple[float, float] = (0.0, 0.0),
        balance: bool = False,
    ) -> None:
        super().__init__()
        self.denoiser, self.codec, self.schedule = denoiser, codec, schedule
        self.shares, self.balance = shares, Balance() if balance else None

    def forward(
        self, data: Tensor, condition: Tensor | None, keys: Tensor, t: Tensor
    ) -> tuple[Tensor, None]:
        if condition is not None:
            raise ValueError("condition: pairs have none; one side is the condition of the other")
        clean, levels = self.clean(keys), self.levels(keys, t)
        losses = pair_losses(self.denoiser, self.codec.data(data), levels, keys, clean)
        return losses[0] + losses[1] if self.balance is None else self.balance(losses, clean), None

    def clean(self, keys: Tensor) -> Pair:
        """Which samples see the first side clean, and which the second (B,)."""
        u, (first, second) = noise.uniform(keys, CLEAN), self.shares
        return u < first, (u >= first) & (u < first + second)

    def levels(self, keys: Tensor, t: Tensor) -> Levels:
        """The levels (B,) of both sides: at independent times, or one of them clean."""
        first, second = self.clean(keys)
        other = torch.where(first, t, noise.uniform(keys, OTHER_TIME))
        return self.schedule(t.masked_fill(first, 0)), self.schedule(other.masked_fill(second, 0))

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
