"""How samples are drawn, whatever the modality: the settings that `shared.drawing` follows."""

import math
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

from shared.errors import ConfigError
from shared.scales import ScalesArgument, finite
from shared.solver import GRIDS, SOLVERS


@dataclass(frozen=True)
class Start:
    """Where samples begin in place of noise of their seeds alone.

    Attributes:
        x0: (n, *latent_shape), noised to `time` (Meng et al. 2022, SDEdit): the later, the less is
            left of it; None: a sample at `time` is noise of its variance.
        time: In (0, 1].
        noise: (n, *latent_shape) of unit variance, in place of what the seeds give.
        inverted: The noise is what `drawing.invert` gave for this time. The way back then ends at
            t = 0, where that began, without a last step to the clean end.
    """

    x0: Tensor | None
    time: float = 1.0
    noise: Tensor | None = None
    inverted: bool = False

    def __post_init__(self) -> None:
        check_strength(self.time)


def check_strength(time: float) -> None:
    """ConfigError unless it is a time that samples may begin at, in (0, 1]."""
    if not 0 < time <= 1:
        raise ConfigError(f"strength = {time}: expected a number in (0, 1]")


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How samples are drawn, whatever the modality: what `draw` takes and the command offers.

    Attributes:
        solver: ancestral, ddim, dpmpp_2m, trig2, ...: a name of shared.solver.SOLVERS.
        steps: Solver steps, each one network evaluation (two when guided; heun, dpmpp_2s and those
            that correct themselves twice that). Not of ode, which chooses its own.
        grid: Where steps are: time, logsnr, karras, quadratic or trig. When left out equal times,
            for solver auto a grid fitted to the model, for folders of diffusers their timesteps.
        td: Every move goes this many steps further than it should (asymmetric intervals of Analog
            Bits).
        guidance: Classifier-free guidance scale: 0 unconditional, 1 conditional, above 1 sharper;
            or one for each group of the condition, such as layout=2,texture=3 (models that have
            them), the others given as they are.
        guidance_interval: LOW HIGH in logsnr: guide there only, which keeps more variety.
        guide: Run of a weaker model of the same data: guidance departs from its estimates, not from
            those without a condition (autoguidance).
        classifier: Run of a classifier of noisy data: samples also follow the gradient of what it
            says of the class asked for, of a model without classes too (classifier guidance).
        classifier_scale: How strongly they do: 1 as much as its probabilities say.
        temperature: Divides the logits of categorical models: below 1, surer and less varied.
        clamp: Make every estimate the nearest point that stands for data, such as the embeddings of
            words (the clamping trick of Diffusion-LM).
        budget: Of solver ode: at most so many network evaluations; what is left then is one step,
            with a warning.
        batch: Samples drawn at a time: more of them fill a GPU. None depends on the others (of
            solver ode, to its tolerance).
        nan: end: look at the samples; stop: look at every estimate, and name the step and level of
            the first that is not finite.
    """

    solver: str = "dpmpp_2m"
    steps: int = 20
    grid: str | None = None
    td: float = 0.0
    guidance: ScalesArgument = 1.0
    guidance_interval: tuple[float, float] | None = None
    guide: str | None = None
    classifier: str | None = None
    classifier_scale: float = 1.0
    temperature: float = 1.0
    clamp: bool = False
    budget: int | None = None
    batch: int = 64
    nan: str = "end"

    def __post_init__(self) -> None:
        for name in ("steps", "batch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}: expected 1 or more")
        one_of = {"solver": (*SOLVERS,), "grid": (None, *GRIDS), "nan": ("end", "stop")}
        for name, known in one_of.items():
            value = getattr(self, name)
            if value not in known:
                names = ", ".join(name for name in known if name)
                raise ConfigError(f"{name} = {value!r}: expected one of {names}")
        if not finite(self.guidance):
            raise ConfigError(f"guidance = {self.guidance}: expected a finite number")
        for name in ("classifier_scale", "td", "temperature"):
            if not math.isfinite(getattr(self, name)):
                raise ConfigError(f"{name} = {getattr(self, name)}: expected a finite number")
        self._check_guidance()
        if not self.temperature > 0:
            raise ConfigError(f"temperature = {self.temperature}: expected a number above 0")

    def _check_guidance(self) -> None:
        interval = self.guidance_interval
        if interval is not None and not interval[0] < interval[1]:
            raise ConfigError(
                f"guidance_interval = {interval[0]} {interval[1]}: expected two values of logsnr, "
                "the lower (noisier) one first"
            )
        if interval is not None and self.guidance == 1 and self.classifier is None:
            raise ConfigError(
                "guidance_interval: does nothing at guidance = 1, the model by itself; give "
                "guidance = 1.5 or another scale, or leave it out"
            )
        if self.guide is not None and self.guidance == 1:
            raise ConfigError(
                f"guide = {self.guide}: does nothing at guidance = 1, the model by itself; give "
                "guidance = 1.5 or another scale"
            )
        if isinstance(self.guidance, dict) and (interval or self.guide):
            raise ConfigError(
                "guidance_interval, guide: not with a scale for each group; give one scale, or "
                "leave them out"
            )
        if self.classifier is None and self.classifier_scale != 1:
            raise ConfigError(
                f"classifier_scale = {self.classifier_scale}: of a classifier of noisy data, and "
                "none is named; give classifier = RUN, or leave it out"
            )
        if self.budget is not None and self.solver != "ode":
            raise ConfigError(
                f"budget = {self.budget}: of solver ode; {self.solver} takes its steps, see steps"
            )

    @property
    def guided(self) -> bool:
        """Whether it asks for guidance, which needs a condition."""
        return self.guidance != 1 or self.guidance_interval is not None

    def one_scale(self) -> float:
        """The guidance scale. ConfigError when there is one for each group."""
        if isinstance(self.guidance, dict):
            raise ConfigError(f"guidance = {self.guidance}: one scale here; give a number")
        return self.guidance

    def settings(self) -> dict[str, Any]:
        """All of it by name, to be written beside what was drawn."""
        return {field.name: getattr(self, field.name) for field in fields(Sampling)}
