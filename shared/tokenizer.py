"""Sentences to ids and back: sentencepiece models, trained on the data and kept with the run.

Two kinds. `unigram` learns pieces of words (Kudo 2018) and meets no unknown word; `word` takes the
blank-separated words as they are, those seen `min_count` times or more, the most frequent first.
Runs of white space count as one blank; nothing else is normalised, so a sentence without unknown
words comes back exactly. The same sentences give the same model.
"""

import io
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import sentencepiece

from shared.errors import CheckpointError, DataError
from shared.files import write_atomic

PAD, UNK, BOS, EOS = 0, 1, 2, 3
SPECIAL = 4  # the ids below are the four above
WORD_START = "▁"  # how a piece begins that begins a word: the blank before it
UNKNOWN = "<unk>"  # how UNK reads
KINDS = ("unigram", "word")
FILE = "tokenizer.model"


class Tokenizer:
    """A trained model. Ids lie in [0, len); PAD, UNK, BOS and EOS are 0 to 3."""

    def __init__(self, model: bytes) -> None:
        """ValueError when `model` is not a sentencepiece model with our four special ids."""
        try:
            self._processor: Any = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError:
            raise ValueError("not a sentencepiece model") from None
        p = self._processor
        special = (p.pad_id(), p.unk_id(), p.bos_id(), p.eos_id())
        if special != (PAD, UNK, BOS, EOS):
            raise ValueError(f"its ids of pad, unk, bos and eos are {special}, expected 0, 1, 2, 3")
        self._model = model

    def __len__(self) -> int:
        return int(self._processor.get_piece_size())

    def encode(self, sentence: str) -> list[int]:
        """The ids of a sentence, without bos and eos; UNK for what the model does not know, and for
        the <unk> that `decode` makes of it."""
        # one by one: a list would be shared among threads that each call starts anew
        first, *rest = map(self._processor.encode, one_blank(sentence).split(UNKNOWN))
        return first + [i for part in rest for i in (UNK, *part)]

    def decode(self, ids: Sequence[int]) -> str:
        """Ids up to the first EOS -> a sentence; PAD and BOS say nothing, UNK reads <unk>."""
        kept = list(ids)
        if EOS in kept:
            kept = kept[: kept.index(EOS)]
        return one_blank(self._processor.decode([i for i in kept if i not in (PAD, BOS)]))

    def pieces(self) -> list[str]:
        """Every piece by its id; a leading U+2581 stands for the blank before a word."""
        return [self._processor.id_to_piece(i) for i in range(len(self))]

    def unknown(self, sentence: str) -> list[str]:
        """The words of a sentence that hold something the model does not know."""
        return [word for word in sentence.split() if UNK in self.encode(word)]

    def save(self, path: Path) -> None:
        """Write the model atomically."""

        def write(temporary: Path) -> None:
            temporary.write_bytes(self._model)

        write_atomic(path, write)


def load_tokenizer(path: Path) -> Tokenizer:
    """A saved model. CheckpointError when the file is missing or damaged."""
    advice = "train the run again in a new folder, or copy the file from where it was trained"
    if not path.is_file():
        raise CheckpointError(f"{path}: no such tokenizer; {advice}")
    try:
        return Tokenizer(path.read_bytes())
    except ValueError as error:
        raise CheckpointError(f"{path}: damaged, {error}; {advice}") from None


def train_tokenizer(
    sentences: Iterable[str], kind: str, size: int, min_count: int = 1
) -> Tokenizer:
    """Fit a model of at most `size` ids, the four special ones included.

    `min_count` is for words: rarer ones become UNK. Raises ValueError for an unknown kind and
    DataError when the sentences are too few for the size.
    """
    if kind not in KINDS:
        raise ValueError(f"kind = {kind!r}: expected one of {', '.join(KINDS)}")
    lines = [line for line in map(one_blank, sentences) if line]
    if not lines:
        raise DataError("a tokenizer needs sentences to learn from, and there are none")
    if kind == "word":
        counts = Counter(word for line in lines for word in line.split())
        kept = sum(count >= min_count for count in counts.values())
        if kept == 0:
            raise DataError(
                f"no word occurs {min_count} times or more in {len(lines)} sentences: lower the "
                "minimum count, or give more data"
            )
        size = min(size, kept + SPECIAL)
    written = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=written,
            model_type=kind,
            vocab_size=size,
            character_coverage=1.0,
            normalization_rule_name="identity",
            max_sentence_length=1 << 20,  # bytes; longer ones would be skipped in silence
            pad_id=PAD,
            unk_id=UNK,
            bos_id=BOS,
            eos_id=EOS,
            unk_surface=f" {UNKNOWN} ",
            num_threads=1,  # sums of many threads differ in their last bits from run to run
            minloglevel=2,
        )
    except RuntimeError as error:
        raise DataError(
            f"{len(lines)} sentences are too few for a {kind} vocabulary of {size}: give more "
            f"data, or a smaller size ({_reason(error)})"
        ) from None
    return Tokenizer(written.getvalue())


def one_blank(sentence: str) -> str:
    """The sentence with each run of white space as one blank, none at its ends."""
    return " ".join(sentence.split())


def _reason(error: RuntimeError) -> str:
    """What sentencepiece says, without the place in its source."""
    return str(error).rsplit("] ", 1)[-1].strip().rstrip(".") or "no reason given"
