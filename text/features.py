"""The models in whose features sentences are compared, each with a name that says which one it is.

A feature is the last hidden state at the last token of a sentence. Values mean something beside
others in the same features only.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from shared.errors import UNREADABLE, CheckpointError, ConfigError
from shared.frozen import weights_digest
from shared.tokenizer import BOS, PAD
from text.judge import Judge

JUDGE, FOLDER = "judge", "transformers"
ROWS = 64


class FeatureModel(Protocol):
    """What sentences are seen through."""

    @property
    def facts(self) -> dict[str, Any]:
        """For a report; its "name" says which model with which weights."""
        ...

    def features(self, texts: Sequence[str]) -> Tensor:
        """Sentences -> (N, D) float32, on the CPU."""
        ...


class JudgeFeatures:
    """The causal model that the suite trains on the same data, just before it ends the sentence."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self.facts: dict[str, Any] = {"name": judge.name}

    @torch.no_grad()
    def features(self, texts: Sequence[str]) -> Tensor:
        encoded = [[BOS, *self.judge.tokenizer.encode(text)] for text in texts]
        device = next(self.judge.model.parameters()).device
        found: list[Tensor] = []
        for first in range(0, len(encoded), ROWS):
            some = encoded[first : first + ROWS]
            width = max(map(len, some))
            rows = torch.tensor([ids + [PAD] * (width - len(ids)) for ids in some], device=device)
            states = self.judge.model.model.transformer(input_ids=rows).last_hidden_state
            ends = torch.tensor([len(ids) - 1 for ids in some], device=device)
            found.append(states[torch.arange(len(some), device=device), ends].float().cpu())
        return torch.cat(found)


class FolderFeatures:
    """A model and its tokenizer as `from_pretrained` reads them. CheckpointError for a folder that
    does not load; pickled weights are not opened."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModel, AutoTokenizer

        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model: Any = AutoModel.from_pretrained(
                folder, local_files_only=True, use_safetensors=True
            )
        except UNREADABLE as error:
            raise CheckpointError(
                f"features = {FOLDER}:{folder}: not readable as a model and a tokenizer of "
                f"transformers: {error}"
            ) from None
        if model.config.is_encoder_decoder:
            raise CheckpointError(
                f"features = {FOLDER}:{folder}: a {type(model).__name__}, which reads one text and "
                "writes another; expected a model that reads one, such as GPT2Model"
            )
        self.model = model.eval().float().requires_grad_(False)
        if torch.cuda.is_available():
            self.model.cuda()
        self.facts: dict[str, Any] = {
            "name": f"{folder.name}-{weights_digest(self.model)}",
            "parameters": sum(p.numel() for p in self.model.parameters()),
        }

    @torch.no_grad()
    def features(self, texts: Sequence[str]) -> Tensor:
        found: list[Tensor] = []
        for text in texts:  # one by one: a padded row may have other features than it has alone
            ids = self.tokenizer(text, truncation=True, return_tensors="pt")["input_ids"]
            if not ids.shape[1]:  # nothing was said: as it is told that a text begins
                ids = torch.tensor([[self.tokenizer.bos_token_id or 0]])
            states = self.model(input_ids=ids.to(self.model.device)).last_hidden_state
            found.append(states[0, -1].float().cpu())
        return torch.stack(found)


def build_features(asked: str) -> FolderFeatures | None:
    """The model that `--features` asks for; None for the judge. ConfigError for another name."""
    if asked == JUDGE:
        return None
    name, _, folder = asked.partition(":")
    if name != FOLDER or not folder:
        raise ConfigError(
            f"features = {asked!r}: expected {JUDGE}, or {FOLDER}:FOLDER, a model and a "
            "tokenizer as from_pretrained reads them"
        )
    return FolderFeatures(Path(folder).expanduser())
