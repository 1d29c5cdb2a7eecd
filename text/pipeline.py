"""`text.Pipeline`: a trained run as a function from seeds to sentences, as diffusers' users expect.

    pipe = text.Pipeline.from_pretrained("runs/text-scene")
    pipe(n=8, num_inference_steps=64).texts
    pipe(n=8, given="a red [MASK] [MASK]*", seeds=range(8)).texts

Sentence i is a function of seeds[i] alone. The network computes in float32 here whatever it was
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
from text.given import Given, parse_given


@dataclass(frozen=True)
class Output:
    """What a call gives back."""

    texts: list[str]
    seeds: list[int]


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
        if isinstance(learner, DiffusionLearner):
            learner.denoiser.autocast = None
        elif isinstance(learner, CausalLM):
            learner.autocast = None

    @classmethod
    def from_pretrained(cls, run: str | Path, weights: str = "ema") -> "Pipeline":
        """A run folder of the text panel. CheckpointError when it is not one."""
        found = open_run(Path(run))
        if not isinstance(found.config, TextConfig):
            raise CheckpointError(f"{run}: a run of the {found.panel.name} panel, expected text")
        tokenizer = load_tokenizer(Path(run) / FILE)
        pipeline = cls(load_learner(Path(run), weights), tokenizer, found.config)
        pipeline.grid_file = Path(run) / GRID
        return pipeline

    def to(self, device: torch.device | str) -> "Pipeline":
        """Move the network; returns self."""
        self.learner.to(device)
        return self

    def __call__(
        self,
        n: int = 1,
        num_inference_steps: int = 64,
        solver: str = "ancestral",
        grid: str | None = None,
        seeds: Sequence[int] | None = None,
        generator: torch.Generator | None = None,
        given: str | None = None,
        temperature: float = 1.0,
        clamp: bool = False,
        watch: Callable[[Glimpse], None] | None = None,
        progress: bool = False,
    ) -> Output:
        """n sentences; `seeds` (one integer each) fix them, or `generator` draws the seeds.

        `given` is a template, see `text.given`; its words are in every sentence exactly. `watch`
        sees the estimate of the first sentence at every step. `temperature` divides the logits:
        below 1, surer words and less variety. `clamp` makes every estimate the nearest words.
        ConfigError for what the model cannot do.
        """
        how = Sampling(
            solver=solver,
            steps=num_inference_steps,
            grid=grid,
            temperature=temperature,
            clamp=clamp,
        )
        return self.write(_seeds(n, seeds, generator), how, given, watch, progress)

    def write(
        self,
        seeds: Sequence[int],
        how: Sampling,
        given: str | None = None,
        watch: Callable[[Glimpse], None] | None = None,
        progress: bool = False,
    ) -> Output:
        """One sentence per seed. ConfigError for what the model cannot do."""
        if how.guided:
            raise ConfigError(
                "guidance, guide: the text panel's models have no condition; leave it out"
            )
        if isinstance(self.learner, CausalLM):
            if given is not None or watch is not None or how.clamp:
                raise ConfigError(
                    "given, trajectory, clamp: the causal reference writes from left to right "
                    "only; use a run with model: diffusion"
                )
            rows = self.learner.generate(list(seeds), how.temperature)
        else:
            rows = self._denoise(list(seeds), how, given, watch, progress)
        return Output([self.tokenizer.decode(ids) for ids in rows.tolist()], list(seeds))

    def _denoise(
        self,
        seeds: list[int],
        how: Sampling,
        given: str | None,
        watch: Callable[[Glimpse], None] | None,
        progress: bool,
    ) -> Tensor:
        """Rows of ids (n, L)."""
        learner = self.learner
        assert isinstance(learner, DiffusionLearner)
        template = None
        if given is not None:
            template = parse_given(given, self.tokenizer, self.config.data.length)

        def glimpse(i: int, logsnr: float, x_t: Tensor, x0_hat: Tensor) -> None:
            assert watch is not None
            ids = self._nearest(x0_hat[:1], template)[0].tolist()
            watch(Glimpse(i, logsnr, self.tokenizer.decode(ids)))

        x0 = draw(
            learner,
            seeds,
            how,
            wrap=None if template is None else _clamp(learner.codec, template),
            watch=None if watch is None else glimpse,
            grid_file=self.grid_file,
            progress=progress,
            label="sentences",
        )
        return self._nearest(x0, template)

    @torch.no_grad()
    def _nearest(self, x0: Tensor, template: Given | None) -> Tensor:
        """x0 (n, L, ...) -> ids (n, L), the nearest that the template allows."""
        assert isinstance(self.learner, DiffusionLearner)
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
