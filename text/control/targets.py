"""Files of targets: our own, and the four kinds of Diffusion-LM's `datasets/control_target`.

One JSON object a line, as text or gzip:

    {"length": "8-10", "says": ["colour:red", "shape:star"]}      controls by name
    {"attribute": [...], "field": "name", "value": "The Vaults"}  what is said
    {"words_": ["START", ..., "\\n", "END"], "pos": ["START", ...]}  parts of speech
    {"words_": [...], "spans": [[left, right, label]]}            constituents, both ends included
    {"words_": [...], "pos": [...], "attr": ["food", ":", "English"]}  both

`words_` is a sentence that has what is asked for. START, the line's end and END are no words of it;
places of spans are counted from the word after START, and one that ends on the line's end ends on
the last word.
"""

import gzip
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from shared.errors import ConfigError, DataError
from text.control.controls import Control, parse_controls
from text.control.spans import Span, parse_span

T = TypeVar("T")
MARKS = ("START", "\n", "END")  # what stands around the words of a sentence


@dataclass(frozen=True)
class Target:
    """The controls asked for together, and where there is one a sentence that satisfies them."""

    controls: tuple[Control, ...]
    words: tuple[str, ...] = ()

    @property
    def spans(self) -> tuple[Span, ...]:
        """The constituents among them."""
        return tuple(parse_span(one.value) for one in self.controls if one.name == "span")


@dataclass(frozen=True)
class Tagged:
    """A sentence with the part of speech of every word, and constituents (left, right, label)."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    spans: tuple[tuple[int, int, str], ...] = ()


def read_targets(path: Path) -> list[Target]:
    """A file of targets. DataError names the line that does not read and what was expected."""
    targets = [_at(path, number, said, _target) for number, said in _lines(path)]
    if not targets:
        raise DataError(f"{path}: no targets in it; one JSON object a line")
    return targets


def read_tagged(folder: Path) -> list[Tagged]:
    """The sentences with parts of speech in the target files of a folder, with the constituents
    that are known of the same sentences. DataError when there is none."""
    tags: dict[tuple[str, ...], tuple[str, ...]] = {}
    spans: dict[tuple[str, ...], tuple[tuple[int, int, str], ...]] = {}
    for path in sorted([*folder.glob("*.jsonl"), *folder.glob("*.jsonl.gz")]):
        for number, said in _lines(path):
            if "pos" in said and "words_" in said:
                target = _at(path, number, said, lambda said: (_words(said), _tags(said)))
                tags[target[0]] = target[1]
            elif "spans" in said:
                known = _at(path, number, said, lambda said: (_words(said), _spans(said)))
                spans[known[0]] = known[1]
    if not tags:
        raise DataError(
            f"{folder}: no sentences with parts of speech in it; expected .jsonl or .jsonl.gz "
            'files of lines {"words_": [...], "pos": [...]}'
        )
    return [Tagged(words, own, spans.get(words, ())) for words, own in tags.items()]


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers, from 1, and the objects on them; empty lines are none."""
    if not path.is_file():
        raise DataError(f"{path}: no such file of targets; one JSON object a line")
    number = 0
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8")
            if path.suffix == ".gz"
            else path.open(encoding="utf-8") as lines
        ):
            for number, line in enumerate(lines, 1):
                if line.strip():
                    said = json.loads(line)
                    if not isinstance(said, dict) or not said:
                        raise ConfigError("expected a JSON object of controls")
                    yield number, said
    except (json.JSONDecodeError, ConfigError) as error:
        raise DataError(f"{path}, line {number}: {error}") from None
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"{path}, after line {number}: does not read ({error})") from None


def _at(path: Path, number: int, said: dict[str, Any], read: Callable[[dict[str, Any]], T]) -> T:
    try:
        return read(said)
    except ConfigError as error:
        raise DataError(f"{path}, line {number}: {error}") from None


def _target(said: dict[str, Any]) -> Target:
    if "attribute" in said:
        return Target((Control("says", f"{_string(said, 'field')}: {_string(said, 'value')}"),))
    if "words_" not in said:
        asked = {k: v if isinstance(v, list) else [v] for k, v in said.items()}
        words = [f"{name}={value}" for name, values in asked.items() for value in values]
        if not words:
            raise ConfigError("asks for nothing: expected one control or more")
        return Target(tuple(parse_controls(words)))
    words = _words(said)
    controls: list[Control] = []
    if "pos" in said:
        controls.append(Control("pos", " ".join(_tags(said))))
    if "spans" in said:
        controls += [Control("span", f"{a}-{b} {label}") for a, b, label in _spans(said)]
    if "attr" in said:
        name, colon, value = " ".join(_strings(said, "attr")).partition(" : ")
        if not colon:
            raise ConfigError('attr: expected a field and its value, ["food", ":", "English"]')
        controls.append(Control("says", f"{name}: {value}"))
    if not controls:
        raise ConfigError("words_: expected pos, spans or attr beside it")
    return Target(tuple(controls), words)


def _words(said: dict[str, Any]) -> tuple[str, ...]:
    words = tuple(word for word in _strings(said, "words_") if word not in MARKS)
    if not words:
        raise ConfigError("words_: no words between START and END")
    return words


def _tags(said: dict[str, Any]) -> tuple[str, ...]:
    words, tags = _strings(said, "words_"), _strings(said, "pos")
    if len(words) != len(tags):
        raise ConfigError(f"pos: {len(tags)} tags of {len(words)} words_; expected one for each")
    return tuple(tag for tag, word in zip(tags, words, strict=True) if word not in MARKS)


def _spans(said: dict[str, Any]) -> tuple[tuple[int, int, str], ...]:
    last, spans = len(_words(said)) - 1, said["spans"]
    shape = "spans: expected [[left, right, label], ...] with places of words"
    if not isinstance(spans, list) or not spans:
        raise ConfigError(f"{shape}, got {spans!r}")
    found: list[tuple[int, int, str]] = []
    for span in spans:
        match span:
            case [int(left), int(right), str(label)] if 0 <= left <= right <= last + 1:
                found.append((left, min(right, last), label))
            case _:
                raise ConfigError(f"{shape} 0 to {last}, got {span!r}")
    return tuple(found)


def _string(said: dict[str, Any], key: str) -> str:
    value = said.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"{key}: expected words, got {value!r}")
    return value


def _strings(said: dict[str, Any], key: str) -> Sequence[str]:
    value = said.get(key)
    if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
        raise ConfigError(f"{key}: expected a list of words, got {value!r:.80}")
    return value
