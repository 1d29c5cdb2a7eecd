"""`diptych evaluate` for sentences: perplexity under a judge, never without the entropy beside it.

Every number has the data's own beside it, see `text.yardstick`. On request, the likelihood of
held-out sentences under the model itself, their end included: exact for the causal reference, an
upper bound on -log p for diffusion, which also has to say that nothing follows.
"""

from typing import Any

import torch

from shared.learner import DiffusionLearner
from shared.likelihood import Likelihood
from shared.provenance import provenance
from shared.runs import Run
from shared.scoring import BOUND, EXACT, TRIED, UNDEFINED, Split, measured, score, told
from shared.task import EvaluateRequest, Panel
from shared.tokenizer import PAD
from text.baseline import CausalLM
from text.data import fixed_order
from text.pipeline import Pipeline
from text.yardstick import Yardstick, find_yardstick


def evaluate(run: Run, request: EvaluateRequest, panel: Panel) -> dict[str, Any]:
    """Draw request.n sentences from a run and measure them."""
    pipeline = Pipeline.from_pretrained(run.folder, request.weights)
    yardstick = find_yardstick(run, panel)
    texts = pipeline.write(request.seeds, request, progress=True).texts
    result = yardstick.measure(texts)
    if request.likelihood:
        result["likelihood"] = _likelihood(pipeline, yardstick, request)
    return result | circumstances(yardstick, request)


def circumstances(yardstick: Yardstick, request: EvaluateRequest) -> dict[str, Any]:
    """What the numbers hold for: data, judge, settings, provenance."""
    held_out = yardstick.held_out
    return {
        "held_out": {"sentences": len(held_out), "dropped": held_out.dropped},
        "judge": yardstick.judge.facts,
        "settings": {
            "model": yardstick.config.model,
            **request.settings(),
            "seed": request.seed,
            "weights": request.weights,
            "precision": "fp32",
        },
        "provenance": provenance(),
    }


@torch.no_grad()
def _likelihood(
    pipeline: Pipeline, yardstick: Yardstick, request: EvaluateRequest
) -> dict[str, Any]:
    """-log p of request.n held-out sentences, or all there are, or a bound on it."""
    training, held_out, learner = yardstick.training, yardstick.held_out, pipeline.learner
    ids = held_out.ids[fixed_order(len(held_out))[: request.n]]
    tokens = (ids != PAD).sum(1)
    if isinstance(learner, CausalLM):
        device = next(learner.parameters()).device
        nats = torch.cat([learner.nll(some.to(device)).double().sum(1) for some in ids.split(64)])
        found = Likelihood({"exact": nats.cpu()}, ids.shape[1], draws=1, nfe=1)
        facts, perplexity = told(found, EXACT, "sentence"), "perplexity"
    else:
        assert isinstance(learner, DiffusionLearner)
        choose = Split(training.ids[fixed_order(len(training))[:TRIED]])
        scored = score(learner, Split(ids), choose, request.draws, request.seed)
        if scored is None:
            return {"what": UNDEFINED}
        found = scored.likelihood
        facts, perplexity = told(found, BOUND, "sentence"), "perplexity_bound"
        facts["cleanest_logsnr"] = scored.cleanest_logsnr
    facts |= measured("nats_per_token", found.nats_per_token(tokens))
    facts |= measured(perplexity, found.perplexity(tokens))
    data = yardstick.config.data
    facts |= {"tokens": int(tokens.sum()), "split": data.held_out}
    if data.name == "scene":
        from text.teller import entropy

        floor = entropy(only=data.narrowed())
        facts |= {
            "nats_per_sentence_floor": floor,
            "nats_per_token_floor": floor / float(tokens.double().mean()),
        }
    return facts
