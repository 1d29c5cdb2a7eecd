"""From a trained model and a list of seeds to clean latents: what both pipelines call."""

import dataclasses
import hashlib
import json
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from shared import noise
from shared.denoiser import Denoise, Denoiser
from shared.errors import ConfigError, NonFinite
from shared.files import write_text
from shared.guidance import autoguidance, clamp, classifier_free
from shared.learner import DiffusionLearner
from shared.solver import GRIDS, SOLVERS, Fitted, Plan, first_state, fit, for_data, prepare, run
from shared.solver.ode import Ode

FIT_SEED = 1 << 40  # beyond the seeds that samples are asked for
# evaluated step, its logsnr, x_t before it, x0_hat there; of the first chunk of samples
Watch = Callable[[int, float, Tensor, Tensor], None]
Wrap = Callable[[Denoise, slice], Denoise]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How samples are drawn, whatever the modality: what `draw` takes and the command offers.

    Attributes:
        solver: ancestral, ddim, dpmpp_2m, trig2, ...: a name of shared.solver.SOLVERS.
        steps: Solver steps, each one network evaluation (two when guided; heun and dpmpp_2s twice
            that).
        grid: Where steps are: time, logsnr, karras, quadratic or trig. Equal times when left out,
            or for solver auto a grid fitted to the model.
        td: Every move goes this many steps further than it should (asymmetric intervals of Analog
            Bits).
        guidance: Classifier-free guidance scale: 0 unconditional, 1 conditional, above 1 sharper.
        guidance_interval: LOW HIGH in logsnr: guide there only, which keeps more variety.
        guide: Run of a weaker model of the same data: guidance departs from its estimates, not from
            those without a condition (autoguidance).
        temperature: Divides the logits of categorical models: below 1, surer and less varied.
        clamp: Make every estimate the nearest point that stands for data, such as the embeddings of
            words (the clamping trick of Diffusion-LM).
        budget: Of solver ode: at most so many network evaluations; what is left then is one step,
            with a warning.
        nan: end: look at the samples; stop: look at every estimate, and name the step and level of
            the first that is not finite.
    """

    solver: str = "dpmpp_2m"
    steps: int = 20
    grid: str | None = None
    td: float = 0.0
    guidance: float = 1.0
    guidance_interval: tuple[float, float] | None = None
    guide: str | None = None
    temperature: float = 1.0
    clamp: bool = False
    budget: int | None = None
    nan: str = "end"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"steps = {self.steps}: expected 1 or more")
        one_of = {"solver": (*SOLVERS,), "grid": (None, *GRIDS), "nan": ("end", "stop")}
        for name, known in one_of.items():
            value = getattr(self, name)
            if value not in known:
                names = ", ".join(name for name in known if name)
                raise ConfigError(f"{name} = {value!r}: expected one of {names}")
        for name in ("guidance", "td", "temperature"):
            if not math.isfinite(getattr(self, name)):
                raise ConfigError(f"{name} = {getattr(self, name)}: expected a finite number")
        interval = self.guidance_interval
        if interval is not None and not interval[0] < interval[1]:
            raise ConfigError(
                f"guidance_interval = {interval[0]} {interval[1]}: expected two values of logsnr, "
                "the lower (noisier) one first"
            )
        if self.guide is not None and self.guidance == 1:
            raise ConfigError(
                f"guide = {self.guide}: does nothing at guidance = 1, the model by itself; give "
                "guidance = 1.5 or another scale"
            )
        if self.budget is not None and self.solver != "ode":
            raise ConfigError(
                f"budget = {self.budget}: of solver ode; {self.solver} takes its steps, see steps"
            )
        if not self.temperature > 0:
            raise ConfigError(f"temperature = {self.temperature}: expected a number above 0")

    @property
    def guided(self) -> bool:
        """Whether it asks for guidance, which needs a condition."""
        return self.guidance != 1 or self.guidance_interval is not None

    def settings(self) -> dict[str, Any]:
        """All of it by name, to be written beside what was drawn."""
        return {field.name: getattr(self, field.name) for field in fields(Sampling)}


@torch.no_grad()
def draw(
    learner: DiffusionLearner,
    seeds: Sequence[int],
    how: Sampling,
    condition: Tensor | None = None,
    guide: DiffusionLearner | None = None,
    wrap: Wrap | None = None,
    watch: Watch | None = None,
    grid_file: Path | None = None,
    batch: int = 64,
    progress: bool = True,
    label: str = "sampling",
) -> Tensor:
    """x0 (n, *latent_shape), float32, one sample per seed, in chunks of `batch`.

    condition (n, M) of ids. `guide` is the weaker model that `how.guide` names. `wrap(denoise,
    rows)` adds more guidance for the chunk of samples `rows`, around both kinds, or puts guidance
    through the logits in their place. `grid_file` keeps the grid of solver auto. Sample i depends
    on its seed, not on the others. Warns when guidance departs from no condition and the model was
    trained without dropout of it. ConfigError for what the model or its schedule cannot do,
    NonFinite for values that are not finite.
    """
    departs = condition is not None and guide is None and how.guidance != 1
    if departs and learner.drop_rate == 0:
        warnings.warn(
            f"guidance = {how.guidance}: this model was trained with diffusion.drop_condition = 0 "
            "and has never seen samples without a condition, from which guidance departs; train "
            "with 0.1, or leave guidance at 1"
        )
    device = next(learner.parameters()).device
    shape = learner.codec.latent_shape
    guided = _guided(learner, how, guide)
    plan = _plan(learner, how, grid_file)  # once for all chunks
    logsnrs = [step.at.logsnr for step in plan.steps]
    chunks: list[Tensor] = []
    with Progress(console=Console(stderr=True), disable=not progress) as bar:
        task = bar.add_task(label, total=plan.evaluations * -(-len(seeds) // batch))

        def advance(i: int, x_t: Tensor, x0_hat: Tensor) -> None:
            bar.advance(task)
            if watch is not None and not chunks:
                watch(i, logsnrs[i], x_t, x0_hat)

        for start in range(0, len(seeds), batch):
            rows = slice(start, min(start + batch, len(seeds)))
            some = list(seeds[rows])
            denoise = guided if wrap is None else wrap(guided, rows)
            try:
                x0 = run(
                    plan,
                    denoise,
                    first_state(plan, noise.normal(some, 0, shape, device=device)),
                    condition=None if condition is None else condition[rows].to(device),
                    seeds=some,
                    callback=advance,
                    nan=how.nan,
                ).x
            except FloatingPointError as error:
                raise NonFinite(str(error)) from None
            chunks.append(x0.cpu())
    return torch.cat(chunks)


def _plan(learner: DiffusionLearner, how: Sampling, grid_file: Path | None) -> Plan:
    fitted = how.solver == "auto" and how.grid is None
    grid = fitted_grid(learner, grid_file) if fitted else how.grid
    try:
        chosen = for_data(how.solver, learner.denoiser.data_std)
        if isinstance(chosen, Ode):
            chosen = dataclasses.replace(chosen, budget=how.budget)
        return prepare(learner.schedule, chosen, how.steps, grid, td=how.td)
    except ValueError as error:
        raise ConfigError(str(error)) from None


@torch.no_grad()
def fitted_grid(learner: DiffusionLearner, file: Path | None = None) -> Fitted:
    """The grid of `solver="auto"` for a model, unguided: from the file if it holds that of these
    weights, else from one run of 64 steps on 64 seeds, written there."""
    weights = [weight.detach().float().flatten()[:64].cpu() for weight in learner.parameters()]
    digest = hashlib.sha256(torch.cat(weights).numpy().tobytes()).hexdigest()
    if file is not None and file.is_file():
        kept = json.loads(file.read_text(encoding="utf-8"))
        if kept.get("weights") == digest:
            return Fitted.from_json(kept["grid"])
    device, shape = next(learner.parameters()).device, learner.codec.latent_shape
    start = noise.normal(range(FIT_SEED, FIT_SEED + 64), 0, shape, device=device)
    grid = fit(learner.denoiser, start, learner.schedule, data_std=learner.denoiser.data_std)
    if file is not None:
        write_text(file, json.dumps({"weights": digest, "grid": grid.to_json()}))
    return grid


def _guided(learner: DiffusionLearner, how: Sampling, guide: DiffusionLearner | None) -> Denoise:
    """The model at its temperature, guided and then clamped as the settings say."""
    guided = _towards(learner, how, guide)
    return clamp(guided, learner.codec) if how.clamp else guided


def _towards(learner: DiffusionLearner, how: Sampling, guide: DiffusionLearner | None) -> Denoise:
    model = _at_temperature(learner.denoiser, how.temperature)
    if guide is None:
        return classifier_free(model, how.guidance, interval=how.guidance_interval)
    if guide.codec.latent_shape != learner.codec.latent_shape:
        raise ConfigError(
            f"guide = {how.guide}: its latents are {guide.codec.latent_shape}, the model's "
            f"{learner.codec.latent_shape}; expected a run of the same data and codec"
        )
    weaker = _at_temperature(guide.denoiser, how.temperature)
    return autoguidance(model, weaker, how.guidance, how.guidance_interval)


def _at_temperature(denoiser: Denoiser, temperature: float) -> Denoise:
    if temperature == 1:
        return denoiser
    try:
        return denoiser.tempered(temperature)
    except ValueError as error:
        raise ConfigError(str(error)) from None
