"""The configuration of a text run: what to read, how words become latents, what to train."""

from shared.config import DiffusionConfig, NetConfig, TrainConfig
from shared.scene_facts import check_only
from shared.schema import not_negative, one_of, positive, schema
from shared.tokenizer import KINDS, SPECIAL
from text.teller import SPLIT_BY

MODELS = ("diffusion", "causal", "autoencoder", "operator")
CODECS = ("embedding", "bits", "sentence")


@schema
class PictureConfig:
    """Pictures beside the sentences, and how a network reads them: as patches."""

    column: str = "image"
    size: int = 32  # pixels along a side
    scale: bool = False  # those of another size are cropped and scaled to it; else refused
    channels: int = 3  # 1 (grey) or 3 (RGB)
    patch: int = 4  # pixels along the side of a patch
    scenes: str | None = None  # a column of the scenes they show, which captions are held against

    def __post_init__(self) -> None:
        positive("data.picture.size", self.size)
        positive("data.picture.patch", self.patch)
        if self.channels not in (1, 3):
            raise ValueError(
                f"data.picture.channels = {self.channels}: expected 1 (grey) or 3 (RGB)"
            )
        if self.size % self.patch:
            raise ValueError(
                f"data.picture.patch = {self.patch}: expected a divisor of data.picture.size = "
                f"{self.size}"
            )

    @property
    def row_shape(self) -> tuple[int, int]:
        """How many patches a picture has, and how many numbers a patch."""
        return (self.size // self.patch) ** 2, self.channels * self.patch**2


@schema
class DataConfig:
    """Sentences and their tokens.

    `name` is `scene` (the embedded scene world), a file (.parquet, .jsonl, .json, .csv, .txt), a
    folder of such files named by split, or a data set of the hub; $VARIABLES in it are expanded. A
    single file holds out every 20th sentence as its `held_out` split.

    With `picture`, sentences are captions: `name` is what the image panel reads too, an image
    folder, a .parquet file, a folder of such files, a folder that `datasets` saved, or a data set
    of the hub.
    """

    name: str = "scene"
    column: str = "text"  # of tables; lines of .txt files need none
    # what sentences are written from: a column, `scene` in the scene world, or `picture`; none:
    # from nothing
    source: str | None = None
    picture: PictureConfig | None = None
    source_length: int = 64  # tokens of a source; a sentence with a longer one is dropped, counted
    source_signs: bool = False  # signs of a source are words: `name[Zizzi]` is `name [ Zizzi ]`
    # share of the training sources with random parts left out, see text/parts.py: a model then also
    # writes from less than all
    partial_sources: float = 0.0
    # of operators: what they tell; in the scene world tone, audience, count or colour (of the thing
    # told first, or `unsaid`)
    label_column: str | None = None
    split: str = "train"
    held_out: str = "validation"
    only: dict[str, str | int] | None = None  # scene world: this count, tone or audience, no other
    # scene world: what is held out is new as a `sentence`, or as a `template`, its words without
    # those that tell an attribute of a thing
    split_by: str = "sentence"
    limit: int | None = None  # of sentences; the scene world, endless, makes SCENES of them
    length: int = 24  # tokens of a sentence, its end included; longer ones are dropped and counted
    tokenizer: str = "word"
    vocabulary: int = 8192  # at most, special tokens included
    min_count: int = 1  # rarer words are unknown (word tokenizer)

    def __post_init__(self) -> None:
        one_of("data.tokenizer", self.tokenizer, KINDS)
        positive("data.min_count", self.min_count)
        positive("data.source_length", self.source_length)
        if not 0 <= self.partial_sources <= 1:
            raise ValueError(
                f"data.partial_sources = {self.partial_sources}: expected a number in [0, 1]"
            )
        if self.source is None and (self.partial_sources or self.source_signs):
            raise ValueError("data.partial_sources, data.source_signs: of what? Set data.source")
        if self.picture is not None:
            self._check_picture()
        if self.name == "scene" and self.source not in (None, "scene"):
            raise ValueError(
                f"data.source = {self.source!r}: what is told in the scene world are scenes: set "
                "'scene', or leave it out"
            )
        if self.limit is not None:
            positive("data.limit", self.limit)
        if self.length < 2:
            raise ValueError(f"data.length = {self.length}: a word and the end need 2 or more")
        if self.only is not None and self.name != "scene":
            raise ValueError(f"data.only: narrows the scene world; data.name is {self.name!r}")
        check_only(self.narrowed())
        one_of("data.split_by", self.split_by, SPLIT_BY)
        if self.split_by != "sentence" and self.name != "scene":
            raise ValueError(
                f"data.split_by = {self.split_by!r}: of the scene world; data.name is {self.name!r}"
            )
        if self.vocabulary <= SPECIAL:
            raise ValueError(f"data.vocabulary = {self.vocabulary}: expected more than {SPECIAL}")

    def _check_picture(self) -> None:
        if self.name == "scene":
            raise ValueError(
                "data.picture: the embedded scene world has no pictures here; write some with "
                "`diptych data scene DIR`, and set data.name=DIR"
            )
        if self.source not in (None, "picture"):
            raise ValueError(
                f"data.source = {self.source!r}: beside data.picture expected 'picture', or null "
                "for sentences written from nothing"
            )
        if self.partial_sources or self.source_signs or self.label_column is not None:
            raise ValueError(
                "data.partial_sources, data.source_signs, data.label_column: not of captions; "
                "leave them out, or data.picture"
            )

    @property
    def reads_pictures(self) -> bool:
        """Whether sentences are written from pictures."""
        return self.picture is not None and self.source is not None

    def narrowed(self) -> dict[str, str]:
        """`only` as the teller of the scene world takes it."""
        return {name: str(value) for name, value in (self.only or {}).items()}


@schema
class CodecConfig:
    """How token ids become x0: learned `embedding`s of `dim` coordinates, analog `bits`, or the
    latents of a whole `sentence`.

    Those are of a `run` of model: autoencoder, or of one that keeps such a codec ($VARIABLES are
    expanded). It is copied into the run, its tokenizer too.
    """

    kind: str = "embedding"
    dim: int = 16  # small: then words become decidable in a narrow band of noise levels
    unit_norm: bool = True  # all embeddings have one length; false: each has its own (Diffusion-LM)
    run: str | None = None
    temperature: float = 0.0  # of a sentence's words given its latent; 0: the likeliest ones
    # tell the model how many tokens a sentence has, see text/lengths.py; else it learns padding
    explicit_length: bool = False

    def __post_init__(self) -> None:
        one_of("codec.kind", self.kind, CODECS)
        positive("codec.dim", self.dim)
        not_negative("codec.temperature", self.temperature)
        if self.kind == "sentence":
            if self.run is None:
                raise ValueError(
                    "codec.run = null: name the run whose latents to learn, such as one of "
                    "text/scene_autoencoder"
                )
            if self.explicit_length:
                raise ValueError(
                    "codec.explicit_length = true: latents of whole sentences hold their length; "
                    "leave it out"
                )
            return
        for name in ("run", "temperature"):
            if getattr(self, name):
                raise ValueError(
                    f"codec.{name} = {getattr(self, name)}: of sentences' latents, but codec.kind "
                    f"= {self.kind!r}; set codec.kind=sentence, or leave it out"
                )


@schema
class AutoencoderConfig:
    """A variational autoencoder of sentences; its networks are of the size of `net`.

    LatentOps has dim 64, beta 0.9, free_bits 0.9 and plain 0.5 (Liu et al. 2022, code).
    """

    latents: int = 1  # vectors of a sentence
    dim: int = 64  # coordinates of each
    beta: float = 0.2  # of the KL divergence, at the end; below 1 more of a sentence comes back
    free_bits: float = 0.1  # nats of each coordinate that cost nothing
    plain: float = 0.1  # share of the run without the KL divergence, then
    ramp: float = 0.3  # share during which its weight rises to beta

    def __post_init__(self) -> None:
        positive("autoencoder.latents", self.latents)
        positive("autoencoder.dim", self.dim)
        for name in ("beta", "free_bits", "plain", "ramp"):
            not_negative(f"autoencoder.{name}", getattr(self, name))
        if self.plain + self.ramp > 1:
            raise ValueError(
                f"autoencoder.plain = {self.plain}, autoencoder.ramp = {self.ramp}: shares of one "
                "run, expected a sum of 1 or less"
            )


@schema
class OperatorConfig:
    """A classifier of latents: what `diptych control --operator` steers by."""

    width: int = 256
    depth: int = 2  # hidden layers
    dropout: float = 0.1
    noised: bool = True  # also of noisy latents, told the level: the exact mode needs it

    def __post_init__(self) -> None:
        positive("operator.width", self.width)
        positive("operator.depth", self.depth)
        if not 0 <= self.dropout < 1:
            raise ValueError(f"operator.dropout = {self.dropout}: expected a number in [0, 1)")


@schema
class JudgeConfig:
    """The causal model that `diptych evaluate` trains on the same data and measures with."""

    net: NetConfig = NetConfig(dim=128, depth=3)
    train: TrainConfig = TrainConfig(steps=800, batch=64, lr=2e-3, warmup=50, save_every=400)


@schema
class TextConfig:
    """A run of the text panel. `model` is `diffusion`; `causal`: the autoregressive reference,
    which reads data, net and train only; `autoencoder` of whole sentences, which reads autoencoder
    too; or `operator`, a classifier of its latents, which reads data, codec, operator and train."""

    panel: str = "text"
    model: str = "diffusion"
    data: DataConfig = DataConfig()
    codec: CodecConfig = CodecConfig()
    net: NetConfig = NetConfig(dim=128)
    diffusion: DiffusionConfig = DiffusionConfig(prediction="categorical", fit_density=True)
    train: TrainConfig = TrainConfig()
    judge: JudgeConfig = JudgeConfig()
    autoencoder: AutoencoderConfig = AutoencoderConfig()
    operator: OperatorConfig = OperatorConfig()

    def __post_init__(self) -> None:
        one_of("panel", self.panel, ["text"])
        one_of("model", self.model, MODELS)
        self._check_model()
        if self.net.cross_attention and self.data.source is None:
            raise ValueError(
                "net.cross_attention = true: there is nothing to attend to without data.source"
            )
        if self.model == "diffusion" and self.data.source and not self.net.source_depth:
            raise ValueError(
                f"data.source = {self.data.source!r}: needs blocks that read it: set "
                "net.cross_attention = true and net.source_depth = 2"
            )
        if isinstance(self.diffusion.drop_condition, dict):
            raise ValueError(
                f"diffusion.drop_condition = {self.diffusion.drop_condition}: sentences have one "
                "source and no groups of it; give one number"
            )
        if self.model == "diffusion":
            self._check_codec()

    def _check_model(self) -> None:
        parts = {"autoencoder": AutoencoderConfig(), "operator": OperatorConfig()}
        for name, default in parts.items():
            if self.model != name and getattr(self, name) != default:
                raise ValueError(
                    f"{name}: model = {self.model!r} does not read it; add model={name}, or leave "
                    f"{name} out"
                )
        if self.model == "causal" and self.data.reads_pictures:
            raise ValueError(
                "data.source = 'picture': the causal reference reads words; set model=diffusion"
            )
        if self.model == "autoencoder":
            self._check_autoencoder()
        if self.codec.kind == "sentence" and self.model in ("causal", "autoencoder"):
            raise ValueError(
                f"codec.kind = 'sentence': model = {self.model!r} reads words, no latents of "
                "sentences; leave codec.kind out"
            )
        if self.codec.explicit_length and self.model != "diffusion":
            raise ValueError(
                f"codec.explicit_length = true: does not apply to model = {self.model!r}, which "
                "writes the end of a sentence itself; leave it out"
            )
        if (self.model == "operator") != (self.data.label_column is not None):
            raise ValueError(
                f"data.label_column = {self.data.label_column!r}, model = {self.model!r}: an "
                "operator needs a column of labels, and nothing else reads one"
            )
        if self.model == "operator" and self.codec.kind != "sentence":
            raise ValueError(
                f"codec.kind = {self.codec.kind!r}: operators are of sentences' latents: set "
                "codec.kind=sentence and codec.run=RUN"
            )

    def _check_autoencoder(self) -> None:
        """With a source, its tokenizer knows the words of those of `data.source`, too; it encodes
        sentences alone."""
        if self.data.reads_pictures:
            raise ValueError(
                "data.source = 'picture': an autoencoder reads sentences alone; leave it out"
            )
        if self.net.cross_attention:
            raise ValueError(
                "net.cross_attention = true: an autoencoder reads sentences alone, of data.source "
                "its tokenizer learns the words; leave it out"
            )

    def _check_codec(self) -> None:
        words_only = self.diffusion.prediction == "categorical" or self.diffusion.fit_density
        if self.codec.kind == "sentence" and words_only:
            raise ValueError(
                f"diffusion.prediction = {self.diffusion.prediction!r}, diffusion.fit_density = "
                f"{self.diffusion.fit_density}: a sentence's latents are no words: set 'v' or "
                "'x0', and false"
            )
        if self.codec.explicit_length and self.diffusion.prediction != "categorical":
            raise ValueError(
                f"codec.explicit_length = true: the loss of {self.diffusion.prediction!r} counts "
                "the padding; set diffusion.prediction = 'categorical'"
            )
        learned, end_to_end = self.codec.kind == "embedding", self.diffusion.end_to_end is not None
        if end_to_end and not learned:
            raise ValueError("diffusion.end_to_end learns embeddings: set codec.kind = 'embedding'")
        if learned and not end_to_end and self.diffusion.prediction != "categorical":
            raise ValueError(
                f"diffusion.prediction = {self.diffusion.prediction!r}: learned embeddings need "
                "'categorical', since a squared error alone is least when all words are one point; "
                "or 'x0' with diffusion.end_to_end, whose rounding term keeps them apart"
            )
        if not self.codec.unit_norm and not end_to_end:
            raise ValueError(
                "codec.unit_norm = false: needs diffusion.end_to_end; under a cross-entropy alone "
                "embeddings grow until no noise hides them"
            )
