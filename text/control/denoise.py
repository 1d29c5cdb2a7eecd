"""A controlled estimate: E[x0 | x_t, the row is accepted], places independent given x_t.

With q the law of the tokens given acceptance, x0_hat = sum_w q(w) E_w. Where the denoiser's laws
are exact, this is what guidance by the exact classifier p(accepted | x_t) gives (x0_hat + sigma^2 /
alpha grad log p): the same estimate, without a gradient.
"""

import torch
from torch import Tensor, nn

from shared.codec import DiscreteCodec
from shared.denoiser import Denoise, Denoiser
from shared.errors import ConfigError
from shared.schedule import Level
from text.control.automaton import Automata, best_row, given_accepted


def points(denoiser: Denoiser, size: int) -> Tensor:
    """x0 of every token, (size, d)."""
    codec = denoiser.codec
    assert codec is not None
    assert isinstance(codec, nn.Module)
    device = next(iter([*codec.parameters(), *codec.buffers()])).device
    return codec.encode(torch.arange(size, device=device)).detach()


def controlled(denoiser: Denoiser, automata: Automata, temperature: float = 1.0) -> Denoise:
    """The estimate for rows that the automata (one a row) accept; logits are divided by
    `temperature` first. Cost: one evaluation. ConfigError for a model without logits."""
    codec = denoiser.codec
    if denoiser.prediction != "categorical" or not isinstance(codec, DiscreteCodec):
        raise ConfigError(
            f"diffusion.prediction = {denoiser.prediction!r}: controls need the law of each word; "
            "train with 'categorical'"
        )
    table = points(denoiser, automata.classes.shape[1])
    automata = automata.to(table.device)

    def denoise(
        x_t: Tensor,
        level: Level,
        condition: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> Tensor:
        logits = denoiser.output(x_t, level, condition, previous) / temperature
        law, _ = given_accepted(codec.log_probs(logits), automata)
        return law.exp() @ table.to(law)

    return denoise


def nearest_accepted(denoiser: Denoiser, x0: Tensor, automata: Automata) -> Tensor:
    """x0 (n, L, d) -> the accepted rows of ids (n, L) nearest to it. All points have one length, so
    the largest sum of inner products is the least distance."""
    table = points(denoiser, automata.classes.shape[1])
    scores = x0.to(table.device) @ table.T
    return best_row(scores, automata.to(table.device)).cpu()
