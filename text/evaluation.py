"""`diptych evaluate` for sentences: perplexity under a judge, never without the entropy beside it.

Every number has the data's own beside it: the held-out sentences' perplexity under the same judge
and the entropy of as many of them (a finite sample's entropy grows with its size). On request, the
likelihood of held-out sentences under the model itself, their end included: exact for the causal
reference, an upper bound on -log p for diffusion, which also has to say that nothing follows.
"""

import math
from typing import Any

import torch

from shared.learner import DiffusionLearner
from shared.likelihood import Likelihood
from shared.provenance import provenance
from shared.runs import Run
from shared.scoring import BOUND, EXACT, TRIED, UNDEFINED, Split, measured, score, told
from shared.task import EvaluateRequest, Panel
from shared.tokenizer import FILE, PAD, load_tokenizer
from text.baseline import CausalLM
from text.config import TextConfig
from text.data import Rows, read_sentences, to_rows
from text.judge import find_judge
from text.metrics import diversity, perplexity
from text.pipeline import Pipeline


def evaluate(run: Run, request: EvaluateRequest, panel: Panel) -> dict[str, Any]:
    """Draw request.n sentences from a run and measure them."""
    config: TextConfig = run.config
    pipeline = Pipeline.from_pretrained(run.folder, request.weights)
    tokenizer = load_tokenizer(run.folder / FILE)
    training = read_sentences(config.data)
    rows = to_rows(training, tokenizer, config.data.length)
    held_out = to_rows(read_sentences(config.data, held_out=True), tokenizer, config.data.length)
    # as the model could have written them: what the tokenizer does not know reads <unk>
    references = [tokenizer.decode(ids) for ids in held_out.ids.tolist()]
    known = {tokenizer.decode(ids) for ids in rows.ids.tolist()}
    judge = find_judge(config, rows.ids, panel)
    texts = pipeline.write(request.seeds, request, progress=True).texts
    ours, theirs = (
        perplexity.compute(sentences, judge.model, judge.tokenizer)
        for sentences in (texts, references)
    )
    result: dict[str, Any] = {
        "samples": len(texts),
        "perplexity": ours["perplexity"],
        "perplexity_held_out": theirs["perplexity"],
        "perplexity_ratio": ours["perplexity"] / theirs["perplexity"],
        "mean_perplexity": ours["mean_perplexity"],
        "mean_perplexity_held_out": theirs["mean_perplexity"],
        **diversity.compute(texts, _some(references, len(texts)), known),
    }
    if config.data.name == "scene":
        result |= _against_the_grammar(texts, held_out, config.data.narrowed())
    if request.likelihood:
        result["likelihood"] = _likelihood(pipeline, rows, held_out, request)
    return result | {
        "held_out": {"sentences": len(references), "dropped": held_out.dropped},
        "judge": judge.facts,
        "settings": {
            "model": config.model,
            **request.settings(),
            "seed": request.seed,
            "weights": request.weights,
            "precision": "fp32",
        },
        "provenance": provenance(),
    }


def _against_the_grammar(
    texts: list[str], held_out: Rows, only: dict[str, str]
) -> dict[str, float]:
    """The share of sentences that parse, and the perplexity of the scene world itself: the least
    that any model can have on average over its sentences."""
    from text.reader import grammatical
    from text.teller import entropy

    tokens = float((held_out.ids != PAD).sum() / len(held_out))
    return {
        "grammatical": sum(map(grammatical, texts)) / len(texts),
        "perplexity_floor": math.exp(entropy(only=only) / tokens),
    }


@torch.no_grad()
def _likelihood(
    pipeline: Pipeline, training: Rows, held_out: Rows, request: EvaluateRequest
) -> dict[str, Any]:
    """-log p of request.n held-out sentences, or all there are, or a bound on it."""
    ids, learner = held_out.ids[_order(len(held_out))[: request.n]], pipeline.learner
    tokens = (ids != PAD).sum(1)
    if isinstance(learner, CausalLM):
        device = next(learner.parameters()).device
        nats = torch.cat([learner.nll(some.to(device)).double().sum(1) for some in ids.split(64)])
        found = Likelihood({"exact": nats.cpu()}, ids.shape[1], draws=1, nfe=1)
        facts, perplexity = told(found, EXACT, "sentence"), "perplexity"
    else:
        assert isinstance(learner, DiffusionLearner)
        choose = Split(training.ids[_order(len(training))[:TRIED]])
        scored = score(learner, Split(ids), choose, request.draws, request.seed)
        if scored is None:
            return {"what": UNDEFINED}
        found = scored.likelihood
        facts, perplexity = told(found, BOUND, "sentence"), "perplexity_bound"
        facts["cleanest_logsnr"] = scored.cleanest_logsnr
    facts |= measured("nats_per_token", found.nats_per_token(tokens))
    facts |= measured(perplexity, found.perplexity(tokens))
    facts |= {"tokens": int(tokens.sum()), "split": pipeline.config.data.held_out}
    if pipeline.config.data.name == "scene":
        from text.teller import entropy

        floor = entropy(only=pipeline.config.data.narrowed())
        facts |= {
            "nats_per_sentence_floor": floor,
            "nats_per_token_floor": floor / float(tokens.double().mean()),
        }
    return facts


def _some(sentences: list[str], n: int) -> list[str]:
    """n of the sentences, always the same ones."""
    return [sentences[i] for i in _order(len(sentences))[:n].tolist()]


def _order(count: int) -> torch.Tensor:
    """All numbers below `count` in one fixed order: files are often sorted, so not in theirs."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))
