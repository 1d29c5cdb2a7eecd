"""`image.Pipeline`: a trained run as a function from seeds to pictures, as diffusers' users expect.

    pipe = image.Pipeline.from_pretrained("runs/image-digits")
    pipe(class_labels="7", num_images=8, guidance_scale=2.0).images[0].save("seven.png")
    pipe(class_labels=[0, 1, 2], seeds=[5, 6, 7], output_type="np").images
    pipe(prompt="a red star", negative_prompt="blue", guidance_scale=3).images[0]

Picture i is a function of seeds[i] and its class or prompt alone. The network computes in float32
here whatever it was trained in: bfloat16 products depend on the shape of the batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from image.conditions import class_id, parse_scene
from image.config import ImageConfig
from image.data import Facts, load_pictures, read_facts
from image.grid import to_bytes, to_pil
from shared.errors import CheckpointError, ConfigError
from shared.learner import DiffusionLearner
from shared.prompts import prompt_ids
from shared.runs import GRID, load_learner, open_run
from shared.sampling import Sampling, draw
from shared.scales import Scales
from shared.scene import Scene, ids
from shared.tokenizer import FILE, Tokenizer, load_tokenizer

Labels = str | int | Scene | Sequence[str | int | Scene] | None
OUTPUTS = ("pil", "np", "latent")


@dataclass(frozen=True)
class Output:
    """What a call gives back. `images` is a list of PIL pictures, an array (n, H, W, C) in [0, 1],
    or latents (n, *latent_shape), as `output_type` says."""

    images: Any
    seeds: list[int]


@dataclass(frozen=True)
class Glimpse:
    """The first picture at one step of its denoising: the noisy state x_t and the estimate x0_hat
    there, both (C, H, W), 0 to 255, uint8."""

    step: int
    logsnr: float
    state: Tensor
    estimate: Tensor


class Pipeline:
    """Pictures from a trained diffusion model."""

    def __init__(
        self,
        learner: nn.Module,
        facts: Facts,
        config: ImageConfig,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        if not isinstance(learner, DiffusionLearner):
            raise ConfigError(
                "model = 'classifier': it draws nothing; use a run of model: diffusion"
            )
        self.learner, self.facts, self.config = learner.eval(), facts, config
        self.tokenizer = tokenizer  # of a model that draws from captions
        self.grid_file: Path | None = None  # where the grid of solver="auto" is kept
        learner.denoiser.autocast = None

    @classmethod
    def from_pretrained(cls, run: str | Path, weights: str = "ema") -> "Pipeline":
        """A run folder of the image panel. CheckpointError when it is not one."""
        found = open_run(Path(run))
        if not isinstance(found.config, ImageConfig):
            raise CheckpointError(f"{run}: a run of the {found.panel.name} panel, expected image")
        captions = found.config.data.caption_column is not None
        pipeline = cls(
            load_learner(Path(run), weights),
            read_facts(Path(run)),
            found.config,
            load_tokenizer(Path(run) / FILE) if captions else None,
        )
        pipeline.grid_file = Path(run) / GRID
        return pipeline

    def to(self, device: torch.device | str) -> "Pipeline":
        """Move the network; returns self."""
        self.learner.to(device)
        return self

    def __call__(
        self,
        class_labels: Labels = None,
        num_images: int | None = None,
        num_inference_steps: int = 20,
        guidance_scale: Scales = 1.0,
        guidance_interval: tuple[float, float] | None = None,
        guide: str | None = None,
        temperature: float = 1.0,
        solver: str = "dpmpp_2m",
        grid: str | None = None,
        seeds: Sequence[int] | None = None,
        generator: torch.Generator | None = None,
        output_type: str = "pil",
        prompt: str | Sequence[str] | None = None,
        negative_prompt: str | None = None,
        watch: Callable[[Glimpse], None] | None = None,
        progress: bool = False,
    ) -> Output:
        """Pictures; `seeds` (one integer each) fix them, or `generator` draws the seeds.

        class_labels: a class by name or number; a list of them, taken in turn; "all", every class
        in turn; a scene (`shared.scene.Scene`, or words as in `image.conditions`) for a model of
        scenes; None, unconditional. prompt: what to draw, in words, for a model trained with
        captions; a list of them, taken in turn; and `negative_prompt`, what guidance keeps away
        from. num_images: by default as many as there are seeds, or labels or prompts in the list,
        or one. `guidance_scale`: one, or for scenes {group: scale}. `guidance_interval`: (low,
        high) in logsnr, where to guide; everywhere when None. `guide`: the run of a weaker model to
        depart from. `temperature` divides the logits of a model of bits. `grid`: as in
        `shared.sampling.Sampling`, which `latents` takes whole. `watch` sees the first picture at
        every step. ConfigError for what the model cannot do.
        """
        if output_type not in OUTPUTS:
            raise ConfigError(
                f"output_type = {output_type!r}: expected one of {', '.join(OUTPUTS)}"
            )
        asked = class_labels if prompt is None else prompt
        chosen = _seeds(_count(asked, num_images, seeds), seeds, generator)
        condition = self.asked(class_labels, prompt, len(chosen))
        how = Sampling(
            solver=solver,
            steps=num_inference_steps,
            grid=grid,
            guidance=guidance_scale,
            guidance_interval=guidance_interval,
            guide=guide,
            temperature=temperature,
        )
        x0 = self.latents(chosen, condition, how, watch, progress, self.negative(negative_prompt))
        if output_type == "latent":
            return Output(x0, chosen)
        images = self.decode(x0)
        if output_type == "pil":
            return Output([to_pil(image) for image in to_bytes(images, self.facts.levels)], chosen)
        unit = images.float() / (self.facts.levels - 1)
        return Output(unit.movedim(1, -1).numpy(), chosen)

    def asked(self, labels: Labels, prompt: str | Sequence[str] | None, n: int) -> Tensor | None:
        """Condition ids (n, M) of classes, or of prompts, or None when there are neither.
        ConfigError for what this model cannot be asked for."""
        if prompt is None:
            return self.condition(labels, n)
        if labels is not None:
            raise ConfigError("class, prompt: say one of them")
        listed = [prompt] if isinstance(prompt, str) else list(prompt)
        if not listed:
            raise ConfigError("prompt: expected one or more")
        rows = self._prompts("prompt", listed)
        return rows[torch.arange(n) % len(rows)]

    def negative(self, prompt: str | None) -> Tensor | None:
        """The ids (M,) of a negative prompt, or None without one."""
        return None if prompt is None else self._prompts("negative", [prompt])[0]

    def _prompts(self, name: str, prompts: Sequence[str]) -> Tensor:
        if self.tokenizer is None:
            raise ConfigError(
                f"{name}: this model was trained without captions; say what to draw with class, or "
                "train with data.caption_column"
            )
        length = self.config.data.caption_length
        return prompt_ids(prompts, self.tokenizer, length, "data.caption_length", name)

    def condition(self, labels: Labels, n: int) -> Tensor | None:
        """Labels as in a call -> condition ids (n, M), or None for unconditional pictures."""
        if labels is None:
            return None
        if self.tokenizer is not None:
            raise ConfigError(f"class {labels!r}: this model draws from captions; give a prompt")
        if isinstance(labels, str) and labels == "all":
            return self._all(n)
        listed = [labels] if isinstance(labels, str | int | Scene) else list(labels)
        if not listed:
            raise ConfigError("class_labels: expected one or more")
        rows = [self._ids(label) for label in listed]
        return torch.tensor(list(islice(cycle(rows), n)))

    def latents(
        self,
        seeds: Sequence[int],
        condition: Tensor | None,
        how: Sampling,
        watch: Callable[[Glimpse], None] | None = None,
        progress: bool = False,
        negative: Tensor | None = None,
    ) -> Tensor:
        """Clean latents (n, *latent_shape) for condition ids (n, M) as the data has them, away from
        the `negative` ones (M,)."""
        guide = None if how.guide is None else self._guide(how.guide)
        free = condition is None and guide is None and negative is None
        if free and how.guidance not in (0, 1):
            raise ConfigError(
                f"guidance = {how.guidance}: without a class or prompt there is nothing to guide "
                "towards; name one, or leave guidance at 1"
            )

        def glimpse(i: int, logsnr: float, x_t: Tensor, x0_hat: Tensor) -> None:
            assert watch is not None
            both = self.decode(torch.cat([x_t[:1], x0_hat[:1]]))
            watch(Glimpse(i, logsnr, *to_bytes(both, self.facts.levels)))

        return draw(
            self.learner,
            seeds,
            how,
            condition,
            guide,
            watch=None if watch is None else glimpse,
            grid_file=self.grid_file,
            negative=negative,
            progress=progress,
            label="pictures",
        )

    @torch.no_grad()
    def decode(self, x0: Tensor) -> Tensor:
        """Latents (n, *latent_shape) -> levels (n, C, H, W), int64, on the CPU."""
        device = next(self.learner.parameters()).device
        return self.learner.codec.decode(x0.to(device)).cpu()

    def _guide(self, run: str) -> DiffusionLearner:
        """The weaker model of a run, where this one is."""
        weaker = Pipeline.from_pretrained(run)
        if weaker.facts.conditions != self.facts.conditions:
            raise ConfigError(
                f"guide = {run}: a model of {weaker.facts.conditions} conditions, this one has "
                f"{self.facts.conditions}; expected a run of the same data"
            )
        return weaker.learner.to(next(self.learner.parameters()).device)

    def _ids(self, label: str | int | Scene) -> list[int]:
        if self.config.data.name != "scene":
            if isinstance(label, Scene):
                raise ConfigError("class_labels: a scene, but this model was not trained on scenes")
            return [class_id(label, self.facts.classes)]
        if isinstance(label, int):
            raise ConfigError(f"class {label}: this model draws scenes; describe one in words")
        return ids(parse_scene(label) if isinstance(label, str) else label)

    def _all(self, n: int) -> Tensor:
        """Every class in turn; of a model of scenes, those of the held-out split."""
        if self.config.data.name == "scene":
            rows = load_pictures(self.config.data, held_out=True).condition
            assert rows is not None
        else:
            class_id(0, self.facts.classes)
            rows = torch.arange(1, len(self.facts.classes) + 1)[:, None]
        return rows[torch.arange(n) % len(rows)]


def _count(labels: Labels, n: int | None, seeds: Sequence[int] | None) -> int:
    if seeds is not None:
        if len(seeds) == 0 or n not in (None, len(seeds)):
            raise ConfigError(
                f"num_images = {n} but {len(seeds)} seeds: expected one seed a picture"
            )
        return len(seeds)
    if n is None:
        return 1 if labels is None or isinstance(labels, str | int | Scene) else max(1, len(labels))
    if n < 1:
        raise ConfigError(f"num_images = {n}: expected 1 or more")
    return n


def _seeds(n: int, seeds: Sequence[int] | None, generator: torch.Generator | None) -> list[int]:
    if seeds is None:
        return torch.randint(2**31, (n,), generator=generator).tolist()
    if generator is not None:
        raise ConfigError("give seeds or a generator, not both")
    return [int(seed) for seed in seeds]
