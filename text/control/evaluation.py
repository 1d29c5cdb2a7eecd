"""`diptych control`: sentences under controls, and whether they satisfy them.

One target is the controls asked for together; a file of targets has one JSON object a line, such as
{"length": "8-10", "says": ["colour:red", "shape:star"]}. Success is measured on the text that comes
out, by regular expressions of Python and, in the scene world, by exact parses: not by the automata
that sampled it.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shared.errors import ConfigError, DataError
from shared.task import ControlRequest
from text.ask import Ask
from text.control import Control, parse_controls
from text.pipeline import Pipeline
from text.reader import analyse

SETTINGS = ("seed", "weights", "mbr", "prompt", "control_scale")  # beside those of sampling


def read_targets(path: Path) -> list[list[Control]]:
    """A file of targets. DataError names the line that does not read."""
    if not path.is_file():
        raise DataError(f"{path}: no such file of targets; one JSON object a line")
    targets: list[list[Control]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            said = json.loads(line)
            if not isinstance(said, dict) or not said:
                raise ConfigError("expected a JSON object of controls")
            asked = {k: v if isinstance(v, list) else [v] for k, v in said.items()}
            words = [f"{name}={value}" for name, values in asked.items() for value in values]
            targets.append(parse_controls(words))
        except (json.JSONDecodeError, ConfigError) as error:
            raise DataError(f"{path}, line {number}: {error}") from None
    if not targets:
        raise DataError(f"{path}: no targets in it")
    return targets


def control(pipeline: Pipeline, words: Sequence[str], request: ControlRequest) -> dict[str, Any]:
    """request.n sentences for every target, all targets in one batch: {"targets": [{"controls",
    "texts"}], "success": share by name, "all": share that satisfies all of its target, ...}."""
    if (request.targets is None) == (not words):
        raise ConfigError(
            "controls: say what is asked for, such as length=9 contains='red star', or give "
            "--targets FILE, not both"
        )
    targets = [parse_controls(words)] if words else read_targets(Path(str(request.targets)))
    n = request.n
    began = time.monotonic()
    seeds = range(request.seed, request.seed + n * len(targets))
    source, _ = pipeline.prompted(request.prompt, len(seeds))
    ask = Ask(
        source=source,
        automata=pipeline.automata([target for target in targets for _ in range(n)]),
        control_scale=request.control_scale,
        candidates=request.mbr,
    )
    texts = pipeline.write(seeds, request, ask, progress=True).texts
    seconds = time.monotonic() - began
    by_target = [texts[i * n : (i + 1) * n] for i in range(len(targets))]
    scene = pipeline.config.data.name == "scene"
    return {
        "targets": [
            {"controls": [f"{c.name}={c.value}" for c in target], "texts": said}
            for target, said in zip(targets, by_target, strict=True)
        ],
        **measure(targets, by_target, scene),
        "sentences": len(texts),
        "distinct": len(set(texts)) / len(texts),
        "seconds": seconds,
        "settings": request.settings() | {name: getattr(request, name) for name in SETTINGS},
    }


def measure(
    targets: Sequence[Sequence[Control]], texts: Sequence[Sequence[str]], scene: bool
) -> dict[str, Any]:
    """Shares of sentences: that satisfy each kind of control, all of their target's, and, in the
    scene world, that are grammatical, and both."""
    kinds: dict[str, list[bool]] = {}
    together: list[bool] = []
    grammatical: list[bool] = []
    for target, said in zip(targets, texts, strict=True):
        for text in said:
            reading = analyse(text) if scene else None
            found = [one.success(text, reading) for one in target]
            for one, success in zip(target, found, strict=True):
                kinds.setdefault(one.name, []).append(success)
            together.append(all(found))
            grammatical.append(reading is not None)
    shares = {name: sum(found) / len(found) for name, found in kinds.items()}
    result: dict[str, Any] = {"success": shares, "all": sum(together) / len(together)}
    if scene:
        result["grammatical"] = sum(grammatical) / len(grammatical)
        both = [a and b for a, b in zip(together, grammatical, strict=True)]
        result["all_and_grammatical"] = sum(both) / len(both)
    return result
