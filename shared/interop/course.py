"""A plan that is run from outside: whoever has the network hands in one estimate at a time.

Our own loop asks the network itself. diffusers' protocol is turned round: the pipeline asks, and
`step` has no argument for what a multistep solver remembers, nor for where a two-stage step began.
A `Course` is where that is kept: the one object here whose calls depend on those before.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from shared.schedule import Level
from shared.solver import Plan, Point
from shared.solver.ancestral import LearnedRange
from shared.solver.desk import LoopDesk
from shared.solver.step import Mix, Past, TwoStage


@dataclass(frozen=True)
class Call:
    """One evaluation of the network, at the level `at`; `trial` is the first one of a two-stage
    step."""

    at: Point
    step: Mix | LearnedRange | TwoStage
    trial: bool = False


def calls_of(plan: Plan) -> list[Call]:
    """The evaluations of a plan in order. ValueError for a plan that must ask the network itself.

    One estimate a step, or two with all that lies between known beforehand, can be handed in.
    """
    calls: list[Call] = []
    for step in plan.steps:
        if isinstance(step, TwoStage):
            calls += [Call(step.at, step, trial=True), Call(step.trial.to, step)]
        elif isinstance(step, Mix | LearnedRange):
            calls.append(Call(step.at, step))
        else:
            raise ValueError(
                f"solver = {plan.solver}: its {type(step).__name__} cannot run inside a diffusers "
                "pipeline, which asks the network itself and hands each answer to `step` once: "
                "correctors, Runge-Kutta starts and adaptive steps ask further times at states "
                "of their own, and churn adds noise before the network is asked. Use a solver of "
                "one or two evaluations a step, or shared.solver.sample"
            )
    return calls


class Course:
    """A run of `plan` that stands before evaluation number `place`."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.calls = calls_of(plan)
        self.place = 0
        self._past: Past = ()
        self._desk: LoopDesk | None = None
        self._begun: tuple[Tensor, Tensor] | None = None  # x_t and x0_hat of a two-stage step
        self._given: Tensor | None = None

    def advance(
        self, x: Tensor, x0_hat: Tensor, fraction: Tensor | None = None
    ) -> tuple[Tensor, float | Tensor]:
        """The state x (B, ...) that the network was asked at and its estimate -> mean and std of
        the next such state. x is left alone, x0_hat must be. `fraction` as in a RangeDenoise.

        IndexError after the last evaluation.
        """
        call = self.calls[self.place]
        self.place += 1
        x = x.contiguous()  # as the desk wants it; pipelines may lay channels out last
        if self._desk is None:
            self._desk = LoopDesk(self.plan, self._answer, x, None, None, False)
        desk = self._desk
        step, x_t = call.step, x.clone(memory_format=torch.contiguous_format)
        if isinstance(step, TwoStage):
            if call.trial:
                self._begun = x, x0_hat
                return desk.mix(x_t, step.trial.x, x0_hat, step.trial.x0), 0.0
            assert self._begun is not None
            self._given = x0_hat  # what the step hears when it asks
            x_t, x0_hat = self._begun[0].clone(), self._begun[1]
        desk.fraction = fraction
        x_s, std, kept = step(x_t, x0_hat, self._past, desk)
        memory = self.plan.solver.memory
        if memory and kept is not None:
            self._past = (kept, *self._past)[:memory]
        return x_s, std

    def _answer(
        self,
        x_t: Tensor,
        level: Level,
        condition: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> Tensor:
        assert self._given is not None
        return self._given
