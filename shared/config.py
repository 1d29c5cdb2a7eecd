"""The sections of a configuration that the core reads, of any panel."""

import dataclasses
import math

from shared.density import LossDensity, named_density
from shared.objective import TIMES, WEIGHTINGS, TimeSampler, named_times
from shared.prediction import PREDICTIONS
from shared.schedule import SCHEDULES, Schedule, named_schedule, schedule_options
from shared.schema import one_of, positive, schema

ENDS = {"logsnr_min": -12.0, "logsnr_max": 12.0}  # of DiffusionConfig, when nothing is said


@schema
class NetConfig:
    """The transformer trunk."""

    dim: int = 192
    depth: int = 4
    heads: int = 4
    dropout: float = 0.0
    cross_attention: bool = False  # to the ids of a condition one by one
    source_depth: int = 0  # blocks that read these ids as a sequence first, see nets/condition

    def __post_init__(self) -> None:
        positive("net.dim", self.dim)
        positive("net.depth", self.depth)
        positive("net.heads", self.heads)
        if self.source_depth < 0:
            raise ValueError(f"net.source_depth = {self.source_depth}: expected 0 or more")
        if self.source_depth and not self.cross_attention:
            raise ValueError(
                f"net.source_depth = {self.source_depth}: set net.cross_attention = true, or no "
                "block sees the order of the source"
            )
        if self.dim % (2 * self.heads):
            raise ValueError(f"net.dim = {self.dim} must be a multiple of 2 x net.heads")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"net.dropout = {self.dropout}: expected a number in [0, 1)")


@schema
class DiffusionConfig:
    """Schedule, prediction and loss."""

    schedule: str = "cosine"
    # of schedules that can be cut there; linear ends where its betas do
    logsnr_min: float = ENDS["logsnr_min"]
    logsnr_max: float = ENDS["logsnr_max"]
    # the other numbers of the schedule, by the names its class has: {rho: 7} for edm
    schedule_options: dict[str, float] = dataclasses.field(default_factory=dict[str, float])
    shift: float = 0.0  # nats added to logsnr: 2 ln(64 / side) for pictures (Hoogeboom et al. 2023)
    # of training times: uniform, log_normal (EDM) or logit_normal (Stable Diffusion 3)
    times: str = "uniform"
    times_options: dict[str, float] = dataclasses.field(default_factory=dict[str, float])
    # divide by the density of logsnr, so that the loss is an integral over it, whatever the times
    integral: bool = False
    prediction: str = "v"
    scale_input: bool = True  # to unit variance; without, as in the papers before EDM
    evidence: bool = False  # categorical: the network adds to the exact logits of independent data
    weighting: str = "sigmoid"
    weigh_cross_entropy: bool = False  # categorical: the weighting is of its cross-entropy, too
    uncertainty: bool = False  # learn ln E[loss] by level, and divide by it (EDM2)
    self_condition: bool = True
    # share of samples trained without their condition (Ho & Salimans), or one for each group of its
    # columns, independently, and for "all" of it at once
    drop_condition: float | dict[str, float] = 0.1
    # fit the density of training times to the slope of the loss (Dieleman et al. 2022, sec. 3.3)
    fit_density: bool = False
    # its numbers: bins, floor (the uniform share), power (of the slope; 0.5: CoBit's entropy rate)
    density_options: dict[str, float] = dataclasses.field(default_factory=dict[str, float])
    # steps of the chain on which a table of latents is learned with the model (Li et al. 2022)
    end_to_end: int | None = None

    def __post_init__(self) -> None:
        one_of("diffusion.schedule", self.schedule, list(SCHEDULES))
        one_of("diffusion.times", self.times, list(TIMES))
        one_of("diffusion.prediction", self.prediction, [*PREDICTIONS, "categorical"])
        one_of("diffusion.weighting", self.weighting, list(WEIGHTINGS))
        dropped = self.drop_condition
        rates = dropped.values() if isinstance(dropped, dict) else [dropped]
        if not all(0 <= rate <= 1 for rate in rates):
            raise ValueError(f"diffusion.drop_condition = {dropped}: expected numbers in [0, 1]")
        if self.evidence and self.prediction != "categorical":
            raise ValueError(
                f"diffusion.evidence = true: needs diffusion.prediction = 'categorical', "
                f"got {self.prediction!r}"
            )
        for name in ("logsnr_min", "logsnr_max"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(
                    f"diffusion.{name} = {getattr(self, name)}: expected a finite number"
                )
        if not self.logsnr_min < self.logsnr_max:
            raise ValueError("diffusion.logsnr_min must be below diffusion.logsnr_max")
        if self.end_to_end is not None:
            self._check_end_to_end(self.end_to_end)
        if self.weigh_cross_entropy and self.prediction != "categorical":
            raise ValueError(
                "diffusion.weigh_cross_entropy = true: needs diffusion.prediction = 'categorical', "
                f"got {self.prediction!r}, whose loss is weighted anyway"
            )
        self._check_loss()
        if self.density_options and not self.fit_density:
            raise ValueError("diffusion.density_options: of what? Set diffusion.fit_density = true")
        parts = {"schedule": self.base_schedule, "times": self.sampler, "density": self.density}
        for part, check in parts.items():
            try:
                check()
            except ValueError as error:
                raise ValueError(f"diffusion.{part}_options: {error}") from None
        if not math.isfinite(self.shift):
            raise ValueError(f"diffusion.shift = {self.shift}: expected a finite number")

    def base_schedule(self) -> Schedule:
        """The schedule named here, with its numbers, before any shift. ValueError for numbers that
        it has not, `logsnr_min` and `logsnr_max` included where they are not the default."""
        known = schedule_options(self.schedule)
        ends = {end: getattr(self, end) for end in ENDS}
        given = {end: x for end, x in ends.items() if end in known or x != ENDS[end]}
        for end in ENDS.keys() & self.schedule_options.keys():
            raise ValueError(f"{end}: this number is diffusion.{end}")
        return named_schedule(self.schedule, given | self.schedule_options)

    def sampler(self) -> TimeSampler:
        """The sampler of training times named here, on the schedule before any shift."""
        return named_times(self.times, self.times_options, self.base_schedule())

    def density(self) -> LossDensity | None:
        """The density of training times that is to be fitted, before any shift, if one is."""
        if not self.fit_density:
            return None
        return named_density(self.base_schedule(), self.density_options)

    def _check_end_to_end(self, steps: int) -> None:
        positive("diffusion.end_to_end", steps)
        paper = {"schedule": "sqrt", "prediction": "x0", "weighting": "x0", "times": "uniform"}
        plain = {"integral": False, "uncertainty": False, "fit_density": False, "shift": 0.0}
        for name, value in {**paper, **plain, "schedule_options": {}, **ENDS}.items():
            got = getattr(self, name)
            if got != value:
                raise ValueError(f"diffusion.{name} = {got!r}: end_to_end needs {value!r}")

    def _check_loss(self) -> None:
        learned = self.schedule == "learned"
        if (learned or self.weighting == "elbo") and not self.integral:
            raise ValueError(
                "diffusion.integral = false: schedule = 'learned' and weighting = 'elbo' belong to "
                "an integral over logsnr; set diffusion.integral = true"
            )
        if learned and (self.shift or self.uncertainty):
            raise ValueError(
                "diffusion.schedule = 'learned': its ends take the place of diffusion.shift, and "
                "it needs the loss as it is, without diffusion.uncertainty"
            )
        plain = self.times == "uniform" and not (learned or self.integral or self.uncertainty)
        if self.fit_density and not plain:
            raise ValueError(
                "diffusion.fit_density = true fits the times to the plain loss: set it to false, "
                "or leave out schedule = 'learned', times, integral and uncertainty"
            )


@schema
class TrainConfig:
    """The DeepSpeed run. Only the global batch is stated; the micro batch is derived."""

    steps: int = 1000
    batch: int = 64
    accumulation: int = 1
    lr: float = 1e-3
    warmup: int = 100
    decay: str = "linear"  # of lr after the warm-up, to zero: linear, cosine or none
    optimizer: str = "adamw"  # or muon, for the hidden matrices, at ZeRO stage 0
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)  # of AdamW; 0.99 follows short runs better than 0.999
    clip: float = 1.0
    ema: float = 0.999
    zero_stage: int = 0
    # of the network, and of Muon's iteration: fp32, bf16 (autocast), or auto, the faster of the two
    # where the run begins; weights stay in fp32
    precision: str = "fp32"
    # each block of the network by torch.compile: fewer passes over memory, after a minute of it
    compile: bool = False
    # weights of convolutions and batches of pictures with their channels innermost, at ZeRO stage 0
    channels_last: bool = False
    seed: int = 0
    log_every: int = 20
    tensorboard: bool = False  # RUN/tensorboard, too, for `tensorboard --logdir`
    save_every: int = 500
    keep: int = 2

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "accumulation", "lr", "clip", "log_every", "save_every"):
            positive(f"train.{name}", getattr(self, name))
        for name in ("warmup", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"train.{name} = {getattr(self, name)}: expected 0 or more")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"train.betas = {self.betas}: expected two numbers in [0, 1)")
        one_of("train.optimizer", self.optimizer, ["adamw", "muon"])
        if self.optimizer == "muon" and self.zero_stage:
            raise ValueError(
                f"train.optimizer = 'muon' needs whole matrices: train.zero_stage = 0, got "
                f"{self.zero_stage}"
            )
        if self.channels_last and self.zero_stage:
            raise ValueError(
                f"train.channels_last = true needs whole weights: train.zero_stage = 0, got "
                f"{self.zero_stage}"
            )
        one_of("train.decay", self.decay, ["linear", "cosine", "none"])
        one_of("train.precision", self.precision, ["fp32", "bf16", "auto"])
        if self.zero_stage not in (0, 1, 2, 3):
            raise ValueError(f"train.zero_stage = {self.zero_stage}: expected 0, 1, 2 or 3")
        if self.batch % self.accumulation:
            raise ValueError(
                f"train.batch = {self.batch} (global) must be a multiple of "
                f"train.accumulation = {self.accumulation}"
            )
        if self.keep < 2:
            raise ValueError(f"train.keep = {self.keep}: keep two checkpoints or more")
        if not 0 <= self.ema < 1:
            raise ValueError(f"train.ema = {self.ema}: expected a number in [0, 1)")
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"train.seed = {self.seed}: expected an integer in [0, 2^31)")
