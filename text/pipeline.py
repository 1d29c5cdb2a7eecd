"""`text.Pipeline`: a trained run as a function from seeds to sentences, as diffusers' users expect.

    pipe = text.Pipeline.from_pretrained("runs/text-scene")
    pipe(n=8, num_inference_steps=64).texts
    pipe(n=8, given="a red [MASK] [MASK]*", seeds=range(8)).texts
    pipe(n=8, controls=["length=9", "contains=red star"]).texts
    pipe(n=8, prompt="plain adult , large red solid circle top", guidance_scale=2).texts
    pipe(n=8, num_candidates=16, n_best=3).n_best[0]

Sentence i is a function of seeds[i] alone, and so are the candidates it is chosen among: theirs are
made of it by `text.mbr.candidate_seeds`. The network computes in float32 here whatever it was
trained in: bfloat16 products depend on the shape of the batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from shared.codec import Codec
from shared.denoiser import Denoise
from shared.errors import CheckpointError, ConfigError
from shared.guidance import infill
from shared.learner import DiffusionLearner
from shared.runs import GRID, load_learner, open_run
from shared.sampling import Sampling, Wrap, draw
from shared.tokenizer import FILE, Tokenizer, load_tokenizer
from text.baseline import CausalLM
from text.codec import nearness
from text.config import TextConfig
from text.control import (
    Automata,
    Automaton,
    Control,
    Target,
    compile_controls,
    controlled,
    find_world,
    nearest_accepted,
    parse_controls,
)
from text.given import Given, parse_given
from text.mbr import Candidate, candidate_seeds, check_candidates, rank_each
from text.sources import check_words, source_ids


@dataclass(frozen=True)
class Output:
    """What a call gives back. n_best[i] are the best candidates for texts[i], itself the first."""

    texts: list[str]
    seeds: list[int]
    n_best: list[list[Candidate]]


@dataclass(frozen=True)
class Glimpse:
    """The estimate of one sentence at one step of its denoising."""

    step: int
    logsnr: float
    text: str


class Pipeline:
    """Sentences from a trained run: a diffusion model, or the causal reference."""

    def __init__(self, learner: nn.Module, tokenizer: Tokenizer, config: TextConfig) -> None:
        self.learner, self.tokenizer, self.config = learner.eval(), tokenizer, config
        self.grid_file: Path | None = None  # where the grid of solver="auto" is kept
        self.tagged: Path | None = None  # a folder of sentences with tags
        if isinstance(learner, DiffusionLearner):
            learner.denoiser.autocast = None
        elif isinstance(learner, CausalLM):
            learner.autocast = None

    @classmethod
    def from_pretrained(
        cls, run: str | Path, weights: str = "ema", tagged: str | Path | None = None
    ) -> "Pipeline":
        """A run folder of the text panel; `tagged`, a folder of sentences with parts of speech, for
        controls over them. CheckpointError when the first is not one."""
        found = open_run(Path(run))
        if not isinstance(found.config, TextConfig):
            raise CheckpointError(f"{run}: a run of the {found.panel.name} panel, expected text")
        tokenizer = load_tokenizer(Path(run) / FILE)
        pipeline = cls(load_learner(Path(run), weights), tokenizer, found.config)
        pipeline.grid_file = Path(run) / GRID
        pipeline.tagged = None if tagged is None else Path(tagged)
        return pipeline

    def to(self, device: torch.device | str) -> "Pipeline":
        """Move the network; returns self."""
        self.learner.to(device)
        return self

    @property
    def network(self) -> nn.Module:
        """What is evaluated at every step."""
        learner = self.learner
        return learner.denoiser.net if isinstance(learner, DiffusionLearner) else learner

    def __call__(
        self,
        n: int = 1,
        num_inference_steps: int = 64,
        solver: str = "ancestral",
        grid: str | None = None,
        seeds: Sequence[int] | None = None,
        generator: torch.Generator | None = None,
        prompt: str | Sequence[str] | None = None,
        given: str | None = None,
        controls: Sequence[str] = (),
        guidance_scale: float = 1.0,
        temperature: float = 1.0,
        clamp: bool = False,
        num_candidates: int = 1,
        n_best: int = 1,
        watch: Callable[[Glimpse], None] | None = None,
        progress: bool = False,
    ) -> Output:
        """n sentences; `seeds` (one integer each) fix them, or `generator` draws the seeds.

        `prompt`, for all sentences or one each, is what a model with `data.source` writes from, and
        `guidance_scale` how strongly it follows that; the causal reference without a source begins
        with it. `given` is a template, see `text.given`; its words are in every sentence exactly.
        `controls`, such as "length=9", are satisfied by every sentence, see `text.control`;
        `guidance_scale` is then how strongly the rest of it follows them. `watch` sees the estimate
        of the first sentence at every step. `temperature` divides the logits: below 1, surer words
        and less variety. `clamp` makes every estimate the nearest words. Of `num_candidates` drawn
        for each sentence, the one that agrees most with the others is kept (`text.mbr`); the
        `n_best` different ones come along. ConfigError for what the model cannot do.
        """
        how = Sampling(
            solver=solver,
            steps=num_inference_steps,
            grid=grid,
            guidance=guidance_scale,
            temperature=temperature,
            clamp=clamp,
        )
        chosen = _seeds(n, seeds, generator)
        asked = parse_controls(controls)
        automata = self.automata([asked] * len(chosen)) if asked else None
        return self.write(
            chosen, how, given, watch, progress, num_candidates, n_best, automata, prompt
        )

    def automata(self, asked: Sequence[Sequence[Control]]) -> Automata:
        """What each sentence must satisfy, as `write` takes it; equal lists are compiled once.
        ConfigError for what no sentence of this model can satisfy."""
        world = find_world(self.config.data.name, self.tokenizer, self.tagged)
        length = self.config.data.length
        made: dict[tuple[Control, ...], Automaton] = {}
        for controls in map(tuple, asked):
            if controls not in made:
                vocabulary = world.vocabulary(Target(controls))
                made[controls] = compile_controls(controls, vocabulary, length)
        return Automata.of([made[tuple(controls)] for controls in asked])

    def write(
        self,
        seeds: Sequence[int],
        how: Sampling,
        given: str | None = None,
        watch: Callable[[Glimpse], None] | None = None,
        progress: bool = False,
        candidates: int = 1,
        n_best: int = 1,
        automata: Automata | None = None,
        prompt: str | Sequence[str] | None = None,
    ) -> Output:
        """One sentence per seed, chosen among its candidates, which its automaton, where there are
        any, accepts. ConfigError for what the model cannot do."""
        check_candidates(candidates, n_best)
        if watch is not None and candidates > 1:
            raise ConfigError(
                "trajectory, mbr: which candidate is kept is known when all are drawn, too late to "
                "watch it; leave one of them out"
            )
        drawn = [own for seed in seeds for own in candidate_seeds(seed, candidates)]
        wanted = None if automata is None else automata.repeat(candidates)
        prompts = None
        if prompt is not None:
            each = [prompt] * len(seeds) if isinstance(prompt, str) else list(prompt)
            if len(each) != len(seeds):
                raise ConfigError(f"prompt: {len(each)} for {len(seeds)} sentences")
            prompts = [one for one in each for _ in range(candidates)]
        texts = self._texts(drawn, how, given, watch, progress, wanted, prompts)
        ranked = rank_each(texts, drawn, candidates, progress)
        return Output(
            [best[0].text for best in ranked], list(seeds), [best[:n_best] for best in ranked]
        )

    def _texts(
        self,
        seeds: list[int],
        how: Sampling,
        given: str | None,
        watch: Callable[[Glimpse], None] | None,
        progress: bool,
        automata: Automata | None,
        prompts: list[str] | None,
    ) -> list[str]:
        """One sentence per seed, as drawn."""
        if automata is not None and given is not None:
            raise ConfigError("given and controls: say both as one control, pattern='...'")
        if automata is not None and how.clamp:
            raise ConfigError("clamp: under controls estimates stay means of words; leave it out")
        if automata is None and how.guided and prompts is None:
            raise ConfigError("guidance, guide: towards what? Give a prompt, or leave it out")
        if automata is not None and (how.guide or how.guidance_interval):
            raise ConfigError("guide, guidance_interval: not under controls; leave it out")
        if isinstance(self.learner, CausalLM):
            if given is not None or watch is not None or automata is not None or how.clamp:
                raise ConfigError(
                    "given, controls, trajectory, clamp: the causal reference writes from left to "
                    "right only; use a run with model: diffusion"
                )
            rows = self._continue(self.learner, seeds, how, prompts)
        else:
            source = None if prompts is None else self._source(prompts)
            rows = self._denoise(seeds, how, given, watch, progress, automata, source)
        return [self.tokenizer.decode(ids) for ids in rows.tolist()]

    def _source(self, prompts: list[str]) -> Tensor:
        """Prompts -> condition ids (n, M)."""
        if self.config.data.source is None:
            raise ConfigError(
                "prompt: this model writes from nothing; train with data.source, or say how a "
                "sentence begins: --given 'a red [MASK]*'"
            )
        return source_ids(prompts, self.tokenizer, self.config.data)

    def _continue(
        self, learner: CausalLM, seeds: list[int], how: Sampling, prompts: list[str] | None
    ) -> Tensor:
        """Rows of ids (n, L) from left to right."""
        if how.guided:
            raise ConfigError(
                "guidance: for diffusion; the causal reference has none, leave it out"
            )
        if self.config.data.source is not None:
            if prompts is None:
                raise ConfigError("prompt: this causal model writes from a source; say which")
            return learner.generate(seeds, how.temperature, self._source(prompts))
        if prompts is None:
            return learner.generate(seeds, how.temperature)
        if len(set(prompts)) > 1:
            raise ConfigError("prompt: one beginning for all sentences, please")
        return learner.generate(seeds, how.temperature, start=self._beginning(prompts[0]))

    def _beginning(self, prompt: str) -> list[int]:
        check_words("prompt", prompt, self.tokenizer)
        ids, length = self.tokenizer.encode(prompt), self.config.data.length
        if len(ids) >= length:
            raise ConfigError(
                f"prompt: {len(ids):,} tokens, expected at most {length - 1}: this model's "
                f"data.length is {length} with the end"
            )
        return ids

    def _denoise(
        self,
        seeds: list[int],
        how: Sampling,
        given: str | None,
        watch: Callable[[Glimpse], None] | None,
        progress: bool,
        automata: Automata | None,
        source: Tensor | None,
    ) -> Tensor:
        """Rows of ids (n, L)."""
        learner = self.learner
        assert isinstance(learner, DiffusionLearner)
        template = None
        if given is not None:
            template = parse_given(given, self.tokenizer, self.config.data.length)

        def glimpse(i: int, logsnr: float, x_t: Tensor, x0_hat: Tensor) -> None:
            assert watch is not None
            ids = self._nearest(x0_hat[:1], template, automata)[0].tolist()
            watch(Glimpse(i, logsnr, self.tokenizer.decode(ids)))

        def control(_: Denoise, rows: slice) -> Denoise:
            assert automata is not None
            return controlled(learner.denoiser, automata[rows], how.guidance, how.temperature)

        wrap = None if template is None else _clamp(learner.codec, template)
        x0 = draw(
            learner,
            seeds,
            how,
            condition=source,
            wrap=wrap if automata is None else control,
            watch=None if watch is None else glimpse,
            grid_file=self.grid_file,
            progress=progress,
            label="sentences",
        )
        return self._nearest(x0, template, automata)

    @torch.no_grad()
    def _nearest(self, x0: Tensor, template: Given | None, automata: Automata | None) -> Tensor:
        """x0 (n, L, ...) -> ids (n, L), the nearest that template and automata allow."""
        assert isinstance(self.learner, DiffusionLearner)
        if automata is not None:
            return nearest_accepted(self.learner.denoiser, x0, automata[: len(x0)])
        codec = self.learner.codec
        device = next(self.learner.parameters()).device
        if template is None:
            return codec.decode(x0.to(device)).cpu()
        points = codec.encode(torch.arange(len(self.tokenizer), device=device))
        scores = nearness(x0.to(device), points)
        return scores.masked_fill(~template.allowed.to(device), -torch.inf).argmax(-1).cpu()


def _clamp(codec: Codec, template: Given) -> Wrap:
    """The given places of every sample are what is given."""

    def wrap(denoise: Denoise, rows: slice) -> Denoise:
        known = codec.encode(template.ids[None].to(_device(codec)))
        mask = template.known[None, :, None].to(known.device)
        return infill(denoise, known, mask)

    return wrap


def _device(codec: Codec) -> torch.device:
    assert isinstance(codec, nn.Module)
    return next(iter([*codec.parameters(), *codec.buffers()])).device


def _seeds(n: int, seeds: Sequence[int] | None, generator: torch.Generator | None) -> list[int]:
    if seeds is not None:
        if generator is not None:
            raise ConfigError("give seeds or a generator, not both")
        if len(seeds) == 0:
            raise ConfigError("seeds: expected one integer or more")
        return [int(seed) for seed in seeds]
    if n < 1:
        raise ConfigError(f"n = {n}: expected 1 or more")
    return torch.randint(2**31, (n,), generator=generator).tolist()
