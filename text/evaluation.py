"""`diptych evaluate` for sentences: perplexity under a judge, never without the entropy beside it.

Every number has the data's own beside it: the held-out sentences' perplexity under the same judge
and the entropy of as many of them (a finite sample's entropy grows with its size).
"""

import math
from typing import Any

import torch

from shared.provenance import provenance
from shared.runs import Run
from shared.task import Panel, SampleRequest
from shared.tokenizer import FILE, PAD, load_tokenizer
from text.config import TextConfig
from text.data import Rows, read_sentences, to_rows
from text.judge import find_judge
from text.metrics import diversity, perplexity
from text.pipeline import Pipeline


def evaluate(run: Run, request: SampleRequest, panel: Panel) -> dict[str, Any]:
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
    texts = pipeline(
        num_inference_steps=request.steps,
        solver=request.solver,
        temperature=request.temperature,
        seeds=range(request.seed, request.seed + request.n),
        progress=True,
    ).texts
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
    return result | {
        "held_out": {"sentences": len(references), "dropped": held_out.dropped},
        "judge": judge.facts,
        "settings": {
            "model": config.model,
            "solver": request.solver,
            "steps": request.steps,
            "temperature": request.temperature,
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


def _some(sentences: list[str], n: int) -> list[str]:
    """n of the sentences, always the same ones: files are often sorted, so not the first n."""
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(sentences), generator=generator).tolist()
    return [sentences[i] for i in order[:n]]
