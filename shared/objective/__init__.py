"""What a diffusion model is trained on and measured by: losses, weightings, times, bounds."""

from shared.objective.bound import Bound, discrete_bound, elbo_terms, step_kl
from shared.objective.end_to_end import EndToEnd, Terms
from shared.objective.hybrid import hybrid_loss
from shared.objective.loss import diffusion_loss, first_rows, output_losses
from shared.objective.moment import Moment, moment
from shared.objective.streams import (
    CLEAN,
    DROP,
    NOISE,
    OTHER_NOISE,
    OTHER_TIME,
    TIME,
    drop_condition,
    sample_keys,
    stratified_times,
)
from shared.objective.times import (
    TIMES,
    Importance,
    LogitNormal,
    LogNormal,
    TimeSampler,
    named_times,
    uniform_times,
)
from shared.objective.uncertainty import Uncertainty
from shared.objective.weighting import WEIGHTINGS, Weighting, elbo, min_snr, p2, sigmoid, weight

__all__ = [
    "CLEAN",
    "DROP",
    "NOISE",
    "OTHER_NOISE",
    "OTHER_TIME",
    "TIME",
    "TIMES",
    "WEIGHTINGS",
    "Bound",
    "EndToEnd",
    "Importance",
    "LogNormal",
    "LogitNormal",
    "Moment",
    "Terms",
    "TimeSampler",
    "Uncertainty",
    "Weighting",
    "diffusion_loss",
    "discrete_bound",
    "drop_condition",
    "elbo",
    "elbo_terms",
    "first_rows",
    "hybrid_loss",
    "min_snr",
    "moment",
    "named_times",
    "output_losses",
    "p2",
    "sample_keys",
    "sigmoid",
    "step_kl",
    "stratified_times",
    "uniform_times",
    "weight",
]
