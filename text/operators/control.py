"""`diptych control --operator`: sentences drawn, edited or joined in the latents of a run.

Success is told twice: by the operators themselves, on the latents that the written sentences have,
and in the scene world exactly, by parsing. Operators are runs in RUN/operators, by their names, or
anywhere, by their path.
"""

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shared.drawing import draw
from shared.errors import ConfigError
from shared.guidance.flow import clean_level
from shared.learner import DiffusionLearner
from shared.prompts import listed, pad_rows, sentence_ids
from shared.requests import ControlRequest
from shared.runs import load_learner, open_run
from shared.sampling import Start
from shared.schema import one_of
from shared.seeds import all_candidates
from shared.tokenizer import EOS
from text.autoencoder.codec import SentenceCodec, read_measured
from text.config import TextConfig
from text.metrics import overlap
from text.operators.attributes import ATTRIBUTES, attribute
from text.operators.choice import best_of, scores
from text.operators.demand import Demand, demand_energy, parse_demand
from text.operators.learner import Operator
from text.operators.sampler import Pull, between, flow, guided_draw
from text.pipeline import Pipeline
from text.reader import read

MODES = ("exact", "flow")
MOST_STAY = 10_000  # nothing moves long before, and adaptive steps are some ten for each unit
OPERATORS = "operators"  # in the run folder


@dataclass(frozen=True)
class Steering:
    """A run, its latents, and the operators that are asked for, by the names they are asked by."""

    pipeline: Pipeline
    learner: DiffusionLearner
    codec: SentenceCodec
    demands: list[Demand]
    operators: dict[str, Operator]
    columns: dict[str, str]  # what each of them tells

    def pull(self) -> Pull:
        """The demands as energies with their weights."""
        energies = [demand_energy(demand, self.operators) for demand in self.demands]
        return Pull(energies, [demand.weight for demand in self.demands])

    def encoded(self, texts: Sequence[str], name: str) -> Tensor:
        """Sentences -> x0. ConfigError, with what they are called, for words that are unknown, or
        too many."""
        length = self.pipeline.config.data.length
        return self.encode_rows(sentence_ids(texts, self.pipeline.tokenizer, length, name))

    def written_again(self, texts: Sequence[str]) -> Tensor:
        """The same of sentences that the run wrote."""
        return self.encode_rows([self.pipeline.tokenizer.encode(text) for text in texts])

    def values(self, x0: Tensor) -> list[dict[str, str]]:
        """What the operators tell of each latent, by their names."""
        level = clean_level(x0)
        told = {
            name: [one.classes[i] for i in one.log_probs(x0, level).argmax(1).tolist()]
            for name, one in self.operators.items()
        }
        return [{name: values[i] for name, values in told.items()} for i in range(len(x0))]

    def encode_rows(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Lists of ids without their end -> x0."""
        length = self.codec.network.length
        ended = [[*ids, EOS][:length] for ids in rows]
        return self.codec.encode(pad_rows(ended, length).to(self.codec.shift.device))


def steering(pipeline: Pipeline, run: Path, words: Sequence[str], mode: str) -> Steering:
    """ConfigError for a run without sentences' latents, and for operators of other latents."""
    learner = pipeline.learner
    if not isinstance(learner, DiffusionLearner) or not isinstance(learner.codec, SentenceCodec):
        raise ConfigError(
            f"operator, edit, interpolate: {run} has no latents of whole sentences; train one with "
            "codec.kind=sentence, such as text/scene_latent, or give controls as NAME=VALUE"
        )
    demands = [parse_demand(word) for word in words]
    digest = learner.codec.measured.digest
    found: dict[str, Operator] = {}
    columns: dict[str, str] = {}
    for demand in demands:
        for atom in demand.atoms:
            if atom.name not in found:
                operator, column = load_operator(run, atom.name, digest)
                if mode == "exact" and not operator.noised:
                    raise ConfigError(
                        f"operator {atom.name}: knows clean latents only, for --mode flow; train "
                        "it with operator.noised=true"
                    )
                found[atom.name], columns[atom.name] = operator, column
        demand.allowed({name: one.classes for name, one in found.items()})
    return Steering(pipeline, learner, learner.codec, demands, found, columns)


def load_operator(run: Path, name: str, digest: str) -> tuple[Operator, str]:
    """The operator RUN/operators/name, or the run folder `name`, and its label column. ConfigError
    when there is none, or its latents are others than those of `digest`."""
    own = run / OPERATORS
    folder = own / name if (own / name).is_dir() else Path(name)
    if not folder.is_dir():
        known = sorted(path.name for path in own.iterdir()) if own.is_dir() else []
        raise ConfigError(
            f"operator {name}: not in {own} ({', '.join(known) or 'nothing is'}); train it with "
            f"diptych train text/operator data.label_column={name} codec.run={run} "
            f"run={own / name}, or give the path of its run"
        )
    config = open_run(folder).config
    if not isinstance(config, TextConfig) or config.model != "operator":
        raise ConfigError(f"operator {name}: {folder} is no run of model: operator")
    theirs = read_measured(folder)
    if theirs.digest != digest:
        raise ConfigError(
            f"operator {name}: trained for other latents, those of {theirs.source} "
            f"({theirs.digest}), and {run} has {digest}; train it with codec.run={run}"
        )
    operator = load_learner(folder)
    assert isinstance(operator, Operator)
    return operator, str(config.data.label_column)


def control(pipeline: Pipeline, run: Path, request: ControlRequest) -> dict[str, Any]:
    """Sentences under request.operator: drawn, or made of request.edit, or on the path of
    request.interpolate. {"texts", "inputs" of an edit, success by operators and, in the scene
    world, exactly, ...}. ConfigError for what does not go together."""
    _check(request)
    ask = steering(pipeline, run, request.operator, request.mode)
    began = time.monotonic()
    inputs = None
    if request.edit is not None:
        inputs = [text for text in listed(request.edit, "edit") for _ in range(request.n)]
    count = request.n if inputs is None else len(inputs)
    own = range(request.seed, request.seed + count)
    seeds = all_candidates(own, request.candidates)
    starts = None
    if request.interpolate is not None:
        ends = ask.encoded(request.interpolate, "interpolate")
        x0 = between(ends[0], ends[1], request.n)
    elif inputs is not None:
        starts = ask.encoded(inputs, "edit").repeat_interleave(request.candidates, dim=0)
        x0 = _edited(ask, starts, seeds, request)
    else:
        x0 = _drawn(ask, seeds, request)
    ids = ask.codec.words(x0, seeds)
    if request.candidates > 1:
        kept = best_of(scores(ask.codec, ask.pull(), x0, ids, starts), request.candidates)
        x0, ids = x0[kept], ids[kept.cpu()]
    texts = [ask.pipeline.tokenizer.decode(row) for row in ids.tolist()]
    result: dict[str, Any] = {"texts": texts, "sentences": len(texts)}
    result |= {"seconds": time.monotonic() - began, "distinct": len(set(texts)) / len(texts)}
    if request.operator:
        result |= measure(ask, texts, x0)
    if inputs is not None:
        result["inputs"] = inputs
        result["bleu_to_input"] = overlap.bleu(texts, [[one] for one in inputs])
        result["unchanged"] = sum(a == b for a, b in zip(texts, inputs, strict=True)) / len(texts)
    return result


@torch.no_grad()
def measure(ask: Steering, texts: Sequence[str], x0: Tensor) -> dict[str, Any]:
    """Shares of sentences that satisfy each demand and all, by operators and exactly. Operators'
    mean probabilities of the latents x0 themselves and of those of the sentences that were written
    from them: what is lost between the two, the decoder lost. Warns, with all scores, when no
    sentence satisfies all."""
    again = ask.written_again(texts)
    result: dict[str, Any] = {
        "probability_of_latents": _probabilities(ask, x0),
        "probability": _probabilities(ask, again),
        "by_operators": shares(ask.demands, ask.values(again)),
    }
    if _exact(ask):
        parsed = [read(text) for text in texts]
        values = [
            {} if facts is None else {n: attribute(c, facts) for n, c in ask.columns.items()}
            for facts in parsed
        ]
        result["exact"] = shares(ask.demands, values)
        result["grammatical"] = sum(facts is not None for facts in parsed) / len(parsed)
    if result["by_operators"]["all"] == 0 and len(ask.demands) > 1:
        said = ", ".join(f"{k} {v:.3f}" for k, v in result["by_operators"].items() if k != "all")
        warnings.warn(
            f"no sentence satisfies all demands: they conflict, or are too weak; the share that "
            f"satisfies each: {said}"
        )
    return result


def _probabilities(ask: Steering, x0: Tensor) -> dict[str, float]:
    level = clean_level(x0)
    return {
        demand.written: float(torch.exp(-demand_energy(demand, ask.operators)(x0, level)).mean())
        for demand in ask.demands
    }


def shares(demands: Sequence[Demand], values: Sequence[Mapping[str, str]]) -> dict[str, float]:
    """Values of sentences, by operator, empty where there are none -> the share that satisfies each
    demand, as it is written, and `all`."""
    rows = [[bool(v) and demand.satisfied(v) for demand in demands] for v in values]
    each = {
        demands[k].written: sum(row[k] for row in rows) / len(rows) for k in range(len(demands))
    }
    return each | {"all": sum(map(all, rows)) / len(rows)}


def _exact(ask: Steering) -> bool:
    scene = ask.pipeline.config.data.name == "scene"
    return scene and all(column in ATTRIBUTES for column in ask.columns.values())


def _drawn(ask: Steering, seeds: Sequence[int], request: ControlRequest) -> Tensor:
    device = ask.codec.shift.device
    if request.mode == "exact":
        return guided_draw(ask.learner, seeds, request, ask.pull()).to(device)
    x0 = draw(ask.learner, seeds, request, label="sentences").to(device)
    return flow(x0, request, ask.pull())


def _edited(ask: Steering, x0: Tensor, seeds: Sequence[int], request: ControlRequest) -> Tensor:
    """Candidate k of n is noised to (k + 1) / n of the strength, or has gone as much of the flow's
    way: what decides among them can keep one that little was enough for."""
    found, several = torch.empty_like(x0), request.candidates
    if request.mode == "flow":
        return flow(x0[::several], request, ask.pull(), request.stay, several)
    for k in range(several):
        own = slice(k, None, several)
        start = Start(x0[own], request.strength * (k + 1) / several)
        found[own] = guided_draw(ask.learner, seeds[own], request, ask.pull(), start).to(x0)
    return found


def _check(request: ControlRequest) -> None:
    try:
        one_of("mode", request.mode, list(MODES))
    except ValueError as error:
        raise ConfigError(str(error)) from None
    for name in ("targets", "evaluate", "tagged", "prompt"):
        if getattr(request, name) is not None:
            raise ConfigError(f"{name}: not with operators, edits and paths; leave it out")
    if request.mbr != 1:
        raise ConfigError("mbr: not with operators; candidates are what they choose among")
    if request.control_scale != ControlRequest.control_scale:
        raise ConfigError(
            f"control_scale = {request.control_scale}: of controls in words; operators have "
            "weights of their own, such as 2*NAME=VALUE"
        )
    if request.guided or request.clamp:
        raise ConfigError(
            "guidance, clamp: of models of words that write from a source; how strongly operators "
            "pull is their weight, such as 2*NAME=VALUE"
        )
    if request.interpolate is not None and (request.operator or request.edit is not None):
        raise ConfigError("interpolate: between two sentences, without operator and edit")
    if request.interpolate is None and not request.operator:
        raise ConfigError("operator: say what is asked for, such as --operator tone=formal")
    if request.strength != ControlRequest.strength and (
        request.edit is None or request.mode == "flow"
    ):
        raise ConfigError("strength: of --edit in --mode exact; leave it out")
    if not 0 <= request.stay <= MOST_STAY:
        raise ConfigError(f"stay = {request.stay}: expected a number from 0 to {MOST_STAY}")
    if request.stay and (request.edit is None or request.mode != "flow"):
        raise ConfigError("stay: of --edit in --mode flow; leave it out")
