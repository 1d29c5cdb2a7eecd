"""The configuration of an image run: what to read, how pixels become latents, what to train."""

from shared.config import DiffusionConfig, NetConfig, TrainConfig, one_of, positive, schema

MODELS = ("diffusion", "classifier")
CODECS = ("pixels", "bits")


@schema
class DataConfig:
    """Pictures and their labels.

    `name` is `digits` or `scene` (embedded), a .parquet file, a folder of such files named by
    split, an image folder, a folder that `datasets` saved, or a data set of the hub; $VARIABLES in
    it are expanded. A single file holds out every 20th picture as its `held_out` split.
    """

    name: str = "digits"
    split: str = "train"
    held_out: str = "test"
    image_column: str = "image"
    label_column: str | None = "label"  # null: without classes
    size: int | None = None  # pixels along a side, cropped and scaled to it; null: as they are
    channels: int | None = None  # 1 (grey) or 3 (RGB); null: as the first picture has
    limit: int | None = None  # of pictures, evenly spread over the split

    def __post_init__(self) -> None:
        for name in ("size", "limit"):
            value = getattr(self, name)
            if value is not None:
                positive(f"data.{name}", value)
        if self.channels not in (None, 1, 3):
            raise ValueError(f"data.channels = {self.channels}: expected 1 (grey) or 3 (RGB)")


@schema
class CodecConfig:
    """How levels become x0: `pixels` in [-scale, scale], or analog `bits` of -scale and +scale."""

    kind: str = "pixels"
    scale: float = 1.0
    gray: bool = False  # bits in Gray code: neighbouring levels differ in one bit

    def __post_init__(self) -> None:
        one_of("codec.kind", self.kind, CODECS)
        positive("codec.scale", self.scale)
        if self.gray and self.kind != "bits":
            raise ValueError(f"codec.gray = true: a code of bits, but codec.kind = {self.kind!r}")


@schema
class JudgeConfig:
    """The classifier that `diptych evaluate` trains on the same data and measures with."""

    width: int = 32  # channels of the first stage
    dropout: float = 0.2
    train: TrainConfig = TrainConfig(
        steps=400, batch=64, lr=3e-3, warmup=50, ema=0.99, weight_decay=0.05, save_every=400
    )

    def __post_init__(self) -> None:
        positive("judge.width", self.width)
        if self.width % 8:
            raise ValueError(f"judge.width = {self.width}: expected a multiple of 8")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"judge.dropout = {self.dropout}: expected a number in [0, 1)")


@schema
class ImageConfig:
    """A run of the image panel. `model` is `diffusion`, or `classifier`, which reads data, judge
    and train only."""

    panel: str = "image"
    model: str = "diffusion"
    data: DataConfig = DataConfig()
    codec: CodecConfig = CodecConfig()
    net: NetConfig = NetConfig(dim=128)
    patch: int = 2  # pixels along a side of a token
    diffusion: DiffusionConfig = DiffusionConfig()
    train: TrainConfig = TrainConfig()
    judge: JudgeConfig = JudgeConfig()

    def __post_init__(self) -> None:
        one_of("panel", self.panel, ["image"])
        one_of("model", self.model, MODELS)
        positive("patch", self.patch)
        if self.diffusion.prediction == "categorical" and self.codec.kind != "bits":
            raise ValueError(
                "diffusion.prediction = 'categorical' needs codec.kind = 'bits'; "
                f"got {self.codec.kind!r}: use 'v', 'eps' or 'x0'"
            )
        if self.diffusion.end_to_end is not None:
            raise ValueError(
                "diffusion.end_to_end: learns a table of latents, and pixels and bits have none; "
                "leave it out"
            )
        if (
            self.diffusion.fit_density
            and self.diffusion.prediction != "categorical"
            and self.diffusion.weighting != "x0"
        ):
            raise ValueError(
                "diffusion.fit_density = true: needs a loss that only falls as logsnr rises: "
                "diffusion.prediction = 'categorical', or diffusion.weighting = 'x0' "
                f"(got {self.diffusion.weighting!r})"
            )
