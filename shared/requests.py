"""What the command asks of a panel: one value a verb, whose fields are the command's options."""

import math
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from shared.errors import ConfigError
from shared.sampling import Sampling, check_strength
from shared.scene import SPLITS
from shared.scene_facts import check_only
from shared.sweep import parse_sweep

SEEDS = 2**62  # noise knows 64 bits, and candidates lie 2^41 apart (shared.seeds)
BOUND_SEEDS = 2**31  # a key of the bound holds the seed beside the number of a draw (32 bits each)


@dataclass(frozen=True, kw_only=True)
class Request(Sampling):
    """What `diptych sample` and `evaluate` have in common.

    Attributes:
        n: How many samples.
        seed: Sample i is drawn with seed + i, whatever n is.
        weights: ema (the moving average) or model (the raw weights).
    """

    n: Annotated[int, tyro.conf.arg(aliases=["-n"])]
    seed: int = 0
    weights: str = "ema"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n < 1:
            raise ConfigError(f"n = {self.n}: expected 1 or more")
        if not abs(self.seed) < SEEDS:
            raise ConfigError(f"seed = {self.seed}: expected an integer in (-2^62, 2^62)")
        check_weights(self.weights)

    @property
    def seeds(self) -> range:
        """One for each sample."""
        return range(self.seed, self.seed + self.n)


def check_weights(weights: str) -> None:
    """ConfigError unless it names one of the two that a checkpoint holds."""
    if weights not in ("ema", "model"):
        raise ConfigError(f"weights = {weights!r}: expected ema or model")


@dataclass(frozen=True, kw_only=True)
class SampleRequest(Request):
    """What to sample, and how.

    Attributes:
        condition: What to sample: a class by name or number, a scene or an outfit in words; `all`
            in turn.
        prompt: What to write from or to draw, in words, or a .txt file of such lines, one for each
            sample in turn; for a causal model that writes from nothing, how each sentence begins.
        image: Pictures to write from: one sample for each file (panels that describe pictures).
        negative_prompt: What guidance is to depart from, in words (pictures).
        given: What must stay, with [MASK] for what is free (panels that can infill).
        length: Tokens of each sentence (models that are told it: codec.explicit_length).
        low: A picture to enlarge, or the run of a model that is to draw it (models of a cascade).
        low_noise: The time to which it is noised: 0 for a true picture.
        sketch: A drawing to follow, dark lines on white (models of sketch: true).
        layout: Pictures whose pixels hold the numbers of parts, 0 for none: where things are to be,
            in turn (models that read layouts).
        trajectory: Also write the denoising of the first sample.
        mbr: Draw this many candidates for each sample and keep the one that the others agree with
            most, by minimum Bayes risk (panels that can compare them).
        surest: The same, but keep the one that the model itself is surest of, by its own loss.
        n_best: Also write the best of these candidates, this many at most, with what ranked each.
        clip: Run of a dual encoder of pictures and captions (model: clip), or a folder of a
            CLIPModel, that scores pictures by their prompt.
        candidates: Draw this many for each picture and keep the one with the best of these scores.
        clip_scale: How strongly pictures are led towards better scores while they are drawn: 1 as
            much as the encoder's own probabilities say.
    """

    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 16
    condition: Annotated[str | None, tyro.conf.arg(name="class")] = None
    prompt: str | None = None
    image: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE...")] = ()
    negative_prompt: str | None = None
    given: str | None = None
    length: int | None = None
    low: Path | None = None
    low_noise: float = 0.1
    sketch: Path | None = None
    layout: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE...")] = ()
    trajectory: bool = False
    mbr: int = 1
    surest: int = 1
    n_best: int = 1
    clip: str | None = None
    candidates: int = 1
    clip_scale: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low is not None and self.sketch is not None:
            raise ConfigError(
                "low, sketch: a model enlarges or follows a sketch; leave one of them"
            )
        if self.low_noise != SampleRequest.low_noise and self.low is None:
            raise ConfigError("low_noise: of the picture to enlarge; give low, or leave it out")
        if self.candidates < 1:
            raise ConfigError(f"candidates = {self.candidates}: expected 1 or more")
        if not math.isfinite(self.clip_scale):
            raise ConfigError(f"clip_scale = {self.clip_scale}: expected a finite number")
        if self.clip is None and (self.candidates != 1 or self.clip_scale != 0):
            raise ConfigError(
                f"candidates = {self.candidates}, clip_scale = {self.clip_scale}: by whose score? "
                "Give clip = RUN, or leave them out"
            )

    def for_images(self) -> "SampleRequest":
        """The same with as many samples as there are images. ConfigError when another number was
        asked for, or a file twice."""
        if self.n not in (SampleRequest.n, len(self.image)):
            raise ConfigError(
                f"n = {self.n}: there is one sample for each of {len(self.image)} images; leave it "
                "out"
            )
        twice = [path for path in self.image if self.image.count(path) > 1]
        if twice:
            raise ConfigError(f"image: {twice[0]} is named twice; name each file once")
        return replace(self, n=len(self.image))


@dataclass(frozen=True, kw_only=True)
class ControlRequest(Request):
    """How many controlled samples, and for which targets.

    Attributes:
        n: How many samples of each target.
        prompt: What to write from, in words, beside the controls.
        control_scale: How strongly the whole sample follows what is asked for: 1 as much as the
            model's own probabilities say.
        mbr: Draw this many candidates for each sample and keep the one that the others agree with
            most, by minimum Bayes risk.
        candidates: Draw up to this many for each sample until one satisfies all that is asked for,
            as what guides it reads it (never its judge), and keep the best. With operators: draw as
            many, and keep the one in whose words they find most surely what is asked for, and that
            the decoder wrote most surely; of an edit in mode flow, stops on its way.
        targets: A file of targets, one JSON object of controls a line, in place of NAME=VALUE; or
            one of Diffusion-LM's, as text or gzip.
        evaluate: The same, and measure more: targets that cannot be satisfied count as missed, and
            samples are held against ones without control.
        tagged: A folder of sentences with the part of speech of each word, which judge and guide
            learn from (default for evaluate: the folder of its file).
        operator: What an operator of the run's latents must find: NAME=VALUE, NAME!=VALUE,
            NAME=VALUE|VALUE, with a weight 2*NAME=VALUE; again for more of them. Operators are in
            RUN/operators, or NAME is the path of one.
        mode: exact: operators of noisy latents guide the solver; flow: samples, or what is edited,
            move along the gradient of operators of clean latents (LatentOps).
        edit: A sentence to change, or a .txt file of them; n versions of each.
        strength: Of an edit in mode exact: the time up to which it is noised, in (0, 1]; several
            candidates go to times evenly up to it.
        stay: Of an edit in mode flow: how strongly it stays where it was.
        interpolate: Two sentences: n on the path between them.
    """

    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 8
    solver: str = "ancestral"
    steps: int = 64
    prompt: str | None = None
    control_scale: float = 1.5
    mbr: int = 1
    candidates: int = 1
    targets: Path | None = None
    evaluate: Path | None = None
    tagged: Path | None = None
    operator: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    mode: str = "exact"
    edit: str | None = None
    strength: float = 0.5
    stay: float = 0.0
    interpolate: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_control_scale(self.control_scale)
        of_latents = ("mode", "strength", "stay")
        changed = [k for k in of_latents if getattr(self, k) != getattr(ControlRequest, k)]
        if changed and not self.in_latents:
            raise ConfigError(
                f"{', '.join(changed)}: of operators and edits; give operator or edit, or leave "
                "that out"
            )
        if self.candidates < 1:
            raise ConfigError(f"candidates = {self.candidates}: expected 1 or more")
        if self.candidates > 1 and self.in_latents and not self.operator:
            raise ConfigError(
                f"candidates = {self.candidates}: in latents operators choose among them; give "
                "operator, or leave them out"
            )
        if self.candidates > 1 and self.mbr > 1:
            raise ConfigError(
                "candidates, mbr: one keeps what satisfies most, the other what the draws agree "
                "on; leave one of them out"
            )

    @property
    def in_latents(self) -> bool:
        """Whether it asks for operators, an edit or a path: for what acts on latents."""
        return bool(self.operator) or self.edit is not None or self.interpolate is not None

    def asked(self) -> dict[str, Any]:
        """All of it by name, to be written beside what was drawn."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, kw_only=True)
class WriteRequest(Request):
    """What to write, for whom, and how.

    Attributes:
        n: How many different ones, at most.
        message: What they say. Scenes: words that are in each of them. Restaurants: fields, such as
            "name: Zizzi, food: Italian". Latents of sentences: words that should be in them, or a
            sentence with its full stop, to be edited.
        tone: In which tone; left open when not given. Scenes: plain, cheerful, formal. Restaurants:
            the price range. Latents: a value of the operator tone, or else sentiment.
        audience: For whom; left open when not given. Scenes: adult, child. Restaurants: family,
            adults. Latents: a value of the operator audience.
        use_case: sentence; or paragraph: up to three sentences, one after another, each of a part
            of the message between commas, or all of all of it where it has one part.
        more_like: Write variations of the one with this number among those written last, which were
            also asked for what is not asked for now.
        strength: How far variations may go, in (0, 1]: the time that the one to vary is noised to.
            Latents: also the message.
        control_scale: How strongly the rest follows the words of the message. Latents: the weight
            of operators.
        surest: Draw this many times as many, and keep those that the model itself is surest of.
            Latents: those with most words of the message first.
    """

    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 4
    solver: str = "ancestral"
    steps: int = 64
    message: str | None = None
    tone: str | None = None
    audience: str | None = None
    use_case: str | None = None
    more_like: int | None = None
    strength: float = 0.6
    control_scale: float = 1.0  # more, with guidance, costs grammar: docs/results.md
    surest: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_control_scale(self.control_scale)
        if self.surest < 1:
            raise ConfigError(f"surest = {self.surest}: expected 1 or more")
        check_strength(self.strength)


def check_control_scale(scale: float) -> None:
    """ConfigError unless it is finite."""
    if not math.isfinite(scale):
        raise ConfigError(f"control_scale = {scale}: expected a finite number")


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """What to export, and how.

    Attributes:
        weights: ema (the moving average) or model (the raw weights).
        timesteps: Steps T of the chain that stands for a continuous schedule: its level i is ours
            at t = (i + 1) / T.
    """

    weights: str = "ema"
    timesteps: int = 1000

    def __post_init__(self) -> None:
        check_weights(self.weights)
        if self.timesteps < 2:
            raise ConfigError(f"timesteps = {self.timesteps}: expected 2 or more")


@dataclass(frozen=True, kw_only=True)
class EvaluateRequest(Request):
    """What to measure, and on which samples.

    Attributes:
        n: How many samples to draw and to compare.
        split: Of the held-out data (default data.held_out).
        prompt: What to write all of them from, in place of held-out sources.
        mbr: Draw this many candidates for each sample and keep the one that the others agree with
            most, by minimum Bayes risk (panels that can compare them).
        surest: The same, but keep the one that the model itself is surest of, by its own loss.
        likelihood: Also bound -log p of n held-out data: nats, bits/dim or nats/token.
        draws: Draws of noise a datum for that bound.
        ode: Also bound it by the density of the probability-flow ODE, of this many of these data:
            each takes a hundred network evaluations and more, with their gradients.
        features: In whose features samples are compared: those of the judge that the suite trains,
            or of a further network: NAME:FILE with its weights, or NAME, installed (pictures:
            inception:FILE, efficientnet-lite0; sentences: transformers:FOLDER, what from_pretrained
            reads).
        clip: Run of a dual encoder of pictures and captions (model: clip), or a folder of a
            CLIPModel: also score samples by their captions, and find the right one among 100.
        reference: A file of feature statistics to compare with, in place of the training split's
            (panels that have such statistics).
        frontier: Instead, likeness beside variety at several values of one setting:
            temperature=0.7,0.8,0.9 or steps=8,32 or td=0,1; writes RUN/frontier.json and
            RUN/frontier.png (panels that can).
    """

    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 256
    split: str | None = None
    prompt: str | None = None
    mbr: int = 1
    surest: int = 1
    likelihood: bool = False
    draws: int = 8
    ode: int = 0
    features: Annotated[str, tyro.conf.arg(metavar="judge|NAME|NAME:FILE")] = "judge"
    clip: str | None = None
    reference: Path | None = None
    frontier: Annotated[str | None, tyro.conf.arg(metavar="NAME=VALUE,...")] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.draws < 1:
            raise ConfigError(f"draws = {self.draws}: expected 1 or more")
        if self.draws != EvaluateRequest.draws and not self.likelihood:
            raise ConfigError("draws: of the bound on -log p; give likelihood, or leave it out")
        if self.likelihood and not 0 <= self.seed < BOUND_SEEDS:
            raise ConfigError(
                f"seed = {self.seed}: with likelihood expected an integer in [0, 2^31), as "
                "train.seed is; its noise is never that of training then"
            )
        if not 0 <= self.ode <= (self.n if self.likelihood else 0):
            raise ConfigError(
                f"ode = {self.ode}: expected at most n = {self.n}, with likelihood; it is another "
                "bound on -log p of the same data"
            )
        if self.frontier is not None:
            if self.likelihood:
                raise ConfigError(
                    "likelihood, frontier: the bound is the same however samples are drawn; ask "
                    "for one of them"
                )
            if self.features != "judge" or self.reference is not None or self.clip is not None:
                raise ConfigError(
                    "features, reference, clip, frontier: a frontier is measured by the judge "
                    "alone; ask for one of them"
                )
            self.points()

    def points(self) -> dict[float, "EvaluateRequest"]:
        """The same request at each value of its frontier. ConfigError for an impossible value."""
        sweep = parse_sweep("frontier", self.frontier or "")
        at: Any = {value: {sweep.name: value} for value in sweep.values}
        return {value: replace(self, frontier=None, **change) for value, change in at.items()}


@dataclass(frozen=True, kw_only=True)
class PairRequest:
    """Which scenes to write as files, and how.

    Attributes:
        n: How many scenes.
        size: Pixels along a side of a picture, a multiple of 32.
        split: train, validation or test: no board is in two of them.
        seed: The stream of scenes, and of their telling.
        only: count=N, tone=TONE or audience=AUDIENCE: no other scenes. Once for each.
    """

    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 1000
    size: int = 32
    split: str = "train"
    seed: int = 0
    only: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ConfigError(f"n = {self.n}: expected 1 or more")
        if self.size < 32 or self.size % 32:
            raise ConfigError(f"size = {self.size}: expected a multiple of 32")
        if self.split not in SPLITS:
            raise ConfigError(f"split = {self.split!r}: expected one of {', '.join(SPLITS)}")
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed = {self.seed}: expected an integer in [0, 2^32)")
        if len(self.narrowed()) < len(self.only):
            raise ConfigError(f"only = {', '.join(self.only)}: expected each name once")
        try:
            check_only(self.narrowed())
        except ValueError as error:
            raise ConfigError(str(error)) from None

    def narrowed(self) -> dict[str, str]:
        """`only` by name."""
        return {name: value for name, _, value in (word.partition("=") for word in self.only)}
