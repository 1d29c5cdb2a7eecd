"""`diptych evaluate` for sentence autoencoders: what comes back of held-out sentences."""

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from shared.errors import ConfigError
from shared.provenance import provenance
from shared.requests import EvaluateRequest
from shared.runs import Run, load_learner
from shared.tokenizer import FILE, PAD, load_tokenizer
from text.autoencoder.health import ROWS, examine, posteriors
from text.autoencoder.learner import AutoencoderLearner
from text.autoencoder.network import SentenceNetwork
from text.data import fixed_order, read_corpus, to_rows
from text.yardstick import of_split

SHOWN = 20


def evaluate(run: Run, request: EvaluateRequest) -> dict[str, Any]:
    """Of request.n held-out sentences, or all there are: shares that come back, nats, collapse."""
    if request.likelihood:
        raise ConfigError(
            "likelihood: an autoencoder alone has none of sentences; train a diffusion model on "
            "its latents with codec.kind=sentence, or leave it out"
        )
    learner = load_learner(run.folder, request.weights)
    assert isinstance(learner, AutoencoderLearner)
    network, device = learner.network, next(learner.parameters()).device
    tokenizer = load_tokenizer(run.folder / FILE)
    data = of_split(run.config, request.split).data
    held_out = to_rows(read_corpus(data, held_out=True), tokenizer, data)
    ids = held_out.ids[fixed_order(len(held_out))[: request.n]].to(device)
    if len(ids) < 2:
        raise ConfigError(f"n = {len(ids)}: expected two held-out sentences or more")
    health = examine(network, ids, request.seed)
    written, facts = reconstruct(network, ids)
    pairs = [
        [tokenizer.decode(a), tokenizer.decode(b)]
        for a, b in zip(ids[:SHOWN].tolist(), written[:SHOWN].tolist(), strict=True)
    ]
    return {
        "sentences": len(ids),
        "split": data.held_out,
        **facts,
        **asdict(health),
        "collapsed": health.collapsed,
        "decoder_ignores_latents": health.ignored,
        "settings": {"seed": request.seed, "weights": request.weights, "precision": "fp32"},
        "reconstructions": pairs,
        "provenance": provenance(),
    }


@torch.no_grad()
def reconstruct(network: SentenceNetwork, ids: Tensor) -> tuple[Tensor, dict[str, float]]:
    """ids (N, L) -> what the decoder writes, greedily, at the mean of each posterior (N, length),
    and shares: of sentences that come back exactly, and of tokens in their place, the end
    included."""
    z = posteriors(network, ids)[0]
    written = torch.cat([network.write(part) for part in z.split(ROWS)])
    nll = torch.cat(
        [network.nll(a, b).sum(1) for a, b in zip(ids.split(ROWS), z.split(ROWS), strict=True)]
    )
    width = max(written.shape[1], ids.shape[1])
    ours, theirs = (torch.nn.functional.pad(x, (0, width - x.shape[1])) for x in (written, ids))
    counts = theirs != PAD
    return written, {
        "exact": float((ours == theirs).all(1).double().mean()),
        "token_accuracy": float((ours == theirs)[counts].double().mean()),
        "reconstruction_nats_per_sentence": float(nll.double().mean()),
    }
