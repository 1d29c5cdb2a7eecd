"""`diptych evaluate` for operators: held-out accuracy, at the clean end and under noise."""

import json
from typing import Any

import torch

from shared.errors import ConfigError
from shared.provenance import provenance
from shared.requests import EvaluateRequest
from shared.runs import Run, load_learner
from shared.schedule import variance_preserving
from text.autoencoder.codec import load_codec
from text.data import Rows, fixed_order
from text.operators.data import LABELS, labelled_rows, latent_rows
from text.operators.learner import Operator
from text.yardstick import of_split

LOGSNRS = (12.0, 4.0, 2.0, 0.0, -2.0, -4.0)


@torch.no_grad()
def evaluate(run: Run, request: EvaluateRequest) -> dict[str, Any]:
    """Of request.n held-out sentences, or all there are: accuracy and nats at several levels, and
    the share of the most frequent class."""
    if request.likelihood:
        raise ConfigError("likelihood: an operator tells classes, it writes nothing; leave it out")
    operator = load_learner(run.folder, request.weights)
    assert isinstance(operator, Operator)
    data = of_split(run.config, request.split).data
    rows = labelled_rows(data, run.folder, operator.classes, held_out=True)
    chosen = fixed_order(len(rows))[: request.n]
    ids, classes = rows.take(chosen)
    assert classes is not None
    device = next(operator.parameters()).device
    x0 = latent_rows(load_codec(run.folder), Rows(ids, None, 0)).x0.to(device)
    labels = classes[:, 0].to(device) - 1
    generator = torch.Generator().manual_seed(request.seed)
    eps = torch.randn(x0.shape, generator=generator).to(x0)
    levels: dict[str, dict[str, float]] = {}
    for logsnr in LOGSNRS if operator.noised else (float("inf"),):
        level = variance_preserving(x0.new_tensor(logsnr))
        log_probs = operator.log_probs(level.alpha * x0 + level.sigma * eps, level)
        right = (log_probs.argmax(1) == labels).double().mean()
        nats = -log_probs.gather(1, labels[:, None]).double().mean()
        levels[f"{logsnr:g}"] = {"accuracy": float(right), "nats": float(nats)}
    counts = labels.bincount(minlength=len(operator.classes)).double()
    return {
        "sentences": len(x0),
        "split": data.held_out,
        "classes": operator.classes,
        "accuracy": next(iter(levels.values()))["accuracy"],
        "most_frequent_class": float(counts.max() / counts.sum()),
        "by_logsnr": levels,
        "training": json.loads((run.folder / LABELS).read_text(encoding="utf-8")),
        "settings": {"seed": request.seed, "weights": request.weights, "precision": "fp32"},
        "provenance": provenance(),
    }
