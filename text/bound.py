"""The likelihood of held-out sentences under the model itself, their end included: exact for the
causal reference, an upper bound on -log p for diffusion, which also has to say that nothing
follows. Where sentences are written from sources it is that of a sentence given its source.
"""

from typing import Any

import torch
from torch import Tensor

from shared.errors import ConfigError
from shared.learner import DiffusionLearner
from shared.likelihood import Likelihood
from shared.requests import EvaluateRequest
from shared.scoring import EXACT, TRIED, UNDEFINED, Split, bounds, likelihood_facts, measured
from shared.tokenizer import PAD
from text.baseline import CausalLM
from text.data import Rows, fixed_order
from text.metrics.faithfulness import read_source
from text.pipeline import Pipeline
from text.yardstick import Yardstick

CHUNK = 64  # sentences that the causal reference reads at once


@torch.no_grad()
def likelihood(
    pipeline: Pipeline, yardstick: Yardstick, request: EvaluateRequest
) -> dict[str, Any]:
    """-log p of request.n held-out sentences, or all there are, or a bound on it."""
    learner, split = pipeline.learner, _some(yardstick.held_out, request.n)
    tokens, decode = (split.data != PAD).sum(1), yardstick.tokenizer.decode
    characters = torch.tensor([len(decode(ids)) for ids in split.data.tolist()])
    exact = isinstance(learner, CausalLM)

    def by_token(found: Likelihood) -> dict[str, Any]:
        own = tokens[: len(found.nats)]
        perplexity = "perplexity" if exact else "perplexity_bound"
        shares = measured("nats_per_token", found.nats_per_token(own))
        shares |= measured("bits_per_char", found.bits_per_char(characters[: len(own)]))
        return shares | measured(perplexity, found.perplexity(own))

    if isinstance(learner, CausalLM):
        if request.ode:
            raise ConfigError("ode: a causal model's likelihood is exact without it; leave it out")
        nats = _exact(learner, split)
        found = Likelihood({"exact": nats}, split.data.shape[1], draws=1, nfe=1)
        facts = likelihood_facts(found, EXACT, "sentence") | by_token(found)
    else:
        assert isinstance(learner, DiffusionLearner)
        choose = _some(yardstick.training, TRIED)
        bounded = bounds(learner, split, choose, request, "sentence", by_token)
        if bounded is None:
            return {"what": UNDEFINED}
        facts = bounded
    data = yardstick.config.data
    facts |= {"tokens": int(tokens.sum()), "split": data.held_out}
    if data.name == "scene":
        floor = _floor(yardstick, split)
        facts |= {
            "nats_per_sentence_floor": floor,
            "nats_per_token_floor": floor / float(tokens.double().mean()),
        }
    return facts


def _some(rows: Rows, n: int) -> Split:
    chosen = fixed_order(len(rows))[:n]
    return Split(*rows.take(chosen))


def _exact(learner: CausalLM, split: Split) -> Tensor:
    device = next(learner.parameters()).device
    nats: list[Tensor] = []
    for rows in torch.arange(len(split.data)).split(CHUNK):
        source = None if split.condition is None else split.condition[rows].to(device)
        nats.append(learner.nll(split.data[rows].to(device), source).double().sum(1).cpu())
    return torch.cat(nats)


def _floor(yardstick: Yardstick, split: Split) -> float:
    """The least nats per sentence that any model can have: the entropy of the scene world, or, of
    sentences given their scenes, the mean of -log p(sentence | scene) of these themselves."""
    from text.teller import entropy, log_prob_given

    if split.condition is None:
        return entropy(only=yardstick.config.data.narrowed())
    decode = yardstick.tokenizer.decode
    pairs = zip(split.data.tolist(), split.condition.tolist(), strict=True)
    given = [log_prob_given(decode(ids), read_source(decode(told)).scene()) for ids, told in pairs]
    return -sum(given) / len(given)
