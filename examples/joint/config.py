"""The configuration of a joint run: which pairs to read, and what to train."""

from dataclasses import fields

from shared.config import DiffusionConfig, NetConfig, TrainConfig
from shared.scene_facts import check_only
from shared.schema import one_of, positive, schema
from shared.tokenizer import KINDS, SPECIAL
from text.english import DETAILS

SIDES = ("image", "text")
MOST_WORDS = 2**15  # whose ids `examples.joint.data.Pairs` keeps in 16 bits
# of DiffusionConfig, what a pair's objective reads
READ = (
    *("schedule", "logsnr_min", "logsnr_max", "schedule_options", "shift"),
    *("prediction", "weighting", "self_condition"),
)


@schema
class DataConfig:
    """Pictures with their sentences.

    `name` is `scene` (the embedded scene world: pictures and what is told of them), or whatever the
    image panel reads that has a column of captions, such as a folder of `diptych data scene DIR`.
    """

    name: str = "scene"
    split: str = "train"
    held_out: str = "validation"
    limit: int | None = None  # of pairs; the scene world, endless, makes PAIRS of them
    size: int = 32  # pixels along a side
    length: int = 24  # tokens of a sentence, its end included; longer ones are dropped and counted
    tokenizer: str = "word"
    vocabulary: int = 8192  # at most, special tokens included
    # of files
    image_column: str = "image"
    text_column: str = "text"
    skip_bad: bool = False  # leave out, count and name pictures that are broken or have no caption
    # of the scene world
    detail: str = "some"  # what is told of a scene: some of it in 22 tokens, or full, in 48
    only: dict[str, str | int] | None = None  # this count, tone or audience, no other

    def __post_init__(self) -> None:
        for name in ("size", "length"):
            positive(f"data.{name}", getattr(self, name))
        if self.length < 2:
            raise ValueError(f"data.length = {self.length}: expected 2 or more, a word and the end")
        if self.limit is not None:
            positive("data.limit", self.limit)
        one_of("data.tokenizer", self.tokenizer, KINDS)
        if not SPECIAL < self.vocabulary <= MOST_WORDS:
            raise ValueError(
                f"data.vocabulary = {self.vocabulary}: expected {SPECIAL + 1} to {MOST_WORDS}"
            )
        one_of("data.detail", self.detail, DETAILS)
        check_only(self.narrowed())
        if self.name == "digits":
            raise ValueError(
                "data.name = 'digits': pictures without sentences; a joint model learns pairs: use "
                "scene, or pictures with a column of captions"
            )
        if self.name == "scene" and self.size % 32:
            raise ValueError(f"data.size = {self.size}: scenes are drawn at a multiple of 32")
        if self.name != "scene" and (self.only is not None or self.detail != "some"):
            raise ValueError(f"data.only, data.detail: of the scene world, not of {self.name!r}")

    def narrowed(self) -> dict[str, str]:
        """`only` as the teller of the scene world takes it."""
        return {name: str(value) for name, value in (self.only or {}).items()}


@schema
class CleanConfig:
    """The shares of training samples that are seen as a conditional draw sees them: this side clean
    and not learned, the other noised. Both sides of the rest are noised, at independent times."""

    image: float = 0.0  # sentences from pictures
    text: float = 0.0  # pictures from sentences

    def __post_init__(self) -> None:
        for name in SIDES:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"clean.{name} = {getattr(self, name)}: expected a share, 0 to 1")
        if self.image + self.text >= 1:
            raise ValueError(
                f"clean.image = {self.image}, clean.text = {self.text}: expected a sum below 1; "
                "what is left of the samples trains pairs. For one direction only set alone"
            )

    @property
    def shares(self) -> tuple[float, float]:
        """In the order of the sides."""
        return self.image, self.text


@schema
class LatentsConfig:
    """Runs of the autoencoders (model: autoencoder of a panel) in whose latents a side is learned;
    null: pixels, or learned points of words. Each is copied into the run."""

    image: str | None = None
    text: str | None = None  # its tokenizer is the run's


@schema
class JointConfig:
    """A joint run. `diffusion` is that of the pictures, and of sentences' latents; words are
    predicted by their logits."""

    panel: str = "joint"
    data: DataConfig = DataConfig()
    net: NetConfig = NetConfig(dim=256, depth=6)
    latents: LatentsConfig = LatentsConfig()
    patch: int = 4  # pixels, or places of latents, along the side of a token
    embedding: int = 16  # coordinates of a word
    balance: bool = True  # divide each side's loss by a learned estimate of it; false: their sum
    clean: CleanConfig = CleanConfig()
    # image or text: this side only, always given the other, whatever clean and balance are
    alone: str | None = None
    diffusion: DiffusionConfig = DiffusionConfig()
    train: TrainConfig = TrainConfig()

    def __post_init__(self) -> None:
        one_of("panel", self.panel, ["joint"])
        for name in ("patch", "embedding"):
            positive(name, getattr(self, name))
        if self.alone is not None:
            one_of("alone", self.alone, SIDES)
        if self.diffusion.prediction == "categorical":
            raise ValueError(
                "diffusion.prediction = 'categorical': it is that of pictures; set 'v' or 'x0'"
            )
        if self.latents.text is not None:
            self._check_words()
        default = DiffusionConfig()
        for field in fields(DiffusionConfig):
            value, usual = getattr(self.diffusion, field.name), getattr(default, field.name)
            if field.name not in READ and value != usual:
                raise ValueError(
                    f"diffusion.{field.name} = {value!r}: a joint model does not read it (times "
                    "are uniform, and nothing is dropped: a marginal is a level); leave it out"
                )
        if self.net.cross_attention:
            raise ValueError("net.cross_attention = true: the sides attend to each other; leave it")

    def _check_words(self) -> None:
        """Latents of sentences bring their tokenizer, and words have no points."""
        usual = DataConfig()
        for name, value, default in (
            ("embedding", self.embedding, JointConfig.embedding),
            ("data.tokenizer", self.data.tokenizer, usual.tokenizer),
            ("data.vocabulary", self.data.vocabulary, usual.vocabulary),
        ):
            if value != default:
                raise ValueError(f"{name} = {value!r}: latents.text brings its own; leave it out")
