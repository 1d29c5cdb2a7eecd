"""Guidance through two seams, under any solver.

What changes the estimate is a function Denoise -> Denoise. They nest inside out, in this order:

    classifier_free    around the network: it alone knows conditions
    autoguidance       around a network, or around classifier_free
    linear_inverse     differentiates what it wraps
    through_estimate   does so too
    classifier, energy each adds a gradient; their order does not matter
    clamp              rounds what all the others propose
    infill             last: what is given is given exactly

What changes the state after a step is a StepHook: `classifier_hook`, `gradient_control`, `repaint`,
`repaint_measured`. Hooks act in the order they are listed; those that put in what is known come
last, for the same reason.

One file an idea; each wrapper states its cost. `count_evaluations` around the network counts it.
"""

from shared.guidance.autoguidance import autoguidance
from shared.guidance.clamping import clamp
from shared.guidance.conditions import classifier_free
from shared.guidance.control import gradient_control
from shared.guidance.counting import Counted, count_evaluations
from shared.guidance.energies import Energy, Quadratic, energy, log_factor
from shared.guidance.estimate import through_estimate
from shared.guidance.flow import gradient_flow, unit_gaussian
from shared.guidance.gradients import LogProb
from shared.guidance.groups import chain
from shared.guidance.infilling import infill, repaint
from shared.guidance.inverse import linear_inverse, repaint_measured
from shared.guidance.noisy_classifier import classifier, classifier_hook

__all__ = [
    "Counted",
    "Energy",
    "LogProb",
    "Quadratic",
    "autoguidance",
    "chain",
    "clamp",
    "classifier",
    "classifier_free",
    "classifier_hook",
    "count_evaluations",
    "energy",
    "gradient_control",
    "gradient_flow",
    "infill",
    "linear_inverse",
    "log_factor",
    "repaint",
    "repaint_measured",
    "through_estimate",
    "unit_gaussian",
]
