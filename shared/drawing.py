"""From a trained model and a list of seeds to clean latents: what both pipelines call."""

import contextlib
import hashlib
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn

from shared import noise
from shared.codec import Codec
from shared.denoiser import Denoise, Tempered
from shared.errors import ConfigError, NonFinite
from shared.files import write_text
from shared.groups import Groups, check_groups
from shared.guidance import LogProb, autoguidance, chain, clamp, classifier, classifier_free
from shared.learner import DiffusionLearner
from shared.sampling import Sampling, Start
from shared.schedule import Level, Schedule
from shared.solver import Fitted, Plan, encode, first_state, fit, for_data, prepare, run
from shared.solver.grid import Grid, time_travel
from shared.solver.ode import Ode
from shared.solver.plan import grid_times
from shared.solver.step import Renoise, Solver, StepHook

FIT_SEED = 1 << 40  # beyond the seeds that samples are asked for
# evaluated step, its logsnr, x_t before it, x0_hat there; of the first chunk of samples
Watch = Callable[[int, float, Tensor, Tensor], None]
Wrap = Callable[[Denoise, slice], Denoise]
Hooks = Callable[[slice], Sequence[StepHook]]


def nested(inner: Wrap | None, outer: Wrap | None) -> Wrap | None:
    """Both of them, or the one there is."""
    if inner is None or outer is None:
        return inner or outer
    return lambda denoise, rows: outer(inner(denoise, rows), rows)


class ClassTarget(NamedTuple):
    """What classifier guidance goes towards: ids (n, M), and log p(ids | x_t), nats."""

    log_prob: LogProb
    ids: Tensor


class Model(Protocol):
    """What `draw` asks of a model: a `DiffusionLearner`, or one that others trained."""

    @property
    def denoiser(self) -> Denoise: ...
    @property
    def codec(self) -> Codec: ...
    @property
    def schedule(self) -> Schedule: ...
    @property
    def data_std(self) -> float:
        """The root mean square of x0."""
        ...

    @property
    def groups(self) -> Groups:
        """Of the condition's columns, by name."""
        ...

    def drops(self, names: Sequence[str] = ()) -> bool:
        """Whether training dropped each of these groups by itself, or without names all of the
        condition at once: whether guidance knows what it departs from."""
        ...

    def own_times(self, steps: int) -> tuple[Tensor, bool] | None:
        """The times (steps + 1,) that this model is usually sampled at, and whether the last one
        stands for the clean end; None: equal times."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]: ...


@torch.no_grad()
def draw(
    learner: Model,
    seeds: Sequence[int],
    how: Sampling,
    condition: Tensor | None = None,
    *,
    guide: DiffusionLearner | None = None,
    negative: Tensor | None = None,
    target: ClassTarget | None = None,
    start: Start | None = None,
    wrap: Wrap | None = None,
    hooks: Hooks | None = None,
    travel: tuple[int, int] | None = None,
    watch: Watch | None = None,
    grid_file: Path | None = None,
    progress: bool = True,
    label: str = "sampling",
) -> Tensor:
    """x0 (n, *latent_shape), float32, one sample per seed, in chunks of `how.batch`.

    condition (n, ...), as the model reads it: ids (n, M), or states of a text encoder (n, L, D).
    `negative`, of the same shape, is what guidance departs from, in place of no condition. `guide`
    is the weaker model that `how.guide` names, `target` what the one that `how.classifier` names is
    to see. Samples begin at `start`, and take all steps from there. `wrap(denoise, rows)` adds more
    guidance for the chunk of samples `rows`, around both kinds, or puts guidance through the logits
    in their place; `hooks(rows)` act on the states of that chunk after each step. `travel` (jump,
    resamplings) goes back in time, as RePaint does (`solver.grid.time_travel`). `grid_file` keeps
    the grid of solver auto. Sample i depends on its seed, not on others. Warns when guidance
    departs from what the model has not seen in training. ConfigError for what the model or its
    schedule cannot do, NonFinite for values that are not finite.
    """
    _check(learner, how, condition, guide, negative, target)
    device = next(learner.parameters()).device
    plan = _plan(learner, how, grid_file, start, travel)  # once for all chunks
    begin = start or Start(None)
    logsnrs = [step.at.logsnr for step in plan.steps if not isinstance(step, Renoise)]
    chunks: list[Tensor] = []
    with Progress(console=Console(stderr=True), disable=not progress) as bar:
        task = bar.add_task(label, total=plan.evaluations * -(-len(seeds) // how.batch))

        def advance(i: int, x_t: Tensor, x0_hat: Tensor) -> None:
            bar.advance(task)
            if watch is not None and not chunks:
                watch(i, logsnrs[i], x_t, x0_hat)

        for first in range(0, len(seeds), how.batch):
            rows = slice(first, min(first + how.batch, len(seeds)))
            some = list(seeds[rows])
            told, base = _taken(condition, rows, device), _taken(negative, rows, device)
            aim = None if target is None else target._replace(ids=target.ids[rows].to(device))
            guided, told = _guided(learner, how, guide, told, base, aim)
            drawn = _taken(begin.noise, rows, device)
            if drawn is None:
                drawn = noise.normal(some, 0, learner.codec.latent_shape, device=device)
            try:
                x0 = run(
                    plan,
                    guided if wrap is None else wrap(guided, rows),
                    first_state(plan, drawn, _taken(begin.x0, rows, device)),
                    condition=told,
                    seeds=some,
                    callback=advance,
                    hooks=() if hooks is None else hooks(rows),
                    nan=how.nan,
                ).x
            except FloatingPointError as error:
                raise NonFinite(str(error)) from None
            chunks.append((x0 / plan.steps[-1].to.alpha if begin.inverted else x0).cpu())
    return torch.cat(chunks)


def _check(
    learner: Model,
    how: Sampling,
    condition: Tensor | None,
    guide: DiffusionLearner | None,
    negative: Tensor | None,
    target: ClassTarget | None,
) -> None:
    if (how.classifier is None) != (target is None):
        raise ConfigError(
            f"classifier = {how.classifier}: there are classifiers of noisy pictures only, asked "
            "for with a class; leave it out"
        )
    scaled = how.guidance if isinstance(how.guidance, dict) else None
    check_groups("guidance", scaled or (), learner.groups)
    if scaled is not None and negative is not None:
        raise ConfigError(
            "negative: not with a scale for each group, which says itself what guidance departs "
            "from; leave it out"
        )
    if condition is not None and guide is None and negative is None:
        warn_of_undropped(learner, how.guidance)


def _taken(values: Tensor | None, rows: slice, device: torch.device) -> Tensor | None:
    return None if values is None else values[rows].to(device)


def warn_of_undropped(learner: Model, guidance: float | dict[str, float]) -> None:
    """Warns when guidance departs from what the model has not seen in training."""
    names = [*guidance] if isinstance(guidance, dict) else []
    if guidance != 1 and not learner.drops(names):
        warnings.warn(
            f"guidance = {guidance}: this model was trained without diffusion.drop_condition "
            "and has never seen samples without what guidance departs from; train "
            "with 0.1 (for groups, {all: 0.1, NAME: 0.1, ...}), or leave guidance at 1"
        )


@torch.no_grad()
def invert(
    learner: Model,
    x0: Tensor,
    how: Sampling,
    condition: Tensor | None = None,
    time: float = 1.0,
) -> Tensor:
    """x0 (n, *latent_shape) -> the noise (n, ...) of unit variance at `time` that these settings,
    unguided, draw it from: `Start(None, time, noise, inverted=True)` leads back, to the solver's
    error. `condition` (n, ...) as in `draw`. ConfigError for a stochastic solver."""
    device = next(learner.parameters()).device
    denoise = _at_temperature(learner.denoiser, how.temperature)
    parts: list[Tensor] = []
    try:
        grid, _, start = _times(learner, how, None, Start(None, time, inverted=True))
        for rows in torch.arange(len(x0)).split(how.batch):
            told = None if condition is None else condition[rows].to(device)
            some, solver = x0[rows].to(device), _solver(learner, how)
            parts.append(
                encode(
                    denoise, some, learner.schedule, solver, how.steps, told, grid, start,
                    nan=how.nan,
                ).cpu()
            )  # fmt: skip
    except ValueError as error:
        raise ConfigError(str(error)) from None
    except FloatingPointError as error:
        raise NonFinite(str(error)) from None
    return torch.cat(parts)


def _plan(
    learner: Model,
    how: Sampling,
    grid_file: Path | None,
    start: Start | None,
    travel: tuple[int, int] | None,
) -> Plan:
    schedule, steps = learner.schedule, how.steps
    try:
        grid, end_clean, time = _times(learner, how, grid_file, start)
        if travel is not None:
            times = grid_times(schedule, steps, grid, end_clean, time)
            # no way back from the clean end
            ends = int(end_clean and bool(times[-1] == times[-2]))
            whole = time_travel(times[: len(times) - ends], *travel)
            grid, time = torch.cat([whole, times[len(times) - ends :]]), None
        solver = _solver(learner, how)
        plan = prepare(schedule, solver, steps, grid, end_clean, start=time, td=how.td)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    except FloatingPointError as error:  # of the run that fits a grid
        raise NonFinite(str(error)) from None
    if plan.learns_range:
        raise ConfigError(
            f"solver = {how.solver!r}: needs a network that learned its variance, and is for the "
            "core alone (shared.solver.sample); use ancestral or ancestral_large"
        )
    return plan


def _solver(learner: Model, how: Sampling) -> Solver:
    chosen = for_data(how.solver, learner.data_std)
    return replace(chosen, budget=how.budget) if isinstance(chosen, Ode) else chosen


def _times(
    learner: Model, how: Sampling, grid_file: Path | None, start: Start | None
) -> tuple[str | Grid | Tensor | None, bool, float | None]:
    """The grid, whether its last time stands for the clean end, and the time it begins at."""
    begin = start or Start(None)
    time = None if start is None else start.time
    if how.solver == "auto" and how.grid is None:
        return fitted_grid(learner, grid_file), not begin.inverted, time
    own = learner.own_times(how.steps) if how.grid is None else None
    if own is None:
        return how.grid, not begin.inverted, time
    times, end_clean = own
    left = how.steps - min(int(how.steps * begin.time), how.steps)  # as diffusers' img2img
    if left == how.steps:
        raise ConfigError(
            f"strength = {begin.time} of {how.steps} steps is none: expected more of either"
        )
    times = times[left:]
    if begin.inverted and end_clean and times[-1] == times[-2]:
        times = times[:-1]
    return times, end_clean and not begin.inverted, None


@torch.no_grad()
def fitted_grid(learner: Model, file: Path | None = None) -> Fitted:
    """The grid of `solver="auto"` for a model, unguided: from the file if it holds that of these
    weights, else, and where it is damaged, from one run of 64 steps on 64 seeds, written there."""
    weights = [weight.detach().float().flatten()[:64].cpu() for weight in learner.parameters()]
    digest = hashlib.sha256(torch.cat(weights).numpy().tobytes()).hexdigest()
    if file is not None and file.is_file():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            kept = json.loads(file.read_text(encoding="utf-8"))
            if kept["weights"] == digest:
                return Fitted.from_json(kept["grid"])
    device, shape = next(learner.parameters()).device, learner.codec.latent_shape
    start = noise.normal(range(FIT_SEED, FIT_SEED + 64), 0, shape, device=device)
    grid = fit(learner.denoiser, start, learner.schedule, data_std=learner.data_std)
    if file is not None:
        write_text(file, json.dumps({"weights": digest, "grid": grid.to_json()}))
    return grid


def _guided(
    learner: Model,
    how: Sampling,
    guide: DiffusionLearner | None,
    condition: Tensor | None,
    negative: Tensor | None,
    target: ClassTarget | None,
) -> tuple[Denoise, Tensor | None]:
    """The model at its temperature, guided and then clamped as the settings say, and the condition
    as it takes it."""
    model = _at_temperature(learner.denoiser, how.temperature)
    scales = how.guidance
    if isinstance(scales, dict):
        if condition is None:
            raise ConfigError("guidance: towards what? Give a condition, or leave it out")
        columns = [learner.groups[name] for name in scales]
        negative, condition, weights = chain(condition, columns, [*scales.values()])
        guided = classifier_free(model, weights, negative=negative)
    elif guide is None:
        guided = classifier_free(model, scales, negative=negative, interval=how.guidance_interval)
    else:
        guided = _by_weaker(learner, how, guide, model, scales)
    if target is not None:
        log_prob, ids = target

        def of_ids(x_t: Tensor, level: Level, _: Tensor | None) -> Tensor:
            return log_prob(x_t, level, ids)

        guided = classifier(guided, of_ids, how.classifier_scale, how.guidance_interval)
    return (clamp(guided, learner.codec) if how.clamp else guided), condition


def _by_weaker(
    learner: Model, how: Sampling, guide: DiffusionLearner, model: Denoise, scale: float
) -> Denoise:
    if guide.codec.latent_shape != learner.codec.latent_shape:
        raise ConfigError(
            f"guide = {how.guide}: its latents are {guide.codec.latent_shape}, the model's "
            f"{learner.codec.latent_shape}; expected a run of the same data and codec"
        )
    weaker = _at_temperature(guide.denoiser, how.temperature)
    return autoguidance(model, weaker, scale, how.guidance_interval)


def _at_temperature(denoiser: Denoise, temperature: float) -> Denoise:
    if temperature == 1:
        return denoiser
    if not isinstance(denoiser, Tempered):
        raise ConfigError(f"temperature = {temperature}: this model has no logits to divide")
    try:
        return denoiser.tempered(temperature)
    except ValueError as error:
        raise ConfigError(str(error)) from None
