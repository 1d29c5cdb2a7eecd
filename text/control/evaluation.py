"""`diptych control`: sentences under controls, and whether they satisfy them.

One target is the controls asked for together; a file of targets has one JSON object a line
(`text.control.targets`). Success is measured on the text that comes out, by regular expressions of
Python and by what a judge reads in it (`text.control.world`): not by what guided the sampler.
"""

import time
from collections.abc import Iterable, Sequence
from typing import Any

from shared.errors import ConfigError
from shared.guidance.effort import Effort
from shared.requests import ControlRequest
from shared.runs import Run
from shared.seeds import candidate_seeds
from shared.task import Panel
from text.ask import Ask
from text.control.automaton import Automaton
from text.control.controls import compile_controls, parse_controls
from text.control.paths import Automata
from text.control.targets import Target, read_targets
from text.control.world import World, asked, find_world
from text.pipeline import Pipeline
from text.yardstick import find_yardstick

# beside those of sampling
SETTINGS = ("seed", "weights", "mbr", "candidates", "prompt", "control_scale")
SURE = 0.9  # what a candidate must promise for no other to be drawn
FREE = 256  # sentences without control that the judge's nats are held against, at most


def control(pipeline: Pipeline, words: Sequence[str], request: ControlRequest) -> dict[str, Any]:
    """request.n sentences for every target, all targets in one batch: {"targets": [{"controls",
    "texts", "scores"}], "success": share by name, "all": share that satisfies all of its target,
    ...}. ConfigError for a target that the model cannot satisfy."""
    if (request.targets is None) == (not words):
        raise ConfigError(
            "controls: say what is asked for, such as length=9 contains='red star', or give "
            "--targets FILE or --evaluate FILE, not both"
        )
    if request.targets is None:
        targets = [Target(tuple(parse_controls(words)))]
    else:
        targets = read_targets(request.targets)
    world = find_world(pipeline.config.data.name, pipeline.tokenizer, request.tagged)
    automata = [_compile(one, world, pipeline) for one in targets]
    result = _written(pipeline, world, targets, automata, request)
    return result | {"judge": world.about(asked(targets))}


def evaluate(run: Run, panel: Panel, pipeline: Pipeline, request: ControlRequest) -> dict[str, Any]:
    """What `satisfy` gives for the targets of request.evaluate, and "lm_score": the nats per token
    (Li et al. 2022, sec. 6) under the judge of the run's data, of these sentences, of as many
    without control (FREE at most), of those that the targets come from, and of held-out ones."""
    assert request.evaluate is not None
    targets = read_targets(request.evaluate)
    tagged, name = request.tagged, pipeline.config.data.name
    if tagged is None and name != "scene" and asked(targets) & {"pos", "span"}:
        tagged = request.evaluate.parent
    world = find_world(name, pipeline.tokenizer, tagged)
    result = satisfy(pipeline, world, targets, request)
    texts = [text for target in result["targets"] for text in target["texts"]]
    yardstick = find_yardstick(run, panel)
    scores = {"controlled": texts, "uncontrolled": without_control(pipeline, request, len(texts))}
    gold = [" ".join(target.words) for target in targets if target.words]
    gold = [said for said in gold if yardstick.judge.reads(said)]
    if gold:
        scores["targets"] = gold
    found = {name: yardstick.nats_per_token(said) for name, said in scores.items()}
    found["held_out"] = yardstick.nats_per_token_held_out
    judge = {"judge": world.about(asked(targets)), "lm": yardstick.judge.facts}
    return result | {"lm_score": found} | judge


def satisfy(
    pipeline: Pipeline, world: World, targets: Sequence[Target], request: ControlRequest
) -> dict[str, Any]:
    """request.n sentences for every target, and how many satisfy it, as `control` gives them. A
    target that the model cannot satisfy counts as missed by all of its sentences, and is named.
    ConfigError when that are all."""
    possible: list[Target] = []
    automata: list[Automaton] = []
    missed: list[tuple[Target, str]] = []
    for target in targets:
        try:
            automata.append(_compile(target, world, pipeline))
            possible.append(target)
        except ConfigError as error:
            missed.append((target, str(error)))
    if not possible:
        raise ConfigError(f"this model can satisfy none of {len(targets)} targets: {missed[0][1]}")
    return _written(pipeline, world, possible, automata, request, missed)


def without_control(pipeline: Pipeline, request: ControlRequest, n: int) -> list[str]:
    """n sentences, FREE at most, drawn as the request says but without control."""
    seeds = range(request.seed, request.seed + min(n, FREE))
    source, _ = pipeline.prompted(request.prompt, len(seeds))
    ask = Ask(source=source, candidates=request.mbr)
    return pipeline.write(seeds, request, ask, progress=True).texts


def measure(
    targets: Sequence[Target],
    texts: Sequence[Sequence[str]],
    world: World,
    missed: Sequence[Target] = (),
) -> dict[str, Any]:
    """Shares of sentences: that satisfy each kind of control as `Control.score` counts, and to the
    letter, and all of their target's; in the scene world that are grammatical, and both. Of
    `missed` targets, with as many sentences as the others, none does. "scores" has a
    list for every target."""
    scores: dict[str, list[float]] = {}
    exact: dict[str, list[float]] = {}
    together: list[float] = []
    grammatical: list[float] = []
    each: list[list[dict[str, float]]] = []
    rows = [target for target, said in zip(targets, texts, strict=True) for _ in said]
    read = iter(world.analyse([text for said in texts for text in said], rows))
    for target, said in zip(targets, texts, strict=True):
        each.append([])
        for text in said:
            analysis = next(read)
            grammatical.append(float(analysis is not None))
            found = [float(one.success(text, analysis)) for one in target.controls]
            paper = [one.score(text, analysis) for one in target.controls]
            _add(exact, target, found)
            _add(scores, target, paper)
            together.append(min(found))
            each[-1].append(dict(zip(_names(target), paper, strict=True)))
    for target in missed:
        none = [0.0] * max(map(len, texts))
        together += none
        for _ in none:
            _add(exact, target, [0.0] * len(target.controls))
            _add(scores, target, [0.0] * len(target.controls))
    result: dict[str, Any] = {
        "success": {name: mean(found) for name, found in scores.items()},
        "to_the_letter": {name: mean(found) for name, found in exact.items()},
        "all": mean(together),
    }
    if world.exact:
        result["grammatical"] = mean(grammatical)
        both = [a * b for a, b in zip(together, grammatical, strict=False)]
        result["all_and_grammatical"] = sum(both) / len(together)
    return result | {"scores": each}


def _add(to: dict[str, list[float]], target: Target, values: Sequence[float]) -> None:
    for control, value in zip(target.controls, values, strict=True):
        to.setdefault(control.name, []).append(value)


def mean(values: Iterable[float]) -> float:
    """Of one value or more."""
    found = list(values)
    return sum(found) / len(found)


def _compile(target: Target, world: World, pipeline: Pipeline) -> Automaton:
    length = pipeline.config.data.length
    return compile_controls(target.controls, world.vocabulary(target), length)


def _written(
    pipeline: Pipeline,
    world: World,
    targets: Sequence[Target],
    automata: Sequence[Automaton],
    request: ControlRequest,
    missed: Sequence[tuple[Target, str]] = (),
) -> dict[str, Any]:
    """The sentences of targets that are possible, and how many satisfy them."""
    n = request.n
    rows = [pair for pair in zip(targets, automata, strict=True) for _ in range(n)]
    began = time.monotonic()
    with Effort(pipeline.network) as effort:
        texts = _drawn(pipeline, world, rows, request)
    seconds = time.monotonic() - began
    by_target = [texts[i * n : (i + 1) * n] for i in range(len(targets))]
    found = measure(targets, by_target, world, [target for target, _ in missed])
    scores = found.pop("scores")
    return {
        "targets": [
            {"controls": _names(target), "texts": said, "scores": own}
            for target, said, own in zip(targets, by_target, scores, strict=True)
        ],
        **found,
        "missed": [{"controls": _names(target), "why": why} for target, why in missed],
        "sentences": len(texts),
        "distinct": len(set(texts)) / len(texts),
        "evaluations": effort.per(len(texts)),
        "seconds": seconds,
        "seconds_per_target": seconds / len(targets),
        "settings": request.settings() | {name: getattr(request, name) for name in SETTINGS},
    }


def _drawn(
    pipeline: Pipeline,
    world: World,
    rows: Sequence[tuple[Target, Automaton]],
    request: ControlRequest,
) -> list[str]:
    """A sentence for each row: of up to request.candidates the first that promises to satisfy its
    target (SURE), else the one that promises most. The k-th of a row has the seed of
    `candidate_seeds`, so that rows do not depend on each other."""
    texts, best = [""] * len(rows), [-1.0] * len(rows)
    pending = list(range(len(rows)))
    for k in range(request.candidates):
        seeds = [candidate_seeds(request.seed + i, k + 1)[k] for i in pending]
        source, _ = pipeline.prompted(request.prompt, len(seeds))
        ask = Ask(
            source=source,
            automata=Automata.of([rows[i][1] for i in pending]),
            control_scale=request.control_scale,
            candidates=request.mbr,
        )
        drawn = pipeline.write(seeds, request, ask, progress=True).texts
        if request.candidates == 1:
            return drawn
        scores = world.promise(drawn, [rows[i][0] for i in pending])
        for i, text, score in zip(pending, drawn, scores, strict=True):
            if score > best[i]:
                texts[i], best[i] = text, score
        pending = [i for i in pending if best[i] < SURE]
        if not pending:
            break
    return texts


def _names(target: Target) -> list[str]:
    return [f"{control.name}={control.value}" for control in target.controls]
