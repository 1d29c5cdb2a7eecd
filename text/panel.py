"""The text panel as the core sees it: how to prepare, train, sample and evaluate a run."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from shared.codec import Bits, Codec, DiscreteCodec
from shared.edits import EditRequest
from shared.errors import ConfigError
from shared.files import write_text
from shared.learner import DiffusionLearner
from shared.prompts import one_each
from shared.ranks import on_rank_zero
from shared.requests import (
    ControlRequest,
    EvaluateRequest,
    ExportRequest,
    PairRequest,
    SampleRequest,
    WriteRequest,
)
from shared.runs import open_run
from shared.scene import Scene
from shared.task import Examples
from shared.tokenizer import FILE, UNK, load_tokenizer, train_tokenizer
from text.ask import Ask, Glimpse, choice
from text.autoencoder import evaluation as autoencoder
from text.autoencoder.codec import load_codec, read_shape
from text.autoencoder.install import install
from text.autoencoder.learner import AutoencoderLearner
from text.autoencoder.network import SentenceNetwork
from text.baseline import CausalLM
from text.codec import Embedding, Ended
from text.config import DataConfig, TextConfig
from text.control.evaluation import control
from text.control.evaluation import evaluate as evaluate_controls
from text.data import read_corpus, to_rows
from text.evaluation import evaluate
from text.lengths import read_lengths, write_lengths
from text.mbr import Candidate
from text.net import TextNet
from text.operators import control as operators
from text.operators import evaluation as classified
from text.operators.data import labelled_rows, latent_rows, read_classes, write_classes
from text.operators.learner import Operator
from text.pipeline import Output, Pipeline, write_together
from text.teller import captions
from text.writer import FILE as WRITTEN
from text.writer import read_written, write


class TextPanel:
    """Sentences."""

    name = "text"
    config_type = TextConfig

    def prepare(self, config: TextConfig, run: Path) -> None:
        """Train the tokenizer, or take that of the latents, and tell what of the data is used
        (data.json); of an operator also its classes (labels.json), of a model that is told lengths
        those that there are (lengths.json)."""
        if config.model == "operator":
            write_classes(config.data, run)
        if config.codec.kind == "sentence":
            install(config, run)
        corpus = read_corpus(config.data)
        if (run / FILE).is_file():
            tokenizer = load_tokenizer(run / FILE)
        else:
            data = config.data
            tokenizer = train_tokenizer(
                corpus.strings, data.tokenizer, data.vocabulary, data.min_count
            )
            tokenizer.save(run / FILE)
        rows = to_rows(corpus, tokenizer, config.data)
        if config.codec.explicit_length:
            write_lengths(rows, run)
        facts = {
            "sentences": len(rows),
            "longer_than_length_dropped": rows.dropped,
            "vocabulary": len(tokenizer),
            "tokens_mean": float((rows.ids != 0).sum(1).float().mean()),
            "unknown_share": float((rows.ids == UNK).sum() / (rows.ids != 0).sum()),
        }
        write_text(run / "data.json", json.dumps(facts, indent=2))
        if rows.dropped:
            print(
                f"{config.data.name}: {rows.dropped:,} of {len(corpus):,} sentences do not fit "
                f"data.length = {config.data.length} tokens, or their sources data.source_length, "
                "and are dropped",
                file=sys.stderr,
            )

    def examples(self, config: TextConfig, run: Path) -> Examples:
        """The rows of the training split, or their latents."""
        if config.model == "operator":
            rows = labelled_rows(config.data, run, read_classes(run))
        else:
            rows = to_rows(read_corpus(config.data), load_tokenizer(run / FILE), config.data)
        return latent_rows(load_codec(run), rows) if config.codec.kind == "sentence" else rows

    def learner(self, config: TextConfig, run: Path) -> nn.Module:
        """A fresh model of the kind that the configuration names."""
        return build_learner(config, len(load_tokenizer(run / FILE)), run)

    def sample(self, run: Path, request: SampleRequest, out: Path) -> dict[str, Any]:
        """samples.txt, one sentence a line; samples.json with seeds and settings; on request the
        best candidates for each sentence as n_best.txt and in samples.json, and the denoising of
        the first sentence as trajectory.txt and trajectory.json."""
        if request.condition is not None:
            raise ConfigError("class: sentences have none; say what to write from with --prompt")
        if request.clip is not None:
            raise ConfigError("clip: sees pictures; sentences are chosen with --mbr or --surest")
        if request.negative_prompt is not None:
            raise ConfigError(
                "negative_prompt: for pictures; what no sentence may say is control avoids="
            )
        if request.low is not None or request.sketch is not None or request.layout:
            raise ConfigError("low, sketch, layout: for pictures; leave them out")
        glimpses: list[Glimpse] = []
        watch = glimpses.append if request.trajectory else None
        pipeline = Pipeline.from_pretrained(run, request.weights)
        if request.image:
            request = request.for_images()
        prompts = one_each(request.prompt, request.n)
        source, start = pipeline.prompted(prompts, request.n, request.image)
        ask = Ask(
            source=source,
            start=start,
            given=None if request.given is None else pipeline.template(request.given),
            length=request.length,
            **choice(request),
            n_best=request.n_best,
            watch=watch,
        )
        result = write_together(pipeline, request.seeds, request, ask)
        return on_rank_zero(lambda: _save(result, request, ask, prompts, glimpses, out))

    def control(
        self, run: Path, controls: Sequence[str], request: ControlRequest, out: Path
    ) -> dict[str, Any]:
        """controlled.txt, the sentences of each target under it; controlled.json with everything;
        see `text.control.evaluation`."""
        pipeline = Pipeline.from_pretrained(run, request.weights)
        if request.in_latents:
            return self._operate(pipeline, run, controls, request, out)
        if request.evaluate is None:
            result = control(pipeline, controls, request)
        elif controls or request.targets is not None:
            raise ConfigError("evaluate: its file says what is asked for; leave out other controls")
        else:
            result = evaluate_controls(open_run(run), self, pipeline, request)
        lines: list[str] = []
        for target in result["targets"]:
            lines += [f"# {', '.join(target['controls'])}", *target["texts"], ""]
        write_text(out / "controlled.txt", "\n".join(lines))
        write_text(out / "controlled.json", json.dumps(result, indent=1, ensure_ascii=False))
        shown = [text for target in result.pop("targets") for text in target["texts"]][:8]
        del result["settings"], result["judge"]
        return (
            {"samples": str(out / "controlled.txt")}
            | result
            | {f"sentence {i}": text for i, text in enumerate(shown)}
        )

    def export(self, run: Path, request: ExportRequest, out: Path) -> dict[str, Any]:
        """ConfigError: diffusers has no format for these models."""
        raise ConfigError(
            "export: for runs of the image panel; diffusers has no pipeline for diffusion over "
            "sentences. Load this run with text.Pipeline.from_pretrained"
        )

    def reads(self, folder: Path) -> bool:
        return False

    def write(self, run: Path, request: WriteRequest, out: Path) -> dict[str, Any]:
        """written.txt, one sentence a line, and written.json with everything; see `text.writer`."""
        pipeline = Pipeline.from_pretrained(run, request.weights)
        before = None if request.more_like is None else read_written(out)
        result = write(pipeline, request, before)
        write_text(out / "written.txt", "".join(text + "\n" for text in result["texts"]))
        write_text(out / WRITTEN, json.dumps(result, indent=1, ensure_ascii=False))
        told = {"success": result["success"], "drawn": result["drawn"]}
        return told | {f"{result['use_case']} {i}": text for i, text in enumerate(result["texts"])}

    def _operate(
        self,
        pipeline: Pipeline,
        run: Path,
        controls: Sequence[str],
        request: ControlRequest,
        out: Path,
    ) -> dict[str, Any]:
        """The same files, of sentences that operators made; see `text.operators.control`."""
        if controls:
            raise ConfigError(
                f"{' '.join(controls)}: by words or by operators, not both; leave one of them out"
            )
        result = operators.control(pipeline, run, request)
        texts = result.pop("texts")
        inputs = result.pop("inputs", None)
        written = {"texts": texts, "inputs": inputs, **result, "settings": request.asked()}
        write_text(out / "controlled.txt", "".join(text + "\n" for text in texts))
        write_text(
            out / "controlled.json", json.dumps(written, indent=1, ensure_ascii=False, default=str)
        )
        shown = {f"sentence {i}": text for i, text in enumerate(texts[:8])}
        return {"samples": str(out / "controlled.txt")} | result | shown

    def evaluate(self, run: Path, request: EvaluateRequest) -> dict[str, Any]:
        """Perplexity under a judge, diversity, novelty, grammaticality, see `text.evaluation`; of
        an autoencoder what comes back, of an operator how often it is right."""
        if request.reference is not None or request.clip is not None:
            raise ConfigError("reference, clip: for runs of the image panel; leave them out")
        found = open_run(run)
        others = {"autoencoder": autoencoder.evaluate, "operator": classified.evaluate}
        if found.config.model not in others:
            return evaluate(found, request, self)
        if request.features != "judge":
            raise ConfigError(
                f"features: a run of model: {found.config.model} writes nothing that could be "
                "compared in them; leave it out"
            )
        return others[found.config.model](found, request)

    def frontier(self, run: Path, request: EvaluateRequest) -> dict[str, Any]:
        """Perplexity beside entropy at several values of a setting; see `text.frontier`."""
        from text.frontier import frontier  # matplotlib: a second, which others need not wait

        return frontier(open_run(run), request, self)

    def edit(self, run: Path, request: EditRequest, out: Path) -> dict[str, Any]:
        """ConfigError: sentences are edited by `control`."""
        raise ConfigError("edit: for runs of the image panel; sentences: diptych control --edit")

    def express(
        self, scenes: Sequence[Scene], request: PairRequest, folder: Path
    ) -> list[dict[str, str]]:
        """A sentence that says all of each scene."""
        return [{"text": text} for text in captions(scenes, request.seed, "full")]

    def datasets(self) -> dict[str, str]:
        return {"scene": "sentences about small scenes, from a grammar with known entropy"}


def build_learner(config: TextConfig, size: int, run: Path | None = None) -> nn.Module:
    """A fresh model of the kind that the configuration names, of `size` words. Latents of sentences
    and classes are in the run folder, without which there are none."""
    length = config.data.length
    autocast = torch.bfloat16 if config.train.precision == "bf16" else None
    if config.model == "causal":
        source_length = config.data.source_length if config.data.source else 0
        return CausalLM(size, length, config.net, autocast, source_length)
    if config.model == "autoencoder":
        network = SentenceNetwork(size, length, config.autoencoder, config.net)
        return AutoencoderLearner(network, config.autoencoder, config.train.steps, autocast)
    if config.model == "operator":
        assert run is not None
        return Operator(read_shape(run), read_classes(run), config.operator)
    codec = _codec(config, size, run)
    places, channels = codec.latent_shape
    categorical = config.diffusion.prediction == "categorical"
    out = channels
    if categorical:
        assert isinstance(codec, DiscreteCodec)
        out = codec.logit_channels
    net = TextNet(
        channels,
        out,
        places,
        config.net,
        config.diffusion.self_condition,
        conditions=_conditions(config.data, size),
        explicit_length=config.codec.explicit_length,
    )
    beside = None
    if config.codec.explicit_length:
        assert run is not None
        beside = read_lengths(run)
    return DiffusionLearner(net, codec, config.diffusion, autocast=autocast, beside=beside)


def _conditions(data: DataConfig, size: int) -> int | tuple[int, int]:
    """How many ids a source may hold, or the shape of a row of patches."""
    if data.source is None:
        return 0
    return size if data.picture is None else data.picture.row_shape


def _codec(config: TextConfig, size: int, run: Path | None) -> Codec:
    if config.codec.kind == "sentence":
        assert run is not None
        return load_codec(run, config.codec.temperature)
    if config.codec.kind == "bits":
        tokens = Bits(size, (config.data.length,))
    else:
        tokens = Embedding(size, config.data.length, config.codec.dim, config.codec.unit_norm)
    return Ended(tokens) if config.codec.explicit_length else tokens


def _save(
    result: Output,
    request: SampleRequest,
    ask: Ask,
    prompts: Sequence[str] | None,
    glimpses: list[Glimpse],
    out: Path,
) -> dict[str, Any]:
    """Write what `TextPanel.sample` tells; returns where it is."""
    settings = request.settings() | {"weights": request.weights, "given": request.given}
    settings |= {name: getattr(request, name) for name in ("prompt", "mbr", "surest", "length")}
    images = [str(file) for file in request.image]
    written = {"settings": settings, "seeds": result.seeds, "texts": result.texts}
    written["prompts"] = prompts
    if images:
        written["images"] = images
    if ask.candidates > 1:
        written["n_best"] = [[vars(one) for one in best] for best in result.n_best]
        write_text(out / "n_best.txt", _n_best_lines(result.n_best))
    write_text(out / "samples.txt", "".join(text + "\n" for text in result.texts))
    write_text(out / "samples.json", json.dumps(written, indent=1, ensure_ascii=False))
    if request.trajectory:
        steps = [vars(glimpse) for glimpse in glimpses]
        lines = (f"{g.step:4d}  logsnr {g.logsnr:7.2f}  {g.text}\n" for g in glimpses)
        write_text(out / "trajectory.txt", "".join(lines))
        write_text(out / "trajectory.json", json.dumps(steps, indent=1, ensure_ascii=False))
    found = {"n": len(result.texts), "samples": str(out / "samples.txt")}
    if images:
        return found | {"captions": dict(zip(images, result.texts, strict=True))}
    return found | {f"sentence {i}": text for i, text in enumerate(result.texts[:8])}


def _n_best_lines(n_best: list[list[Candidate]]) -> str:
    """A line a candidate: of which sentence, its score, how many draws gave it, itself."""
    return "".join(
        f"{i:4d}  score {c.score or 0:6.2f}  drawn {c.count:3d}  {c.text}\n"
        for i, best in enumerate(n_best)
        for c in best
    )


PANEL = TextPanel()
