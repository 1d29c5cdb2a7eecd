"""The judge: a causal model trained on the training split, kept between runs in the cache folder.

It is a run like any other (`model: causal`), trained by the same engine, in a folder named by the
digest of what it depends on, so that one judge serves every run on the same data and an
interrupted one goes on.
"""

import dataclasses
import hashlib
import json
from typing import Any

import torch

from shared.files import cache_dir
from shared.runs import load_learner
from shared.task import Panel
from shared.tokenizer import FILE, Tokenizer, load_tokenizer
from shared.train.loop import train
from text.baseline import CausalLM
from text.config import TextConfig

VERSION = 1  # of what the judge is; raise it when its architecture or training changes


@dataclasses.dataclass(frozen=True)
class Judge:
    """A trained judge with its tokenizer and a name that says which one it is."""

    model: CausalLM
    tokenizer: Tokenizer
    name: str
    facts: dict[str, Any]


def find_judge(config: TextConfig, ids: torch.Tensor, panel: Panel) -> Judge:
    """The judge of a run's data: from the cache, or trained now.

    ids (N, L) are the run's training rows: their digest names the judge with its settings.
    """
    settings = TextConfig(
        model="causal", data=config.data, net=config.judge.net, train=config.judge.train
    )
    stated = {"data": settings.data, "net": settings.net, "train": settings.train}
    described = {key: dataclasses.asdict(value) for key, value in stated.items()}
    digest = hashlib.sha256(json.dumps([VERSION, described], sort_keys=True).encode())
    digest.update(ids.contiguous().numpy().tobytes())
    name = f"text-judge-{digest.hexdigest()[:12]}"
    run = cache_dir() / name
    trained = train(settings, run, panel)
    model = load_learner(run)
    assert isinstance(model, CausalLM)
    model.autocast = None
    facts = {
        "name": name,
        "kind": "GPT-2-shaped causal model trained by this suite on the training split",
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": trained["step"],
    }
    return Judge(model, load_tokenizer(run / FILE), name, facts)
