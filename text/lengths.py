"""An explicit length: a model is told how many tokens a sentence has, and what follows them is no
part of it: neither attended to (`shared.nets.transformer`), nor trained (`text.codec.Ended`), nor
read.

A row is the sentence's ids, EOS and PAD here too, so that all else reads it as it does others; its
length is the number of ids before EOS. It stands first in the condition, before the source.

A length that nobody gives is drawn before the sentence, from the lengths of those training
sentences whose source has as many tokens: p(length | tokens of the source). It needs no training,
and lengths as a whole are the training split's. Of pictures, whose patches are always as many, and
without a source, it is p(length).
"""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from shared import noise
from shared.errors import CheckpointError
from shared.files import write_text
from shared.objective.streams import LENGTH
from shared.tokenizer import BOS, EOS, PAD
from text.data import Rows

FILE = "lengths.json"


def count(ids: Tensor) -> Tensor:
    """Rows of ids (B, L) -> their lengths (B,): tokens before the end."""
    return ((ids != PAD) & (ids != EOS)).sum(1)


def tell(lengths: Tensor, source: Tensor | None) -> Tensor:
    """Lengths (B,) before a source: ids (B, M) or vectors (B, M, D), whose first number it then is;
    (B, 1) without."""
    if source is None:
        return lengths[:, None]
    first = source.new_zeros(len(source), 1, *source.shape[2:])
    first.flatten(1)[:, 0] = lengths.to(source)
    return torch.cat([first, source], dim=1)


def untell(condition: Tensor) -> tuple[Tensor, Tensor | None]:
    """What `tell` made -> lengths (B,) and the source, or None."""
    source = condition[:, 1:]
    lengths = condition[:, 0].flatten(1)[:, 0] if condition.ndim == 3 else condition[:, 0]
    return lengths.long(), source if source.shape[1] else None


def limited(scores: Tensor, lengths: Tensor) -> Tensor:
    """Scores of tokens (B, L, V), -inf where a token cannot stand in rows of these lengths (B,):
    up to them stands what has a reading, then EOS, then PAD."""
    places = torch.arange(scores.shape[1], device=scores.device)
    after = (places - lengths.to(scores.device)[:, None]).clamp(-1, 1) + 1  # 0 before the end
    kinds = torch.zeros(scores.shape[2], dtype=torch.long, device=scores.device)
    kinds[EOS], kinds[PAD], kinds[BOS] = 1, 2, 3
    return scores.masked_fill(after[..., None] != kinds, -torch.inf)


class Lengths(nn.Module):
    """How long training sentences are: counts (M + 1, L), by the tokens of their source and their
    own; row 0, which stands for no source, holds all of them.

    As `beside` of a learner it tells the network the length of each sentence.
    """

    def __init__(self, counts: Tensor) -> None:
        super().__init__()
        self.counts: Tensor
        self.register_buffer("counts", counts, persistent=False)

    def forward(self, data: Tensor, condition: Tensor | None, keys: Tensor) -> Tensor:
        return tell(count(data), condition)

    def law(self, source: Tensor | None, possible: Tensor) -> Tensor:
        """p(length) of n sentences (n, L), float64, among those that are possible (n, L). Where the
        source (n, ...) has a number of tokens, or the lengths are ones, that no training sentence
        has, it is taken from all of them, and then from nowhere: all are alike."""
        tokens = torch.zeros(len(possible), dtype=torch.long)
        if source is not None and source.ndim == 2:
            tokens = (source != PAD).sum(1).clamp(max=len(self.counts) - 1).cpu()
        counts, possible = self.counts.cpu().double(), possible.double()
        law = counts[tokens] * possible
        for other in (counts[0] * possible, possible):
            law = torch.where(law.sum(1, keepdim=True) > 0, law, other)
        return law / law.sum(1, keepdim=True)

    def draw(self, seeds: Sequence[int], source: Tensor | None, possible: Tensor) -> Tensor:
        """A length for each seed (n,) from `law`, a function of the seed alone. At least one length
        of each must be possible."""
        reached = self.law(source, possible).cumsum(1)
        uniform = noise.uniform(seeds, LENGTH).double()[:, None]
        return (reached >= uniform * reached[:, -1:]).int().argmax(1)


def write_lengths(rows: Rows, run: Path) -> None:
    """Count the lengths of the training rows; keep them in the run folder."""
    tokens = torch.zeros(len(rows), dtype=torch.long)
    if isinstance(rows.sources, Tensor):
        tokens = (rows.sources != PAD).sum(1)
    counts = torch.zeros(int(tokens.max()) + 1, rows.ids.shape[1], dtype=torch.long)
    counts.index_put_((tokens, count(rows.ids)), torch.ones_like(tokens), accumulate=True)
    counts[0] = counts.sum(0)
    write_text(run / FILE, json.dumps({"by_tokens_of_the_source": counts.tolist()}))


def read_lengths(run: Path) -> Lengths:
    """What `write_lengths` kept. CheckpointError when it does not read."""
    path = run / FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["by_tokens_of_the_source"]
        return Lengths(torch.tensor(found, dtype=torch.long))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path}: not the lengths of training sentences ({error!r}); the run is damaged"
        ) from None
