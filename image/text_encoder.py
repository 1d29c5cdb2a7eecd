"""Frozen text encoders of transformers: captions -> the states that a network attends to.

A `CLIPTextModel` (Radford et al. 2021; in latent diffusion as Rombach et al. 2022 have text) or a
`T5EncoderModel` (Raffel et al. 2020; Saharia et al. 2022, Imagen, sec. 2.1). Kept are the last
states at a caption's own tokens, special ones included, and zeros behind them, which nothing
attends to: they do not depend on what a caption stands beside. With `data.pad_captions` captions
are padded first, and padding is read and kept as any token, as Stable Diffusion has it. Without a
condition a network sees those of the empty caption. A run keeps a copy, as transformers writes it:

    RUN/text_encoder/                      the model, its tokenizer
    RUN/text_encoder/empty.safetensors     states of the empty caption (1, L, D)
    RUN/captions/00000.safetensors         those of the training captions: states (T, D) of n
                                           distinct ones, counts (n,), which (pictures,)

and the digest of that copy in data.json.
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from image.data import FACTS, Pictures, read_facts
from image.data_config import DataConfig
from image.shards import Make, shards
from shared.errors import UNREADABLE, CheckpointError, ConfigError
from shared.files import make_folder
from shared.tables import expand
from shared.task import Examples

FOLDER, EMPTY, CAPTIONS = "text_encoder", "empty.safetensors", "captions"
ROWS = 64  # texts encoded at once
CLASSES: dict[str, Any] = {  # by the model_type of a configuration
    "clip_text_model": transformers.CLIPTextModel,
    "clip": transformers.CLIPTextModel,  # the text half of a whole CLIPModel
    "t5": transformers.T5EncoderModel,
}


class TextEncoder:
    """The encoder in a folder, or in the `text_encoder` and `tokenizer` of a pipeline's, for texts
    of at most `length` of its tokens, or `padded` to as many; in float32, on the GPU if there is
    one.

    CheckpointError for a folder that does not load; pickled weights are not opened. ConfigError
    when it reads no texts of that length.
    """

    def __init__(self, folder: Path, length: int, name: str, padded: bool = False) -> None:
        self.padded = padded
        whole = (folder / FOLDER / "config.json").is_file()
        self.folder, self.name, self.length = folder / FOLDER if whole else folder, name, length
        local: dict[str, Any] = {"local_files_only": True}
        try:
            self.config: Any = transformers.AutoConfig.from_pretrained(self.folder, **local)
            words = folder / "tokenizer" if whole else folder
            self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(words, **local)
        except UNREADABLE as error:
            raise self._unreadable(error) from None
        kind = str(self.config.model_type)
        if kind not in CLASSES:
            raise CheckpointError(f"{name}: a {kind}; expected one of {', '.join(CLASSES)}")
        text: Any = self.config.text_config if kind == "clip" else self.config
        most = getattr(text, "max_position_embeddings", None)  # T5 has no positions to run out of
        if most is not None and length > most:
            raise ConfigError(
                f"data.caption_length = {length}: {name} reads at most {most} tokens; set "
                f"data.caption_length={most} or less"
            )

    @cached_property
    def model(self) -> Any:
        """The model; loaded when it is first asked for."""
        transformers.utils.logging.disable_progress_bar()
        how: dict[str, Any] = {"local_files_only": True, "use_safetensors": True}
        try:
            model, report = CLASSES[self.config.model_type].from_pretrained(
                self.folder, output_loading_info=True, **how
            )
        except UNREADABLE as error:
            raise self._unreadable(error) from None
        if report["missing_keys"]:
            missing = f"weights that are not there, such as {min(report['missing_keys'])}"
            raise self._unreadable(missing)
        model.eval().float().requires_grad_(False)
        return model.cuda() if torch.cuda.is_available() else model

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each is, special ones included."""
        return [len(ids) for ids in self._ids(texts)]

    def __call__(self, texts: Sequence[str], name: str = "prompt") -> Tensor:
        """n texts, and what they are called -> states (n, length, D), float32, on the CPU, zeros
        behind. ConfigError for a text that is too long."""
        found = self.states(texts, name)
        rows = torch.zeros(len(found), self.length, found[0].shape[1])
        for row, states in zip(rows, found, strict=True):
            row[: len(states)] = states
        return rows

    @torch.no_grad()
    def states(self, texts: Sequence[str], name: str = "prompt") -> list[Tensor]:
        """n texts -> the states (t, D) of the t tokens of each, padding included if they are
        padded; otherwise as a call."""
        listed = self._ids(texts)
        for text, ids in zip(texts, listed, strict=True):
            if not 0 < len(ids) <= self.length:
                raise ConfigError(
                    f"{name} = {text[:80]!r}: {len(ids):,} tokens, expected 1 to {self.length}, "
                    "this model's data.caption_length"
                )
        found: list[Tensor] = []
        if self.padded:
            listed = self._ids(texts, padding="max_length", max_length=self.length)
        for first in range(0, len(listed), ROWS):
            some = [torch.tensor(ids) for ids in listed[first : first + ROWS]]
            ids = pad_sequence(some, batch_first=True).to(self.model.device)
            mask = pad_sequence([torch.ones_like(row) for row in some], batch_first=True)
            said = self.model(input_ids=ids, attention_mask=mask.to(ids.device))
            states = said.last_hidden_state.float().cpu()
            found += [row[: len(own)].clone() for row, own in zip(states, some, strict=True)]
        return found

    def save(self, folder: Path) -> None:
        """Write model, tokenizer and the states of the empty caption."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        save_file({"empty": self([""])}, folder / EMPTY)

    def _ids(self, texts: Sequence[str], **padding: Any) -> list[list[int]]:
        return self.tokenizer(list(texts), verbose=False, **padding)["input_ids"]

    def _unreadable(self, error: Exception | str) -> CheckpointError:
        return CheckpointError(
            f"{self.name}: not readable as a CLIPTextModel or a T5EncoderModel of transformers "
            f"with its tokenizer: {error}"
        )


def install_text_encoder(config: DataConfig, run: Path) -> str:
    """Copy the encoder that a configuration names into a run folder, once; returns the digest of
    the copy. CheckpointError when it is not there, or does not load."""
    if not (run / FOLDER).is_dir():
        assert config.text_encoder is not None
        name = f"data.text_encoder = {config.text_encoder}"
        folder = Path(expand(config.text_encoder, "data.text_encoder"))
        if not folder.is_dir():
            raise CheckpointError(f"{name}: no such folder")
        encoder = TextEncoder(folder, config.caption_length, name, config.pad_captions)
        make_folder(run / FOLDER, encoder.save)
    return digest(run / FOLDER)


def load_text_encoder(config: DataConfig, run: Path) -> TextEncoder:
    """The encoder that a run keeps. CheckpointError when it is missing, or has changed."""
    _check_kept(run)
    name, padded = str(run / FOLDER), config.pad_captions
    return TextEncoder(run / FOLDER, config.caption_length, name, padded)


def load_empty(run: Path) -> Tensor:
    """The states of the empty caption (1, L, D) that a run keeps. CheckpointError as above."""
    _check_kept(run)
    try:
        return load_file(run / FOLDER / EMPTY)["empty"]
    except (OSError, SafetensorError, KeyError) as error:
        raise CheckpointError(f"{run / FOLDER / EMPTY}: missing or damaged ({error})") from None


def digest(folder: Path) -> str:
    """SHA-256 of the names and contents of its files."""
    whole = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.name != EMPTY):
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        whole.update(f"{path.name} {found}\n".encode())
    return whole.hexdigest()


def _check_kept(run: Path) -> None:
    folder = run / FOLDER
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder}: missing: it reads the captions of this run; put it back, or let "
            "`diptych train` copy it again"
        )
    if not (run / FACTS).is_file():
        return  # a run that is about to begin
    found, expected = digest(folder), read_facts(run).text_encoder
    if found != expected:
        raise CheckpointError(
            f"{folder}: has changed since the run began (SHA-256 {found[:12]}, was "
            f"{str(expected)[:12]}): what the network has learned was of other states; put the "
            "old files back, or train in another folder: run=FOLDER"
        )


class CaptionStates:
    """Training data as `shared.task.Examples`: those of `data`, with the states of their captions
    (B, L, D) in place of ids."""

    def __init__(self, data: Examples, parts: Sequence[dict[str, Tensor]], length: int) -> None:
        self.data, self.length = data, length
        self.states = torch.cat([part["states"] for part in parts])
        self.counts = torch.cat([part["counts"] for part in parts])
        self.starts = self.counts.cumsum(0) - self.counts
        before, which = 0, list[Tensor]()
        for part in parts:
            which.append(part["which"] + before)
            before += len(part["counts"])
        self.which = torch.cat(which)

    def __len__(self) -> int:
        return len(self.data)

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """rows (B,) -> data (B, ...), states (B, L, D)."""
        data, _ = self.data.take(rows)
        own, places = self.which[rows], torch.arange(self.length)
        there = places < self.counts[own][:, None]
        found = self.states[torch.where(there, self.starts[own][:, None] + places, 0)]
        return data, found * there.unsqueeze(-1)


def caption_states(
    data: Examples, load: Callable[[], Pictures], config: DataConfig, run: Path
) -> CaptionStates:
    """Training data with the states of their captions, encoded once: those that are not there yet
    are made of what `load` gives. A collective. DataError as `image.shards.shards`."""

    def begin() -> Make:
        captions, encoder = load().captions, load_text_encoder(config, run)
        assert captions is not None

        def make(rows: Tensor) -> dict[str, Tensor]:
            said = [captions[row] for row in rows.tolist()]
            places = {text: place for place, text in enumerate(dict.fromkeys(said))}
            states = encoder.states(list(places))
            return {
                "states": torch.cat(states),
                "counts": torch.tensor([len(each) for each in states]),
                "which": torch.tensor([places[text] for text in said]),
            }

        return make

    parts = shards(run / CAPTIONS, len(data), begin, "which")
    return CaptionStates(data, parts, config.caption_length)
