"""`text.Pipeline`: a trained run as a function from seeds to sentences, as diffusers' users expect.

    pipe = text.Pipeline.from_pretrained("runs/text-scene")
    pipe(n=8, num_inference_steps=64).texts
    pipe(n=8, given="a red [MASK] [MASK]*", seeds=range(8)).texts
    pipe(n=8, controls=["length=9", "contains=red star"]).texts
    pipe(n=8, prompt="plain adult , large red solid circle top", guidance_scale=2).texts
    pipe(image=["a.png", "b.png"]).texts
    pipe(n=8, num_candidates=16, n_best=3).n_best[0]

Sentence i is a function of seeds[i] alone, and so are the candidates it is chosen among: theirs are
made of it by `shared.seeds.candidate_seeds`. The network computes in float32 here whatever it was
trained in: bfloat16 products depend on the shape of the batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from shared.errors import CheckpointError, ConfigError
from shared.learner import DiffusionLearner
from shared.prompts import pad_rows
from shared.ranks import share_out
from shared.requests import ControlRequest
from shared.runs import GRID, load_learner, open_run
from shared.sampling import Sampling
from shared.seeds import all_candidates, chosen_seeds
from shared.tokenizer import EOS, FILE, Tokenizer, load_tokenizer
from text.ask import Ask, Glimpse, Rank
from text.baseline import CausalLM
from text.captions import Shown, show
from text.config import TextConfig
from text.control import (
    Automata,
    Automaton,
    Control,
    Target,
    compile_controls,
    find_world,
    parse_controls,
)
from text.drawing import draw_rows
from text.mbr import Candidate, rank_each
from text.sources import beginning_ids, source_ids
from text.sureness import own_losses, surest_each
from text.template import Template, parse_template

Prompt = str | Sequence[str] | None  # one for all sentences, or one each


@dataclass(frozen=True)
class Output:
    """What a call gives back. n_best[i] are the best candidates for texts[i], itself the first."""

    texts: list[str]
    seeds: list[int]
    n_best: list[list[Candidate]]


class Pipeline:
    """Sentences from a trained run: a diffusion model, or the causal reference."""

    def __init__(self, learner: nn.Module, tokenizer: Tokenizer, config: TextConfig) -> None:
        if config.model in ("autoencoder", "operator"):
            raise ConfigError(
                f"model = {config.model!r}: it writes nothing by itself; use a run of model: "
                "diffusion on its latents (text/scene_latent)"
            )
        self.learner, self.tokenizer, self.config = learner.eval(), tokenizer, config
        self.run: Path | None = None  # the folder that it was read from
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
        pipeline.run, pipeline.grid_file = Path(run), Path(run) / GRID
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
        prompt: Prompt = None,
        image: Shown | Sequence[Shown] = (),
        given: str | None = None,
        length: int | None = None,
        controls: Sequence[str] = (),
        guidance_scale: float = 1.0,
        control_scale: float = ControlRequest.control_scale,
        temperature: float = 1.0,
        clamp: bool = False,
        num_candidates: int = 1,
        rank: Rank = "agreement",
        n_best: int = 1,
        watch: Callable[[Glimpse], None] | None = None,
        progress: bool = False,
    ) -> Output:
        """n sentences; `seeds` (one integer each) fix them, or `generator` draws the seeds.

        `prompt`, for all sentences or one each, is what a model with `data.source` writes from, and
        `guidance_scale` how strongly it follows that; the causal reference without a source begins
        with it. `image` is the same for a model that writes from pictures: one sentence for each,
        whatever n is. `given` is a template, see `text.template`; its words are in every sentence
        exactly. `length` is the tokens of each, of a model that is told it (`text.lengths`).
        `controls`, such as "length=9", are satisfied by every sentence, see
        `text.control`; `control_scale` is how strongly the rest of it follows them. `watch` sees
        the estimate of the first sentence at every step. `temperature` divides the logits: below 1,
        surer words and less variety. `clamp` makes every estimate the nearest words. Of
        `num_candidates` drawn for each sentence, the one that agrees most with the others is kept
        (`text.mbr`), or with rank="sureness" the one that the model itself is surest of
        (`text.sureness`); the `n_best` different ones come along. ConfigError for what the model
        cannot do.
        """
        how = Sampling(
            solver=solver,
            steps=num_inference_steps,
            grid=grid,
            guidance=guidance_scale,
            temperature=temperature,
            clamp=clamp,
        )
        pictures = [image] if isinstance(image, Shown) else list(image)
        chosen = chosen_seeds(len(pictures) or n, seeds, generator)
        asked = parse_controls(controls)
        source, start = self.prompted(prompt, len(chosen), pictures)
        ask = Ask(
            source=source,
            start=start,
            given=None if given is None else self.template(given),
            length=length,
            automata=self.automata([asked] * len(chosen)) if asked else None,
            control_scale=control_scale,
            candidates=num_candidates,
            rank=rank,
            n_best=n_best,
            watch=watch,
        )
        return self.write(chosen, how, ask, progress)

    def prompted(
        self, prompt: Prompt, n: int, pictures: Sequence[Shown] = ()
    ) -> tuple[Tensor | None, tuple[int, ...]]:
        """What n sentences are written from, `Ask.source` and `Ask.start`. ConfigError for what the
        model cannot take, or cannot do without; DataError for a picture that cannot be read."""
        data, causal = self.config.data, isinstance(self.learner, CausalLM)
        if pictures or (data.reads_pictures and prompt is not None):
            return self._shown(prompt, n, pictures), ()
        if prompt is None:
            if causal and data.source is not None:
                raise ConfigError("prompt: this causal model writes from a source; say which")
            return None, ()
        each = [prompt] * n if isinstance(prompt, str) else list(prompt)
        if len(each) != n:
            raise ConfigError(f"prompt: {len(each)} for {n} sentences")
        if data.source is not None:
            return source_ids(each, self.tokenizer, data), ()
        if not causal:
            raise ConfigError(
                "prompt: this model writes from nothing; train with data.source, or say how a "
                "sentence begins: --given 'a red [MASK]*'"
            )
        if len(set(each)) > 1:
            raise ConfigError("prompt: one beginning for all sentences, please")
        return None, beginning_ids(each[0], self.tokenizer, data)

    def _shown(self, prompt: Prompt, n: int, pictures: Sequence[Shown]) -> Tensor:
        data = self.config.data
        if not data.reads_pictures or data.picture is None:
            raise ConfigError(
                "image: this model reads no pictures; say what to write with a prompt"
            )
        if prompt is not None:
            raise ConfigError("prompt: this model writes from pictures; give an image instead")
        if len(pictures) != n:
            raise ConfigError(f"image: {len(pictures)} for {n} sentences")
        return show(pictures, data.picture)

    def template(self, given: str) -> Template:
        """`Ask.given` of a template. ConfigError for one that does not fit the model."""
        return parse_template(given, self.tokenizer, self.config.data.length)

    def automata(self, asked: Sequence[Sequence[Control]]) -> Automata:
        """`Ask.automata` of what each sentence must satisfy; equal lists are compiled once.
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
        self, seeds: Sequence[int], how: Sampling, ask: Ask | None = None, progress: bool = False
    ) -> Output:
        """One sentence per seed, each as it is asked for. ConfigError for what the model cannot
        do."""
        ask = ask or Ask()
        drawn = all_candidates(seeds, ask.candidates)
        each = ask.each_candidate()
        texts = self._texts(drawn, how, each, progress)
        if ask.rank == "sureness" and ask.candidates > 1:
            losses = self.own_losses(texts, each.source).tolist()
            ranked = surest_each(texts, losses, drawn, ask.candidates)
        else:
            ranked = rank_each(texts, drawn, ask.candidates, progress)
        return Output(
            [best[0].text for best in ranked], list(seeds), [best[: ask.n_best] for best in ranked]
        )

    def rows(self, texts: Sequence[str]) -> Tensor:
        """Sentences that the model wrote -> ids (n, L); one that fills all places has no end."""
        length = self.config.data.length
        rows = [[*self.tokenizer.encode(text), EOS][:length] for text in texts]
        return pad_rows(rows, length)

    def own_losses(self, texts: Sequence[str], source: Tensor | None) -> Tensor:
        """The model's loss (n,) of each sentence that it wrote from its row of source (n, ...); the
        lower, the surer. See `text.sureness`."""
        assert isinstance(self.learner, DiffusionLearner)
        return own_losses(self.learner, self.rows(texts), source)

    def _texts(self, seeds: list[int], how: Sampling, ask: Ask, progress: bool) -> list[str]:
        """One sentence per seed, as drawn."""
        watch, decode = ask.watch, self.tokenizer.decode

        def look(i: int, logsnr: float, ids: Tensor) -> None:
            assert watch is not None
            watch(Glimpse(i, logsnr, decode(ids.tolist())))

        rows = draw_rows(
            self.learner,
            seeds,
            how,
            ask,
            None if watch is None else look,
            self.grid_file,
            progress,
        )
        return [decode(ids) for ids in rows.tolist()]


def write_together(pipeline: Pipeline, seeds: Sequence[int], how: Sampling, ask: Ask) -> Output:
    """`Pipeline.write`, of which the processes of a launch do a part each."""

    def written(part: slice) -> Output:
        return pipeline.write(seeds[part], how, ask.part(part), progress=True)

    parts = share_out(len(seeds), written)
    return Output(
        [text for part in parts for text in part.texts],
        list(seeds),
        [best for part in parts for best in part.n_best],
    )
