"""`diptych evaluate` for sentences: perplexity under a judge, never without the entropy beside it.

Every number has the data's own beside it, see `text.yardstick`. Where sentences are written from
sources, they are written from held-out ones, and held against them: in the scene world by the
reader, elsewhere by what people wrote from the same source, the slots of restaurants by their
values, and captions by the scenes of their pictures where these are known.
"""

from typing import Any

from shared.errors import ConfigError
from shared.provenance import provenance
from shared.ranks import on_rank_zero
from shared.requests import EvaluateRequest
from shared.runs import Run
from shared.task import Panel
from text.ask import Ask, choice
from text.bound import likelihood
from text.config import DataConfig
from text.metrics import faithfulness, overlap, recovery, slots
from text.pipeline import Pipeline, write_together
from text.references import References, find_references, repeated
from text.sources import source_ids
from text.yardstick import Yardstick, find_yardstick, of_split


def evaluate(run: Run, request: EvaluateRequest, panel: Panel) -> dict[str, Any]:
    """Draw request.n sentences from a run and measure them."""
    if request.likelihood and run.config.codec.explicit_length:
        raise ConfigError(
            "likelihood: this model was trained with codec.explicit_length, and its bound would "
            "leave out how probable a length is; leave likelihood out"
        )
    pipeline = Pipeline.from_pretrained(run.folder, request.weights)
    references = find_sources(pipeline, request)
    yardstick = find_yardstick(run, panel, request.split, request.features)
    texts = draw_texts(pipeline, request, references)

    def measured() -> dict[str, Any]:
        result = yardstick.measure(texts)
        if references is not None:
            result |= against_sources(texts, references, yardstick.config.data)
        if request.likelihood:
            result["likelihood"] = likelihood(pipeline, yardstick, request)
        return result | circumstances(yardstick, request)

    return on_rank_zero(measured)


def find_sources(pipeline: Pipeline, request: EvaluateRequest) -> References | None:
    """What request.n sentences are written from: held-out sources, or the request's prompt."""
    config = of_split(pipeline.config, request.split)
    if request.prompt is None:
        found = find_references(config.data, pipeline.tokenizer)
        return None if found is None else found.some(request.n)
    if config.data.source is None or config.data.reads_pictures:
        what = "nothing" if config.data.source is None else "pictures"
        raise ConfigError(f"prompt: this model writes from {what}; leave it out")
    if config.data.name == "scene":
        try:
            faithfulness.read_source(request.prompt)
        except ValueError as error:
            raise ConfigError(
                f"prompt = {request.prompt!r}: {error}; spell a scene, such as 'formal child , "
                "large red solid star top left'"
            ) from None
    ids = source_ids([request.prompt], pipeline.tokenizer, config.data)
    return repeated(request.prompt, ids, request.n)


def draw_texts(
    pipeline: Pipeline, request: EvaluateRequest, references: References | None
) -> list[str]:
    """request.n sentences, each from its source if there are any."""
    ask = Ask(source=None if references is None else references.rows, **choice(request))
    return write_together(pipeline, request.seeds, request, ask).texts


def against_sources(texts: list[str], references: References, data: DataConfig) -> dict[str, Any]:
    """Everything that is measured of sentences and their sources, by name."""
    sources, sentences = references.sources, references.sentences
    if data.name == "scene":
        found: dict[str, Any] = dict(faithfulness.compute(texts, sources))
    else:
        found = dict(overlap.compute(texts, sentences)) if all(sentences) else {}
    if data.picture is not None:
        if data.picture.scenes is not None:
            found |= recovery.compute(texts, sources)
    elif all(slots.read_slots(source) is not None for source in sources):
        found |= slots.compute(texts, sources, sentences)
    return found | {"sources": len(set(sources))}


def circumstances(yardstick: Yardstick, request: EvaluateRequest) -> dict[str, Any]:
    """What the numbers hold for: data, judge, settings, provenance."""
    held_out, config = yardstick.held_out, yardstick.config
    told = {"prompt": request.prompt} if config.data.source else {}
    return {
        "held_out": {"sentences": len(held_out), "dropped": held_out.dropped},
        "judge": yardstick.judge.facts,
        "features": yardstick.compared_in.facts,
        "settings": {
            "model": config.model,
            **request.settings(),
            **told,
            "split": config.data.held_out,
            "mbr": request.mbr,
            "surest": request.surest,
            "seed": request.seed,
            "weights": request.weights,
            "precision": "fp32",
        },
        "provenance": provenance(),
    }
