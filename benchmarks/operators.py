"""Sentences of the scene world under operators: `python -m benchmarks.operators RUN`.

RUN keeps operators named tone, audience, count and colour. Demands are the attributes of held-out
sentences that fit its length and name the colour of the thing they tell first. Success is read from
the text by its exact parse: a sentence that does not parse has failed. Beside it stands how often
sentences drawn without operators satisfy the same demands.
"""

import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from benchmarks.command import command
from benchmarks.tables import Column, Table
from shared import scene
from shared.provenance import provenance
from shared.requests import ControlRequest, SampleRequest
from text import teller
from text.operators.attributes import ATTRIBUTES, UNSAID, attribute
from text.operators.control import control
from text.pipeline import Pipeline
from text.reader import read

SEED = 17  # of the scene world's stream of held-out sentences
KINDS = {name: (name,) for name in ATTRIBUTES} | {"all four": ATTRIBUTES}
TOGETHER = 16  # different demands of several attributes

Values = dict[str, str]


def targets(count: int, length: int, split_by: str = "sentence") -> list[tuple[str, Values]]:
    """Held-out sentences of at most `length` tokens with their end, and their attributes."""
    found: list[tuple[str, Values]] = []
    for sentence in teller.stream(SEED, "validation", split_by=split_by):
        values = _values(sentence)
        if len(sentence.split()) < length and values is not None and values["colour"] != UNSAID:
            found.append((sentence, values))
        if len(found) == count:
            return found
    raise AssertionError("the stream has no end")


def run(
    run: Annotated[Path, tyro.conf.Positional],
    count: int = 200,
    modes: tuple[str, ...] = ("exact", "flow"),
    solver: str = "dpmpp_2m",
    steps: int = 30,
    weight: float = 1.0,
    edits: int = 100,
    stay: float = 0.05,
    strength: float = 0.6,
    batch: int = 64,
    candidates: int = 1,
    json_file: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
) -> None:
    """Measure operators on a run of latents of the scene world.

    Args:
        run: A trained run of text/scene_latent with its operators.
        count: Demands of each kind, a sentence for each.
        modes: exact, flow.
        solver: One without noise.
        steps: Of it, each one network evaluation.
        weight: Of every demand.
        edits: Held-out sentences to give another tone.
        stay: Of edits in mode flow.
        strength: Of edits in mode exact.
        batch: Sentences drawn at a time.
        candidates: Drawn for each sentence, of which operators keep the best; of edits in mode
            flow, stops on their way.
        json_file: Write everything here.
    """
    pipeline = Pipeline.from_pretrained(run)
    data = pipeline.config.data
    asked = targets(max(count, edits), data.length, data.split_by)
    base = {"solver": solver, "steps": steps, "batch": batch}
    several = {"candidates": candidates}
    free = pipeline.write(range(count), SampleRequest(**base)).texts
    rows: list[dict[str, Any]] = []
    for mode in modes:
        for kind, names in KINDS.items():
            demands = _demands(asked[:count], names, weight)
            found = _drawn(pipeline, run, demands, base | several | {"mode": mode})
            chance = _chance(free, demands, names)
            rows.append({"what": kind, "mode": mode, "chance": chance} | found)
        how = base | several | {"mode": mode}
        how |= {"stay": stay} if mode == "flow" else {"strength": strength}
        rows.append(_edited(pipeline, run, asked[:edits], weight, how))
    table = Table(
        "Operators in the scene world",
        f"{count} held-out demands of each kind, {solver} with {steps} steps, weight {weight:g}, "
        f"best of {candidates}, seeds from 0; {edits} edits of the tone. Exact: parsed, and as "
        "demanded; chance: of sentences drawn without operators. By operators: on the written "
        "sentence's latents.",
        (
            Column("what", "demands"),
            Column("mode", "mode"),
            Column("exact", "exact", ".1%"),
            Column("by_operators", "by operators", ".1%"),
            Column("grammatical", "grammatical", ".1%"),
            Column("chance", "chance", ".1%"),
            Column("distinct", "distinct", ".1%"),
            Column("bleu", "BLEU to input", ".1f"),
            Column("milliseconds", "ms a sentence", ".1f"),
        ),
        rows,
    )
    table.publish(json_file, provenance(), free=free)


def _demands(
    asked: Sequence[tuple[str, Values]], names: Sequence[str], weight: float
) -> Counter[tuple[str, ...]]:
    """As often as they are asked for; of several attributes the first TOGETHER that differ, equally
    often: each is a batch of its own."""
    found = Counter(
        tuple(f"{weight:g}*{name}={values[name]}" for name in names) for _, values in asked
    )
    if len(names) == 1:
        return found
    kept = list(found)[:TOGETHER]
    return Counter({words: max(1, len(asked) // len(kept)) for words in kept})


def _drawn(
    pipeline: Pipeline, run: Path, demands: Counter[tuple[str, ...]], how: dict[str, Any]
) -> dict[str, Any]:
    """One sentence for each demand, equal ones in one batch."""
    parts: list[dict[str, Any]] = []
    seed = 0
    for words, n in demands.items():
        request = ControlRequest(n=n, seed=seed, operator=words, **how)
        parts.append(ask(pipeline, run, request))
        seed += n
    return _together(parts)


def _edited(
    pipeline: Pipeline,
    run: Path,
    asked: Sequence[tuple[str, Values]],
    weight: float,
    how: dict[str, Any],
) -> dict[str, Any]:
    """Sentences that are given the tone which follows theirs."""
    parts: list[dict[str, Any]] = []
    for tone in scene.TONES:
        other = scene.TONES[(scene.TONES.index(tone) + 1) % len(scene.TONES)]
        own = [sentence for sentence, values in asked if values["tone"] == tone]
        if own:
            parts.append(ask_edits(pipeline, run, own, f"{weight:g}*tone={other}", how))
    return {"what": "tone edited", "mode": how["mode"]} | _together(parts)


def ask(pipeline: Pipeline, run: Path, request: ControlRequest) -> dict[str, Any]:
    """`text.operators.control.control`, silent where no sentence satisfies all: the rows tell."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return control(pipeline, run, request)


def ask_edits(
    pipeline: Pipeline, run: Path, sentences: Sequence[str], demand: str, how: dict[str, Any]
) -> dict[str, Any]:
    """Each of these sentences edited once."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "sentences.txt"
        file.write_text("\n".join(sentences), encoding="utf-8")
        request = ControlRequest(n=1, operator=(demand,), edit=str(file), **how)
        return ask(pipeline, run, request)


def _together(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over sentences."""
    total = sum(part["sentences"] for part in parts)

    def mean(of: Any) -> float:
        return sum(of(part) * part["sentences"] for part in parts) / total

    texts = [text for part in parts for text in part["texts"]]
    result = {
        "exact": mean(lambda part: part["exact"]["all"]),
        "by_operators": mean(lambda part: part["by_operators"]["all"]),
        "grammatical": mean(lambda part: part["grammatical"]),
        "distinct": len(set(texts)) / total,
        "milliseconds": sum(part["seconds"] for part in parts) / total * 1000,
        "texts": texts,
    }
    if "bleu_to_input" in parts[0]:
        result["bleu"] = mean(lambda part: part["bleu_to_input"])
        result["inputs"] = [text for part in parts for text in part["inputs"]]
    return result


def _chance(free: Sequence[str], demands: Counter[tuple[str, ...]], names: Sequence[str]) -> float:
    """The share of pairs of a free sentence and a demand that go together."""
    known = [values for values in map(_values, free) if values is not None]
    made = Counter(tuple(values[name] for name in names) for values in known)
    wanted = {tuple(word.split("=")[1] for word in words): n for words, n in demands.items()}
    hits = sum(n * made[values] for values, n in wanted.items())
    return hits / (len(free) * sum(demands.values()))


def _values(sentence: str) -> Values | None:
    facts = read(sentence)
    return None if facts is None else {name: attribute(name, facts) for name in ATTRIBUTES}


if __name__ == "__main__":
    sys.exit(command(run))
