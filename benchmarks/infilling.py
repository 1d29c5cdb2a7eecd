"""The middle of sentences, from both sides or from the left: `python -m benchmarks.infilling RUN
CAUSAL`.

The middle third of held-out sentences is left out. Diffusion fills the gap with as many words as it
likes, the sides being a control that holds in every sentence. The causal reference goes on from the
left side; of what it writes as many words are taken as were left out, a help that diffusion does
without, and the right side is put behind them. BLEU-4 is of the whole sentences, sides included in
both, against the one that the gap was made in. Of several candidates the one is kept that the
others agree with (`text.mbr`), or that the model that wrote it finds the likeliest as a whole: so a
causal model too hears of the right side.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from rich.console import Console
from rich.progress import track

from benchmarks.command import command
from benchmarks.tables import Column, Table
from shared.errors import ConfigError
from shared.provenance import provenance
from shared.requests import ControlRequest, SampleRequest
from shared.runs import open_run
from shared.seeds import candidate_seeds
from text.ask import Ask
from text.baseline import CausalLM
from text.control import Control
from text.data import some
from text.mbr import rank
from text.metrics import overlap
from text.panel import PANEL
from text.pipeline import Pipeline
from text.sources import beginning_ids
from text.yardstick import Yardstick, find_yardstick

LEAST = 9  # words of a sentence, so that every third has three
SIGNS = frozenset("()|?*+{}")  # of patterns; in a sentence they would not be words
SHOWN = 20

Draws = list[list[str]]  # of each frame, as many candidates


@dataclass(frozen=True)
class Frame:
    """A sentence as the words around its gap, and those that were in it."""

    left: tuple[str, ...]
    middle: tuple[str, ...]
    right: tuple[str, ...]

    @classmethod
    def of(cls, sentence: str) -> "Frame":
        words = tuple(sentence.split())
        side = len(words) // 3
        return cls(words[:side], words[side:-side], words[-side:])

    def filled(self, middle: Sequence[str]) -> str:
        return " ".join([*self.left, *middle, *self.right])

    @property
    def sentence(self) -> str:
        return self.filled(self.middle)

    @property
    def control(self) -> Control:
        """What every sentence satisfies that fills the gap, with one word or more."""
        return Control("pattern", self.filled(["[MASK]+"]))

    def kept(self, sentence: str) -> bool:
        """Whether both sides are in a sentence, with something between."""
        words, side = sentence.split(), len(self.left)
        return (
            len(words) > 2 * side
            and tuple(words[:side]) == self.left
            and tuple(words[-side:]) == self.right
        )


def frames(sentences: Sequence[str], count: int) -> list[Frame]:
    """Of `count` different sentences that are long enough, always the same ones. ConfigError when
    there are fewer."""
    fit = [one for one in dict.fromkeys(sentences) if _fits(one)]
    if len(fit) < count:
        raise ConfigError(
            f"count = {count}: {len(fit)} held-out sentences have {LEAST} words or more, all known "
            "to both models; ask for fewer"
        )
    return [Frame.of(one) for one in some(fit, count)]


def _fits(sentence: str) -> bool:
    return len(sentence.split()) >= LEAST and "<unk>" not in sentence and not SIGNS & {*sentence}


def by_diffusion(pipeline: Pipeline, gaps: Sequence[Frame], k: int, how: ControlRequest) -> Draws:
    """k sentences for each frame."""
    seeds = _seeds(how.seed, len(gaps), k)
    automata = pipeline.automata([[gap.control] for gap in gaps]).repeat(k)
    ask = Ask(automata=automata, control_scale=how.control_scale)
    texts = pipeline.write([seed for own in seeds for seed in own], how, ask, progress=True).texts
    return [texts[i : i + k] for i in range(0, len(texts), k)]


def from_the_left(pipeline: Pipeline, gaps: Sequence[Frame], k: int, seed: int) -> Draws:
    """k sentences for each frame: what follows its left side, cut to the gap's words."""
    draws: Draws = []
    seeds = _seeds(seed, len(gaps), k)
    shown = track(
        zip(gaps, seeds, strict=True),
        "from the left",
        total=len(gaps),
        console=Console(stderr=True),
    )
    for gap, own in shown:
        start = beginning_ids(" ".join(gap.left), pipeline.tokenizer, pipeline.config.data)
        texts = pipeline.write(own, SampleRequest(), Ask(start=start)).texts
        side = len(gap.left)
        draws.append([gap.filled(one.split()[side:][: len(gap.middle)]) for one in texts])
    return draws


def _seeds(first: int, count: int, k: int) -> list[list[int]]:
    return [candidate_seeds(first + i, k) for i in range(count)]


def _likeliest(pipeline: Pipeline, draws: Draws) -> list[str]:
    """Of each frame's candidates the one of least loss under the model: of a causal one -log p of
    the whole sentence, of diffusion its estimate (`text.sureness`)."""
    texts, k = [text for own in draws for text in own], len(draws[0])
    if isinstance(pipeline.learner, CausalLM):
        with torch.no_grad():
            losses = pipeline.learner.nll(pipeline.rows(texts)).sum(1)
    else:
        losses = pipeline.own_losses(texts, None)
    best = losses.view(-1, k).argmin(1).tolist()
    return [own[i] for own, i in zip(draws, best, strict=True)]


def rows(
    way: str, pipeline: Pipeline, gaps: Sequence[Frame], draws: Draws, yardstick: Yardstick
) -> Iterator[dict[str, Any]]:
    """The measures of each frame's first candidate, the one agreed upon, and the likeliest."""
    chosen = {
        "the first": [own[0] for own in draws],
        "agreement": [rank(own, range(len(own)))[0].text for own in draws],
        "likelihood": _likeliest(pipeline, draws),
    }
    for by, texts in chosen.items():
        yield {
            "way": way,
            "chosen": by,
            "bleu": overlap.bleu(texts, [[gap.sentence] for gap in gaps]),
            "kept": sum(map(Frame.kept, gaps, texts)) / len(gaps),
            "nats_per_token": yardstick.nats_per_token(texts),
            "texts": texts[:SHOWN],
        }


def run(
    run: Annotated[Path, tyro.conf.Positional],
    causal: Annotated[Path, tyro.conf.Positional],
    count: int = 128,
    candidates: int = 8,
    steps: int = 25,
    td: float = 1.0,
    seed: int = 0,
    json_file: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
) -> None:
    """Measure how two runs on the same sentences fill gaps.

    Args:
        run: A run of a diffusion model that writes from nothing.
        causal: A run of the causal reference on the same data.
        count: Held-out sentences with a gap.
        candidates: Drawn for each of them.
        steps: Of the ancestral solver, each one evaluation of the network and one backward pass.
        td: Asymmetric intervals, as in `diptych sample`.
        seed: Of the first sentence.
        json_file: Write everything here.
    """
    pipeline, left = Pipeline.from_pretrained(run), Pipeline.from_pretrained(causal)
    if not isinstance(left.learner, CausalLM) or isinstance(pipeline.learner, CausalLM):
        raise ConfigError(
            "RUN, CAUSAL: expected a run of model: diffusion and one of model: causal"
        )
    yardstick = find_yardstick(open_run(run), PANEL)
    gaps = frames([one for one in yardstick.held_out_sentences if _known(one, left)], count)
    how = ControlRequest(steps=steps, td=td, seed=seed)
    ways = {
        "diffusion, from both sides": (pipeline, by_diffusion(pipeline, gaps, candidates, how)),
        "causal, from the left": (left, from_the_left(left, gaps, candidates, seed)),
    }
    found = [
        row
        for way, (model, draws) in ways.items()
        for row in rows(way, model, gaps, draws, yardstick)
    ]
    table = Table(
        "Gaps filled from both sides, and from the left",
        f"{count} held-out sentences without their middle third, {candidates} candidates each "
        f"(seeds from {seed}); diffusion with {steps} ancestral steps, td = {td:g}, fp32. BLEU-4 "
        "of whole sentences. The judge finds "
        f"{yardstick.nats_per_token([gap.sentence for gap in gaps]):.2f} nats a token in the "
        "sentences as they were.",
        (
            Column("way", "gap filled by"),
            Column("chosen", "chosen by"),
            Column("bleu", "BLEU", ".1f"),
            Column("kept", "both sides kept", ".1%"),
            Column("nats_per_token", "nats a token", ".2f"),
        ),
        found,
    )
    about = {"run": run.name, "causal": causal.name, "candidates": candidates, "seed": seed}
    about |= {"sampling": {"solver": how.solver, "steps": steps, "td": td}}
    shown = [asdict(gap) for gap in gaps[:SHOWN]]
    table.publish(json_file, about | {"provenance": provenance()}, gaps=shown)


def _known(sentence: str, pipeline: Pipeline) -> bool:
    return not any(pipeline.tokenizer.unknown(word) for word in sentence.split())


if __name__ == "__main__":
    sys.exit(command(run))
