"""The configuration of a text run: what to read, how words become latents, what to train."""

from shared.config import DiffusionConfig, NetConfig, TrainConfig
from shared.schema import one_of, positive, schema
from shared.tokenizer import KINDS, SPECIAL
from text.teller import check_only

MODELS = ("diffusion", "causal")
CODECS = ("embedding", "bits")


@schema
class DataConfig:
    """Sentences and their tokens.

    `name` is `scene` (the embedded scene world), a file (.parquet, .jsonl, .json, .csv, .txt), a
    folder of such files named by split, or a data set of the hub; $VARIABLES in it are expanded. A
    single file holds out every 20th sentence as its `held_out` split.
    """

    name: str = "scene"
    column: str = "text"  # of tables; lines of .txt files need none
    # what sentences are written from: a column, or `scene` in the scene world; none: from nothing
    source: str | None = None
    source_length: int = 64  # tokens of a source; a sentence with a longer one is dropped, counted
    split: str = "train"
    held_out: str = "validation"
    only: dict[str, str | int] | None = None  # scene world: this count, tone or audience, no other
    limit: int | None = None  # of sentences; the scene world, endless, makes SCENES of them
    length: int = 24  # tokens of a sentence, its end included; longer ones are dropped and counted
    tokenizer: str = "word"
    vocabulary: int = 8192  # at most, special tokens included
    min_count: int = 1  # rarer words are unknown (word tokenizer)

    def __post_init__(self) -> None:
        one_of("data.tokenizer", self.tokenizer, KINDS)
        positive("data.min_count", self.min_count)
        positive("data.source_length", self.source_length)
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
        if self.vocabulary <= SPECIAL:
            raise ValueError(f"data.vocabulary = {self.vocabulary}: expected more than {SPECIAL}")

    def narrowed(self) -> dict[str, str]:
        """`only` as the teller of the scene world takes it."""
        return {name: str(value) for name, value in (self.only or {}).items()}


@schema
class CodecConfig:
    """How token ids become x0: learned `embedding`s of `dim` coordinates, or analog `bits`."""

    kind: str = "embedding"
    dim: int = 16  # small: then words become decidable in a narrow band of noise levels
    unit_norm: bool = True  # all embeddings have one length; false: each has its own (Diffusion-LM)

    def __post_init__(self) -> None:
        one_of("codec.kind", self.kind, CODECS)
        positive("codec.dim", self.dim)


@schema
class JudgeConfig:
    """The causal model that `diptych evaluate` trains on the same data and measures with."""

    net: NetConfig = NetConfig(dim=128, depth=3)
    train: TrainConfig = TrainConfig(steps=800, batch=64, lr=2e-3, warmup=50, save_every=400)


@schema
class TextConfig:
    """A run of the text panel. `model` is `diffusion`, or `causal`: the autoregressive reference,
    which reads data, net and train only."""

    panel: str = "text"
    model: str = "diffusion"
    data: DataConfig = DataConfig()
    codec: CodecConfig = CodecConfig()
    net: NetConfig = NetConfig(dim=128)
    diffusion: DiffusionConfig = DiffusionConfig(prediction="categorical", fit_density=True)
    train: TrainConfig = TrainConfig()
    judge: JudgeConfig = JudgeConfig()

    def __post_init__(self) -> None:
        one_of("panel", self.panel, ["text"])
        one_of("model", self.model, MODELS)
        if self.net.cross_attention and self.data.source is None:
            raise ValueError(
                "net.cross_attention = true: there is nothing to attend to without data.source"
            )
        if self.model == "diffusion" and self.data.source and not self.net.source_depth:
            raise ValueError(
                f"data.source = {self.data.source!r}: needs blocks that read it: set "
                "net.cross_attention = true and net.source_depth = 2"
            )
        self._check_codec()

    def _check_codec(self) -> None:
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
