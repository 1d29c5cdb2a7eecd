"""Review sentences under operators: `python -m benchmarks.sentiment RUN LABELS`.

RUN is a run of text/yelp_latent that keeps operators named sentiment, tense and person, trained on
LABELS/operator.parquet (`benchmarks.sentence_labels`); success and fluency are told by
`benchmarks.sentence_judges`, which learned from the other half.

Edits are of the sentences of a reference file, with what people and another system made of them
beside ours. What the writer was trained on, or could not read, is not among them.

The time of a sentence is held against that of the causal model that judges fluency, in turn.
"""

import itertools
import random
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from benchmarks.command import command
from benchmarks.measure import clock_name, interleave, ratio
from benchmarks.operators import ask, ask_edits
from benchmarks.sentence_judges import HELD_OUT, Judges, Values, find_judges
from benchmarks.sentence_labels import PERSONS, SENTIMENTS, TENSES
from benchmarks.tables import Column, Table
from shared.errors import ConfigError
from shared.files import write_text
from shared.provenance import provenance
from shared.requests import ControlRequest, SampleRequest
from shared.tables import expand, load_table
from text.config import DataConfig
from text.data import read_corpus, read_labels
from text.metrics import overlap
from text.pipeline import Pipeline

VALUES = {
    "sentiment": tuple(SENTIMENTS.values()),
    "tense": tuple(TENSES),
    "person": (*PERSONS, "none"),
}
KINDS = {name: (name,) for name in VALUES} | {"all three": tuple(VALUES)}
OTHER = dict(zip(VALUES["sentiment"], reversed(VALUES["sentiment"]), strict=True))
ONE = (f"sentiment={VALUES['sentiment'][1]}",)  # the demand whose time is told
SHOWN = 20  # sentences of each row, drawn by seed
ON_THE_WAY = 5  # sentences between two


@dataclass(frozen=True)
class Edit:
    """A sentence, its sentiment, and what others made of it with the opposite one."""

    text: str
    sentiment: str
    human: str
    system: str


def run(
    run: Annotated[Path, tyro.conf.Positional],
    labels: Annotated[Path, tyro.conf.Positional],
    count: int = 400,
    modes: tuple[str, ...] = ("exact", "flow"),
    solver: str = "dpmpp_2m",
    steps: int = 30,
    weights: tuple[float, ...] = (1.0,),
    edits: int = 400,
    stays: tuple[float, ...] = (0.05,),
    strengths: tuple[float, ...] = (0.6,),
    batch: int = 64,
    candidates: int = 1,
    references: str = "$DIPTYCH_DATA/yelp/style_transfer_references.parquet",
    seed: int = 0,
    seconds: float = 20.0,
    json_file: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
    markdown: Path | None = None,
) -> None:
    """Measure operators on a run of latents of review sentences.

    Args:
        run: A trained run of text/yelp_latent with its operators.
        labels: The folder that benchmarks.sentence_labels wrote.
        count: Sentences of each kind of demands, all values equally often.
        modes: exact, flow.
        solver: One without noise.
        steps: Of it, each one network evaluation.
        weights: Of every demand, one after another.
        edits: Sentences to give the opposite sentiment, at most.
        stays: Of edits in mode flow, with each weight.
        strengths: Of edits in mode exact, with each weight.
        batch: Sentences drawn at a time.
        candidates: Drawn for each sentence, of which operators keep the best; of edits in mode
            flow, stops on their way.
        references: A table with columns text, label, human_transfer, latentops_output.
        seed: Of the sentences that are edited, and of those shown.
        seconds: Of telling the time of a batch beside that of one autoregressive pass.
        json_file: Write everything here.
        markdown: Write the table and the sentences shown here.
    """
    pipeline = Pipeline.from_pretrained(run)
    judges = find_judges(run, labels, pipeline.tokenizer)
    base = {"solver": solver, "steps": steps, "batch": batch}
    free = pipeline.write(range(count), SampleRequest(**base)).texts
    chosen = choose_edits(references, pipeline, edits, seed)
    chances = {kind: _chance(judges.values(free), names) for kind, names in KINDS.items()}
    rows = [_held_out(judges, labels), {"what": "no demand"} | _measured(judges, free)]
    for mode, weight, kind in itertools.product(modes, weights, KINDS):
        how = base | {"mode": mode, "candidates": candidates}
        found = _drawn(pipeline, run, judges, KINDS[kind], count, weight, how)
        rows.append({"what": kind, "chance": chances[kind]} | found)
    rows += [_between(pipeline, run, judges, chosen), *_others(judges, chosen)]
    limits = {"exact": ("strength", strengths), "flow": ("stay", stays)}
    for mode, weight in itertools.product(modes, weights):
        name, values = limits[mode]
        for value in values:
            how = base | {"mode": mode, "candidates": candidates, name: value}
            rows.append(_edited(pipeline, run, judges, chosen, weight, how))
    pace = _pace(pipeline, run, judges, ControlRequest(n=batch, operator=ONE, **base), seconds)
    table = Table(
        "Operators on review sentences",
        f"{count} sentences of each kind of demands and {len(chosen)} edits of the sentiment, "
        f"{solver} with {steps} steps, best of {candidates}, seeds from 0. Success: as demanded, "
        "by judges that share no sentence with the operators; chance: of sentences drawn without "
        "operators. Perplexity: over that of held-out sentences. A sentence with one demand takes "
        f"{pace['times_one_pass']:.1f} times as long as one that the causal judge writes from left "
        f"to right ({pace['milliseconds']:.1f} and {pace['milliseconds_one_pass']:.1f} ms of "
        f"{pace['clock']}).",
        (
            Column("what", "sentences"),
            Column("mode", "mode"),
            Column("weight", "weight", "g"),
            Column("limit", "strength or stay", "g"),
            Column("success", "success", ".1%"),
            Column("chance", "chance", ".1%"),
            Column("by_operators", "by operators", ".1%"),
            Column("perplexity_ratio", "perplexity ratio", ".2f"),
            Column("bleu", "BLEU to input", ".1f"),
            Column("bleu_human", "BLEU to human", ".1f"),
            Column("unchanged", "unchanged", ".1%"),
            Column("distinct", "distinct", ".1%"),
            Column("milliseconds", "ms a sentence", ".1f"),
        ),
        rows,
    )
    shown = [row | {"texts": _some(row["texts"], seed)} for row in rows]
    about = provenance() | {"judge": judges.fluency.judge.facts, "pace": pace}
    table.publish(json_file, about, rows=shown)
    if markdown is not None:
        write_text(markdown, "\n".join([table.markdown(), *map(_section, shown)]))


def _pace(
    pipeline: Pipeline, run: Path, judges: Judges, request: ControlRequest, seconds: float
) -> dict[str, Any]:
    """Milliseconds a sentence of this request, the operators' own verdict included, and of the
    causal model's one pass, batches of both in turn."""
    causal = judges.fluency.judge.model
    tasks = {
        "ours": lambda: ask(pipeline, run, request),
        "theirs": lambda: causal.generate(range(request.n)),
    }
    times = interleave(tasks, seconds)
    ours, theirs = (1000 * min(times[name]) / request.n for name in tasks)
    return {
        "times_one_pass": ratio(times["ours"], times["theirs"])[1],
        "milliseconds": ours,
        "milliseconds_one_pass": theirs,
        "sentences": request.n,
        "clock": clock_name(),
    }


def choose_edits(name: str, pipeline: Pipeline, count: int, seed: int) -> list[Edit]:
    """Reference sentences, drawn by seed: none that the writer was trained on, or whose words it
    does not know. ConfigError when there are none."""
    path = expand(name, "references")
    table = load_table(name, "parquet", "train", data_files={"train": path})
    data, tokenizer = pipeline.config.data, pipeline.tokenizer
    trained = set(read_corpus(data).sentences)
    rows = [
        Edit(text, VALUES["sentiment"][label], spelt(human), system)
        for text, label, human, system in zip(
            *(table[key] for key in ("text", "label", "human_transfer", "latentops_output")),
            strict=True,
        )
        if text not in trained
        and not tokenizer.unknown(text)
        and 0 < len(tokenizer.encode(text)) < data.length
    ]
    if not rows:
        raise ConfigError(f"references = {name}: none that the writer can read and has not read")
    return random.Random(seed).sample(rows, min(count, len(rows)))


def spelt(sentence: str) -> str:
    """As the data is: in small letters, signs and clitics apart."""
    apart = re.sub(r"([^\w\s'])", r" \1 ", sentence.lower())
    apart = re.sub(r"(\w)(n't)\b", r"\1 \2", apart)
    return " ".join(re.sub(r"(\w)('(?:s|m|re|ve|ll|d))\b", r"\1 \2", apart).split())


def _drawn(
    pipeline: Pipeline,
    run: Path,
    judges: Judges,
    names: Sequence[str],
    count: int,
    weight: float,
    how: dict[str, Any],
) -> dict[str, Any]:
    """Sentences under all values of these attributes, equally often, each in a batch of its own."""
    each = list(itertools.product(*(VALUES[name] for name in names)))
    n = max(1, count // len(each))
    parts: list[dict[str, Any]] = []
    wanted: list[Values] = []
    for k, values in enumerate(each):
        demands = dict(zip(names, values, strict=True))
        words = tuple(f"{weight:g}*{name}={value}" for name, value in demands.items())
        parts.append(ask(pipeline, run, ControlRequest(n=n, seed=k * n, operator=words, **how)))
        wanted += [demands] * n
    told = {"mode": how["mode"], "weight": weight}
    return told | _of_parts(parts) | _measured(judges, _texts(parts), wanted)


def _edited(
    pipeline: Pipeline,
    run: Path,
    judges: Judges,
    edits: Sequence[Edit],
    weight: float,
    how: dict[str, Any],
) -> dict[str, Any]:
    parts: list[dict[str, Any]] = []
    made: list[Edit] = []
    for sentiment, other in OTHER.items():
        own = [edit for edit in edits if edit.sentiment == sentiment]
        if own:
            words = f"{weight:g}*sentiment={other}"
            parts.append(ask_edits(pipeline, run, [edit.text for edit in own], words, how))
            made += own
    told = {"what": "sentiment edited", "mode": how["mode"], "weight": weight}
    told["limit"] = how["stay" if how["mode"] == "flow" else "strength"]
    return told | _of_parts(parts) | _against(judges, _texts(parts), made)


def _others(judges: Judges, edits: Sequence[Edit]) -> list[dict[str, Any]]:
    """The input itself, and what others made of it."""
    made = {
        "left as it is": [edit.text for edit in edits],
        "edited by people": [edit.human for edit in edits],
        "edited by LatentOps' authors": [edit.system for edit in edits],
    }
    return [{"what": what} | _against(judges, texts, edits) for what, texts in made.items()]


def _between(
    pipeline: Pipeline, run: Path, judges: Judges, edits: Sequence[Edit]
) -> dict[str, Any]:
    """Sentences on the way from one to another, SHOWN pairs at most."""
    made: list[str] = []
    ways: list[str] = []
    for first, last in zip(edits[:SHOWN], edits[SHOWN:] or edits[1:], strict=False):
        request = ControlRequest(n=ON_THE_WAY, interpolate=(first.text, last.text))
        texts = ask(pipeline, run, request)["texts"]
        made += texts
        ways.append(f"{first.text} -> {' | '.join(texts)} -> {last.text}")
    return {"what": "between two sentences"} | _measured(judges, made) | {"texts": ways}


def _against(judges: Judges, texts: Sequence[str], edits: Sequence[Edit]) -> dict[str, Any]:
    """Measures of edited sentences, beside what they were."""
    inputs = [edit.text for edit in edits]
    found = _measured(judges, texts, [{"sentiment": OTHER[edit.sentiment]} for edit in edits])
    return found | {
        "bleu": overlap.bleu(texts, [[text] for text in inputs]),
        "bleu_human": overlap.bleu(texts, [[edit.human] for edit in edits]),
        "unchanged": sum(a == b for a, b in zip(texts, inputs, strict=True)) / len(texts),
        "texts": [f"{a} -> {b}" for a, b in zip(inputs, texts, strict=True)],
    }


def _measured(
    judges: Judges, texts: Sequence[str], wanted: Sequence[Values] | None = None
) -> dict[str, Any]:
    """Fluency and variety, and the share that are as they were wanted."""
    found = {
        "perplexity_ratio": judges.perplexity_ratio(texts),
        "distinct": len(set(texts)) / len(texts),
        "texts": list(texts),
    }
    if wanted is None:
        return found
    values = judges.values(texts)
    right = sum(own.items() >= asked.items() for own, asked in zip(values, wanted, strict=True))
    return found | {"success": right / len(texts)}


def _held_out(judges: Judges, labels: Path) -> dict[str, Any]:
    """Held-out sentences under the judges: how often the classifier is right."""
    data = DataConfig(name=str(labels), label_column="sentiment", limit=HELD_OUT)
    sentences, own = read_labels(data, held_out=True)
    wanted = [{"sentiment": label} for label in own]
    return {"what": "held-out sentences"} | _measured(judges, sentences, wanted)


def _chance(values: Sequence[Values], names: Sequence[str]) -> float:
    """The share of sentences that satisfy a demand, averaged over all demands."""
    each = list(itertools.product(*(VALUES[name] for name in names)))
    made = [tuple(own[name] for name in names) for own in values]
    return sum(made.count(demand) for demand in each) / len(each) / len(made)


def _of_parts(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    total = sum(part["sentences"] for part in parts)
    right = sum(part["by_operators"]["all"] * part["sentences"] for part in parts)
    seconds = sum(part["seconds"] for part in parts)
    return {"by_operators": right / total, "milliseconds": 1000 * seconds / total}


def _texts(parts: Sequence[dict[str, Any]]) -> list[str]:
    return [text for part in parts for text in part["texts"]]


def _some(texts: Sequence[str], seed: int) -> list[str]:
    return random.Random(seed).sample(list(texts), min(SHOWN, len(texts)))


def _section(row: dict[str, Any]) -> str:
    """The sentences shown of a row, as Markdown."""
    said = [
        row["what"],
        *(f"{key} {row[key]}" for key in ("mode", "weight", "limit") if key in row),
    ]
    return "\n".join([f"### {', '.join(said)}", "", *(f"* {t}" for t in row["texts"]), ""])


if __name__ == "__main__":
    sys.exit(command(run))
