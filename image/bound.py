"""The likelihood of held-out pictures under the model itself, given their conditions where it has
any: an upper bound on -log p, in bits per dimension too.

Pictures are integers, and so are the data of the bound: what is noised to the cleanest level is
turned back into levels by the codec's log_prob, whose cost is the term `reconstruction`. On request
the density of the probability-flow ODE takes the place of the reverse process.
"""

from typing import Any

import torch
from torch import Tensor

from image.comparison import some_rows
from image.data import Pictures
from image.pipeline import Pipeline
from shared.learner import DiffusionLearner
from shared.likelihood import Likelihood
from shared.requests import EvaluateRequest
from shared.scoring import TRIED, UNDEFINED, Split, bounds, measured


def likelihood(
    pipeline: Pipeline, training: Pictures, held_out: Pictures, request: EvaluateRequest
) -> dict[str, Any]:
    """The bound on request.n held-out pictures, or all there are, given their conditions."""
    measure, choose = (
        _split(pipeline, some, some_rows(len(some), min(n, len(some)), request.seed))
        for some, n in ((held_out, request.n), (training, TRIED))
    )
    learner, config = pipeline.learner, pipeline.config
    assert isinstance(learner, DiffusionLearner)
    assert config is not None
    facts = bounds(learner, measure, choose, request, "picture", _by_dim)
    if facts is None:
        return {"what": UNDEFINED}
    facts["split"] = request.split or config.data.held_out
    if config.data.name == "scene":  # a picture is a function of its scene
        facts["nats_per_picture_floor"] = 0.0
    return facts


def _by_dim(found: Likelihood) -> dict[str, Any]:
    return measured("bits_per_dim", found.bits_per_dim) | {"dims": found.dims}


def _split(pipeline: Pipeline, pictures: Pictures, rows: Tensor) -> Split:
    """Of a model that reads pictures, given those made of the same ones, without noise."""
    data, condition = pictures.take(rows)[0], pipeline.conditions_of(pictures, rows)
    if pipeline.beside is not None:
        made, a = pipeline.beside.made(data, rows), torch.zeros(len(rows))
        condition = pipeline.beside.row(made, a, condition, rows)
    return Split(data, condition)
