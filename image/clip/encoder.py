"""Dual encoders that judge, choose and guide pictures: runs of ours, or CLIP models in folders.

    diptych train image/clip_emoji run=runs/clip      then --clip runs/clip
    a CLIPModel of transformers with its tokenizer and preprocessor_config.json      --clip FOLDER

Each has a name that says which network with which weights it is: a score of one means nothing
beside that of another. It also says what it was trained on, where that is known: captions that it
has seen in training are easier for it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from image.clip.learner import ClipLearner
from image.config import ImageConfig
from image.data import DataFacts, read_facts
from image.data_config import DataConfig
from shared.errors import CheckpointError, ConfigError
from shared.frozen import weights_digest
from shared.levels import signed
from shared.prompts import check_words, pad_rows
from shared.runs import load_learner, open_run
from shared.tokenizer import FILE, UNK, load_tokenizer

ROWS = 128  # pictures or captions at once


class Encoder(Protocol):
    """Pictures and captions as points of unit length, whose product is their cosine."""

    @property
    def name(self) -> str:
        """Which network with which weights: of two that differ, never the same."""
        ...

    @property
    def facts(self) -> dict[str, Any]:
        """For a report."""
        ...

    @property
    def data(self) -> DataConfig | None:
        """What it was trained on; None when that is not known."""
        ...

    @property
    def scale(self) -> float:
        """What cosines are multiplied by to be logits, nats."""
        ...

    def check(self, shape: tuple[int, int, int]) -> None:
        """ConfigError unless it can see pictures of this shape (C, H, W)."""
        ...

    def check_prompt(self, prompt: str) -> None:
        """ConfigError unless it knows the words."""
        ...

    def pictures(self, images: Tensor, levels: int) -> Tensor:
        """images (N, C, H, W), integers in [0, levels) -> points (N, D), float32, on the CPU."""
        ...

    def captions(self, texts: Sequence[str]) -> Tensor:
        """N texts, as much of each as it reads -> points (N, D), float32, on the CPU."""
        ...

    def see(self, x: Tensor) -> Tensor:
        """x (B, C, H, W), about [-1, 1] -> points (B, D), differentiable, where x is."""
        ...


class RunEncoder:
    """A run of `model: clip`."""

    def __init__(self, run: Path, weights: str = "ema") -> None:
        learner = load_learner(run, weights)
        assert isinstance(learner, ClipLearner)
        self.network = learner.network.requires_grad_(False)
        self.tokenizer = load_tokenizer(run / FILE)
        self.seen: DataFacts = read_facts(run)
        config: ImageConfig = open_run(run).config
        self.data: DataConfig | None = config.data
        self.run, self.length = run, config.data.caption_length
        self.name = f"{run.name}-{weights_digest(self.network)}"
        self.facts: dict[str, Any] = {
            "kind": "dual encoder trained by this suite",
            "parameters": sum(p.numel() for p in self.network.parameters()),
            "trained_on": f"{config.data.name}, {config.data.split}",
            "trained_on_images": self.seen.images,
        }

    @property
    def scale(self) -> float:
        return float(self.network.scale)

    def check(self, shape: tuple[int, int, int]) -> None:
        if shape != self.seen.shape:
            raise ConfigError(
                f"clip = {self.run}: it has learned pictures {self.seen.shape}, channels, height "
                f"and width, and is to see {shape}; train it on pictures of that shape (data.size, "
                "data.channels)"
            )

    def check_prompt(self, prompt: str) -> None:
        check_words(f"clip = {self.run}, prompt", prompt, self.tokenizer)

    @torch.no_grad()
    def pictures(self, images: Tensor, levels: int) -> Tensor:
        self.check((int(images.shape[1]), int(images.shape[2]), int(images.shape[3])))
        parts = [part.to(self._device) for part in images.split(ROWS)]
        return torch.cat([self.see(signed(part, levels)).cpu() for part in parts])

    @torch.no_grad()
    def captions(self, texts: Sequence[str]) -> Tensor:
        ids = [self.tokenizer.encode(text)[: self.length] or [UNK] for text in texts]
        rows = pad_rows(ids, self.length).to(self._device)
        return torch.cat([self.network.captions(part).cpu() for part in rows.split(ROWS)])

    def see(self, x: Tensor) -> Tensor:
        return self.network.pictures(x)

    @property
    def _device(self) -> torch.device:
        return self.network.log_scale.device


def open_encoder(named: str, shape: tuple[int, int, int]) -> Encoder:
    """The run or the folder of that name, for pictures of a shape (C, H, W), on the GPU if there is
    one. ConfigError for a run of another model or pictures of another shape, CheckpointError for
    what is neither."""
    folder = Path(named).expanduser()
    if (folder / "config.yaml").is_file():
        config = open_run(folder).config
        if not isinstance(config, ImageConfig) or config.model != "clip":
            raise ConfigError(
                f"clip = {named}: a run of model: {getattr(config, 'model', None)}; expected one "
                "of model: clip, such as `diptych train image/clip_scene` makes"
            )
        encoder: Encoder = RunEncoder(folder)
    elif (folder / "config.json").is_file():
        from image.clip.folder import FolderEncoder  # seconds of transformers

        encoder = FolderEncoder(folder)
    else:
        raise CheckpointError(
            f"clip = {named}: neither a run of model: clip nor a folder of a CLIPModel of "
            "transformers (config.json, model.safetensors, tokenizer, preprocessor_config.json)"
        )
    encoder.check(shape)
    return encoder
