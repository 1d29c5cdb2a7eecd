"""The judge of sentences: a causal model trained on the training split (see `shared.judges`)."""

import dataclasses
from typing import Any

import torch

from shared.judges import trained_judge
from shared.task import Panel
from shared.tokenizer import FILE, Tokenizer, load_tokenizer
from text.baseline import CausalLM
from text.config import DataConfig, TextConfig


@dataclasses.dataclass(frozen=True)
class Judge:
    """A trained judge with its tokenizer and a name that says which one it is."""

    model: CausalLM
    tokenizer: Tokenizer
    name: str
    facts: dict[str, Any]

    def reads(self, sentence: str) -> bool:
        """Whether a sentence is short enough to be judged."""
        return len(self.tokenizer.encode(sentence)) <= self.model.length


def find_judge(config: TextConfig, ids: torch.Tensor, panel: Panel) -> Judge:
    """The judge of a run's data: from the cache, or trained now.

    ids (N, L) are the run's training rows: their digest names the judge with its settings. A judge
    of pieces of words reads a quarter more: what a model wrote in pieces may, read again, have more
    of them.
    """
    data = config.data
    length = data.length if data.tokenizer == "word" else data.length * 5 // 4
    settings = TextConfig(
        model="causal",
        data=dataclasses.replace(
            data,
            length=length,
            source=None,
            source_signs=False,
            source_length=DataConfig.source_length,
            partial_sources=0.0,
        ),
        net=config.judge.net,
        train=config.judge.train,
    )
    parts = ("data", "net", "train")
    stated = {key: dataclasses.asdict(getattr(settings, key)) for key in parts}
    model, run, facts = trained_judge(settings, stated, (ids,), panel)
    assert isinstance(model, CausalLM)
    model.autocast = None
    facts |= {"kind": "GPT-2-shaped causal model trained by this suite on the training split"}
    return Judge(model, load_tokenizer(run / FILE), run.name, facts)
