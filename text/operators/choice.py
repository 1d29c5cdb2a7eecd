"""Of several latents that are drawn for each sentence, the one whose words are surest.

    score = sum_i w_i log p(demand i | latent of the words) + log p(words | latent drawn) / tokens

The sum is what the operators find in the words themselves, read again, so that what the decoder
loses counts. The rest is how sure the decoder was of them: less where latents lie far from those it
knows, and there grammar fails first. Both in nats. Of edits

    - mean over coordinates of (latent of the words - latent of what was edited)^2 / 2

is added: among those that say what is asked for, the one that keeps most of the rest.
"""

import torch
from torch import Tensor

from shared.guidance.flow import clean_level
from shared.tokenizer import PAD
from text.autoencoder.codec import SentenceCodec
from text.autoencoder.health import ROWS
from text.operators.sampler import Pull


@torch.no_grad()
def scores(
    codec: SentenceCodec, pull: Pull, x0: Tensor, ids: Tensor, start: Tensor | None = None
) -> Tensor:
    """Latents x0 (N, latents, dim) and the rows that were written from them, ids (N, L) -> (N,).
    `start` are the latents of what was edited, like x0."""
    parts: list[Tensor] = []
    words: list[Tensor] = []
    for own, rows in zip(x0.split(ROWS), ids.to(x0.device).split(ROWS), strict=True):
        again = codec.encode(rows)
        level = clean_level(again)
        pairs = zip(pull.energies, pull.weights, strict=True)
        asked = sum((weight * energy(again, level) for energy, weight in pairs), own.new_zeros(()))
        nats = codec.network.nll(rows, codec.latents(own)).sum(1)
        parts.append(-asked - nats / (rows != PAD).sum(1))
        words.append(again)
    found = torch.cat(parts)
    if start is None:
        return found
    return found - (torch.cat(words) - start).square().flatten(1).mean(1) / 2


def best_of(found: Tensor, count: int) -> Tensor:
    """Scores (n * count,), those of one sentence together -> which place (n,) is best for each, the
    first among equals."""
    best = found.view(-1, count).argmax(1)
    return best + count * torch.arange(len(best), device=found.device)
