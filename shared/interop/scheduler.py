"""Our schedules and solvers as a scheduler of diffusers.

    pipeline.scheduler = DiptychScheduler.from_config(pipeline.scheduler.config, solver="auto")

What the network was trained with (betas, prediction_type, clip_sample) keeps the names and meaning
of diffusers; `solver` and `grid` are ours and stand for the names of their solvers and grids.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers, SchedulerMixin
from diffusers.utils.outputs import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from shared.interop.convention import convention_of, settings_of
from shared.interop.course import Course
from shared.interop.networks import clipped, halves
from shared.interop.settings import check_keys, spaced, with_options
from shared.prediction import to_x0
from shared.schedule import Level
from shared.solver import Point, prepare
from shared.solver.plan import grid_times

_NEAR = 1e-3  # of a timestep: what is handed back may have been rounded to float32


@dataclass
class DiptychSchedulerOutput(BaseOutput):
    """The next state and the estimate of x0 that led there, (B, ...) both."""

    prev_sample: Tensor
    pred_original_sample: Tensor


class DiptychScheduler(SchedulerMixin, ConfigMixin):
    """A schedule, a solver and a grid behind set_timesteps, step and add_noise.

    Levels: a chain of `num_train_timesteps` betas (beta_schedule, beta_start, beta_end,
    trained_betas, rescale_betas_zero_snr), or `schedule`, a name of SCHEDULES, with
    `schedule_options`; a VP schedule without a name goes in as trained_betas, from `to_betas`.
    schedule = "flow" is FlowMatch's, with its `shift`. sub_vp and the prediction 'edm' are refused.

    Solver: a name of SOLVERS; `solver_options` replace its fields. One or two evaluations a step:
    `calls_of` says what is refused and why. Two-stage steps take two timesteps each, as Heun's do
    in diffusers (`order` = 2). A learned variance (twice the channels): "ancestral_learned".

    Grid: a name of GRIDS over the levels that the network knows, or, without one, integer timesteps
    by timestep_spacing and steps_offset as DDPMScheduler has them. The last step ends clean.

    Hidden state: between `set_timesteps` and the last step the object holds the solver's history,
    because `step` has no argument for it: one trajectory at a time. Noise comes from `generator`
    (None: torch's global one) by diffusers' randn_tensor, not from seeds.
    """

    _compatibles = [kind.name for kind in KarrasDiffusionSchedulers]  # noqa: RUF012 their protocol

    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: Sequence[float] | None = None,
        prediction_type: str = "epsilon",
        rescale_betas_zero_snr: bool = False,
        clip_sample: bool = False,
        clip_sample_range: float = 1.0,
        timestep_spacing: str = "trailing",
        steps_offset: int = 0,
        shift: float = 1.0,
        schedule: str | None = None,
        schedule_options: dict[str, Any] | None = None,
        solver: str = "dpmpp_2m",
        solver_options: dict[str, Any] | None = None,
        grid: str | None = None,
    ) -> None:
        settings = {key: value for key, value in locals().items() if key != "self"}
        if trained_betas is not None:  # as JSON takes them
            settings["trained_betas"] = [float(beta) for beta in trained_betas]
        self.register_to_config(**settings)
        self._convention = convention_of(settings)
        self._schedule = self._convention.schedule
        self._solver = with_options(solver, solver_options or {})
        self.order = 1 if self._solver.nfe == 1 else 2
        self.set_timesteps(min(4, num_train_timesteps))  # refuses, here and now, what cannot run
        self.num_inference_steps = None
        self.timesteps = torch.arange(num_train_timesteps, 0, -1) - self._convention.lag

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any] | None = None,
        return_unused_kwargs: bool = False,
        **kwargs: Any,
    ) -> Any:
        """From a configuration of ours or of another scheduler, with changes as keywords.

        Keys of diffusers that only choose a solver or a grid are left aside: `solver` and `grid`
        stand for them. ValueError for keys that neither we nor they know, and for settings that
        we would have to ignore.
        """
        given = settings_of(config or {})
        # theirs forgets, on the way to another class, what was its own class's default
        given.pop("_use_default_values", None)
        check_keys(cls, {**given, **kwargs})
        return super().from_config(given, return_unused_kwargs, **kwargs)

    def __len__(self) -> int:
        return self._convention.steps

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: torch.device | str | None = None,
        timesteps: Sequence[float] | None = None,
    ) -> None:
        """Plan a run of so many steps, or through given timesteps, falling, and on to the clean
        end. Sets `timesteps`, float32, fractions between the network's own steps.

        ValueError unless just one of both is given, and for timesteps that no level has.
        """
        if timesteps is not None and num_inference_steps is None:
            self._times = self._times_at(timesteps)
        elif num_inference_steps is not None and timesteps is None:
            self._times = self._grid(num_inference_steps)
        else:
            raise ValueError(
                f"num_inference_steps = {num_inference_steps}, timesteps = {timesteps}: give one "
                "of them"
            )
        self._whole = self._course_from(0)
        logsnrs = torch.tensor([call.at.logsnr for call in self._whole.calls], dtype=torch.float64)
        told = self._convention.timestep(logsnrs)
        self._told: list[float] = told.tolist()
        self.timesteps = told.to(device=device, dtype=torch.float32)
        self.num_inference_steps = len(self._times) - 1
        self._course: Course | None = None
        self._begin_index: int | None = None
        self._first = 0  # the course's first evaluation, as an index of timesteps

    def _grid(self, count: int) -> Tensor:
        """Times of the known levels, (count + 1,), the last for the clean end."""
        config: Any = self.config
        if config.grid is not None:
            return grid_times(self._schedule, count, config.grid)
        steps = self._convention.steps
        places = spaced(config.timestep_spacing, count, steps, config.steps_offset)
        times = torch.cat([places, places.new_zeros(1)]) / (steps - 1)
        return grid_times(self._schedule, count, times)

    def _times_at(self, timesteps: Sequence[float]) -> Tensor:
        told = torch.as_tensor(timesteps, dtype=torch.float64)
        times = self._schedule.time(self._convention.level(told).logsnr)
        near = 1e-6
        known = (times >= -near) & (times <= 1 + near)
        if told.ndim != 1 or not bool(known.all()) or bool((told.diff() >= 0).any()):
            lag, steps = self._convention.lag, self._convention.steps
            raise ValueError(
                f"timesteps = {list(timesteps)}: expected falling numbers from {steps - lag} to "
                f"{1 - lag}"
            )
        times = torch.cat([times, times.new_zeros(1)]).clamp(0, 1)
        return grid_times(self._schedule, len(told), times)

    def _course_from(self, step: int) -> Course:
        return Course(prepare(self._schedule, self._solver, grid=self._times[step:]))

    # -- a run ---------------------------------------------------------------------------------

    @property
    def init_noise_sigma(self) -> float:
        """The standard deviation of the first state, of data of unit variance."""
        first = self._whole.calls[0].at
        return math.hypot(first.alpha, first.sigma)

    @property
    def begin_index(self) -> int | None:
        """Where a run begins in timesteps, if a pipeline has said so."""
        return self._begin_index

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Begin at timesteps[begin_index], with an empty history (image to image)."""
        self._begin_index = begin_index

    @property
    def step_index(self) -> int | None:
        """The next evaluation's place in timesteps; None before the first."""
        return None if self._course is None else self._first + self._course.place

    def scale_model_input(self, sample: Tensor, timestep: Tensor | float | None = None) -> Tensor:
        """What the network is to see: the sample (B, ...) itself, or, of a VE schedule, divided by
        sqrt(1 + sigma^2)."""
        if timestep is None:
            return sample
        total = self._total(self._next(timestep)[1])
        return sample if total == 1 else sample / total

    def step(
        self,
        model_output: Tensor,
        timestep: Tensor | float,
        sample: Tensor,
        generator: torch.Generator | list[torch.Generator] | None = None,
        return_dict: bool = True,
    ) -> DiptychSchedulerOutput | tuple[Tensor, Tensor]:
        """The network's output (B, C or 2 C, ...) at (sample, timestep) -> the next state.

        Half-precision samples are stepped, and remembered, in float32. ValueError for a timestep
        out of turn: the history is that of one trajectory.
        """
        course, at = self._next(timestep)
        half = sample.dtype in (torch.float16, torch.bfloat16)
        x = sample.float() if half else sample
        total = self._total(at)
        seen = x if total == 1 else x / total
        level = Level(*(x.new_tensor(v) for v in (at.logsnr, at.alpha / total, at.sigma / total)))
        output, free = halves(model_output.to(x.dtype), x.shape[1])
        x0_hat = clipped(to_x0(self._convention.prediction, output, seen, level), self._convention)
        if course.plan.learns_range and free is None:
            raise ValueError(
                "solver = 'ancestral_learned' wants twice the channels of the sample; this network "
                "learned no variance"
            )
        x_s, std = course.advance(x, x0_hat, None if free is None else (free + 1) / 2)
        if isinstance(std, Tensor) or std:
            x_s = x_s + std * randn_tensor(x.shape, generator, x.device, x.dtype)
        x_s = x_s.to(sample.dtype)
        return DiptychSchedulerOutput(x_s, x0_hat) if return_dict else (x_s, x0_hat)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x0 and unit noise (B, ...), timesteps (B,) -> alpha x0 + sigma noise at their levels."""
        told = timesteps.to(original_samples.device).reshape(-1)
        level = self._convention.level(told).to(original_samples).widen(original_samples.ndim)
        return level.alpha * original_samples + level.sigma * noise

    def _total(self, at: Point) -> float:
        """What x_t is divided by for the network: 1 but for a VE schedule."""
        if self._convention.lag == 0:
            return 1.0
        total = math.hypot(at.alpha, at.sigma)
        return 1.0 if abs(total - 1) < 1e-9 else total  # 1 + rounding is no scale

    def _next(self, timestep: Tensor | float) -> tuple[Course, Point]:
        """The course and the level of the next evaluation, which `timestep` must be."""
        if self._course is None:
            self._course = self._begin(timestep)
        course, place = self._course, self._first + self._course.place
        if place >= len(self._told):
            raise ValueError("this run is over: call set_timesteps before the next")
        on_host = not isinstance(timestep, Tensor) or timestep.device.type == "cpu"
        if on_host and abs(float(timestep) - self._told[place]) > _NEAR:  # elsewhere it would wait
            raise ValueError(
                f"timestep = {float(timestep):g}: this run is at {self._told[place]:g}; call "
                "set_timesteps to begin another"
            )
        return course, course.calls[course.place].at

    def _begin(self, timestep: Tensor | float) -> Course:
        """The course from the step that asks first at this timestep, its history empty."""
        place = self._begin_index
        if place is None:
            near = [i for i, t in enumerate(self._told) if abs(t - float(timestep)) < _NEAR]
            if not near:
                raise ValueError(
                    f"timestep = {float(timestep):g} is not one of timesteps: {self._told}"
                )
            place = near[-1]  # of two, the second begins a step
        asked = self._whole.calls[place]
        if place and asked.at != asked.step.at:
            raise ValueError(f"begin_index = {place}: a two-stage step is under way there")
        self._first = place
        if place == 0:
            return self._whole
        return self._course_from(sum(not call.trial for call in self._whole.calls[:place]))
