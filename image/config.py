"""The configuration of an image run: what to read, how pixels become latents, what to train."""

from shared.config import DiffusionConfig, NetConfig, TrainConfig
from shared.schema import one_of, positive, schema

MODELS = ("diffusion", "classifier")
CODECS = ("pixels", "bits")
NETWORKS = ("transformer", "unet")
RESAMPLE = ("residual", "conv")


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
class UnetConfig:
    """The U-Net. Level 0 has the latent's size, each further one half its height and width."""

    channels: tuple[int, ...] = (64, 128, 256)  # of each level
    layers: int = 2  # residual blocks of a level on the way down; on the way up one more
    attention: tuple[int, ...] = (1, 2)  # levels whose blocks attend; any: the middle does too
    head_dim: int = 64  # channels of a head, as in ADM
    scale_shift: bool = True  # level and class scale and shift after the norm (ADM), or only shift
    resample: str = "residual"  # between levels: a residual block (BigGAN, ADM), or a convolution
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if not self.channels or any(n < 8 or n % 8 for n in self.channels):
            raise ValueError(
                f"unet.channels = {self.channels}: expected a multiple of 8 for each level"
            )
        positive("unet.layers", self.layers)
        positive("unet.head_dim", self.head_dim)
        one_of("unet.resample", self.resample, RESAMPLE)
        if not 0 <= self.dropout < 1:
            raise ValueError(f"unet.dropout = {self.dropout}: expected a number in [0, 1)")
        last = len(self.channels) - 1
        if any(not 0 <= level <= last for level in self.attention):
            raise ValueError(
                f"unet.attention = {self.attention}: expected levels from 0 (the finest) to {last}"
            )
        for level in {*self.attention, last} if self.attention else ():
            if self.channels[level] % self.head_dim:
                raise ValueError(
                    f"unet.head_dim = {self.head_dim}: expected a divisor of the "
                    f"{self.channels[level]} channels of level {level}, which attends"
                )


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
    and train only. `network` is `transformer`, which reads net and patch, or `unet`, which reads
    unet: `network=unet` alone makes any configuration one of a U-Net."""

    panel: str = "image"
    model: str = "diffusion"
    data: DataConfig = DataConfig()
    codec: CodecConfig = CodecConfig()
    network: str = "transformer"
    net: NetConfig = NetConfig(dim=128)
    patch: int = 2  # pixels along a side of a token
    unet: UnetConfig = UnetConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    train: TrainConfig = TrainConfig()
    judge: JudgeConfig = JudgeConfig()

    def __post_init__(self) -> None:
        one_of("panel", self.panel, ["image"])
        one_of("model", self.model, MODELS)
        one_of("network", self.network, NETWORKS)
        positive("patch", self.patch)
        if self.network != "unet" and self.unet != UnetConfig():
            raise ValueError(
                f"unet: network = {self.network!r} does not read it; add network=unet, or leave "
                "unet out"
            )
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
