"""How sure a diffusion model is of sentences: its own loss of them, so that several can be ranked.

    loss(w) = 1/K sum_k l(w; t_k, eps_k, source),    t_k = (k - 1/2) / K

with l the loss that training minimises, at the levels where training has most to learn: an estimate
of the bound on -log p(w | source), in nats a place, weighed as in training. All sentences of a call
get the same noise at the same level, so that their differences are estimated far better than their
values (common random numbers; Glasserman & Yao 1992).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from shared.learner import DiffusionLearner
from shared.objective import sample_keys
from text.mbr import Candidate, best_first

DRAWS = 32  # K
CHUNK = 256  # sentences at once


@torch.no_grad()
def own_losses(
    learner: DiffusionLearner, rows: Tensor, condition: Tensor | None, draws: int = DRAWS
) -> Tensor:
    """Rows of ids (n, L) and their condition (n, M, ...), or None -> the model's loss of each (n,),
    on the CPU; the lower, the surer. Each draw is one evaluation, or two with self-conditioning."""
    starts = [slice(i, i + CHUNK) for i in range(0, len(rows), CHUNK)]
    parts = [
        _losses(learner, rows[some], None if condition is None else condition[some], draws)
        for some in starts
    ]
    return torch.cat(parts)


def surest_each(
    texts: Sequence[str], losses: Sequence[float], seeds: Sequence[int], count: int
) -> list[list[Candidate]]:
    """The draws of several samples, `count` of each in turn, with their losses -> the different
    ones of every sample, the surest first; their score is -loss."""
    ranked: list[list[Candidate]] = []
    for start in range(0, len(texts), count):
        own = slice(start, start + count)
        scores = {text: -loss for text, loss in zip(texts[own], losses[own], strict=True)}
        ranked.append(best_first(texts[own], seeds[own], scores.__getitem__))
    return ranked


def _losses(
    learner: DiffusionLearner, rows: Tensor, condition: Tensor | None, draws: int
) -> Tensor:
    device = next(learner.parameters()).device
    rows = rows.to(device)
    condition = None if condition is None else condition.to(device)
    total = torch.zeros(len(rows), device=device)
    for draw in range(draws):
        keys = sample_keys(draw, torch.zeros(len(rows), dtype=torch.long, device=device))
        t = torch.full((len(rows),), (draw + 0.5) / draws, device=device)
        total += learner.losses(rows, condition, keys, t)[0]
    return (total / draws).cpu()
