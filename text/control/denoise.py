"""A controlled estimate: guidance by what the model itself thinks of a condition.

From the denoiser's token laws at x_t, independent of each other, follows the probability that the
row is accepted, log p(accepted | x_t); its gradient is that of a classifier that nobody trained:

    x0_hat + scale (sigma^2 / alpha) grad log p(accepted | x_t)

The gradient goes through the network, so all words follow what a few of them must be. Where the
laws are exact and independent, scale 1 gives E[x0 | x_t, accepted].

Under a condition the laws are those of classifier-free guidance, taken between the logits: what
is accepted and what is written from then speak of the same words.
"""

import torch
from torch import Tensor

from shared.codec import DiscreteCodec
from shared.denoiser import Denoise, Denoiser
from shared.errors import ConfigError
from shared.guidance import classifier_free
from shared.schedule import Level
from text.codec import nearness
from text.control.paths import Automata, best_row, log_accepted
from text.lengths import limited

CHUNK = 64  # rows whose scores of all words are held at once


def controlled(
    denoiser: Denoiser,
    automata: Automata,
    scale: float = 1.0,
    temperature: float = 1.0,
    guidance: float = 1.0,
    interval: tuple[float, float] | None = None,
    lengths: Tensor | None = None,
    negative: Tensor | None = None,
) -> Denoise:
    """The estimate for rows that the automata (one a row) should accept, the more strongly the
    larger `scale`; logits are guided towards the condition by the classifier-free scale `guidance`,
    within the `interval` of logsnr, and divided by `temperature` first. They depart from those
    under `negative` where it is given. Rows of known `lengths` (n,) end there. Cost: one evaluation
    (two when guided) and one backward pass. ConfigError for a model without logits."""
    codec = denoiser.codec
    if denoiser.prediction != "categorical" or not isinstance(codec, DiscreteCodec):
        raise ConfigError(
            f"diffusion.prediction = {denoiser.prediction!r}: controls need the law of each word; "
            "train with 'categorical'"
        )
    automata = automata.to(next(denoiser.parameters()).device)
    guided = classifier_free(denoiser.output, guidance, negative=negative, interval=interval)

    def denoise(
        x_t: Tensor,
        level: Level,
        condition: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> Tensor:
        with torch.enable_grad():
            x = x_t.detach().requires_grad_()
            logits = guided(x, level, condition, previous) / temperature
            laws = codec.log_probs(logits)
            if lengths is not None:
                laws = limited(laws, lengths).log_softmax(-1)
            chance = log_accepted(laws, automata)
            (gradient,) = torch.autograd.grad(chance.sum(), x)
        return codec.mean(logits.detach()) + scale * level.widen(x_t.ndim).gain * gradient

    return denoise


def nearest_accepted(
    denoiser: Denoiser, x0: Tensor, automata: Automata, lengths: Tensor | None = None
) -> Tensor:
    """x0 (n, L, d) -> the accepted rows of ids (n, L), of these lengths (n,) where they are known,
    nearest to it, CHUNK at a time."""
    device, codec = next(denoiser.parameters()).device, denoiser.codec
    assert codec is not None
    points = codec.encode(torch.arange(automata.size, device=device)).detach()
    rows: list[Tensor] = []
    for start in range(0, len(x0), CHUNK):
        i = slice(start, start + CHUNK)
        scores = nearness(x0[i].to(device), points)
        if lengths is not None:
            scores = limited(scores, lengths[i])
        rows.append(best_row(scores, automata[i].to(device)).cpu())
    return torch.cat(rows)
