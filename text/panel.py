"""The text panel as the core sees it: how to prepare, train, sample and evaluate a run."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from shared.codec import Bits, Codec
from shared.errors import ConfigError
from shared.files import write_text
from shared.learner import DiffusionLearner
from shared.runs import open_run
from shared.task import ControlRequest, EvaluateRequest, SampleRequest
from shared.tokenizer import FILE, UNK, load_tokenizer, train_tokenizer
from text.baseline import CausalLM
from text.codec import Embedding
from text.config import TextConfig
from text.control.evaluation import control
from text.control.evaluation import evaluate as evaluate_controls
from text.data import Rows, read_corpus, to_rows
from text.evaluation import evaluate
from text.mbr import Candidate
from text.net import TextNet
from text.pipeline import Glimpse, Pipeline


class TextPanel:
    """Sentences."""

    name = "text"
    config_type = TextConfig

    def prepare(self, config: TextConfig, run: Path) -> None:
        """Train the tokenizer, and tell what of the data is used (data.json)."""
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

    def examples(self, config: TextConfig, run: Path) -> Rows:
        """The rows of the training split."""
        return to_rows(read_corpus(config.data), load_tokenizer(run / FILE), config.data)

    def learner(self, config: TextConfig, run: Path) -> nn.Module:
        """A fresh diffusion model, or the causal reference."""
        return build_learner(config, len(load_tokenizer(run / FILE)))

    def sample(self, run: Path, request: SampleRequest, out: Path) -> dict[str, Any]:
        """samples.txt, one sentence a line; samples.json with seeds and settings; on request the
        best candidates for each sentence as n_best.txt and in samples.json, and the denoising of
        the first sentence as trajectory.txt and trajectory.json."""
        if request.condition is not None:
            raise ConfigError("class: sentences have none; say what to write from with --prompt")
        glimpses: list[Glimpse] = []
        watch = glimpses.append if request.trajectory else None
        pipeline = Pipeline.from_pretrained(run, request.weights)
        result = pipeline.write(
            request.seeds,
            request,
            request.given,
            watch,
            True,
            request.mbr,
            request.n_best,
            prompt=request.prompt,
        )
        settings = request.settings() | {"weights": request.weights, "given": request.given}
        settings |= {"prompt": request.prompt, "mbr": request.mbr}
        written = {"settings": settings, "seeds": result.seeds, "texts": result.texts}
        if request.mbr > 1:
            written["n_best"] = [[vars(one) for one in best] for best in result.n_best]
            write_text(out / "n_best.txt", _n_best_lines(result.n_best))
        write_text(out / "samples.txt", "".join(text + "\n" for text in result.texts))
        write_text(out / "samples.json", json.dumps(written, indent=1, ensure_ascii=False))
        if request.trajectory:
            steps = [vars(glimpse) for glimpse in glimpses]
            lines = (f"{g.step:4d}  logsnr {g.logsnr:7.2f}  {g.text}\n" for g in glimpses)
            write_text(out / "trajectory.txt", "".join(lines))
            write_text(out / "trajectory.json", json.dumps(steps, indent=1, ensure_ascii=False))
        return {"n": len(result.texts), "samples": str(out / "samples.txt")} | {
            f"sentence {i}": text for i, text in enumerate(result.texts[:8])
        }

    def control(
        self, run: Path, controls: Sequence[str], request: ControlRequest, out: Path
    ) -> dict[str, Any]:
        """controlled.txt, the sentences of each target under it; controlled.json with everything;
        see `text.control.evaluation`."""
        pipeline = Pipeline.from_pretrained(run, request.weights)
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

    def evaluate(self, run: Path, request: EvaluateRequest) -> dict[str, Any]:
        """Perplexity under a judge, diversity, novelty, grammaticality; see `text.evaluation`."""
        found = open_run(run)
        return evaluate(found, request, self)

    def frontier(self, run: Path, request: EvaluateRequest) -> dict[str, Any]:
        """Perplexity beside entropy at several values of a setting; see `text.frontier`."""
        from text.frontier import frontier  # matplotlib: a second, which others need not wait

        return frontier(open_run(run), request, self)

    def datasets(self) -> dict[str, str]:
        return {"scene": "sentences about small scenes, from a grammar with known entropy"}


def build_learner(config: TextConfig, size: int) -> nn.Module:
    """A fresh diffusion model, or the causal reference, of `size` words."""
    length = config.data.length
    autocast = torch.bfloat16 if config.train.precision == "bf16" else None
    if config.model == "causal":
        source_length = config.data.source_length if config.data.source else 0
        return CausalLM(size, length, config.net, autocast, source_length)
    codec: Codec = (
        Bits(size, (length,))
        if config.codec.kind == "bits"
        else Embedding(size, length, config.codec.dim, config.codec.unit_norm)
    )
    categorical = config.diffusion.prediction == "categorical"
    channels = codec.latent_shape[-1]
    net = TextNet(
        channels,
        codec.logit_channels if categorical else channels,
        length,
        config.net,
        config.diffusion.self_condition,
        conditions=size if config.data.source else 0,
    )
    return DiffusionLearner(net, codec, config.diffusion, autocast=autocast)


def _n_best_lines(n_best: list[list[Candidate]]) -> str:
    """A line a candidate: of which sentence, its utility, how many draws gave it, itself."""
    return "".join(
        f"{i:4d}  utility {c.utility or 0:6.2f}  drawn {c.count:3d}  {c.text}\n"
        for i, best in enumerate(n_best)
        for c in best
    )


PANEL = TextPanel()
