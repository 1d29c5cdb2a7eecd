"""`image.Pipeline`: a trained run as a function from seeds to pictures, as diffusers' users expect.

    pipe = image.Pipeline.from_pretrained("runs/image-digits")
    pipe(class_labels="7", num_images=8, guidance_scale=2.0).images[0].save("seven.png")
    pipe(class_labels=[0, 1, 2], seeds=[5, 6, 7], output_type="np").images
    pipe(prompt="a red star", negative_prompt="blue", guidance_scale=3).images[0]
    pipe(prompt="a red star", sketch="lines.png", guidance_scale={"sketch": 2, "text": 3}).images[0]

Folders that diffusers wrote go in as well, those with a text encoder with prompts (`image.foreign`
reads them):

    pipe = image.Pipeline.from_pretrained("stable-diffusion")
    pipe(prompt="a hat", negative_prompt="blurred", guidance_scale=7.5, solver="ddim").images

Picture i is a function of seeds[i] and its class or prompt alone. The network computes in float32
here whatever it was trained in: bfloat16 products depend on the shape of the batch.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from image.beside import Beside, BesidePictures, beside_conditions, readable
from image.captions import prompt_reader
from image.cascade import LOW_NOISE
from image.conditions import Labels, Words, asked_rows, count_asked, under_words
from image.config import ImageConfig
from image.data import DataFacts, Pictures, read_facts
from image.data_config import DataConfig
from image.edits import Edit, Entry, Invert
from image.entering import enter
from image.grid import to_bytes
from image.guides import check_guided, load_classifier, load_guide
from image.layouts import Layouts
from image.noisy_classifier import NoisyClassifier
from image.opening import PictureLike
from image.outputs import Glimpse, Output, as_asked, check_output
from shared.drawing import ClassTarget, Model, Wrap, draw, nested
from shared.errors import CheckpointError, ConfigError
from shared.learner import DiffusionLearner
from shared.runs import GRID, load_learner, open_run
from shared.sampling import Sampling
from shared.scales import Scales
from shared.seeds import chosen_seeds

INDEX = "model_index.json"  # of a pipeline that diffusers saved


class Pipeline:
    """Pictures from a trained diffusion model; `config` is None when others trained it."""

    def __init__(self, learner: Model, facts: DataFacts, config: ImageConfig | None) -> None:
        if config is not None and config.model != "diffusion":
            raise ConfigError(
                f"model = {config.model!r}: it draws nothing; use a run of model: diffusion"
            )
        self.learner, self.facts, self.config = learner, facts, config
        # n prompts, and what they are called -> rows (n, ...)
        self.texts: Callable[[Sequence[str], str], Tensor] | None = None
        self.nothing: Tensor | None = None  # the row of no prompt, (1, ...), if it is not id 0
        self.grid_file: Path | None = None  # where the grid of solver="auto" is kept
        self.beside: Beside | None = None  # what it reads beside the noisy picture
        if isinstance(learner, DiffusionLearner):
            learner.eval().denoiser.autocast = None
            self.beside = learner.beside if isinstance(learner.beside, Beside) else None

    @classmethod
    def from_pretrained(cls, run: str | Path, weights: str = "ema") -> "Pipeline":
        """A run folder of the image panel, or a pipeline of diffusers saved to a folder.
        CheckpointError when it is neither, ConfigError for a pipeline that is not read here."""
        if is_pipeline(Path(run)):
            return cls._from_folder(Path(run), weights)
        found = open_run(Path(run))
        if not isinstance(found.config, ImageConfig):
            raise CheckpointError(f"{run}: a run of the {found.panel.name} panel, expected image")
        learner = cast(Model, load_learner(Path(run), weights))
        pipeline = cls(learner, read_facts(Path(run)), found.config)
        if found.config.data.caption_column is not None:
            pipeline.texts = prompt_reader(found.config.data, Path(run))
        pipeline.grid_file = Path(run) / GRID
        return pipeline

    @classmethod
    def _from_folder(cls, folder: Path, weights: str) -> "Pipeline":
        from image.foreign import load_folder  # seconds of diffusers, which no run of ours needs

        if weights != "ema":
            raise ConfigError(f"weights = {weights!r}: {folder} holds one set; leave it out")
        model, facts = load_folder(folder)
        pipeline = cls(model, facts, None)
        pipeline.texts, pipeline.nothing = model.texts, model.denoiser.nothing
        return pipeline

    def save_pretrained(
        self, folder: str | Path, scheduler: Any = None, timesteps: int = 1000
    ) -> str:
        """Write a folder, not there yet, that `diffusers.DiffusionPipeline.from_pretrained` loads;
        returns the name of its class. `scheduler`, of diffusers or a `DiptychScheduler`, takes the
        place of the one that a loaded pipeline has. `timesteps` as in `image.export`. ConfigError
        for what is not representable there."""
        from image.export import export
        from image.foreign import FolderModel
        from image.text_encoder import TextEncoder

        if Path(folder).exists():
            raise ConfigError(f"{folder} exists: choose a folder that does not")
        if isinstance(self.learner, FolderModel):
            return self.learner.save(Path(folder), scheduler)
        if scheduler is not None:
            raise ConfigError("scheduler: of a run it follows from its schedule; leave it out")
        assert isinstance(self.learner, DiffusionLearner)
        texts = self.texts if isinstance(self.texts, TextEncoder) else None
        return export(self.learner, self.facts, Path(folder), timesteps, texts)

    def to(self, device: torch.device | str) -> "Pipeline":
        """Move the network; returns self."""
        cast(nn.Module, self.learner).to(device)
        return self

    def __call__(
        self,
        class_labels: Labels | None = None,
        num_images: int | None = None,
        num_inference_steps: int = 20,
        guidance_scale: Scales = 1.0,
        guidance_interval: tuple[float, float] | None = None,
        guide: str | None = None,
        classifier: str | None = None,
        classifier_scale: float = 1.0,
        temperature: float = 1.0,
        solver: str = "dpmpp_2m",
        grid: str | None = None,
        seeds: Sequence[int] | None = None,
        generator: torch.Generator | None = None,
        output_type: str = "pil",
        prompt: Words = None,
        negative_prompt: Words = None,
        low: PictureLike | Sequence[PictureLike] | None = None,
        low_noise: float = LOW_NOISE,
        sketch: PictureLike | Sequence[PictureLike] | None = None,
        layout: Layouts | None = None,
        edit: Edit | None = None,
        watch: Callable[[Glimpse], None] | None = None,
        progress: bool = False,
    ) -> Output:
        """Pictures; `seeds` (one integer each) fix them, or `generator` draws the seeds.

        class_labels: a class by name or number; a list of them, taken in turn; "all", every class
        in turn; a scene (`shared.scene.Scene`, or words as in `image.conditions`) for a model of
        scenes; an outfit (`image.figures.words`) for one of figures; None, unconditional. prompt:
        what to draw, in words, for a model trained with captions; one text or a list of them, taken
        in turn; and `negative_prompt`, what guidance departs from in place of no prompt.
        num_images: by default as many as there are seeds, or labels, prompts or layouts in the
        list, or one.
        `guidance_scale`: one, or {group: scale} of what a model is told: layout, text, class,
        sketch, low, masked, or attributes of scenes and figures.
        `guidance_interval`: (low, high) in logsnr, where to guide; everywhere when None. `guide`:
        the run of a weaker model to depart from; `classifier`: the run of a classifier of noisy
        pictures, whose gradient is added by `classifier_scale`. `temperature` divides the logits of
        a model of bits. `grid`: as in `shared.sampling.Sampling`, which `latents` takes whole.
        `low`: what a model of a cascade enlarges, a file, PIL picture or array, or a list of them
        taken in turn; noised to the time `low_noise`, 0 for true pictures. `sketch`: the same of
        what a model of sketches follows, dark lines on white. `layout`: the same of where parts are
        to be, a part's number in each pixel (`image.layouts`). `edit`: a given picture and what is
        to be done with it, see `image.edits`; of latents the known is not put back.
        `watch` sees the first picture at every step. ConfigError for what the model cannot do.
        """
        check_output(output_type)
        asked = class_labels if prompt is None else prompt
        chosen = chosen_seeds(count_asked(asked, num_images, seeds, layout), seeds, generator)
        condition, target = self.asked(class_labels, prompt, len(chosen), classifier, layout)
        how = Sampling(
            solver=solver,
            steps=num_inference_steps,
            grid=grid,
            guidance=guidance_scale,
            guidance_interval=guidance_interval,
            guide=guide,
            classifier=classifier,
            classifier_scale=classifier_scale,
            temperature=temperature,
        )
        negative = self.words(negative_prompt, len(chosen), "negative_prompt")
        beside = None if low is None else self.to_read(low, len(chosen), low_noise)
        if sketch is not None:
            beside = self.to_read(sketch, len(chosen), 0.0, "sketch")
        entry = None if edit is None else self.enter(edit, chosen, how, condition)
        x0 = self.latents(
            chosen, condition, how,
            watch=watch, progress=progress, negative=negative, target=target,
            low=beside, entry=entry,
        )  # fmt: skip
        if output_type == "latent":
            return Output(x0, chosen)
        images = self.decode(x0)
        if entry is not None and entry.finish is not None:
            images = entry.finish(images)
        return Output(as_asked(images, self.facts.levels, output_type), chosen)

    def enter(
        self, edit: Edit, seeds: Sequence[int], how: Sampling, condition: Tensor | None = None
    ) -> Entry:
        """How pictures for these seeds and conditions (n, ...) enter sampling: `image.entering`."""
        inverts = isinstance(edit, Invert)
        source = self.asked(edit.source_labels, edit.source_prompt, 1)[0] if inverts else None
        return enter(edit, self.learner, self.facts, seeds, how, condition, source, self.beside)

    def condition(
        self,
        labels: Labels | None,
        n: int,
        classes: Sequence[str] | None = None,
        layout: Layouts | None = None,
        words: Tensor | None = None,
    ) -> Tensor | None:
        """Labels and layouts as in a call, or `words` (n, ...) for labels -> conditions (n, ...),
        or None for unconditional pictures. `classes` are the names of labels, by default those that
        the model was trained with."""
        names = self.facts.classes if classes is None else classes
        if labels is not None and self.texts is not None:
            raise ConfigError(f"class {labels!r}: this model draws from captions; give a prompt")
        return asked_rows(labels, layout, n, names, self._data, words)

    def words(self, prompt: Words, n: int, name: str = "prompt") -> Tensor | None:
        """Prompts as in a call -> conditions (n, ...), or None for none."""
        if prompt is None:
            return None
        if self.texts is None:
            raise ConfigError(
                f"{name}: this model was trained without captions; say what to draw with class, or "
                "train with data.caption_column"
            )
        listed = [prompt] if isinstance(prompt, str) else list(prompt)
        if not listed:
            raise ConfigError(f"{name}: expected one or more")
        rows = self.texts(listed, name)
        return rows[torch.arange(n) % len(rows)]

    def conditions_of(self, pictures: Pictures, rows: Tensor) -> Tensor | None:
        """The conditions (n, ...) of these rows (n,) of a split, as the model reads them."""
        if self.texts is not None and self.facts.text_encoder is not None:
            assert pictures.captions is not None
            return self.texts([pictures.captions[row] for row in rows.tolist()], "caption")
        return None if pictures.condition is None else pictures.condition[rows]

    def asked(
        self,
        labels: Labels | None,
        prompt: Words,
        n: int,
        classifier: str | None = None,
        layout: Layouts | None = None,
    ) -> tuple[Tensor | None, ClassTarget | None]:
        """What n pictures are to show, by class, in words or by layout -> conditions (n, ...), or
        None, and what the classifier of a run is to see in them."""
        if labels is not None and prompt is not None:
            raise ConfigError(f"class = {labels!r}, prompt = {prompt!r}: give one of them")
        if classifier is not None and self.texts is not None:
            raise ConfigError(
                f"classifier = {classifier}: this model draws from captions, which are no classes; "
                "leave it out"
            )
        if classifier is None:
            words = self.words(prompt, n)
            return self.condition(labels, n, layout=layout, words=words), None
        if layout is not None or (self._data is not None and self._data.layout_column is not None):
            raise ConfigError(
                f"classifier = {classifier}: this model reads a layout beside the class, which no "
                "classifier sees; leave it out, and guide with {class: SCALE}"
            )
        model, classes = self._classifier(classifier)
        ids = self.condition(labels, n, classes)
        if ids is None:
            raise ConfigError("classifier: towards which class? Name one with --class")
        return ids if self.facts.conditions else None, ClassTarget(model.log_prob, ids)

    def target(self, classifier: str, ids: Tensor) -> ClassTarget:
        """What the classifier of a run is to see: the classes of these ids (n, 1)."""
        return ClassTarget(self._classifier(classifier)[0].log_prob, ids)

    def _classifier(self, run: str) -> tuple[NoisyClassifier, Sequence[str]]:
        return load_classifier(Path(run), self.facts, self.config, self.learner.codec, self._device)

    def to_read(
        self, low: PictureLike | Sequence[PictureLike], n: int, low_noise: float, name: str = "low"
    ) -> BesidePictures:
        """Pictures as in a call -> n of what this model enlarges, or by name follows."""
        return BesidePictures(readable(self.beside, low, n, name), low_noise)

    def latents(
        self,
        seeds: Sequence[int],
        condition: Tensor | None,
        how: Sampling,
        *,
        watch: Callable[[Glimpse], None] | None = None,
        progress: bool = False,
        negative: Tensor | None = None,
        target: ClassTarget | None = None,
        wrap: Wrap | None = None,
        low: BesidePictures | None = None,
        entry: Entry | None = None,
    ) -> Tensor:
        """Clean latents (n, *latent_shape) for conditions (n, ...) and a target as `asked` gives
        them. `negative` (n, ...), as `words` gives it, is what guidance departs from; `wrap` adds
        more guidance, as in `shared.drawing.draw`; `low` is what a model enlarges or follows;
        `entry` is how given pictures enter, as `enter` says, its guidance innermost."""
        way, guide = entry or Entry(), None
        low = way.beside if low is None else low
        if how.guide is not None:
            guide = load_guide(Path(how.guide), self.facts, self._device, self.beside, self._data)
        check_guided(how, self.learner.groups, self.beside, condition, negative, low)
        negative = negative if negative is None else under_words(negative, condition, self._data)
        if self.nothing is not None:
            nothing = self.nothing.expand(len(seeds), -1, -1)
            condition = nothing if condition is None else condition
            negative = nothing if negative is None else negative
        if self.beside is not None or low is not None:
            condition, negative = beside_conditions(self.beside, low, condition, negative, seeds)
            plain = isinstance(how.guidance, dict) or how.guidance == 1
            negative = None if plain else negative

        def glimpse(i: int, logsnr: float, x_t: Tensor, x0_hat: Tensor) -> None:
            assert watch is not None
            both = self.decode(torch.cat([x_t[:1], x0_hat[:1]]))
            watch(Glimpse(i, logsnr, *to_bytes(both, self.facts.levels)))

        return draw(
            self.learner,
            seeds,
            how,
            condition,
            guide=guide,
            negative=negative,
            target=target,
            start=way.start,
            wrap=nested(way.wrap, wrap),
            hooks=way.hooks,
            travel=way.travel,
            watch=None if watch is None else glimpse,
            grid_file=self.grid_file,
            progress=progress,
            label="pictures",
        )

    @torch.no_grad()
    def decode(self, x0: Tensor) -> Tensor:
        """Latents (n, *latent_shape) -> levels (n, C, H, W), int64, on the CPU."""
        return self.learner.codec.decode(x0.to(self._device)).cpu()

    @property
    def draws_figures(self) -> bool:
        """Whether it was trained on the figure world."""
        return self.config is not None and self.config.data.name == "figures"

    @property
    def _data(self) -> DataConfig | None:
        return None if self.config is None else self.config.data

    @property
    def _device(self) -> torch.device:
        return next(self.learner.parameters()).device


def is_pipeline(folder: Path) -> bool:
    """Whether diffusers wrote a whole pipeline there."""
    return (folder / INDEX).is_file()
