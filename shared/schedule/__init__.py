"""Noise schedules: maps from t in [0, 1] (0 data, 1 noise) to falling logsnr, in nats."""

from shared.schedule.calculus import slope
from shared.schedule.chain import (
    FromBetas,
    betas_through,
    cosine_betas,
    from_betas,
    linear_betas,
    scaled_linear_betas,
    sqrt_betas,
    to_betas,
)
from shared.schedule.closed import Cosine, Edm, Flow, Sigmoid, Sqrt, Ve
from shared.schedule.decay import Linear, ScaledLinear, SubVp
from shared.schedule.learned import Learned
from shared.schedule.level import (
    Family,
    Level,
    Schedule,
    straight_flow,
    sub_variance_preserving,
    variance_exploding,
    variance_preserving,
)
from shared.schedule.names import SCHEDULES, named_schedule, schedule_options
from shared.schedule.warped import Shifted, Warped, resolution_shift

__all__ = [
    "SCHEDULES",
    "Cosine",
    "Edm",
    "Family",
    "Flow",
    "FromBetas",
    "Learned",
    "Level",
    "Linear",
    "ScaledLinear",
    "Schedule",
    "Shifted",
    "Sigmoid",
    "Sqrt",
    "SubVp",
    "Ve",
    "Warped",
    "betas_through",
    "cosine_betas",
    "from_betas",
    "linear_betas",
    "named_schedule",
    "resolution_shift",
    "scaled_linear_betas",
    "schedule_options",
    "slope",
    "sqrt_betas",
    "straight_flow",
    "sub_variance_preserving",
    "to_betas",
    "variance_exploding",
    "variance_preserving",
]
