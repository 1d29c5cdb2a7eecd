"""The configuration of an image run: what to read, how pixels become latents, what to train."""

from image.autoencoder.config import AutoencoderConfig
from image.clip.config import ClipConfig
from image.data_config import DataConfig
from image.upscale import UpscaleConfig
from shared.config import DiffusionConfig, NetConfig, TrainConfig
from shared.groups import ALL
from shared.schema import one_of, positive, schema

MODELS = ("diffusion", "classifier", "autoencoder", "clip")
CODECS = ("pixels", "bits", "palette", "autoencoder")
OF_BITS = ("bits", "palette")
NETWORKS = ("transformer", "unet")
RESAMPLE = ("residual", "conv")
TOLD = ("level", "step")
SOURCE_HEADS = 4  # of the blocks that read a caption for the U-Net


@schema
class CodecConfig:
    """How levels become x0: `pixels` in [-scale, scale], analog `bits` of -scale and +scale, those
    of a colour's place in a `palette` made of the training pictures (`image.palette`), or the
    latents of an `autoencoder`, shifted and scaled to mean 0 and standard deviation `scale`.

    An autoencoder is a `run` of ours (model: autoencoder), or `pretrained`, a folder of diffusers'
    AutoencoderKL, AutoencoderTiny or VQModel; $VARIABLES are expanded. It is copied into the run.
    """

    kind: str = "pixels"
    scale: float = 1.0
    gray: bool = False  # bits in Gray code: neighbouring levels, or colours, differ in one bit
    colours: int = 256  # of a palette, at most
    run: str | None = None
    pretrained: str | None = None
    sample: bool = False  # train on draws of the encoder's Gaussian, not on its mean
    cache_latents: bool = False  # encode the training data once, to disk
    tiling: bool = False  # decode large pictures tile by tile, for memory
    slicing: bool = False  # decode picture by picture, for memory

    def __post_init__(self) -> None:
        one_of("codec.kind", self.kind, CODECS)
        positive("codec.scale", self.scale)
        if not 2 <= self.colours <= 256:
            raise ValueError(f"codec.colours = {self.colours}: expected 2 to 256")
        if self.gray and self.kind not in OF_BITS:
            raise ValueError(f"codec.gray = true: a code of bits, but codec.kind = {self.kind!r}")
        if self.kind == "autoencoder":
            if (self.run is None) == (self.pretrained is None):
                raise ValueError(
                    f"codec.run = {self.run}, codec.pretrained = {self.pretrained}: expected one "
                    "of them: a run of model: autoencoder, or a folder of a diffusers autoencoder"
                )
            return
        for name in ("run", "pretrained", "sample", "cache_latents", "tiling", "slicing"):
            if getattr(self, name):
                raise ValueError(
                    f"codec.{name} = {getattr(self, name)}: of an autoencoder, but codec.kind = "
                    f"{self.kind!r}; set codec.kind=autoencoder, or leave it out"
                )


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
    source_depth: int = 0  # blocks that read a caption, to which the levels that attend then attend
    source_dim: int = 128  # of its tokens
    # The noise level as its logsnr, and with it the mean of a caption's tokens; or, of a network
    # with data.text_encoder, as the step of a chain of 1,000, alone: as in Stable Diffusion
    told: str = "level"

    def __post_init__(self) -> None:
        if self.source_depth < 0:
            raise ValueError(f"unet.source_depth = {self.source_depth}: expected 0 or more")
        positive("unet.source_dim", self.source_dim)
        if self.source_dim % (2 * SOURCE_HEADS):
            raise ValueError(
                f"unet.source_dim = {self.source_dim}: expected a multiple of {2 * SOURCE_HEADS}"
            )
        if self.source_depth and not self.attention:
            raise ValueError(
                f"unet.source_depth = {self.source_depth}: no level attends to a caption; set "
                "unet.attention, or leave it out"
            )
        if not self.channels or any(n < 8 or n % 8 for n in self.channels):
            raise ValueError(
                f"unet.channels = {self.channels}: expected a multiple of 8 for each level"
            )
        one_of("unet.told", self.told, TOLD)
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
    """A run of the image panel. `model` is `diffusion`; `classifier`, which reads data, judge and
    train, and with `noisy` codec and the schedule too; `autoencoder`, which reads data, train,
    judge and autoencoder; or `clip`: data, clip and train. `network` is `transformer`, which reads
    net, patch and rotary, or `unet`: `network=unet` alone makes any configuration a U-Net's."""

    panel: str = "image"
    model: str = "diffusion"
    noisy: bool = False  # a classifier of noisy latents, to guide by
    data: DataConfig = DataConfig()
    codec: CodecConfig = CodecConfig()
    network: str = "transformer"
    net: NetConfig = NetConfig(dim=128)
    patch: int = 2  # pixels along a side of a token
    rotary: bool = False  # tokens are also told where they are by their row and column
    unet: UnetConfig = UnetConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    upscale: UpscaleConfig = UpscaleConfig()
    # draw pictures after their sketches, which `diptych sample --sketch` gives; like the `low` of
    # upscale, always there, or dropped where diffusion.drop_condition names it
    sketch: bool = False
    # fill the holes of pictures, which `diptych edit --mask` gives; as `sketch` in the rest
    masked: bool = False
    train: TrainConfig = TrainConfig()
    judge: JudgeConfig = JudgeConfig()
    autoencoder: AutoencoderConfig = AutoencoderConfig()
    clip: ClipConfig = ClipConfig()

    def __post_init__(self) -> None:
        one_of("panel", self.panel, ["image"])
        one_of("model", self.model, MODELS)
        if self.noisy and self.model != "classifier":
            raise ValueError(
                f"noisy = true: of a classifier, but model = {self.model!r}; add model=classifier"
            )
        if self.noisy and self.diffusion.schedule == "learned":
            raise ValueError(
                "diffusion.schedule = 'learned': a classifier does not learn its schedule; use "
                "cosine or another"
            )
        one_of("network", self.network, NETWORKS)
        positive("patch", self.patch)
        if self.rotary and self.net.dim % (4 * self.net.heads):
            raise ValueError(
                f"net.dim = {self.net.dim} must be a multiple of 4 x net.heads, since rotary"
            )
        if self.network != "unet" and self.unet != UnetConfig():
            raise ValueError(
                f"unet: network = {self.network!r} does not read it; add network=unet, or leave "
                "unet out"
            )
        self._check_augmented()
        self._check_autoencoder()
        self._check_clip()
        self._check_condition()
        self._check_dropped()
        self.upscale.check(self.model, self.codec.kind)
        self._check_beside()
        if self.diffusion.prediction == "categorical" and self.codec.kind not in OF_BITS:
            raise ValueError(
                "diffusion.prediction = 'categorical' needs codec.kind = 'bits' or 'palette'; "
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

    def beside(self) -> str | None:
        """What stands beside the noisy picture, by the name of the argument that gives it."""
        wanted = {"sketch": self.sketch, "masked": self.masked, "low": self.upscale.factor > 1}
        return next((name for name, there in wanted.items() if there), None)

    def drops_beside(self) -> bool:
        """Whether training drops what stands beside, which it does where that is named."""
        dropped = self.diffusion.drop_condition
        return isinstance(dropped, dict) and self.beside() in dropped

    def _check_beside(self) -> None:
        if self.sketch and self.masked:
            raise ValueError("sketch, masked = true: one picture stands beside; leave one out")
        latent, other = self.codec.kind == "autoencoder", self.upscale.factor > 1
        refused = self.model != "diffusion" or latent or other
        for name, there in (("sketch", self.sketch), ("masked", self.masked)):
            if there and refused:
                raise ValueError(
                    f"{name} = true: of model = 'diffusion' with pixels or bits and upscale.factor "
                    f"= 1, got {self.model!r} with codec.kind = {self.codec.kind!r} and "
                    f"{self.upscale.factor}; leave it out"
                )

    def _check_augmented(self) -> None:
        for name in self.data.augmented():
            if self.model != "diffusion":
                raise ValueError(
                    f"{name}: of model = 'diffusion', got {self.model!r}; leave it out"
                )
        if self.data.crop and self.codec.cache_latents:
            raise ValueError(
                f"data.crop = {self.data.crop}: every window has latents of its own; set "
                "codec.cache_latents=false, or leave it out"
            )

    def _check_autoencoder(self) -> None:
        if self.model != "autoencoder" and self.autoencoder != AutoencoderConfig():
            raise ValueError(
                f"autoencoder: model = {self.model!r} does not read it; add model=autoencoder, or "
                "leave autoencoder out (codec.run names one that is trained)"
            )
        if self.model != "diffusion" and self.codec.kind == "autoencoder":
            raise ValueError(
                f"codec.kind = 'autoencoder': for model = 'diffusion', got {self.model!r}; leave "
                "codec out"
            )

    def _check_clip(self) -> None:
        if self.model != "clip":
            if self.clip != ClipConfig():
                raise ValueError(
                    f"clip: model = {self.model!r} does not read it; add model=clip, or leave clip "
                    "out"
                )
            return
        if self.data.caption_column is None:
            raise ValueError(
                "data.caption_column = null: model = 'clip' learns pictures and their captions; "
                "name the column"
            )
        if self.train.accumulation != 1:
            raise ValueError(
                f"train.accumulation = {self.train.accumulation}: model = 'clip' compares all "
                "pairs of a batch at once; leave it at 1, and share the batch between processes"
            )

    def _check_condition(self) -> None:
        captions, unet = self.data.caption_column is not None, self.network == "unet"
        depth = self.unet.source_depth if unet else self.net.source_depth
        if self.data.layout_column is not None and self.model != "diffusion":
            raise ValueError(
                f"data.layout_column = {self.data.layout_column!r}: of model = 'diffusion', got "
                f"{self.model!r}; leave it out"
            )
        if self.data.text_encoder is not None:
            self._check_text_encoder(depth)
            return
        wanted = "unet.source_depth = 2"
        if not unet:
            wanted = "net.cross_attention = true, net.source_depth = 2"
        if captions and self.model == "diffusion" and not depth:
            raise ValueError(
                f"data.caption_column = {self.data.caption_column!r}: needs blocks that read it: "
                f"set {wanted}"
            )
        if unet and depth and not captions:
            raise ValueError(
                f"unet.source_depth = {depth}: there is no caption to read without "
                "data.caption_column"
            )

        if self.unet.told == "step":
            raise ValueError(
                "unet.told = 'step': of a network that reads captions by data.text_encoder; name "
                "one, or leave it out"
            )

    def _check_text_encoder(self, depth: int) -> None:
        name = f"data.text_encoder = {self.data.text_encoder!r}"
        if self.model != "diffusion" or self.beside() is not None:
            raise ValueError(
                f"{name}: of model = 'diffusion' without sketch, with upscale.factor = 1 and "
                f"masked = false, got {self.model!r} with {self.beside()}; leave it out"
            )
        section = "unet" if self.network == "unet" else "net"
        if depth:
            raise ValueError(
                f"{section}.source_depth = {depth}: {name} reads captions in place of these "
                f"blocks; set {section}.source_depth = 0"
            )
        if self.network != "unet" and not self.net.cross_attention:
            raise ValueError(f"{name}: nothing attends to it; set net.cross_attention = true")
        if self.network == "unet" and not self.unet.attention:
            raise ValueError(f"{name}: no level attends to it; set unet.attention")
        if self.unet.told == "step" and self.diffusion.schedule == "learned":
            raise ValueError(
                "unet.told = 'step': a schedule that is learned has no chain yet; set "
                "diffusion.schedule=scaled_linear, or leave it out"
            )

    def _check_dropped(self) -> None:
        dropped = self.diffusion.drop_condition
        if isinstance(dropped, dict):
            known = [ALL, *self.data.condition_groups(), *filter(None, [self.beside()])]
            for name in dropped:
                one_of("diffusion.drop_condition", name, known)
