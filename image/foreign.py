"""Folders of diffusers as the pieces that our own runs have, so that sampling is one code path.

    unet (UNet2DModel)                                      pixels           DDPM, DDIM, our exports
    unet, vae or vqvae                                      latents          latent diffusion
    unet (UNet2DConditionModel), vae, text_encoder, tokenizer    by prompts  Stable Diffusion

with their scheduler, which says what the network was trained with, and at which timesteps it is
usually sampled. What the pipeline holds besides is refused by name, but for a safety checker, which
is left out with a note. Weights are read from safetensors only.
"""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.vq_model import VQModel
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor, nn
from transformers import CLIPTextModel, PreTrainedTokenizerBase

from image.autoencoder.network import (
    CLASSES,
    Network,
    decoded,
    encoded,
    factor,
    latent_channels,
    posterior,
)
from image.codec import Pixels
from image.data import FACTS, DataFacts, read_facts
from image.pipeline import INDEX
from shared.errors import UNREADABLE, CheckpointError, ConfigError
from shared.files import make_folder
from shared.groups import Groups
from shared.interop import DiffusersDenoiser, own_times
from shared.levels import BYTES
from shared.schedule import Level, Schedule

ROWS = 8  # latents that a decoder takes at once
KNOWN: dict[str, tuple[type, ...]] = {
    "unet": (UNet2DModel, UNet2DConditionModel),
    "vae": tuple(CLASSES.values()),
    "vqvae": (VQModel, AutoencoderKL),
    "text_encoder": (CLIPTextModel,),
    "tokenizer": (PreTrainedTokenizerBase,),
    "scheduler": (SchedulerMixin,),
}
CHECKERS = ("safety_checker", "feature_extractor")
# Settings of a UNet2DConditionModel that ask for more than a prompt.
FURTHER = ("addition_embed_type", "class_embed_type", "num_class_embeds", "encoder_hid_dim_type")


class Texts:
    """Words -> what the network attends to: the last states of a CLIP text encoder."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, encoder: CLIPTextModel) -> None:
        self.tokenizer, self.encoder = tokenizer, encoder

    @torch.no_grad()
    def __call__(self, texts: Sequence[str], name: str = "prompt") -> Tensor:
        """n texts, and what they are called -> states (n, L, D), float32, on the CPU. Warns of
        texts that are cut off."""
        length = self.tokenizer.model_max_length
        given: Any = self.tokenizer(
            list(texts),
            padding="max_length",
            max_length=length,
            truncation=True,
            return_tensors="pt",
        )
        whole: Any = self.tokenizer(list(texts))
        for text, ids in zip(texts, whole.input_ids, strict=True):
            if len(ids) > length:
                warnings.warn(f"{name} {text!r}: {len(ids)} tokens, and only {length} are read")
        reads_mask = getattr(self.encoder.config, "use_attention_mask", False)
        device = self.encoder.device
        mask = given.attention_mask.to(device) if reads_mask else None
        said = self.encoder(given.input_ids.to(device), attention_mask=mask)
        return said.last_hidden_state.float().cpu()


class FolderDenoiser(nn.Module):
    """A network of diffusers as a Denoise of our conditions: ids (B, 1), 0 = none, as the data of
    this panel has them, or states of a text encoder (B, L, D)."""

    def __init__(
        self, inner: DiffusersDenoiser, classes: int, has_none: bool, nothing: Tensor | None
    ) -> None:
        super().__init__()
        self.inner, self.classes, self.has_none = inner, classes, has_none
        self.nothing: Tensor | None
        self.register_buffer("nothing", nothing, persistent=False)

    def forward(
        self,
        x_t: Tensor,
        level: Level,
        condition: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> Tensor:
        return self.inner(x_t, level, self._told(condition, len(x_t)))

    def _told(self, condition: Tensor | None, rows: int) -> Tensor | None:
        if self.nothing is not None:
            return self.nothing.expand(rows, -1, -1) if condition is None else condition
        if not self.classes:
            return None
        if condition is None:
            condition = torch.zeros(rows, 1, dtype=torch.long, device=self.device)
        if not self.has_none and bool((condition == 0).any()):
            raise ConfigError(
                "class: this model was trained with a class for every picture and knows no 'none'; "
                "name a class, and leave guidance at 1"
            )
        return torch.where(condition == 0, self.classes, condition - 1)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.inner.parameters()).device


class FolderCodec(nn.Module):
    """Latents (B, c, h, w) <-> pictures of 256 levels, by the autoencoder of a folder:
    z = x0 / scaling_factor + shift_factor, as its configuration has them."""

    def __init__(
        self, network: Network, latent_shape: tuple[int, ...], shape: tuple[int, int, int]
    ) -> None:
        super().__init__()
        self.network, self.latent_shape = network, latent_shape
        self.pixels = Pixels(BYTES, shape)
        self.factor = float(network.config.get("scaling_factor") or 1.0)
        self.shift = float(network.config.get("shift_factor") or 0.0)

    @torch.no_grad()
    def encode(self, data: Tensor) -> Tensor:
        """Levels (B, C, H, W) -> x0, the mean where the encoder gives a Gaussian."""
        network, x = self.network, self.pixels.encode(data)
        gaussian = isinstance(network, AutoencoderKL)
        z = posterior(network, x).mean if gaussian else encoded(network, x)
        return (z - self.shift) * self.factor

    @property
    def smooth(self) -> bool:
        """Whether `pictures` has derivatives: a table of codes has none."""
        return not isinstance(self.network, VQModel)

    def pictures(self, x0: Tensor) -> Tensor:
        """x0 -> what the decoder makes of it (B, C, H, W), about [-1, 1]."""
        z = x0 / self.factor + self.shift
        return torch.cat([decoded(self.network, part) for part in z.split(ROWS)])

    @torch.no_grad()
    def decode(self, x0: Tensor) -> Tensor:
        """x0 -> the nearest levels, int64."""
        return self.pixels.decode(self.pictures(x0))

    def log_prob(self, data: Tensor, z_0: Tensor, level_0: Level) -> Tensor:
        """ConfigError: a folder does not say how far its decoder is from the data."""
        raise ConfigError("likelihood: a folder of diffusers has none of pictures; leave it out")


class FolderModel(nn.Module):
    """A loaded pipeline as `shared.drawing.Model`. `texts` is there where it reads prompts."""

    data_std = 1.0  # the folder does not say it; only solvers with memory of the data's spread ask

    def __init__(
        self,
        pipeline: DiffusionPipeline,
        denoiser: FolderDenoiser,
        codec: Pixels | FolderCodec,
        texts: Texts | None,
    ) -> None:
        super().__init__()
        self.pipeline, self.denoiser, self.codec, self.texts = pipeline, denoiser, codec, texts

    @property
    def groups(self) -> Groups:
        """None: a prompt is one condition."""
        return {}

    def drops(self, names: Sequence[str] = ()) -> bool:
        """True: whether it knows "none" is asked of `denoiser` itself."""
        return True

    @property
    def schedule(self) -> Schedule:
        """The levels that the network knows."""
        return self.denoiser.inner.schedule

    def own_times(self, steps: int) -> tuple[Tensor, bool]:
        """Where the folder's own scheduler asks. ConfigError when it has not so many steps."""
        try:
            return own_times(self.pipeline.scheduler, steps)
        except ValueError as error:
            raise ConfigError(f"steps = {steps}: {error}") from None

    def save(self, folder: Path, scheduler: SchedulerMixin | None = None) -> str:
        """Write the pipeline, with another scheduler if one is given, as a whole folder that is not
        there yet; returns the name of its class."""
        if scheduler is not None:
            self.pipeline.register_modules(scheduler=scheduler)
        make_folder(folder, lambda temporary: self.pipeline.save_pretrained(temporary))
        return type(self.pipeline).__name__


def load_folder(folder: Path) -> tuple[FolderModel, DataFacts]:
    """A folder as a model, on the GPU if there is one, and what is known of its data.

    CheckpointError for a folder that does not load; ConfigError for a pipeline with parts that are
    not read here.
    """
    pipeline = _load(folder)
    parts: dict[str, Any] = {k: v for k, v in pipeline.components.items() if v is not None}
    unet, codec = _check_parts(folder, parts), parts.get("vae", parts.get("vqvae"))
    sides = unet.config.sample_size
    height, width = (sides, sides) if isinstance(sides, int) else sides
    latent = (int(unet.config.in_channels), int(height), int(width))
    shape = latent if codec is None else _picture_shape(codec, latent)
    facts = _facts(folder, unet, shape)
    try:
        inner = DiffusersDenoiser(unet, parts["scheduler"])
    except ValueError as error:
        raise ConfigError(f"{folder}: {error}") from None
    texts = Texts(parts["tokenizer"], parts["text_encoder"]) if "text_encoder" in parts else None
    classes = max(0, facts.conditions - 1)
    has_none = classes > 0 and int(unet.config.num_class_embeds) > classes
    nothing = None if texts is None else texts([""])
    denoiser = FolderDenoiser(inner, classes, has_none, nothing)
    made = Pixels(facts.levels, shape) if codec is None else FolderCodec(codec, latent, shape)
    model = FolderModel(pipeline, denoiser, made, texts).eval()
    if torch.cuda.is_available():
        pipeline.to("cuda")
        model.cuda()
    return model, facts


def _load(folder: Path) -> DiffusionPipeline:
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        left: dict[str, Any] = {name: None for name in CHECKERS if name in index}
        if any((index.get(name) or [None])[0] for name in CHECKERS[:1]):
            warnings.warn(
                f"{folder}: its safety_checker is left out: nothing looks at what is drawn"
            )
        if "requires_safety_checker" in index:
            left["requires_safety_checker"] = False
        found = DiffusionPipeline.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            low_cpu_mem_usage=False,
            **left,
        )
        for part in found.components.values():
            if isinstance(part, nn.Module):
                part.float()
        return found
    except UNREADABLE as error:
        raise CheckpointError(
            f"{folder}: not readable as a pipeline of diffusers: {error}"
        ) from None


def _check_parts(folder: Path, parts: dict[str, Any]) -> Any:
    """The network, when all parts are known. ConfigError otherwise."""
    for name, part in parts.items():
        if name not in KNOWN or not isinstance(part, KNOWN[name]):
            known = f"one of {', '.join(kind.__name__ for kind in KNOWN.get(name, ()))}"
            raise ConfigError(
                f"{folder}: its {name} is a {type(part).__name__}: expected "
                f"{known if name in KNOWN else 'a pipeline of ' + ', '.join(KNOWN)}"
            )
    unet = parts.get("unet")
    if unet is None or "scheduler" not in parts:
        raise ConfigError(f"{folder}: no unet and scheduler in it; it has {', '.join(parts)}")
    reads_text = isinstance(unet, UNet2DConditionModel)
    if reads_text != ("text_encoder" in parts and "tokenizer" in parts):
        raise ConfigError(
            f"{folder}: a {type(unet).__name__} with {', '.join(parts)}: a UNet2DConditionModel "
            "needs a text_encoder and a tokenizer, and a UNet2DModel reads no text"
        )
    further = [key for key in FURTHER if reads_text and unet.config.get(key)]
    if further:
        raise ConfigError(f"{folder}: unet.{further[0]} asks for more than a prompt")
    if not unet.config.sample_size:
        raise ConfigError(
            f"{folder}: unet.sample_size is not said: the size of pictures is unknown"
        )
    return unet


def _picture_shape(codec: Network, latent: tuple[int, int, int]) -> tuple[int, int, int]:
    channels, side = latent_channels(codec), factor(codec)
    if channels != latent[0]:
        raise ConfigError(
            f"unet.in_channels = {latent[0]}: the autoencoder gives {channels}; networks that take "
            "a masked picture or a sketch beside the latent are not read here"
        )
    return int(codec.config["out_channels"]), side * latent[1], side * latent[2]


def _facts(folder: Path, unet: Any, shape: tuple[int, int, int]) -> DataFacts:
    """Those that our export wrote beside the pipeline, or what the network itself says."""
    if (folder / FACTS).is_file():
        return read_facts(folder)
    classes = int(unet.config.get("num_class_embeds") or 0)
    names = tuple(str(i) for i in range(classes))
    return DataFacts(0, shape, BYTES, names, classes + 1 if classes else 0, FolderModel.data_std)
